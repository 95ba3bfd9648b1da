"""Class names that would give wrong vectors: numbers in place of names, and names that mean the same."""

import dataclasses
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from engine.data.layouts.listing import Entry, Listing, those_in
from engine.data.layouts.tables import read_json, read_lines
from engine.errors import InputError
from engine.semantics.words import class_words, composed, name_key
from engine.terminal.wording import counted

_NAMES_FILE = re.compile(r"class|label|categor|action", re.IGNORECASE)
_NUMBER_AND_NAME = re.compile(r"\s*[\"']?(\d+)[\"']?\s*[\s,;:=\t]\s*(.*\S)\s*")
_NAME_AND_NUMBER = re.compile(r"\s*(.*\S)\s*[\s,;:=\t]\s*[\"']?(\d+)[\"']?\s*")
_NUMBER = re.compile(r"-?\d+(\.0+)?")  # 1.0 is what spreadsheets make of it
_SHOWN = 5


def name_classes(listing: Listing, given: Path | None, indices: Sequence[Path]) -> None:
    """Put names in the place of numeric labels; say so, or warn where there are no names.

    Args:
        given: the user's file of class names; None to look for one in the folders `places`.

    Raises:
        InputError: `given` cannot be read, or lacks a label.
    """
    labels = {entry.class_name for entry in listing.labelled}
    numbers = {label for label in labels if _NUMBER.fullmatch(label)}
    if given is not None:
        names = _covering(read_class_names(given), numbers or labels)
        if names is None:
            raise InputError(
                f"--class-names '{given}' has not all of the labels {_shown(numbers or labels)}: it needs a name a line (the "
                "first is 0), lines of NUMBER NAME, or JSON of names and numbers"
            )
        _rename(listing, names)
        listing.lists.append(given)
        listing.notes.append(f"class names from {given.name} (--class-names)")
    elif numbers and numbers == labels:
        found = _find_names(listing, indices, numbers)
        if found is not None:
            _rename(listing, found[1])
            first = min(numbers, key=float)
            listing.lists.append(found[0])
            listing.notes.append(
                f"labels are numbers: their names are those of {found[0].name} ({first} is '{found[1][first]}'; --class-names "
                "FILE takes another)"
            )
            numbers = set()
        elif (folders := _names_by_folder(listing)) is not None:
            _rename(listing, folders)
            listing.notes.append(
                "labels are numbers: their names are those of the folders of their videos (--class-names FILE)"
            )
            numbers = set()
    if numbers and given is None:
        listing.notes.append(
            f"warning: {counted(len(numbers), 'class name')} in numbers ({_shown(numbers)}): they would be trained towards the "
            "vectors of digits; give their names with --class-names FILE (a name a line, the first is 0; or lines of NUMBER NAME)"
        )


def warn_of_names(names: Iterable[str]) -> list[str]:
    """A line for each set of class names that have the same words, so the same vector; and for names that differ by a number."""
    names = sorted(names)
    notes = []
    alike: dict[tuple[str, ...], list[str]] = {}
    for name in names:
        try:
            words = tuple(sorted(class_words(name)))
        except InputError:
            words = (name_key(name),)
        alike.setdefault(words, []).append(name)
    twins = [(words, same) for words, same in alike.items() if len(same) > 1]
    for words, same in twins[:20]:
        notes.append(
            f"warning: {', '.join(map(repr, same))} have the same words ({' '.join(words)}) and so the same vector: answers "
            "that mix them up count as wrong; give them one name, or other words by words.replace"
        )
    if len(twins) > 20:
        notes.append(f"warning: {len(twins) - 20} more sets of class names have the same words")
    if len(names) > 1 and all(re.match(r"\d+[\W_]+[^\W\d_]", name) for name in names):
        notes.append(
            f"warning: all class names begin with a number ({_shown(names)}), which counts as a word of theirs"
        )
    stems = {re.sub(r"\d+", "", name) for name in names}
    if len(names) > 1 and len(stems) == 1 and stems != {""}:
        notes.append(
            f"warning: the class names differ by their numbers alone ({_shown(names)}): are they names of actions?"
        )
    return notes


def read_class_names(path: Path) -> dict[str, str]:
    """Label -> name: JSON ({name: number}, {number: name}, [names]), lines of NUMBER NAME or NAME,NUMBER, or of names from 0.

    Raises:
        InputError: it cannot be read.
    """
    if path.suffix.lower() == ".json":
        content = read_json(path)
        if isinstance(content, list):
            return {str(number): str(name) for number, name in enumerate(content)}
        if not isinstance(content, dict):
            raise InputError(
                f"'{path}' holds no names of classes: it needs a list of names, or names and their numbers"
            )
        pairs = {str(key).strip("\"' "): str(value).strip("\"' ") for key, value in content.items()}
        if not all(map(_NUMBER.fullmatch, pairs)):
            pairs = {value: key for key, value in pairs.items()}
        plain = {_plain(label): name for label, name in pairs.items()}
        return plain if len(plain) == len(pairs) else pairs
    lines = [line for line in read_lines(path) if line.strip()]
    for skipped in (0, 1):  # a header
        for pattern, (number, name) in ((_NUMBER_AND_NAME, (1, 2)), (_NAME_AND_NUMBER, (2, 1))):
            matches = [pattern.fullmatch(line) for line in lines[skipped:]]
            if matches and all(matches) and len({match[number] for match in matches}) == len(matches):
                return {str(int(match[number])): match[name].strip("\"' ") for match in matches}
    return {str(number): line.strip("\"' \t,;") for number, line in enumerate(lines)}


def _covering(names: dict[str, str], labels: set[str]) -> dict[str, str] | None:
    """Label -> name for all the labels; numbers that are all one too low (classInd.txt counts from 1) are taken as such."""
    names = {composed(label): name for label, name in names.items()}  # as labels are
    plain = {label: _plain(label) for label in labels}
    for shift in (0, 1, -1):
        moved = {label: str(int(key) + shift) if shift and key.isdigit() else key for label, key in plain.items()}
        if all(names.get(key) for key in moved.values()):
            return {label: names[key] for label, key in moved.items()}
    return None


def _plain(label: str) -> str:
    """A number as it is counted: 01 and 1.0 are 1; any other label as it is."""
    return str(int(label.partition(".")[0])) if _NUMBER.fullmatch(label) else label


def _find_names(listing: Listing, folders: Sequence[Path], numbers: set[str]) -> tuple[Path, dict[str, str]] | None:
    """The file of class names beside the list or the videos, and label -> name; None if there is none, or several disagree."""
    found: list[tuple[Path, dict[str, str]]] = []
    for folder in dict.fromkeys(folder.resolve() for folder in folders):
        for path in those_in(folder, Path.is_file):
            if (
                any(path.samefile(used) for used in listing.lists)
                or not _NAMES_FILE.search(path.stem)
                or path.suffix.lower() not in (".txt", ".csv", ".json", ".tsv")
            ):
                continue
            try:
                names = _covering(read_class_names(path), numbers)
            except InputError:
                continue
            if names is not None and not all(name.isdigit() for name in names.values()):
                found.append((path, names))
    if len({tuple(sorted(names.items())) for _, names in found}) > 1:
        listing.notes.append(
            f"warning: {', '.join(path.name for path, _ in found)} give the numbers different names: choose by --class-names"
        )
        return None
    return found[0] if found else None


def _names_by_folder(listing: Listing) -> dict[str, str] | None:
    """Label -> the one folder that all its videos lie in, if no two labels share one (archery/x.mp4 0)."""
    folders: dict[str, set[str]] = {}
    for entry in listing.entries:
        folders.setdefault(entry.class_name, set()).add("/".join(entry.path.split("/")[-2:-1]))
    names = {label: next(iter(found)) for label, found in folders.items() if len(found) == 1}
    is_named = len(names) == len(folders) == len(set(names.values())) > 1
    return names if is_named and not any(_NUMBER.fullmatch(name) or not name for name in names.values()) else None


def warn_of_folders(entries: Sequence[Entry]) -> list[str]:
    """A warning where a list gives videos another class than the class folder that they lie in."""
    plain = {name: name_key(name) for name in {entry.class_name for entry in entries}}
    keys = set(plain.values())
    wrong = []
    for entry in entries:
        above = {name_key(folder) for folder in entry.path.split("/")[:-1]} & keys
        if above and plain[entry.class_name] not in above:
            wrong.append(f"{entry.path}: '{entry.class_name}'")
    if not wrong:
        return []
    shown = "; ".join(wrong[:3])
    return [
        f"warning: {counted(len(wrong), 'video')} in the folder of another class than their list's, which counts: {shown}"
    ]


def _rename(listing: Listing, names: dict[str, str]) -> None:
    def named(entry: Entry) -> Entry:
        return dataclasses.replace(entry, class_name=names.get(entry.class_name, entry.class_name))

    listing.entries = [named(entry) for entry in listing.entries]
    listing.undecided = [(named(entry), problem) for entry, problem in listing.undecided]


def _shown(names: Iterable[str]) -> str:
    ordered = sorted(names, key=lambda name: (len(name), name))
    return ", ".join(ordered[:_SHOWN]) + ", ..." * (len(ordered) > _SHOWN)
