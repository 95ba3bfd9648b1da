"""Text files of rows, as spreadsheets and data sets write them: encodings, separators, quotes, and rows that are broken.

A row that cannot be read is one row lost: it comes back with its line number and the reason.
"""

import codecs
import csv
import io
import json
import re
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from engine.data.layouts.listing import VIDEO_SUFFIXES, printable
from engine.data.magic import first_bytes
from engine.errors import InputError

TABLE_SUFFIXES = (".csv", ".tsv", ".txt", ".list", ".lst")
SEPARATORS = ("\t", ",", ";", "|", " ")
SEPARATOR_NAMES = {"\t": "tab", ",": "comma", ";": "semicolon", "|": "bar", " ": "space"}
_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
# A path may hold spaces, so what follows its suffix is the label; without a suffix the last word is.
_PATH_AND_LABEL = (
    re.compile(rf"(.+?\.(?:{'|'.join(sorted(VIDEO_SUFFIXES))}))\s+(.+)", re.IGNORECASE),
    re.compile(r"(.+?)\s+(\d+\s+\d+)"),
    re.compile(r"(.+)\s+(\S+)"),
)

_NO_TABLES = {  # what a file that is no table begins with
    "a Parquet file": re.compile(rb"PAR1"),
    "an Excel file, or a ZIP": re.compile(rb"PK\x03\x04|\xd0\xcf\x11\xe0"),
    "a gzip file": re.compile(rb"\x1f\x8b"),
    "a NumPy array": re.compile(rb"\x93NUMPY"),
    "a pickle": re.compile(rb"\x80[\x02-\x05]"),
    "an SQLite file": re.compile(rb"SQLite format"),
    "JSON": re.compile(rb"(\xef\xbb\xbf)?\s*(\[\s*)?(\{\s*[\"}]|\[\s*\")"),
}


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a table: the number of its first line, its values, and why it cannot be read ("" if it can)."""

    line: int
    values: list[str]
    error: str = ""


def read_text(path: Path, limit: int = -1) -> str:
    """A text file (or its first bytes): UTF-8, or UTF-16 with its byte-order mark. Bytes that are neither stay as surrogates.

    Raises:
        InputError: it cannot be opened.
    """
    try:
        with path.open("rb") as file:
            content = file.read(limit)
    except OSError as error:
        raise InputError(f"cannot read '{path}': {error.strerror}") from error
    encoding = next((name for mark, name in _BOMS if content.startswith(mark)), "utf-8")
    text = content.decode(encoding, errors="replace" if encoding == "utf-16" else "surrogateescape")
    return text.removeprefix("\ufeff")


def no_table(path: Path) -> str:
    """What a file is that is no table, by its first bytes; "" where it may be one."""
    start = first_bytes(path)
    return next((what for what, is_its in _NO_TABLES.items() if is_its.match(start)), "")


def can_be_read(path: Path) -> bool:
    """Whether it is a file that may be read."""
    try:
        return path.is_file() and isinstance(read_text(path, 0), str)
    except (InputError, PermissionError):
        return False


def if_readable(is_its: Callable[[Path], bool]) -> Callable[[Path], bool]:
    """A test of files that happen to lie somewhere: one that may not be read does not pass."""
    return lambda path: can_be_read(path) and is_its(path)


def read_json(path: Path) -> Any:
    """The content of a JSON file; a byte-order mark is ignored.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise InputError(f"cannot read '{path}': {error}") from error


def read_lines(path: Path) -> list[str]:
    """Lines of a text file without their ends. Only a line feed or a carriage return ends one (a name may hold U+2028)."""
    lines = re.split(r"\r\n|\r|\n", read_text(path))
    return lines if lines[-1] else lines[:-1]


def no_label(text: str) -> str:
    """Why a text is no label: what programs write for an empty cell, or not UTF-8; "" if it is one."""
    if text.lower() in ("nan", "null", "<na>", "n/a"):
        return f"no label ('{text}' stands for an empty cell)"
    try:
        text.encode()
    except UnicodeEncodeError:
        return f"cannot read '{printable(text)}': it is not UTF-8 (save the list as UTF-8)"
    return ""


def rows_of(text: str, separator: str, num_columns: int = 0) -> list[Row]:
    """The rows of a table that hold anything. A space separates a path from the label behind it, see SEPARATORS.

    Args:
        num_columns: of its header, 0 without one. Each space separates more than two; a row with more values is in error.
    """
    by_words = separator == " " and num_columns > 2
    rows = _by_spaces(text) if separator == " " and not by_words else _by_quotes(text, separator)
    rows = [row for row in rows if row.error or any(row.values)]
    if not num_columns:
        return rows
    fewest = num_columns if by_words else 0
    return [_fitting(row, fewest, num_columns, SEPARATOR_NAMES[separator]) for row in rows]


def headers_of(text: str, separator: str) -> Iterator[list[str]]:
    """What the first row may name: separated by spaces two columns (a name may hold one: `path class name`), or each word one."""
    yield from (row.values for row in rows_of(text, separator)[:1])
    if separator == " ":
        line = re.split(r"[\r\n]", text.lstrip(), maxsplit=1)[0]
        yield from (line.split(maxsplit=1), *(row.values for row in rows_of(line, " ", num_columns=3)))


def _fitting(row: Row, fewest: int, most: int, separator: str) -> Row:
    """The row, in error if it has fewer or more values than these."""
    if row.error or (len(row.values) >= fewest and not any(row.values[most:])):
        return row
    mend = (
        f"a value that holds a {separator} needs quotes" if len(row.values) > most else 'an empty one is written as ""'
    )
    return replace(row, error=f"{len(row.values)} values under a header of {most}: {mend}")


def with_quotes_missed(rows: list[Row], text: str, separator: str) -> list[Row]:
    """The rows of a table without a header; in error those with more values than most, of which some begin with a blank.

    Of `a.mp4,playing guitar, acoustic` the third is no split. Where all begin with a blank it belongs to the separator.
    """
    usual = statistics.median_low([sum(map(bool, row.values)) for row in rows])
    error = f"more values than the other rows: a value that holds a {SEPARATOR_NAMES[separator]} needs quotes"
    lines = list(io.StringIO(text, newline=""))

    def is_cut(row: Row) -> bool:
        line = lines[row.line - 1]
        blanks = {value.startswith(" ") for value in line.split(separator)[1:] if value.strip()}
        return sum(map(bool, row.values)) > usual and len(blanks) > 1 and '"' not in line

    return [replace(row, error=error) if not row.error and is_cut(row) else row for row in rows]


def _by_quotes(text: str, separator: str) -> Iterator[Row]:
    """As csv has it; after a row with wrong quotes reading goes on at the next line, whatever the quotes swallowed."""
    lines = list(io.StringIO(text, newline=""))
    start = 0
    while start < len(lines):
        reader = csv.reader(
            (lines[index] for index in range(start, len(lines))),
            delimiter=separator,
            strict=True,
            skipinitialspace=True,
        )
        done = 0
        try:
            for values in reader:
                yield Row(start + done + 1, [value.strip() for value in values])
                done = reader.line_num
            return
        except csv.Error as error:
            line = lines[start + done]
            values = _forgiving(line, separator)
            reason = "" if values else f"{error} ({line.strip()[:80]!r})"
            yield Row(start + done + 1, [value.strip() for value in values], reason)
            start += done + 1


def _forgiving(line: str, separator: str) -> list[str]:
    """The values of a line with text behind a closing quote, which belongs to the value; none if a quote is not closed."""
    if line.count('"') % 2:
        return []
    try:
        return next(csv.reader([line], delimiter=separator, skipinitialspace=True), [])
    except csv.Error:
        return []


def _by_spaces(text: str) -> Iterator[Row]:
    for number, line in enumerate(re.split(r"\r\n|\r|\n", text), 1):
        match = next((match for pattern in _PATH_AND_LABEL if (match := pattern.fullmatch(line.strip()))), None)
        yield Row(number, [value.strip("\"' ") for value in match.groups()] if match else [line.strip()])
