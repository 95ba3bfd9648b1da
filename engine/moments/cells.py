"""The cells of a CSV or TSV, row by row: a quote that somebody forgot to close costs its own row, and no row after it."""

import csv
import io
from collections.abc import Callable, Iterator, Sequence

_UNCLOSED = "a quote is not closed: close it, or leave it out"


def read_cells(text: str, delimiter: str, is_row: Callable[[str], bool]) -> Iterator[tuple[int, list[str] | str]]:
    """Of each row that is not blank the number of its first line, from 1, and its cells, or why they cannot be read.

    In a TSV quotes are seldom meant as such: in a row that cannot be read with them they are signs like others.

    Args:
        is_row: whether a line is a row by itself. A quote that spans such lines is one that is not closed.
    """
    lines = [*io.StringIO(text), ""]  # nothing but a line feed ends a line
    number = 0
    while number < len(lines) - 1:
        cells, count = _quoted(lines, number, delimiter, is_row) or (_of_one_line(lines[number], delimiter), 1)
        if isinstance(cells, str) or any(map(str.strip, cells)):
            yield number + 1, cells
        number += count


def _quoted(
    lines: Sequence[str], number: int, delimiter: str, is_row: Callable[[str], bool]
) -> tuple[list[str], int] | None:
    """The cells of the row from that line on and how many lines it has, if all its quotes are as they should be."""
    reader = csv.reader(map(lines.__getitem__, range(number, len(lines))), delimiter=delimiter, strict=True)
    try:
        cells = next(reader)
    except csv.Error:
        return None
    spans_rows = reader.line_num > 1 and any(is_row(line) for cell in cells for line in cell.split("\n"))
    return None if spans_rows else (cells, reader.line_num)


def _of_one_line(line: str, delimiter: str) -> list[str] | str:
    quoting = csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL
    reader = csv.reader([line, ""], delimiter=delimiter, quoting=quoting)
    try:
        cells = next(reader)
    except csv.Error as error:
        return str(error)
    return cells if reader.line_num == 1 else _UNCLOSED
