"""One kind of picture for all benchmarks: bars with their numbers, beside what they are compared with."""

from collections.abc import Sequence
from pathlib import Path

from engine.pictures import NEUTRAL, RIGHT, save_figure
from engine.records import RECORDS

PICTURES = RECORDS.parent / "pictures"


def save_bars(
    path: Path, title: str, unit: str, labels: Sequence[str], values: Sequence[float], notes: Sequence[str], ours: str
) -> None:
    """Horizontal bars, longest axis `unit`; those whose label begins with `ours` are coloured."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 1.2 + 0.42 * len(labels)), layout="constrained")
    axes = figure.subplots()
    places = range(len(labels))
    axes.barh(places, values, color=[RIGHT if label.startswith(ours) else NEUTRAL for label in labels], height=0.7)
    for place, value, note in zip(places, values, notes, strict=True):
        axes.text(value, place, f" {note}", va="center", fontsize=8, parse_math=False)
    axes.set_yticks(places, labels, fontsize=9, parse_math=False)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.35 * max(values))  # room for the notes
    axes.set_xlabel(unit)
    axes.set_title(title, fontsize=10, parse_math=False)
    axes.spines[["top", "right"]].set_visible(False)
    save_figure(figure, path)
