"""What an experiment yields: Markdown, CSV and a picture of one name."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from engine.pictures import save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass
class Table:
    """A table with a title; cells are shown as they are, numbers with three decimals."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[object]]

    def markdown(self) -> str:
        """As Markdown."""
        lines = [f"| {' | '.join(self.header)} |", "|" + "---|" * len(self.header)]
        lines += [f"| {' | '.join(_text(value) for value in row)} |" for row in self.rows]
        return (f"**{self.title}**\n\n" if self.title else "") + "\n".join(lines)


@dataclass
class Report:
    """Everything an experiment says. rows: the CSV, a line for each single value, under `header`."""

    title: str
    notes: list[str]
    tables: list[Table]
    header: Sequence[str]
    rows: Sequence[Sequence[object]]
    figure: "Figure | None" = None


def write_report(report: Report, folder: Path, name: str) -> list[Path]:
    """Write NAME.md, NAME.csv and NAME.png; returns what was written."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = [f"# {report.title}", *(table.markdown() for table in report.tables), *report.notes]
    written = [folder / f"{name}.md", folder / f"{name}.csv"]
    if report.figure is not None:
        written.append(folder / f"{name}.png")
        save_figure(report.figure, written[-1])
        parts.insert(1, f"![{report.title}]({name}.png)")
    written[0].write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    with written[1].open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(report.header)
        writer.writerows([[f"{v:.6f}" if isinstance(v, float) else v for v in row] for row in report.rows])
    return written


def _text(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
