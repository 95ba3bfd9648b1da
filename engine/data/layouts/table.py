"""Tables of paths and labels: CSV and TSV, and the lists of mmaction2 and SlowFast, which have spaces and numbers."""

import contextlib
import math
import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from engine.data.layouts.columns import (
    COLUMNS,
    header_columns,
    is_column,
    others_by_values,
    seconds,
    segments_unread,
    unread,
)
from engine.data.layouts.finder import FileFinder
from engine.data.layouts.folders import list_splits, split_words
from engine.data.layouts.layout import Given, Layout
from engine.data.layouts.listing import VIDEO_SUFFIXES, Entry, Listing, Problem, suffix_of
from engine.data.layouts.tables import (
    SEPARATOR_NAMES,
    SEPARATORS,
    TABLE_SUFFIXES,
    Row,
    can_be_read,
    headers_of,
    no_label,
    no_table,
    read_text,
    rows_of,
    with_quotes_missed,
)
from engine.data.layouts.walk import VideoFolder
from engine.errors import InputError

_NO_HEADER = (  # what is tried without a header
    {name: place for place, name in enumerate(("path", "label", "split", "group"))},
    {"number": 0, "path": 1, "label": 2, "split": 3},
    {"label": 0, "path": 1, "split": 2},
)
_MAX_COLUMNS = 4
_NUMBERS = re.compile(r"\d+(\s+\d+)*")
_HEAD_BYTES = 1 << 16
_HEAD_ROWS = 20  # tell the separator, and where the paths lie
_EXPECTED = "path and label separated by comma, tab, semicolon, bar or (path.mp4 label) space"


def _find_tables(root: Path) -> list[Path]:
    """Files of the root that may be tables."""
    return [path for path in sorted(root.iterdir()) if path.suffix.lower() in TABLE_SUFFIXES and path.is_file()]


def _find_lists_beside(folder: VideoFolder) -> list[Path]:
    """Tables that list the folder's videos, in the root or else in one of its folders without videos (annotations/)."""
    holders = {path.split("/")[0] for path in folder.paths}
    beside = (each for each in sorted(folder.root.iterdir()) if each.is_dir() and each.name not in holders)
    for each in (folder.root, *(each for each in beside if not each.name.startswith("."))):
        with contextlib.suppress(PermissionError):
            if found := _listing_tables(folder, [*filter(can_be_read, _find_tables(each))]):
                return found
    return []


def _listing_tables(folder: VideoFolder, tables: Sequence[Path]) -> list[Path]:
    """Those of the tables that list videos of the folder: one, or one for each split. None where several might be meant."""
    found = [table for table in tables if _lists_videos(table, folder)]
    if len(found) < 2:
        return found
    words = split_words(table.stem for table in found)
    first: dict[str, Path] = {}
    for table in found:
        if table.stem in words:
            first.setdefault(words[table.stem], table)
    return list(first.values()) if len(first) > 1 else []


def _lists_videos(table: Path, folder: VideoFolder) -> bool:
    """Whether one of the first rows names a file that is there, and a label."""
    text, files = read_text(table, _HEAD_BYTES), FileFinder(folder)
    separator, columns, num_columns = _format(text, files)
    rows = rows_of(text, separator, num_columns)[:_HEAD_ROWS]
    if not num_columns and rows and len(rows[0].values) > _MAX_COLUMNS:
        return False
    paths = [row.values[columns["path"]] for row in rows if _has_label(row, columns)]
    # A list of class names (1,archery) beside class folders 0/, 1/, ... whose files are called 1.mp4, 2.mp4.
    if (
        paths
        and all(path.isdigit() for path in paths)
        and any(path.rpartition("/")[0].isdigit() for path in folder.paths)
    ):
        return False
    files.look_around(paths)
    return any(files.find(path) for path in paths)


def _has_label(row: Row, columns: dict[str, int]) -> bool:
    return len(row.values) > max(columns["path"], columns["label"]) and bool(row.values[columns["path"]])


def read_tables(folder: VideoFolder, given: Given) -> Listing:
    """Tables of path,label[,split][,group], or with a header that names the columns.

    With a header, columns may come in any order, and `start`,`end` (seconds, or h:mm:ss) label a segment. Paths are relative to the
    root, or absolute; where none fits, the folder below which they fit is looked for. Of several tables each is the
    split that its name says, where its rows name none.

    Raises:
        InputError: no row of a table can be read.
    """
    tables = _chosen_tables(folder, given.annotations)
    listing = Listing("csv", lists=tables)
    errors = [
        error for table, split in list_splits(tables).items() if (error := _read_table(listing, folder, table, split))
    ]
    if not listing.entries and not listing.undecided and all(problem.kind == "bad-row" for problem in listing.problems):
        raise InputError("; ".join([*errors, *(problem.text for problem in listing.problems)][:3]))
    listing.notes += [f"warning: {error}" for error in errors]
    return listing


def _read_table(listing: Listing, folder: VideoFolder, table: Path, split: str) -> str:
    """Add the rows of one table; returns why it has none, or ""."""
    files, text = FileFinder(folder), read_text(table)
    separator, columns, num_columns = _format(text, files)
    rows, has_header = rows_of(text, separator, num_columns), num_columns > 0
    if not rows:
        return f"'{table}' is empty: it needs lines of path,label"
    if not has_header and len(rows[0].values) > _MAX_COLUMNS:
        return (
            f"'{table}': the first line names no columns 'path' and 'label', and has too many for path,label: expected is "
            f"{_EXPECTED}"
        )
    header, rows = (rows[0].values, rows[1:]) if has_header else ([], rows)
    if not rows:
        return f"'{table}' lists no videos below its header"
    names = [name for name in rows[0].values if is_column(name)] if not has_header else []
    if names and not files.find(rows[0].values[min(columns["path"], len(rows[0].values) - 1)]):
        path, label = (", ".join(COLUMNS[column][:6]) for column in ("path", "label"))
        return f"'{table}': the first line names {', '.join(names)}, but not both a path ({path}) and a label ({label})"
    guessed = others_by_values(header, rows, columns)
    columns = columns | guessed
    if has_header and (error := segments_unread(header, rows, columns)):
        return f"'{table}': {error}"
    listing.notes += _say_columns(table, separator, header, columns, guessed)
    if separator == " " and num_columns < 3:
        rows = _without_counts(rows, listing, table)
    elif not has_header:
        rows = with_quotes_missed(rows, text, separator)
    files.look_around([row.values[columns["path"]] for row in rows if _has_label(row, columns)])
    for row in rows:
        problem = _add_row(listing, files, row, columns, table, split)
        if problem is not None:
            listing.problems.append(problem)
    if files.num_moved and not (files.prefix or files.strip):
        paths = "1 path without its" if files.num_moved == 1 else f"{files.num_moved} paths without their"
        listing.notes.append(f"{table.name}: {paths} suffix: the file of that name is taken")
    elif files.num_moved:
        moved = f"'{files.prefix or '.'}'" + f", {files.strip} folders of each path taken away" * (files.strip > 0)
        listing.notes.append(f"{table.name}: its paths are taken as of {moved}, for as they stand none is there")
    return ""


def _say_columns(
    table: Path, separator: str, header: Sequence[str], columns: dict[str, int], guessed: Collection[str]
) -> list[str]:
    """What the columns are taken as, and which are not read."""
    ordered = sorted(columns, key=columns.get)
    order = ", ".join(f"{name} ('{header[columns[name]]}')" if name in guessed else name for name in ordered)
    taken = f"columns {order}" if header else f"no header, taken as {'path, label' if separator == ' ' else order}"
    notes = [f"{table.name}: {taken} (separated by {SEPARATOR_NAMES[separator]})"]
    if ignored := unread(header, columns):
        notes.append(f"{table.name}: columns not read: {', '.join(ignored)}")
    return notes


def _format(text: str, files: FileFinder) -> tuple[str, dict[str, int], int]:
    """(separator, place of each column, columns of the header or 0): of a header, else by which most first rows name files.

    Where none does, the first separator that most rows hold.
    """
    head = text[:_HEAD_BYTES]
    scores = []
    for separator in SEPARATORS:
        rows = rows_of(head, separator)[:_HEAD_ROWS]
        for names in headers_of(head, separator):
            if (columns := header_columns(names)) is not None:
                return separator, columns, max(place for place, name in enumerate(names, 1) if name)
        split = [row for row in rows if len(row.values) > 1 and row.values[0]]
        if separator == " ":  # "clean and jerk.csv" is no path and a label
            split = [
                row for row in split if suffix_of(row.values[0]) in VIDEO_SUFFIXES or _NUMBERS.fullmatch(row.values[-1])
            ]
        for columns in _NO_HEADER:
            fitting = FileFinder(files.folder)
            numbered = [row for row in split if "number" not in columns or row.values[0].isdigit()]
            paths = [row.values[columns["path"]] for row in numbered if _has_label(row, columns)]
            fitting.look_around(paths)
            num_found = sum(bool(fitting.find(path)) for path in paths)
            scores.append(((num_found, 2 * len(split) > len(rows)), separator, columns))
    best = max(scores, key=lambda score: score[0])  # the first of equals
    return (*(best[1:] if any(best[0]) else (",", _NO_HEADER[0])), 0)


def _without_counts(rows: list[Row], listing: Listing, table: Path) -> list[Row]:
    """Rows of `path label`; where all have a number before their label (path frames label) it is the frame count."""
    counts = [re.fullmatch(r"(\d+)\s+(\d+)", row.values[1]) for row in rows if len(row.values) > 1]
    if not counts or not all(counts):
        several = "several numbers behind the path: one label is expected"
        return [
            replace(row, error=several if re.fullmatch(r"\d+(\s+\d+)+", row.values[-1]) else row.error) for row in rows
        ]
    listing.notes.append(f"{table.name}: two numbers behind each path: the second is taken as the label")
    return [Row(row.line, [row.values[0], row.values[1].split()[1]]) if len(row.values) > 1 else row for row in rows]


def _add_row(
    listing: Listing, files: FileFinder, row: Row, columns: dict[str, int], table: Path, split: str
) -> Problem | None:
    """An entry, or the problem of a row that is none."""
    where = f"{table}, line {row.line}"
    fields = {name: row.values[index] if index < len(row.values) else "" for name, index in columns.items()}
    path, label = fields["path"], fields["label"]
    reason = row.error or no_label(label)
    if not reason and not (path and label):
        reason = f"a row needs a path and a label, this one has {row.values}: expected is {_EXPECTED}"
    start, end = (seconds(fields.get(name, "")) for name in ("start", "end"))
    if not reason and None in (start, end):
        wrong = fields["start"] if start is None else fields["end"]
        reason = f"'{wrong}' is not a time in seconds, nor as h:mm:ss"
    if not reason and math.isnan(start) != math.isnan(end):
        reason = "a segment needs a start and an end"
    if reason:
        return Problem(path or f"{table.name}:{row.line}", "bad-row", f"{where}: {reason}")
    found = files.take(path)
    if not found:
        return Problem(path, "missing", _why_missing(files, path, f"{table.name}, line {row.line}"))
    if start >= end:
        return Problem(found[0], "bad-segment", f"from {start:g} s to {end:g} s ({table.name}, line {row.line})")
    entry = Entry(found[0], label, fields.get("split") or split, fields.get("group", ""), start, end)
    if len(found) > 1:
        listing.add_one_of(path, found, entry)
    else:
        listing.entries.append(entry)
    return None


def _why_missing(files: FileFinder, path: str, where: str) -> str:
    if files.is_folder(path):
        return f"a folder ({where}): videos in single frames are not read, list the videos"
    picture = files.picture_of(path)
    return f"listed in {where}, but not there" + f": of that name there is a picture alone, '{picture}'" * bool(picture)


def _chosen_tables(folder: VideoFolder, annotations: Path | None) -> list[Path]:
    """The user's table, or those of a folder that list its videos."""
    if annotations is not None and annotations.is_file():
        if what := no_table(annotations):
            raise InputError(
                f"'{annotations}' is {what} and no table: write its paths and labels as CSV, with a header path,label"
            )
        return [annotations]
    where = annotations or folder.root
    tables = _find_tables(where)
    if chosen := _listing_tables(folder, tables) if annotations else _find_lists_beside(folder):
        return chosen
    plain = [path for path in tables if path.suffix.lower() in (".csv", ".tsv")]
    if len(plain) != 1:
        found = f"{len(plain)} tables" if plain else "no .csv or .tsv"
        raise InputError(f"{found} in '{where}': say which lists the videos with --annotations FILE")
    return plain


def _fits(folder: VideoFolder) -> str | None:
    tables = _find_lists_beside(folder)
    return f"listed with labels in {', '.join(table.name for table in tables)}" if tables else None


def _annotates(folder: VideoFolder, annotations: Path) -> str | None:
    if annotations.is_dir():
        found = _listing_tables(folder, _find_tables(annotations))
        return f"'{annotations.name}' holds tables of files that are there" if found else None
    return f"{annotations.name} is a table" if annotations.suffix.lower() in TABLE_SUFFIXES else None


TABLE = Layout("csv", read_tables, _fits, _annotates)
