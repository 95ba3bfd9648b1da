"""UCF101: v_CLASS_gGG_cCC.avi in a folder per class, with trainlist0N.txt and testlist0N.txt."""

import re
from pathlib import Path

from engine.data.layouts.listing import Entry, Listing, Problem, VideoFolder, folders_with, read_lines, stem_of
from engine.errors import InputError

_NAME = re.compile(r"v_(?P<action>\w+)_(?P<group>g\d+)_c\d+")


def is_ucf101(paths: list[str]) -> bool:
    """Whether nearly all are file names of UCF101."""
    return sum(_NAME.fullmatch(stem_of(path)) is not None for path in paths) > 0.9 * len(paths)


def read_ucf101(folder: VideoFolder, annotations: Path | None, split_number: int | None) -> Listing:
    """Classes and groups from the file names; `trainN` and `testN` from the official lists, where they are.

    The three official splits overlap, so a manifest holds one of them (`split_number`, default 1). Files are
    matched by name without suffix, so videos stored anew as .mp4 fit the lists too.
    """
    listing = Listing("ucf101")
    paths = folder.paths
    names = {stem_of(path) for path in paths}
    lists = annotations or next(folders_with("trainlist0*.txt", folder.root), None)
    classes = _class_names(lists)
    splits: dict[str, str] = {}
    if lists is None:
        if split_number is not None:
            raise InputError(
                f"split {split_number} was asked for, but there is no trainlist0{split_number}.txt in or beside '{folder.root}': "
                "give the folder of the official lists with --annotations"
            )
        listing.notes.append("no official lists found: no splits")
    else:
        number = split_number or 1
        splits = _read_lists(lists, number)
        listing.notes.append(f"official split {number} from '{lists.name}'")
    for path in paths:
        match = _NAME.fullmatch(stem_of(path))
        if match is None:
            listing.problems.append(Problem(path, "no-class", "its name is not v_CLASS_gGG_cCC"))
            continue
        name = match["action"]
        parent = path.split("/")[-2] if "/" in path else ""
        # One class is HandstandPushups as a folder and in classInd.txt, but HandStandPushups in its file names.
        name = parent if parent.lower() == name.lower() else classes.get(name.lower(), name)
        listing.entries.append(Entry(path, name, splits.get(stem_of(path), ""), match["group"]))
    missing = [name for name in splits if name not in names]
    listing.problems += [Problem(name, "missing", "in the official lists, but not there") for name in missing]
    if not listing.entries:
        raise InputError(f"no file in '{folder.root}' has a name of UCF101 (v_CLASS_gGG_cCC.avi)")
    return listing


def _class_names(folder: Path | None) -> dict[str, str]:
    """Lower-case name -> name, from classInd.txt (lines of number and name)."""
    if folder is None or not (folder / "classInd.txt").is_file():
        return {}
    names = [line.split()[-1] for line in read_lines(folder / "classInd.txt") if line.strip()]
    return {name.lower(): name for name in names}


def _read_lists(folder: Path, number: int) -> dict[str, str]:
    """File name without suffix -> trainN or testN."""
    splits = {}
    for kind in ("train", "test"):
        path = folder / f"{kind}list0{number}.txt"
        if not path.is_file():
            raise InputError(f"no {path.name} in '{folder}': UCF101 has the official splits 1, 2 and 3")
        for line in read_lines(path):
            if line.strip():
                splits[stem_of(line.split()[0])] = f"{kind}{number}"
    return splits
