"""What an experiment yields: Markdown, CSV and a picture of one name."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from engine.experiments.claims import Finding, claims_table
from engine.results.figures import save_figure
from engine.results.table import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass
class Report:
    """Everything an experiment says. values: the CSV, a row for each single value. findings: what it decides."""

    title: str
    notes: list[str]
    tables: list[Table]
    values: Table
    figure: "Figure | None" = None
    findings: Sequence[Finding] = field(default=())

    @property
    def shown(self) -> list[Table]:
        """The tables for people, with that of the findings."""
        return [*self.tables, *([claims_table(self.findings)] if any(each.gain for each in self.findings) else [])]


def write_report(report: Report, folder: Path, name: str) -> list[Path]:
    """Write NAME.md, NAME.csv and NAME.png; returns what was written."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = [f"# {report.title}", *(table.markdown() for table in report.shown), *report.notes]
    written = [folder / f"{name}.md", folder / f"{name}.csv"]
    if report.figure is not None:
        written.append(folder / f"{name}.png")
        save_figure(report.figure, written[-1])
        parts.insert(1, f"![{report.title}]({name}.png)")
    written[0].write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    report.values.write_csv(written[1], decimals=6)
    return written
