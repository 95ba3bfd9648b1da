"""UCF101: v_CLASS_gGG_cCC.avi in a folder per class, with trainlist0N.txt and testlist0N.txt."""

import re
from pathlib import Path

from engine.data.layouts.folders import split_words
from engine.data.layouts.layout import Given, Layout
from engine.data.layouts.listing import Entry, Listing, Problem, folders_with, stem_of
from engine.data.layouts.tables import read_lines
from engine.data.layouts.walk import VideoFolder
from engine.errors import InputError
from engine.terminal.wording import counted

_NAME = re.compile(r"v_(?P<action>\w+)_(?P<group>g\d+)_c\d+")


def read_ucf101(folder: VideoFolder, given: Given) -> Listing:
    """Groups from the file names, classes from the folders where these sort the files by class, else from the names too.

    `trainN` and `testN` are from the official lists, where they are; without them a top folder called train, test, ...
    is the split. The three official splits overlap, so a manifest holds one of them (`split_number`, default 1). Files
    are matched by name without suffix, so videos stored anew as .mp4 fit the lists too.
    """
    lists = given.annotations or next(folders_with("trainlist0*.txt", folder.root), None)
    listing = Listing("ucf101")
    splits = _official_splits(folder.root, lists, given.split_number, listing)
    tops = {path.split("/")[0] for path in folder.paths if "/" in path}
    top_splits = split_words(tops) if lists is None else {}
    if lists is None:
        found = f"from the folders {', '.join(sorted(top_splits))}" if top_splits else "none"
        listing.notes.append(f"no official lists found (--annotations names their folder): splits {found}")
    class_of = _classes(folder.paths, _class_names(lists), listing)
    for path in folder.paths:
        match = _NAME.fullmatch(stem_of(path))
        if match is None:
            listing.problems.append(Problem(path, "no-class", "its name is not v_CLASS_gGG_cCC (--layout folder)"))
            continue
        top = path.split("/")[0]
        split = splits.get(stem_of(path), "") if lists else top * (top in top_splits)
        listing.entries.append(Entry(path, class_of[path], split, match["group"]))
    listing.merge_copies()
    names = {stem_of(path) for path in folder.paths}
    missing = [name for name in splits if name not in names]
    listing.problems += [Problem(name, "missing", "in the official lists, but not there") for name in missing]
    if not listing.entries:
        raise InputError(f"no file in '{folder.root}' has a name of UCF101 (v_CLASS_gGG_cCC.avi)")
    return listing


def _classes(paths: list[str], spellings: dict[str, str], listing: Listing) -> dict[str, str]:
    """The class of each file with a name of UCF101.

    The folder names it where folders are classes: most are called as the files in them (as distributed), or none is but
    no action lies in two of them (sorted anew, by other names). Else the file's name does.
    """
    actions = {path: match["action"] for path in paths if (match := _NAME.fullmatch(stem_of(path)))}
    parents = {path: path.split("/")[-2] if "/" in path else "" for path in actions}
    folders_of: dict[str, set[str]] = {}
    actions_of: dict[str, set[str]] = {}
    for path, action in actions.items():
        folders_of.setdefault(_plain(action), set()).add(parents[path])
        actions_of.setdefault(parents[path], set()).add(_plain(action))
    agree = sum(_plain(parents[path]) == _plain(action) for path, action in actions.items())
    is_sorted = all(len(folders) == 1 for folders in folders_of.values()) and "" not in actions_of
    is_sorted &= not set(split_words(actions_of)) and (len(actions_of) > 1 or len(folders_of) == 1)
    by_folder = agree > 0.5 * len(actions) or is_sorted
    classes = {}
    for path, action in actions.items():
        spelt = spellings.get(action.lower(), action)
        # One class is HandstandPushups as a folder and in classInd.txt, but HandStandPushups in its file names.
        classes[path] = parents[path] if by_folder and parents[path] else spelt
    other = [path for path in classes if _plain(classes[path]) != _plain(actions[path])]
    if other:
        shown = "; ".join(f"{path}: '{classes[path]}'" for path in other[:3])
        listing.notes.append(
            f"{counted(len(other), 'file')} in a class folder of another name than theirs: the folder counts ({shown})"
        )
    elif not by_folder:
        listing.notes.append(
            "classes from the file names: the folders do not sort the files by class (--layout folder: they do)"
        )
    return classes


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name).casefold()


def _class_names(folder: Path | None) -> dict[str, str]:
    """Lower-case name -> name, from classInd.txt (lines of number and name)."""
    if folder is None or not (folder / "classInd.txt").is_file():
        return {}
    names = [line.split()[-1] for line in read_lines(folder / "classInd.txt") if line.strip()]
    return {name.lower(): name for name in names}


def _official_splits(root: Path, lists: Path | None, split_number: int | None, listing: Listing) -> dict[str, str]:
    """File name without suffix -> trainN or testN."""
    number = split_number or 1
    if lists is None:
        if split_number is not None:
            raise InputError(
                f"split {split_number} was asked for, but there is no trainlist0{split_number}.txt in or beside '{root}': "
                "give the folder of the official lists with --annotations"
            )
        return {}
    listing.notes.append(f"official split {number} from '{lists.name}' (--split-number takes another)")
    splits = {}
    for kind in ("train", "test"):
        path = lists / f"{kind}list0{number}.txt"
        if not path.is_file():
            raise InputError(f"no {path.name} in '{lists}': UCF101 has the official splits 1, 2 and 3")
        listing.lists.append(path)
        for count, line in enumerate(read_lines(path), 1):
            name = stem_of(line.split()[0].replace("\\", "/")) if line.strip() else ""
            if name and not _NAME.fullmatch(name):
                text = f"{path}, line {count}: '{line}' names no file of UCF101"
                listing.problems.append(Problem(f"{path.name}:{count}", "bad-row", text))
            elif name:
                splits[name] = f"{kind}{number}"
    return splits


def _fits(folder: VideoFolder) -> str | None:
    named = sum(_NAME.fullmatch(stem_of(path)) is not None for path in folder.paths)
    return "the files are named v_CLASS_gGG_cCC" if named > 0.9 * len(folder.paths) else None


def _annotates(folder: VideoFolder, annotations: Path) -> str | None:
    return f"'{annotations.name}' holds trainlist0N.txt" if next(annotations.glob("trainlist0*.txt"), None) else None


UCF101 = Layout("ucf101", read_ucf101, _fits, _annotates, annotations="folder", official_splits=True)
