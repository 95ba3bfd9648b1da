"""What every layout gives: the list of labelled videos of a data set, and what is wrong with the list."""

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from engine.errors import InputError

VIDEO_SUFFIXES = frozenset(
    {
        *("264", "265", "3g2", "3gp", "asf", "avi", "flv", "gif", "h264", "h265", "ivf", "m2ts", "m4v", "mkv", "mov"),
        *("mp4", "mpeg", "mpg", "mts", "obu", "ogv", "ts", "vob", "webm", "wmv"),
    }
)

IMAGE_SUFFIXES = frozenset({"bmp", "jpeg", "jpg", "png", "webp"})


@dataclass(frozen=True, slots=True)
class Entry:
    """A labelled video, or a labelled segment of one.

    path: relative to the root with forward slashes, or absolute where it lies elsewhere.
    group: videos cut from one source share a group within a class; "" where unknown.
    segment_start, segment_end: seconds; NaN for the whole file.
    may_be_cut: the file may hold the whole source or the segment alone; its duration will tell.
    """

    path: str
    class_name: str
    split: str = ""
    group: str = ""
    segment_start: float = math.nan
    segment_end: float = math.nan
    may_be_cut: bool = False

    @property
    def has_segment(self) -> bool:
        return not math.isnan(self.segment_start)


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that does not make it into the manifest: what, why in a word, and why in a sentence."""

    path: str
    kind: str
    text: str


LISTING_REASONS = {
    "missing": "listed but not there",
    "bad-segment": "a labelled segment without length",
    "no-class": "not in a folder of a class",
    "ambiguous": "several files fit one name",
    "duplicate": "listed twice",
}


@dataclass(slots=True)
class Listing:
    """A data set as its layout lists it."""

    layout: str
    entries: list[Entry] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # what was chosen on the user's behalf

    def drop_duplicates(self) -> None:
        """Keep the first of equal (path, class, segment); the others become problems."""
        seen: set[tuple[str, str, str, str]] = set()
        kept = []
        for entry in self.entries:
            # NaN differs from itself, so segments are compared as text.
            key = (entry.path, entry.class_name, str(entry.segment_start), str(entry.segment_end))
            if key in seen:
                self.problems.append(Problem(entry.path, "duplicate", f"listed again as '{entry.class_name}'"))
            else:
                kept.append(entry)
            seen.add(key)
        self.entries = kept


class VideoFolder:
    """The folder of a data set; it is walked once, when its videos (or files of other suffixes) are first asked for."""

    def __init__(self, root: Path, suffixes: frozenset[str] = VIDEO_SUFFIXES) -> None:
        self.root, self.suffixes = root, suffixes

    @cached_property
    def paths(self) -> list[str]:
        """Relative paths of all video files, sorted; links are followed, hidden names are not."""
        return sorted(_walk(self.root, self.suffixes))


def _walk(root: Path, suffixes: frozenset[str]) -> Iterator[str]:
    visited = set()
    for folder, subfolders, files in os.walk(root, followlinks=True):
        info = Path(folder).stat()
        if (info.st_dev, info.st_ino) in visited:  # a link to a folder above
            subfolders.clear()
            continue
        visited.add((info.st_dev, info.st_ino))
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        relative = Path(folder).relative_to(root).as_posix()
        prefix = "" if relative == "." else relative + "/"
        for name in files:
            if not name.startswith(".") and "." in name and name.rpartition(".")[2].lower() in suffixes:
                yield prefix + name


def by_stem(paths: list[str]) -> dict[str, list[str]]:
    """File name without suffix -> paths."""
    stems: dict[str, list[str]] = {}
    for path in paths:
        stems.setdefault(stem_of(path), []).append(path)
    return stems


def stem_of(path: str) -> str:
    """File name without folder and suffix (only a video's suffix is one: names may hold dots)."""
    name = path.rsplit("/", 1)[-1]
    stem, _, suffix = name.rpartition(".")
    return stem if suffix.lower() in VIDEO_SUFFIXES else name


def read_lines(path: Path) -> list[str]:
    """Lines of a text file without their ends; a byte-order mark is ignored."""
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read '{path}': {error}") from error


def folders_with(pattern: str, root: Path) -> Iterator[Path]:
    """The root, its subfolders and the folders beside it, as far as they hold a file of this pattern."""
    inside, beside = (sorted(f for f in place.iterdir() if f.is_dir()) for place in (root, root.resolve().parent))
    for folder in (root, *inside, *beside):
        try:
            if next(folder.glob(pattern), None) is not None:
                yield folder
        except PermissionError:
            continue
