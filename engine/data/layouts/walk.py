"""Every file below a folder, sorted into videos, pictures and what is neither; nothing is left out without a word."""

import os
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from engine.data.layouts.listing import IMAGE_SUFFIXES, VIDEO_SUFFIXES, Problem, suffix_of
from engine.data.magic import first_bytes, picture_by_contents
from engine.errors import InputError

# Never opened to see whether they are videos: there may be millions of them.
_NO_VIDEO_SUFFIXES = frozenset(
    {
        *(
            "csv",
            "tsv",
            "txt",
            "json",
            "jsonl",
            "md",
            "xml",
            "yaml",
            "yml",
            "html",
            "pdf",
            "py",
            "sh",
            "log",
            "srt",
            "vtt",
        ),
        *("npy", "npz", "pkl", "pt", "pth", "h5", "hdf5", "mat", "tfrecord", "lmdb", "mdb", "db", "sqlite"),
        *("zip", "rar", "tar", "gz", "tgz", "bz2", "xz", "zst", "7z"),
        *("mp3", "wav", "aac", "m4a", "flac", "opus", "wma", "tif", "tiff", "heic", "avif", "svg", "psd"),
    }
)
_UNFINISHED = frozenset({"part", "partial", "crdownload", "download", "tmp", "temp", "aria2", "ytdl"})
_MAX_NAMES = 16  # of one folder that links give several names; links among links would never end
_STARTS = (
    b"\x1aE\xdf\xa3",  # Matroska, WebM
    b"FLV\x01",
    b"GIF8",
    b"\x00\x00\x01\xba",  # MPEG program stream
    b"\x00\x00\x01\xb3",  # MPEG-1 and -2 video
    b"\x00\x00\x00\x01\x67",  # H.264 as a plain stream
    b"\x00\x00\x00\x01\x40\x01",  # HEVC
    b"0&\xb2u\x8ef\xcf\x11",  # ASF, WMV
    b".RMF",
    b"YUV4MPEG2",
    b"DKIF",  # IVF
    b"\x06\x0e+4\x02\x05\x01\x01",  # MXF
    b"nut/multimedia container",
)
_NO_VIDEO_BRANDS = (b"heic", b"heix", b"mif1", b"avif", b"M4A ", b"M4B ")


class VideoFolder:
    """The folder of a data set; it is walked once, when its files are first asked for."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def paths(self) -> list[str]:
        """Relative paths of all video files, sorted: by their names, or by their first bytes where the name is no help.

        Links are followed (a folder under two names is listed under both), hidden names are not.
        """
        return self._found[0]

    @property
    def pictures(self) -> list[str]:
        """Relative paths of all picture files, sorted; a GIF of one frame is one."""
        return self._found[1]

    @property
    def others(self) -> list[Problem]:
        """What is neither video nor picture, each with the reason why it is not looked at."""
        return self._found[2]

    @property
    def problems(self) -> list[Problem]:
        """Folders that cannot be read, and links to nothing."""
        return self._found[3]

    @cached_property
    def _found(self) -> tuple[list[str], list[str], list[Problem], list[Problem]]:
        if self.root.resolve() == Path("/"):
            raise InputError("'/' is no folder of a data set: name the folder that its files lie in")
        videos, pictures, others, problems = [], [], [], []
        for path, kind in _walk(self.root, "", (), Counter()):
            if isinstance(kind, Problem):
                (others if kind.kind == "unused" else problems).append(kind)
            elif is_picture(f"{self.root}/{path}"):
                pictures.append(path)
            elif kind in VIDEO_SUFFIXES:
                videos.append(path)
            elif not (self.root / path).exists():
                problems.append(Problem(path, "missing", "a link to what is not there"))
            elif kind in _UNFINISHED:
                others.append(Problem(path, "unused", "a download that was not finished, by its suffix"))
            elif kind not in _NO_VIDEO_SUFFIXES and looks_like_video(self.root / path):
                videos.append(path)
            elif ".parquet" not in path.rsplit("/", 1)[-1]:  # a manifest, and what indexing wrote beside it
                told = "" if kind in _NO_VIDEO_SUFFIXES else picture_by_contents(self.root / path)
                told = told or "neither a video nor a picture by its name or first bytes"
                others.append(Problem(path, "unused", told))
        return sorted(videos), sorted(pictures), others, problems


def _walk(
    root: Path, below: str, above: tuple[tuple[int, int], ...], names: Counter
) -> Iterator[tuple[str, str | Problem]]:
    """(relative path, suffix) of each file, or (path, why it is passed over).

    above: (device, inode) of the folders that lead here. names: how often each folder was walked.
    """
    try:
        info = os.stat(f"{root / below}/.")  # noqa: PTH116 (the dot: it must be one that may be entered)
        entries = sorted(os.scandir(root / below), key=lambda entry: entry.name)
    except OSError as error:
        yield below, Problem(f"{below}/", "unreadable", f"the folder cannot be read: {error.strerror}")
        return
    here = (info.st_dev, info.st_ino)
    names[here] += 1
    if here in above or names[here] > _MAX_NAMES:
        reason = "a link to a folder above it" if here in above else f"a folder linked more than {_MAX_NAMES} times"
        yield below, Problem(f"{below}/", "unused", f"{reason}: its files are listed there")
        return
    if not entries and below:
        yield below, Problem(f"{below}/", "unused", "an empty folder")
    for entry in entries:
        path = f"{below}/{entry.name}" if below else entry.name
        try:
            is_folder = entry.is_dir()
        except OSError as error:  # a link to itself, or into a folder that may not be read
            yield path, Problem(path, "unreadable", f"the link cannot be followed: {error.strerror}")
            continue
        if entry.name.startswith("."):
            yield path, Problem(path + "/" * is_folder, "unused", "its name begins with a dot")
        elif is_folder:
            yield from _walk(root, path, (*above, here), names)
        else:
            yield path, suffix_of(path)


def is_picture(path: str) -> bool:
    """Whether a file is taken as a still picture: by its name, and a GIF if it has one frame."""
    suffix = suffix_of(path)
    if suffix != "gif":
        return suffix in IMAGE_SUFFIXES
    # Here, because it brings PIL and torch.
    from engine.data.stills import has_one_frame

    return has_one_frame(Path(path))


def looks_like_video(path: Path) -> bool:
    """Whether the first bytes are those of a container or stream of video that FFmpeg reads."""
    start = first_bytes(path)
    if start[4:8] == b"ftyp":
        return start[8:12] not in _NO_VIDEO_BRANDS
    if start[4:8] in (b"moov", b"mdat", b"wide", b"pnot"):  # QuickTime of before ftyp
        return True
    if start[:4] == b"OggS":
        return b"theora" in start or b"OVP80" in start or b"BBCD" in start
    is_transport = b"GG" in (start[0:189:188], start[4:197:192])  # packets of 188 bytes, or of 192 on discs
    return start.startswith(_STARTS) or (start[:4] == b"RIFF" and start[8:12] == b"AVI ") or is_transport
