"""HMDB51: a folder per class, with CLASS_test_splitN.txt of file names and codes."""

from pathlib import Path

from engine.data.layouts.layout import Given, Layout
from engine.data.layouts.listing import Entry, Listing, Problem, folders_with, stem_of
from engine.data.layouts.tables import read_lines
from engine.data.layouts.walk import VideoFolder
from engine.errors import InputError

_CODES = {"0": "", "1": "train", "2": "test"}  # 0: in neither side of this split


def read_hmdb51(folder: VideoFolder, given: Given) -> Listing:
    """Classes from the folders; `trainN` and `testN` from the official lists (code 1 and 2), "" for code 0.

    The three official splits overlap, so a manifest holds one of them (`split_number`, default 1). The group
    is the source film: the part of a file's name before its class.
    """
    number = given.split_number or 1
    lists = given.annotations or _find_lists(folder)
    if lists is None:
        raise InputError(
            f"no *_test_split{number}.txt in or beside '{folder.root}': give the folder of HMDB51's official lists with "
            "--annotations, or index the folder per class with --layout folder"
        )
    listing = Listing("hmdb51", notes=[f"official split {number} from '{lists.name}'"])
    splits = _read_lists(lists, number, listing)
    found = set()
    for path in folder.paths:
        if "/" not in path:
            listing.problems.append(Problem(path, "no-class", "it lies in no class's folder"))
            continue
        name, stem = path.split("/")[-2], stem_of(path)
        found.add((name, stem))
        split = splits.get((name, stem), "")
        listing.entries.append(Entry(path, name, split, stem.partition(f"_{name}_")[0] if f"_{name}_" in stem else ""))
    listing.merge_copies()
    missing = [f"{name}/{stem}" for name, stem in splits if (name, stem) not in found]
    listing.problems += [Problem(path, "missing", "in the official lists, but not there") for path in missing]
    if not listing.entries:
        raise InputError(
            f"no videos in folders of '{folder.root}': HMDB51 comes as one archive per class, unpack them all first"
        )
    return listing


def _find_lists(folder: VideoFolder) -> Path | None:
    """The folder of official lists, in or beside the data set, that speaks of most of its class folders."""
    classes = {path.split("/")[-2] for path in folder.paths if "/" in path}
    for beside in folders_with("*_test_split?.txt", folder.root):
        listed = {path.name.rpartition("_test_split")[0] for path in beside.glob("*_test_split?.txt")}
        if len(classes & listed) > 0.5 * len(classes):
            return beside
    return None


def _read_lists(folder: Path, number: int, listing: Listing) -> dict[tuple[str, str], str]:
    """(class, file name without suffix) -> trainN, testN or "". Lines that are none become problems."""
    ending = f"_test_split{number}.txt"
    lists = sorted(folder.glob(f"*{ending}"))
    listing.lists += lists
    if not lists:
        raise InputError(f"no *{ending} in '{folder}': HMDB51 has the official splits 1, 2 and 3")
    splits = {}
    for path in lists:
        for count, line in enumerate(read_lines(path), 1):
            if not line.strip():
                continue
            name, _, code = line.strip().rpartition(" ")
            if code not in _CODES or not name:
                text = f"{path}, line {count}: '{line}' is not a file name and a code 0, 1 or 2"
                listing.problems.append(Problem(f"{path.name}:{count}", "bad-row", text))
                continue
            splits[path.name.removesuffix(ending), stem_of(name.strip())] = (
                f"{_CODES[code]}{number}" if _CODES[code] else ""
            )
    return splits


def _fits(folder: VideoFolder) -> str | None:
    lists = _find_lists(folder)
    return f"'{lists.name}' holds official lists of these classes" if lists else None


def _annotates(folder: VideoFolder, annotations: Path) -> str | None:
    found = next(annotations.glob("*_test_split?.txt"), None)
    return f"'{annotations.name}' holds *_test_splitN.txt" if found else None


HMDB51 = Layout("hmdb51", read_hmdb51, _fits, _annotates, annotations="folder", official_splits=True)
