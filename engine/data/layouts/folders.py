"""Own videos: a folder per class, or a table of paths and labels."""

import csv
import itertools
import math
from pathlib import Path

from engine.data.layouts.listing import Entry, Listing, Problem, VideoFolder, read_lines
from engine.errors import InputError

SPLIT_NAMES = frozenset(
    {
        *("train", "training", "val", "valid", "validation", "dev", "eval", "test", "testing"),
        *("seen", "unseen"),  # classes
    }
)
TABLE_SUFFIXES = (".csv", ".tsv", ".txt")

_COLUMNS = {
    "path": ("path", "file", "filename", "video", "video_path", "clip"),
    "label": ("label", "class", "class_name", "category", "action"),
    "split": ("split", "subset", "partition"),
    "group": ("group",),
    "start": ("start", "segment_start", "time_start", "start_time"),
    "end": ("end", "segment_end", "time_end", "end_time"),
}
_NO_HEADER = {name: place for place, name in enumerate(("path", "label", "split", "group"))}


def read_folders(folder: VideoFolder) -> Listing:
    """CLASS/video, or SPLIT/CLASS/video; folders deeper than that are groups (videos cut from one source).

    The first is taken unless every top folder has a split's name and holds folders of its own.
    """
    listing = Listing("folder")
    paths = folder.paths
    parts = [path.split("/") for path in paths]
    tops = {part[0] for part in parts if len(part) > 1}
    has_splits = bool(tops) and all(top.lower() in SPLIT_NAMES for top in tops) and any(len(part) > 2 for part in parts)
    depth = 1 if has_splits else 0
    listing.notes.append("folders per split, then per class" if has_splits else "a folder per class")
    for path, part in zip(paths, parts, strict=True):
        if len(part) < depth + 2:
            listing.problems.append(Problem(path, "no-class", "it lies in no class's folder"))
            continue
        group = "/".join(part[depth + 1 : -1])
        listing.entries.append(Entry(path, part[depth], part[0] if has_splits else "", group))
    if not listing.entries:
        raise InputError(_nothing_found(folder.root, folder.paths))
    return listing


def _nothing_found(root: Path, paths: list[str]) -> str:
    if paths:
        return (
            f"the {len(paths)} videos in '{root}' lie in no class folders: sort them into one folder per class, "
            "or list them in a CSV of path,label and give it with --layout csv --annotations FILE"
        )
    packed = [
        path.name for path in sorted(root.iterdir()) if path.suffix.lower() in (".rar", ".zip", ".tar", ".gz", ".tgz")
    ]
    if packed:
        return f"no videos in '{root}', but archives ({', '.join(packed[:3])}...): unpack them first"
    return f"no videos in '{root}': it needs a folder per class with video files in it"


def read_table(root: Path, table: Path) -> Listing:
    """A CSV or TSV of path,label[,split][,group], or with a header that names the columns.

    With a header, columns may come in any order, and `start`,`end` (seconds) label a segment. Paths are
    relative to the root, or absolute.
    """
    listing = Listing("csv")
    rows = _read_rows(table, read_lines(table))
    if not rows:
        raise InputError(f"'{table}' is empty: it needs lines of path,label")
    columns = _header(rows[0][1])
    if columns is None and len(rows[0][1]) > len(_NO_HEADER):
        raise InputError(
            f"'{table}': the first line names no columns 'path' and 'label', and has too many for path,label"
        )
    listing.notes.append(f"columns {', '.join(columns)}" if columns else "no header: path,label[,split][,group]")
    for line, values in rows[1:] if columns else rows:
        _add_row(listing, root, values, columns or _NO_HEADER, table, line)
    if not listing.entries and not listing.problems:
        raise InputError(f"'{table}' lists no videos below its header")
    return listing


def lists_videos(table: Path, root: Path) -> bool:
    """Whether one of the first rows names a file that is there, and a label."""
    with table.open(encoding="utf-8-sig", errors="replace") as file:
        rows = _read_rows(table, list(itertools.islice(file, 20)))
    columns = _header(rows[0][1]) if rows else None
    if columns is None and rows and len(rows[0][1]) > len(_NO_HEADER):
        return False
    columns = columns or _NO_HEADER
    needed = max(columns["path"], columns["label"])
    return any(
        len(row) > needed and row[columns["path"]] and (root / row[columns["path"]]).is_file() for _, row in rows
    )


def _read_rows(table: Path, lines: list[str]) -> list[tuple[int, list[str]]]:
    """(line number, values) of each row that holds anything."""
    first = next((line for line in lines if line.strip()), "")
    reader = csv.reader(lines, delimiter="\t" if "\t" in first or table.suffix.lower() == ".tsv" else ",")
    try:
        rows = [(reader.line_num, [value.strip() for value in row]) for row in reader]
    except csv.Error as error:
        raise InputError(f"{table}, line {reader.line_num}: {error}") from error
    return [(line, values) for line, values in rows if any(values)]


def _header(values: list[str]) -> dict[str, int] | None:
    """Column name -> place, if the first row is a header."""
    names = [value.lower() for value in values]
    found = {}
    for column, spellings in _COLUMNS.items():
        place = next((names.index(spelling) for spelling in spellings if spelling in names), None)
        if place is not None:
            found[column] = place
    return found if "path" in found and "label" in found else None


def _add_row(listing: Listing, root: Path, values: list[str], columns: dict[str, int], table: Path, line: int) -> None:
    fields = {name: values[place] if place < len(values) else "" for name, place in columns.items()}
    where = f"{table}, line {line}"
    if not fields["path"] or not fields["label"]:
        raise InputError(f"{where}: a row needs a path and a label, this one has {values}")
    path = _relative_to(fields["path"], root)
    start, end = (_seconds(fields.get(name, ""), where) for name in ("start", "end"))
    if math.isnan(start) != math.isnan(end):
        raise InputError(f"{where}: a segment needs a start and an end")
    if not (root / path).is_file():
        listing.problems.append(Problem(path, "missing", f"listed in {table.name}, line {line}, but not there"))
    elif start >= end:
        listing.problems.append(
            Problem(path, "bad-segment", f"from {start:g} s to {end:g} s ({table.name}, line {line})")
        )
    else:
        listing.entries.append(
            Entry(path, fields["label"], fields.get("split", ""), fields.get("group", ""), start, end)
        )


def _relative_to(path: str, root: Path) -> str:
    home = root.absolute()
    return Path(path).relative_to(home).as_posix() if Path(path).is_relative_to(home) else path


def _seconds(text: str, where: str) -> float:
    if not text:
        return math.nan
    try:
        value = float(text)
    except ValueError:
        value = math.inf
    if not math.isfinite(value) or value < 0:
        raise InputError(f"{where}: '{text}' is not a time in seconds")
    return value
