"""What every layout gives: the list of labelled videos of a data set, and what is wrong with the list."""

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from engine.semantics.words import composed
from engine.terminal.native_names import as_text, as_utf8, is_text
from engine.terminal.wording import counted

_VIDEOS = (
    "264 265 3g2 3gp 3gpp amv asf av1 avc avi dav divx dv f4v flv gif h264 h265 hevc insv ismv ivf lrv "
    "m1v m2t m2ts m2v m4v mjpeg mjpg mkv mov mp4 mp4v mpe mpeg mpg mpv mts mxf nut obu ogm ogv qt rm rmvb "
    "tp trp ts vob vro webm wmv wtv xvid y4m"
)
VIDEO_SUFFIXES = frozenset(_VIDEOS.split())

_MANY = 50  # files of one kind in one folder that the report lists one by one
IMAGE_SUFFIXES = frozenset({"bmp", "jfif", "jpe", "jpeg", "jpg", "png", "tif", "tiff", "webp"})


@dataclass(frozen=True, slots=True)
class Entry:
    """A labelled video, or a labelled segment of one.

    path: relative to the root with forward slashes, or absolute where it lies elsewhere.
    class_name: however it is given, it is kept as `composed` has it.
    group: videos cut from one source share a group within a class; "" where unknown.
    segment_start, segment_end: seconds; NaN for the whole file.
    may_be_cut: the file may hold the whole source or the segment alone; its duration will tell.
    copies: other files of the same name, to be taken in this order where `path` cannot be used.
    """

    path: str
    class_name: str
    split: str = ""
    group: str = ""
    segment_start: float = math.nan
    segment_end: float = math.nan
    may_be_cut: bool = False
    copies: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "class_name", composed(self.class_name))

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
    "bad-row": "a row of the list that is no path and label",
    "bad-segment": "a labelled segment without length",
    "no-class": "not in a folder of a class",
    "no-split": "beside the folders of the splits",
    "ambiguous": "several files fit one name",
    "duplicate": "listed twice",
}


@dataclass(slots=True)
class Listing:
    """A data set as its layout lists it.

    undecided: entries with several files of one name, of which nothing but their contents tells the right one, and
        the problem (also among `problems`) that stays if they do not.
    unused: files below the folder that are no part of the data set, and why.
    lists: files that rows were read from.
    """

    layout: str
    entries: list[Entry] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # what was chosen on the user's behalf
    undecided: list[tuple[Entry, Problem]] = field(default_factory=list)
    unused: list[Problem] = field(default_factory=list)
    lists: list[Path] = field(default_factory=list)

    def decode_names(self) -> None:
        """Names taken from folders are read as UTF-8, those that are none as Latin-1, which older systems wrote."""
        read: dict[str, str] = {}

        def decoded(entry: Entry) -> Entry:
            if all(map(str.isascii, (entry.class_name, entry.split, entry.group))):  # nearly all, of perhaps millions
                return entry
            names = {name: getattr(entry, name) for name in ("class_name", "split", "group")}
            meant = {name: as_text(text) for name, text in names.items()}
            read.update({text: as_text(text) for text in names.values() if not is_text(as_utf8(text))})
            return entry if meant == names else replace(entry, **meant)

        self.entries = [decoded(entry) for entry in self.entries]
        self.undecided = [(decoded(entry), problem) for entry, problem in self.undecided]
        if read:
            shown = ", ".join(f"'{printable(text)}'" for text in list(read.values())[:3])
            self.notes.append(f"{counted(len(read), 'name')} of no UTF-8, read as Latin-1: {shown}")

    @property
    def labelled(self) -> list[Entry]:
        """All entries, those that are undecided too."""
        return [*self.entries, *(entry for entry, _ in self.undecided)]

    def drop_duplicates(self) -> None:
        """Keep the first of equal (path, class, segment); the others become problems, and those of other splits a warning.

        An undecided entry is equal to one that has any of its files.
        """
        seen: dict[tuple[str, str, str, str], Entry] = {}
        moved: Counter[tuple[str, str]] = Counter()
        names = {id(entry): problem.path for entry, problem in self.undecided}
        for entry in self.labelled:
            paths = (entry.path, *entry.copies) if id(entry) in names else (entry.path,)
            # NaN differs from itself, so segments are compared as text.
            keys = [(path, entry.class_name, str(entry.segment_start), str(entry.segment_end)) for path in paths]
            first = next((seen[key] for key in keys if key in seen), None)
            if first is None:
                seen |= dict.fromkeys(keys, entry)
                continue
            split = f", here in split '{entry.split}', there in '{first.split}'" * (entry.split != first.split)
            name = names.get(id(entry), entry.path)
            self.problems.append(Problem(name, "duplicate", f"listed again as '{entry.class_name}'{split}"))
            moved[entry.split, first.split] += entry.split != first.split
        self._keep({id(entry) for entry in seen.values()})
        self.notes += _warn_of_splits(+moved, {entry.split for entry in seen.values()})

    def _keep(self, kept: Collection[int]) -> None:
        """Leave out all entries but those of these identities, and what is said of their files."""
        gone = {id(problem) for entry, problem in self.undecided if id(entry) not in kept}
        self.entries = [entry for entry in self.entries if id(entry) in kept]
        self.undecided = [(entry, problem) for entry, problem in self.undecided if id(entry) in kept]
        self.problems = [problem for problem in self.problems if id(problem) not in gone]

    def merge_copies(self) -> None:
        """Entries of one class, split and file name are one entry with copies (a clip as .avi and as .mp4)."""
        names: dict[tuple[str, str, str], Entry] = {}
        for entry in self.entries:
            key = (entry.class_name, entry.split, stem_of(entry.path))
            first = names.setdefault(key, entry)
            if first is not entry:
                names[key] = replace(first, copies=(*first.copies, entry.path))
        if len(names) < len(self.entries):
            copied = [entry.path for entry in names.values() if entry.copies]
            self.notes.append(
                f"{counted(len(copied), 'video')} of one name are there more than once: {', '.join(copied[:3])}"
            )
        self.entries = list(names.values())

    def add_one_of(self, name: str, paths: list[str], entry: Entry) -> None:
        """An entry whose file is one of several: `name` is what they have in common, `entry.path` any of them."""
        problem = Problem(name, "ambiguous", f"{len(paths)} files: {', '.join(paths)}")
        self.problems.append(problem)
        self.undecided.append((replace(entry, path=paths[0], copies=tuple(paths[1:])), problem))

    def explain_rest(self, videos: Iterable[str], others: Iterable[Problem]) -> None:
        """Each file below the folder that is neither an entry nor a problem becomes `unused`, with its reason."""
        copies = {copy: entry.path for entry in self.entries for copy in entry.copies}
        told = {entry.path for entry in self.entries} | {problem.path for problem in self.problems}
        told |= {path for entry, _ in self.undecided for path in (entry.path, *entry.copies)}
        for path in videos:
            if path in told:
                continue
            reason = (
                f"a second copy: '{copies[path]}' is taken" if path in copies else "no usable row of the list names it"
            )
            self.unused.append(Problem(path, "unused", reason))
        self.unused = _grouped([*self.unused, *others])
        if self.unused:
            counts: Counter[str] = Counter()
            for each in self.unused:
                counts[what_it_is(each)] += int(each.text.split()[0]) if each.kind == "many" else 1
            kinds = ", ".join(f"{count} {kind}" for kind, count in counts.most_common(8))
            self.notes.append(f"{counted(counts.total(), 'other file')} left out (each is in the report): {kinds}")


def _warn_of_splits(moved: Mapping[tuple[str, str], int], left: Collection[str]) -> list[str]:
    """A warning of rows that a list has again in other splits.

    Args:
        moved: (split of the row, split where it counts) -> how many.
        left: splits that still have videos.
    """
    if not moved:
        return []
    pairs = [f"{count:,} of {_named(split)} in {_named(other)}" for (split, other), count in sorted(moved.items())]
    empty = [_named(split) for split in sorted({split for split, _ in moved} - {*left})]
    total = sum(moved.values())
    return [
        f"warning: {counted(total, 'row')} listed before in another split, where {'it counts' if total == 1 else 'they count'}: "
        + ", ".join(pairs)
        + f"; nothing is left in {' and '.join(empty)}" * bool(empty)
    ]


def _named(split: str) -> str:
    return f"'{split}'" if split else "no split"


def _grouped(unused: Sequence[Problem]) -> list[Problem]:
    """Many files of one suffix in one folder (frames of a video), but no videos, become one line: "FOLDER/.jpg*"."""
    folders: dict[tuple[str, str], list[Problem]] = {}
    for each in unused:
        folders.setdefault((each.path.rpartition("/")[0], what_it_is(each)), []).append(each)
    lines = []
    for (folder, kind), group in folders.items():
        if len(group) <= _MANY or not kind.startswith("."):
            lines += group
        else:
            lines.append(Problem(f"{folder}/{kind}*", "many", f"{len(group)} files: {group[0].text}"))
    return lines


def printable(text: str) -> str:
    """A text on one line of a terminal: bytes that are no UTF-8, line ends and control characters are shown by their codes."""
    whole = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in whole)


def what_it_is(unused: Problem) -> str:
    """A word for a file that is left out, to count it by."""
    if unused.kind == "many":
        return unused.path.rsplit("/", 1)[-1][:-1]
    if unused.path.endswith("/"):
        return "folders"
    if unused.path.rsplit("/", 1)[-1].startswith("."):
        return "hidden"
    suffix = suffix_of(unused.path)
    is_picture = unused.text.startswith("a picture")  # a GIF of one frame, whose suffix says too little
    if suffix in VIDEO_SUFFIXES and not is_picture:
        return "second copies" if "copy" in unused.text else "videos"
    return f".{suffix}" if suffix else "without suffix"


def by_stem(paths: Iterable[str]) -> dict[str, list[str]]:
    """File name without suffix -> paths."""
    stems: dict[str, list[str]] = {}
    for path in paths:
        stems.setdefault(stem_of(path), []).append(path)
    return stems


def suffix_of(path: str) -> str:
    """The suffix of a file name in lower case, without its dot; "" if it has none."""
    stem, dot, suffix = path.rsplit("/", 1)[-1].rpartition(".")
    return suffix.lower() if dot and stem else ""


def stem_of(path: str) -> str:
    """File name without folder and suffix (only a video's suffix is one: names may hold dots)."""
    name = path.rsplit("/", 1)[-1]
    return name.rpartition(".")[0] if suffix_of(name) in VIDEO_SUFFIXES else name


def folders_with(pattern: str, root: Path) -> Iterator[Path]:
    """The root, its subfolders and the folders beside it, as far as they hold a file of this pattern."""
    for folder in (root, *those_in(root, Path.is_dir), *those_in(root.resolve().parent, Path.is_dir)):
        try:
            if next(folder.glob(pattern), None) is not None:
                yield folder
        except PermissionError:
            continue


def files_near(root: Path, suffix: str) -> list[Path]:
    """Files of a suffix in the root and one folder below; of a folder that may not be entered none."""

    def is_file(path: Path) -> bool:
        try:
            return path.is_file()
        except PermissionError:
            return False

    return [path for path in sorted([*root.glob(f"*{suffix}"), *root.glob(f"*/*{suffix}")]) if is_file(path)]


def those_in(folder: Path, is_one: Callable[[Path], bool]) -> list[Path]:
    """What of a kind lies in a folder, by name; nothing where it may not be listed (of the folder above that is usual)."""
    try:
        return sorted(path for path in folder.iterdir() if is_one(path))
    except PermissionError:
        return []
