"""The one table of the project: as text for terminals and logs, as Markdown for documents, as CSV for other programs."""

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.errors import writing
from engine.terminal.screen import plain

_NUMBER = re.compile(r"[+-]?\d[\d,]*(\.\d+)?(e[+-]?\d+)?|nan|-?inf")


@dataclass(frozen=True)
class Table:
    """Rows of cells under a header; a title may stand over them.

    In text and Markdown floats have three decimals and None is "-"; control characters are shown as \\x1b.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[object]]
    title: str = ""

    def text(self) -> str:
        """With aligned columns; numbers stand on the right."""
        cells = [[_text(value) for value in row] for row in self.rows]
        widths = [max(map(len, column)) for column in zip(self.header, *cells, strict=True)]
        right = [_are_numbers([row[index] for row in cells]) for index in range(len(widths))]

        def line(values: Sequence[str]) -> str:
            parts = [v.rjust(w) if r else v.ljust(w) for v, w, r in zip(values, widths, right, strict=True)]
            return "  ".join(parts).rstrip()

        rule = "  ".join("-" * width for width in widths)
        return "\n".join([*filter(None, [self.title]), line(self.header), rule, *(line(row) for row in cells)])

    def markdown(self) -> str:
        """As Markdown; a cell cannot end its column."""
        lines = [self.header, *([_text(value) for value in row] for row in self.rows)]
        shown = ["| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines]
        shown.insert(1, "|" + "---|" * len(self.header))
        return "\n".join([*([f"**{self.title}**", ""] if self.title else []), *shown])

    def write_csv(self, path: Path, decimals: int | None = None) -> None:
        """As UTF-8 without the title; floats in full or with so many decimals, None is empty; file names byte by byte."""
        with writing(path), path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(self.header)
            writer.writerows([_rounded(value, decimals) for value in row] for row in self.rows)


def _text(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else plain(str(value)).replace("\n", "\\n")


def _are_numbers(cells: Sequence[str]) -> bool:
    """Whether a column holds numbers, "-" among them perhaps."""
    return all(cell == "-" or _NUMBER.fullmatch(cell) for cell in cells) and any(cell != "-" for cell in cells)


def _rounded(value: object, decimals: int | None) -> object:
    return f"{value:.{decimals}f}" if isinstance(value, float) and decimals is not None else value
