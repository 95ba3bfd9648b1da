"""Own videos in a folder per class, or per split and class."""

import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.data.layouts.layout import Layout
from engine.data.layouts.listing import Entry, Listing, Problem
from engine.errors import InputError
from engine.terminal.wording import counted

_SPLIT_WORDS = {
    **dict.fromkeys(("train", "training", "trainset", "trn"), "train"),
    **dict.fromkeys(
        ("val", "valid", "validation", "validate", "valset", "dev", "eval", "evaluation", "minival"), "val"
    ),
    **dict.fromkeys(("test", "testing", "testset", "tst", "holdout", "heldout"), "test"),
    "trainval": "trainval",
    "seen": "seen",
    "unseen": "unseen",
}
# What may stand beside it in a folder's name (train_256, videos_train, test set): it tells nothing of a class.
_BESIDE = frozenset(
    {
        *(
            "set",
            "sets",
            "split",
            "splits",
            "subset",
            "part",
            "full",
            "small",
            "tiny",
            "mini",
            "new",
            "final",
            "folder",
        ),
        *("video", "videos", "clip", "clips", "frames", "images", "image", "img", "pictures", "data", "dataset"),
        *("px", "p", "x", "res", "resized", "rgb", "mp4", "avi", "class", "classes", "list", "lists", "annotations"),
    }
)
_TOKEN = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+|[^\W\d_a-zA-Z]+")


def split_words(names: Iterable[str]) -> dict[str, str]:
    """Of folder (or list) names those that name a split, and which: train_256 -> train, k400_val -> val.

    A word of a split and nothing else that means anything; or the same beside it in the name of another split.
    """
    found: dict[str, tuple[str, tuple[str, ...]]] = {}
    for name in names:
        tokens = [token.lower() for token in _TOKEN.findall(name)]
        words = [_SPLIT_WORDS[token] for token in tokens if token in _SPLIT_WORDS]
        if len(words) == 1:
            rest = (token for token in tokens if token not in _SPLIT_WORDS and token not in _BESIDE)
            found[name] = words[0], tuple(token for token in rest if not token.isdigit())
    shared: dict[tuple[str, ...], set[str]] = {}
    for word, rest in found.values():
        shared.setdefault(rest, set()).add(word)
    return {name: word for name, (word, rest) in found.items() if not rest or len(shared[rest]) > 1}


def list_splits(lists: Sequence[Path]) -> dict[Path, str]:
    """The split that each of several lists is: the word of a split in its name, else the name. A list alone is none."""
    words = split_words(path.stem for path in lists)
    return {path: words.get(path.stem, path.stem) if len(lists) > 1 else "" for path in lists}


@dataclass(frozen=True, slots=True)
class _Structure:
    """Which folder of a path is what: places from the root on; `split` is None where there are no splits.

    splits: names of the folders that are splits. why: for the note.
    """

    split: int | None
    label: int
    splits: frozenset[str]
    why: str


def list_folders(root: Path, paths: Sequence[str], splits: Sequence[str] | None = None) -> Listing:
    """CLASS/video, SPLIT/CLASS/video or CLASS/SPLIT/video; folders deeper than that are groups (videos cut from one source).

    Folders of splits are told by their names, see `split_words`; what lies beside them is a problem. One folder that
    holds all the others is passed by.

    Args:
        splits: names of the top folders that are splits; empty if none is, and each is a class (videos in no folder are
            then one more, named after the root); None to guess.

    Raises:
        InputError: nothing lies in a folder of a class, or a named split is not there.
    """
    listing = Listing("folder")
    parts = [path.split("/") for path in paths]
    structure = _named(parts, splits) if splits is not None else _guess([part[:-1] for part in parts])
    listing.notes.append(structure.why)
    needed = max(structure.label, structure.split or 0) + 2
    loose_class = Path(os.path.abspath(root)).name or "videos"  # noqa: PTH100 (a link keeps its name)
    loose = 0
    for path, part in zip(paths, parts, strict=True):
        split = part[structure.split] if structure.split is not None and len(part) > structure.split + 1 else ""
        if structure.split is not None and split and split not in structure.splits:
            text = f"'{split}' is none of the splits {', '.join(sorted(structure.splits))} (--splits names them)"
            listing.problems.append(Problem(path, "no-split", text))
        elif len(part) < needed and splits is not None and not splits:
            listing.entries.append(Entry(path, loose_class))
            loose += 1
        elif len(part) < needed:
            listing.problems.append(Problem(path, "no-class", "it lies in no class's folder"))
        else:
            listing.entries.append(Entry(path, part[structure.label], split, "/".join(part[needed - 1 : -1])))
    if not listing.entries:
        raise InputError(_nothing_found(root, paths))
    if loose:
        listing.notes.append(
            f"warning: {counted(loose, 'file')} in no class folder, taken as one class '{loose_class}': enough for "
            "pretraining, features and moment search; recognition needs a folder per class"
        )
    groups = sorted({f"{entry.class_name}/{entry.group}" for entry in listing.entries if entry.group})
    if groups:
        shown = ", ".join(groups[:3]) + ", ..." * (len(groups) > 3)
        listing.notes.append(
            f"groups (videos cut from one source) are the {counted(len(groups), 'folder')} below the classes: {shown}"
        )
    if structure.split is None:
        listing.notes += _shared_names(parts, structure.label)
    return listing


def _named(parts: Sequence[Sequence[str]], splits: Sequence[str]) -> _Structure:
    """As the user says it."""
    if not splits:
        return _Structure(None, 0, frozenset(), "a folder per class (--splits none)")
    absent = sorted(set(splits) - {part[0] for part in parts if len(part) > 1})
    if absent:
        raise InputError(f"--splits names '{absent[0]}', but no such folder holds videos")
    return _Structure(0, 1, frozenset(splits), "folders per split, then per class (--splits)")


def _guess(folders: Sequence[Sequence[str]]) -> _Structure:
    level = 0
    passed = []
    while (holder := _only_holder(folders, level)) is not None:
        passed.append(holder)
        level += 1
    inside = f" in '{'/'.join(passed)}', which holds all of them" if passed else ""
    tops = {folder[level] for folder in folders if len(folder) > level}
    words = split_words(tops)
    if _are_splits(folders, level, tops, words):
        beside = sorted(tops - set(words))
        stray = f"; beside them, in no split: {', '.join(beside)}" if beside else ""
        why = f"folders per split, then per class{inside}: their names say so{stray} (--splits NAME,NAME, or none)"
        return _Structure(level, level + 1, frozenset(words), why)
    below = {folder[level + 1] if len(folder) > level + 1 else "" for folder in folders if len(folder) > level}
    words = split_words(below)
    if below and len(set(words.values())) > 1 and set(words) == below:
        why = f"a folder per class{inside}, then per split: the names of the lower ones say so (--splits none)"
        return _Structure(level + 1, level, frozenset(words), why)
    return _Structure(
        None, level, frozenset(), f"a folder per class{inside} (--splits NAME,NAME where they are splits)"
    )


def _only_holder(folders: Sequence[Sequence[str]], level: int) -> str | None:
    """The folder that holds all others and no video itself, if these are not groups of one class (g01, g02)."""
    tops = {folder[level] for folder in folders if len(folder) > level}
    if len(tops) != 1 or split_words(tops):
        return None
    inside = [folder[level + 1 :] for folder in folders if len(folder) > level]
    below = {folder[0] if folder else "" for folder in inside}
    (top,) = tops
    is_plain = {token.lower() for token in _TOKEN.findall(top)} <= _BESIDE  # videos/, data/
    if "" in below or not (is_plain or (len(below) > 1 and any(not re.search(r"\d", name) for name in below))):
        return None
    if set(split_words(below)) == below and all(len(folder) < 2 for folder in inside):
        return None  # CLASS/train/video, of one class
    return top


def _are_splits(folders: Sequence[Sequence[str]], level: int, tops: Collection[str], words: dict[str, str]) -> bool:
    """All top folders have a split's name, or two different ones do, or one that holds most; and they hold folders."""
    holders = Counter(folder[level] for folder in folders if len(folder) > level + 1)
    with_classes = {name: word for name, word in words.items() if holders[name]}
    if not with_classes:
        return False
    if len(words) == len(tops) or len(set(with_classes.values())) > 1:
        return True
    is_most = 2 * sum(holders[name] for name in with_classes) > sum(len(folder) > level for folder in folders)
    return is_most and set(holders) == set(with_classes)


def _shared_names(parts: Sequence[Sequence[str]], label: int) -> list[str]:
    """A warning where folders of one name lie in several classes: these may be the classes, and the upper ones the splits."""
    holders: dict[str, set[str]] = {}
    for part in parts:
        if len(part) > label + 2 and not re.search(r"\d", part[label + 1]):
            holders.setdefault(part[label + 1], set()).add(part[label])
    names = sorted(name for name, tops in holders.items() if len(tops) > 1)
    if len(names) < 2:
        return []
    tops = ",".join(sorted(holders[names[0]]))
    return [
        f"warning: {', '.join(names[:3])} lie in several classes: if these are the classes and {tops} are not, give "
        f"--splits {tops}"
    ]


def _nothing_found(root: Path, paths: Sequence[str]) -> str:
    if paths:
        return (
            f"the {len(paths)} videos in '{root}' lie in no class folders: sort them into one folder per class, "
            "or list them in a CSV of path,label and give it with --layout csv --annotations FILE; where no classes are "
            "needed (pretraining, features, moment search), --splits none takes them as they lie"
        )
    packed = [
        path.name for path in sorted(root.iterdir()) if path.suffix.lower() in (".rar", ".zip", ".tar", ".gz", ".tgz")
    ]
    if packed:
        return f"no videos in '{root}', but archives ({', '.join(packed[:3])}...): unpack them first"
    return f"no videos in '{root}': it needs a folder per class with video files in it"


FOLDER = Layout(
    "folder",
    lambda folder, given: list_folders(folder.root, folder.paths, given.splits),
    lambda folder: "no known lists, so the folders name the classes",
    annotations="none",
    folder_splits=True,
)
