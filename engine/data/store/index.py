"""The index of a snippet store: which bytes of which shard hold which frames of which video.

    store.index     magic, header (JSON: settings, places of the columns), columns
    00000.h264 ...  shards: videos one after another, each a run of closed GOPs (Annex B; HEVC: .hevc)
    store.motion    if it was asked for: how fast each block of 16 x 16 pixels of each frame moves, uint8, in quarter pixels
                    (`engine/data/motion.py`), videos one after another, [frames, rows, columns] each

The columns are numpy arrays over a memory map: opening costs the same for ten videos and for a million, and
processes on one machine share the pages. A video is named in manifests by a path *into* the index,
`store.index/ORIGINAL PATH#NUMBER`, so a store is a manifest like any other and moves as one folder.
"""

import json
import math
import mmap
import re
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from engine.data.motion import grid_size
from engine.data.remote.copied import on_disk
from engine.errors import InputError, misfit
from engine.files.addresses import shown
from engine.files.atomic_file import atomic_write
from engine.machine import OUT_OF_FILES

INDEX_NAME = "store.index"
MOTION_NAME = "store.motion"
MANIFEST_NAME = "manifest.parquet"
FIRST_CODEC = "h264"  # of stores that do not say which
CODECS = (FIRST_CODEC, "hevc")
_INSIDE = f"/{INDEX_NAME}/"
_MAGIC = b"unseen store 1\n\0"
_HEADER_BYTES = 4096  # the magic and the JSON, padded with blanks
_ALIGNMENT = 64

# V videos, G GOPs in all.
_COLUMNS = {
    "shard": np.uint32,  # [V]
    "offset": np.uint64,  # [V] first byte in the shard
    "first_group": np.uint64,  # [V + 1] place of the video's first GOP in `group_end`
    "group_end": np.uint64,  # [G] bytes from the video's first byte to the end of the GOP
    "num_frames": np.uint32,  # [V]
    "width": np.uint16,  # [V]
    "height": np.uint16,  # [V]
    "crc32": np.uint32,  # [V] of the video's bytes
}
_MOTION_COLUMNS = {  # of a store with motion
    "motion_offset": np.uint64,  # [V] first byte in `store.motion`
    "motion_crc32": np.uint32,  # [V] of the bytes there
}
_FACTS = ("shard", "offset", "num_frames", "width", "height", "crc32", *_MOTION_COLUMNS)  # as in `Entry`


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """How the videos of a store were made; one store has one of each.

    short_side: pixels of the shorter displayed side.
    gop: frames of a GOP.
    fps: frames per second of all videos; 0 keeps every frame of each.
    crf, preset, b_frames, tune: of x264 or x265.
    codec: "h264" or "hevc".
    """

    short_side: int = 128
    gop: int = 16
    fps: float = 0.0
    crf: int = 20
    preset: str = "medium"
    b_frames: int = 0
    tune: str = "fastdecode"
    codec: str = FIRST_CODEC

    def written(self) -> dict[str, object]:
        """As index and journal hold them. H.264 is not named there: stores were of nothing else, and stay the same bytes."""
        fields = asdict(self)
        if self.codec == FIRST_CODEC:
            del fields["codec"]
        return fields


@dataclass(frozen=True, slots=True)
class Entry:
    """A video of a store: where its bytes are and what they hold.

    group_end: uint64 [GOPs], bytes from `offset` to the end of each GOP.
    motion_offset, motion_crc32: of its motion; None in a store without.
    """

    shard: int
    offset: int
    group_end: np.ndarray
    num_frames: int
    width: int
    height: int
    crc32: int
    motion_offset: int | None = None
    motion_crc32: int | None = None

    @property
    def num_bytes(self) -> int:
        return int(self.group_end[-1]) if len(self.group_end) else 0  # of a damaged index


class StoreIndex:
    """A memory-mapped index, read-only.

    Raises:
        InputError: there is none at `path`, or it is cut short, damaged or of another version.
        OSError: this process may open no more files.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            file_of_it = on_disk(path)
            with file_of_it.open("rb") as file:
                data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:  # ValueError: empty
            if isinstance(error, OSError) and error.errno in OUT_OF_FILES:
                raise
            raise InputError(
                f"no snippet store at '{shown(path.parent)}' ({error}): make one with tools/ingest.py, or set the source's root"
            ) from error
        if data[: len(_MAGIC)] != _MAGIC:
            raise InputError(
                f"'{shown(path)}' is not the index of a snippet store of this version: ingest the videos again"
            )
        self.state = file_of_it.stem  # of a remote one: another once it changes
        try:
            header = json.loads(data[len(_MAGIC) : _HEADER_BYTES])
            whole, places = header["num_bytes"], header["columns"]
            if len(data) != whole:
                raise InputError(f"'{shown(path)}' has {len(data)} bytes of {whole}: copy the store again")
            self.settings = StoreSettings(**header["settings"])
            if self.settings.gop < 1:
                raise ValueError(f"GOPs of {self.settings.gop} frames")
            self.columns = {
                name: np.frombuffer(data, dtype, count=places[name][1], offset=places[name][0])
                for name, dtype in _dtypes(places).items()
            }
            _check_lengths({name: len(column) for name, column in self.columns.items()})
        except (ValueError, TypeError, LookupError, ArithmeticError) as error:
            raise InputError(f"'{shown(path)}' is damaged ({misfit(error)}): copy the store again") from error

    @property
    def has_motion(self) -> bool:
        """Whether the motion of its videos is kept."""
        return _has_motion(self.columns)

    def __len__(self) -> int:
        return len(self.columns["shard"])

    def __getitem__(self, number: int) -> Entry:
        columns = self.columns
        first, last = columns["first_group"][number : number + 2].tolist()
        facts = {name: columns[name].item(number) for name in _FACTS if name in columns}
        return Entry(group_end=columns["group_end"][first:last], **facts)


def write_index(path: Path, settings: StoreSettings, columns: Mapping[str, np.ndarray]) -> None:
    """Write an index from its columns (`_COLUMNS` by name, and those of motion or none of them), complete or not at all."""
    arrays = {name: np.ascontiguousarray(columns[name], dtype) for name, dtype in _dtypes(columns).items()}
    table, offset = {}, _HEADER_BYTES
    for name, array in arrays.items():
        table[name] = (offset, len(array))
        offset = _aligned(offset + array.nbytes)
    header = json.dumps({"settings": settings.written(), "num_bytes": offset, "columns": table}).encode()
    with atomic_write(path, durable=True) as partial, partial.open("wb") as file:
        file.write(_MAGIC + header.ljust(_HEADER_BYTES - len(_MAGIC)))
        for name, array in arrays.items():
            file.seek(table[name][0])
            file.write(array.tobytes())
        file.truncate(offset)


def numbers_of(path: Path) -> dict[tuple[int, int, int], int]:
    """(shard, offset, checksum) of each video of an index -> its number; none where no index can be read."""
    try:
        columns = StoreIndex(path).columns
    except InputError:  # there is none yet, or it is damaged
        return {}
    places = zip(*(columns[name].tolist() for name in ("shard", "offset", "crc32")), strict=True)
    return {place: number for number, place in enumerate(places)}


def motion_bytes(num_frames: int, width: int, height: int) -> int:
    """Length of a video's motion in `store.motion`."""
    return num_frames * math.prod(grid_size(width, height))


def shard_path(folder: Path, shard: int, codec: str) -> Path:
    """The file of a shard."""
    return folder / f"{shard:05d}.{codec}"


def shard_number(name: str) -> int | None:
    """The shard whose file has this name; None for the name of another file."""
    found = re.fullmatch(rf"([0-9]{{5}}|[1-9][0-9]{{5,}})\.({'|'.join(CODECS)})", name)
    return found and int(found[1])


def stored_path(number: int, original: str) -> str:
    """How a manifest names video `number` of the store it lies in. The number counts, the path is for people."""
    parts = [part for part in PurePosixPath(original).parts if part not in ("/", "..")]
    return f"{INDEX_NAME}/{'/'.join(parts)}#{number}"


def split_stored_path(path: Path) -> tuple[Path, int] | None:
    """The index that a manifest's path leads into and the number there; None for the path of a plain file."""
    found = split_stored_name(str(path))
    return found and (Path(found[0]), found[1])


def split_stored_name(name: str) -> tuple[str, int] | None:
    """The same for a path as a string, which costs a tenth."""
    folder, inside, rest = (name if name.startswith("/") else f"./{name}").partition(_INSIDE)
    number = rest.rpartition("#")[2]
    return (f"{folder}/{INDEX_NAME}", int(number)) if inside and number.isdecimal() else None


def is_stored(path: str | Path) -> bool:
    """Whether a manifest's path (absolute or relative to its root) leads into a store."""
    return _INSIDE in f"/{path}"


def _has_motion(columns: Collection[str]) -> bool:
    return "motion_offset" in columns


def _dtypes(columns: Collection[str]) -> dict[str, type[np.generic]]:
    return _COLUMNS | (_MOTION_COLUMNS if _has_motion(columns) else {})


def _check_lengths(lengths: Mapping[str, int]) -> None:
    count = lengths["shard"]
    for name, length in lengths.items():
        if name != "group_end" and length != count + (name == "first_group"):
            raise ValueError(f"{length} values of {name} for {count} videos")


def _aligned(offset: int) -> int:
    return -(-offset // _ALIGNMENT) * _ALIGNMENT
