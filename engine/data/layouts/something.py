"""Something-Something V2: JSON lists of id and template, and files ID.webm. (V1's id;label is a table.)"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine.data.layouts.folders import list_splits
from engine.data.layouts.layout import Given, Layout
from engine.data.layouts.listing import Entry, Listing, Problem, by_stem, files_near
from engine.data.layouts.tables import if_readable, read_json, read_text
from engine.data.layouts.walk import VideoFolder
from engine.errors import InputError

_HEAD_BYTES = 1 << 12


def _is_something_json(path: Path) -> bool:
    """Whether it looks like a list of labelled videos by their id."""
    head = read_text(path, _HEAD_BYTES).lstrip("\ufeff \r\n\t")
    return head.startswith("[") and '"id"' in head and ('"template"' in head or '"label"' in head)


def _find_something(root: Path, is_its: Callable[[Path], bool] = _is_something_json) -> list[Path]:
    """Such lists in the root or one folder below."""
    return [*filter(is_its, files_near(root, ".json"))]


def read_something(folder: VideoFolder, given: Given) -> Listing:
    """One entry per record; its class is the template without brackets, else the label. Files are ID.*, anywhere.

    Of several lists each is the split that its name says.
    """
    annotations = given.annotations
    is_file = annotations is not None and annotations.is_file()
    lists = [annotations] if is_file else _find_something(annotations or folder.root)
    if not lists:
        raise InputError(
            f"no JSON list of id and template (or label) in '{annotations or folder.root}': give it with --annotations FILE"
        )
    listing = Listing("something", notes=[f"labels from {', '.join(path.name for path in lists)}"], lists=lists)
    stems = by_stem(folder.paths)
    for source, split in list_splits(lists).items():
        records = read_json(source)
        if not isinstance(records, list):
            raise InputError(f"'{source}' is no list of records with id and template")
        for index, record in enumerate(records):
            _add(listing, stems, record, split, f"{source.name}, record {index}")
    if not listing.entries and not listing.undecided:
        first = listing.problems[0].text if listing.problems else "the lists are empty"
        raise InputError(f"none of the videos of {', '.join(map(str, lists))} is under '{folder.root}': {first}")
    return listing


def _add(listing: Listing, stems: dict[str, list[str]], record: Any, split: str, where: str) -> None:
    name = str(record.get("id") or "") if isinstance(record, dict) else ""
    label = (record.get("template") or record.get("label")) if isinstance(record, dict) else None
    if not name or not isinstance(label, (str, int)) or not str(label).strip():
        listing.problems.append(Problem(name or where, "bad-row", f"{where}: {record!r} has no id or no label"))
        return
    paths = stems.get(name, [])
    entry = Entry(paths[0] if paths else "", str(label).replace("[", "").replace("]", "").strip(), split)
    if len(paths) > 1:
        listing.add_one_of(name, paths, entry)
    elif paths:
        listing.entries.append(entry)
    else:
        listing.problems.append(Problem(name, "missing", f"no {name}.* ({where})"))


def _fits(folder: VideoFolder) -> str | None:
    lists = _find_something(folder.root, if_readable(_is_something_json))
    return f"{lists[0].name} lists videos by id and template" if lists else None


def _annotates(folder: VideoFolder, annotations: Path) -> str | None:
    if annotations.is_dir():
        return f"'{annotations.name}' holds lists of id and template" if _find_something(annotations) else None
    is_its = annotations.suffix.lower() == ".json" and _is_something_json(annotations)
    return f"{annotations.name} lists videos by id and template" if is_its else None


SOMETHING = Layout("something", read_something, _fits, _annotates)
