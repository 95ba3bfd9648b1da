"""The pictures of benchmarks, each from a record: bars, accuracy over throughput, and the roofline of a step."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.plan_figure import plan_figure
from bench.rows import COLUMNS, Row, number
from engine.records import RECORDS
from engine.results.figures import NEUTRAL, RIGHT, legend_below, new_figure, open_frame, save_figure, series_colors
from engine.results.labels import wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PICTURES = RECORDS.parent / "pictures"
OURS = ("engine", "kernel")  # variants that are coloured begin so
_BARS_OF = ("clips_per_s", "roofline_share")  # what the bars of rows show: the first that they have
_UNITS = {"_ms": "ms", "_mb": "MB", "_s": "s"}  # by how the names of results end
_LEAST_SHARE = 0.001  # of a step: what takes less is no point of the roofline


def draw(
    name: str, record: Mapping[str, Any], rows: Sequence[Row], quantiles: Mapping[str, Mapping[str, float]]
) -> "Figure | None":
    """The picture of a record; None where its results have no form that can be drawn."""
    if name == "accuracy" and rows:
        return accuracy_figure(rows)
    if name == "roofline":
        return roofline_figure(record)
    if name == "plan":
        return plan_figure(record)
    title = f"{name}: {record.get('title') or record['command'].removeprefix('python tools/bench_throughput.py ')}"
    if any(row.values for row in rows):
        return _row_bars(title, rows)
    return _quantile_bars(title, quantiles) if quantiles else None


def _row_bars(title: str, rows: Sequence[Row]) -> "Figure":
    shown = next(column for column in (*_BARS_OF, *COLUMNS) if any(column in row.values for row in rows))
    heading, factor = COLUMNS[shown]
    labels = [", ".join(part for part in (row.case, row.variant, row.precision) if part) for row in rows]
    values = [factor * row.values.get(shown, 0.0) for row in rows]
    notes = [
        row.note if row.seconds is None else f"{number(value)}   {1e3 * row.seconds['p50']:.3g} ms"
        for row, value in zip(rows, values, strict=True)
    ]
    colours = [RIGHT if row.variant.startswith(OURS) else NEUTRAL for row in rows]
    return _bars(title, heading, labels, values, notes, colours)


def _quantile_bars(title: str, quantiles: Mapping[str, Mapping[str, float]]) -> "Figure":
    """A panel for each unit: milliseconds and megabytes have no axis in common."""
    panels: dict[str, dict[str, Mapping[str, float]]] = {}
    for label, values in quantiles.items():
        panels.setdefault(_unit_of(label), {})[label] = values
    figure = new_figure(9, 0.5 + 0.7 * len(panels) + 0.42 * len(quantiles))
    heights = {"height_ratios": [len(each) + 0.5 for each in panels.values()]}
    axes = figure.subplots(len(panels), 1, squeeze=False, gridspec_kw=heights)[:, 0]
    for one, (unit, each) in zip(axes, panels.items(), strict=True):
        values = [q["p50"] for q in each.values()]
        notes = [f"{number(q['p50'])} ({number(q['p20'])} to {number(q['p80'])})" for q in each.values()]
        reach = [(q["p50"] - q["p20"], q["p80"] - q["p50"]) for q in each.values()]
        heading = f"{unit}, median (20th to 80th percentile)".lstrip(", ")
        _draw_bars(one, heading, list(each), values, notes, [RIGHT] * len(values), reach)
    axes[0].set_title(wrapped(title, 6, 10), fontsize=10, parse_math=False)
    return figure


def _unit_of(label: str) -> str:
    """The unit of what a benchmark calls so; "" where the name does not tell."""
    if " / " in label:
        return "ratio"
    return next((unit for end, unit in _UNITS.items() if label.endswith(end)), "")


def save_bars(
    path: Path, title: str, unit: str, labels: Sequence[str], values: Sequence[float], notes: Sequence[str], ours: str
) -> None:
    """Bars of a benchmark that draws more than the one picture of its record; those whose label begins with `ours`
    are coloured."""
    colours = [RIGHT if label.startswith(ours) else NEUTRAL for label in labels]
    save_figure(_bars(title, unit, labels, values, notes, colours), path)


def _bars(
    title: str, unit: str, labels: Sequence[str], values: Sequence[float], notes: Sequence[str], colours: Sequence[str]
) -> "Figure":
    """Horizontal bars with their numbers beside them."""
    figure = new_figure(9, 1.2 + 0.42 * len(labels))
    axes = figure.subplots()
    _draw_bars(axes, unit, labels, values, notes, colours)
    axes.set_title(wrapped(title, 6, 10), fontsize=10, parse_math=False)
    return figure


def _draw_bars(
    axes: "Axes",
    unit: str,
    labels: Sequence[str],
    values: Sequence[float],
    notes: Sequence[str],
    colours: Sequence[str],
    reach: Sequence[tuple[float, float]] = (),
) -> None:
    """reach: how far below and above each value its error bar goes."""
    indices = range(len(labels))
    axes.barh(indices, values, color=colours, height=0.7)
    ends = list(values)
    if reach:
        axes.errorbar(values, indices, xerr=np.transpose(reach), fmt="none", ecolor="black", capsize=3, linewidth=1)
        ends = [value + above for value, (_, above) in zip(values, reach, strict=True)]
    for index, end, note in zip(indices, ends, notes, strict=True):
        axes.text(end, index, f" {note}", va="center", fontsize=8, parse_math=False)
    axes.set_yticks(indices, labels, fontsize=9, parse_math=False)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.set_xlim(0, 1.4 * max([*ends, 1e-9]))  # room for the notes
    axes.set_xlabel(unit)
    open_frame(axes)


def accuracy_figure(rows: Sequence[Row]) -> "Figure":
    """Mean-class accuracy (full; top-1 of records without it) and top-5 (dashed) over videos a second, log x.

    A line for each model, form and precision. Its points are the numbers of clips a video; their label says how many.
    """
    figure = new_figure(9, 6.6)
    axes = figure.subplots()
    lines: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        lines.setdefault((row.case, row.precision), []).append(row)
    main = "mean_class" if all("mean_class" in row.values for row in rows) else "top1"
    for colour, ((case, precision), points) in zip(series_colors(len(lines)), lines.items(), strict=True):
        speed = [row.values["videos_per_s"] for row in points]
        for column, style in ((main, "-"), ("top5", "--")):
            share = [100 * row.values[column] for row in points]
            label = f"{case}, {precision}: {COLUMNS[column][0]}"
            axes.plot(speed, share, style, marker="o", markersize=4, color=colour, label=label)
        for row, x in zip(points, speed, strict=True):
            point = (x, 100 * row.values[main])
            axes.annotate(row.variant.split()[0], point, (0, 6), textcoords="offset points", fontsize=8, ha="center")
    axes.set_xscale("log")
    axes.set_ylim(0, 104)
    axes.set_xlabel("videos a second, decoding included (log)")
    axes.set_ylabel("zero-shot accuracy, %")
    axes.set_title("Accuracy and throughput by clips a video", fontsize=10)
    axes.grid(alpha=0.3)
    legend_below(axes)
    return figure


def roofline_figure(record: Mapping[str, Any]) -> "Figure":
    """A panel for each form: its operations as points, area their share of the step, under the device's roof."""
    panels = record["panels"]
    figure = new_figure(8 * len(panels), 7)
    kinds = list(dict.fromkeys(point["kind"] for panel in panels for point in panel["points"]))
    colours = dict(zip(kinds, series_colors(len(kinds)), strict=True))
    for axes, panel in zip(
        np.atleast_1d(figure.subplots(1, len(panels), sharex=True, sharey=True)), panels, strict=True
    ):
        _draw_roof(axes, record["peak"], panel["precision"])
        for point in panel["points"]:
            if point["time_share"] < _LEAST_SHARE:
                continue
            speed, intensity = point["flop"] / point["seconds"], point["flop"] / max(point["bytes"], 1)
            axes.scatter(
                intensity, speed, s=4000 * point["time_share"], color=colours[point["kind"]], alpha=0.6, linewidth=0
            )
        axes.set_title(
            f"{panel['variant']}, {panel['precision']}: {number(1e3 * panel['step_s'])} ms a step", fontsize=10
        )
        axes.set_xlabel("FLOP per byte that must move (log)")
        for kind in kinds:
            share = sum(point["time_share"] for point in panel["points"] if point["kind"] == kind)
            axes.scatter([], [], color=colours[kind], label=f"{kind}: {share:.0%} of the time")
        legend_below(axes, columns=2)
        axes.grid(alpha=0.3, which="both")
    figure.suptitle(f"Where a training step's time goes: {record['title']}", fontsize=11)
    figure.axes[0].set_ylabel("FLOP a second (log)")
    return figure


def _draw_roof(axes: "Axes", peak: Mapping[str, Any], precision: str) -> None:
    """Memory's slope and the peak of each precision; that of the panel in black."""
    intensity = np.logspace(-2, 3, 200)
    for name, tflops in peak["tflops"].items():
        colour = "black" if name == precision else NEUTRAL
        roof = np.minimum(intensity * peak["gb_per_s"] * 1e9, tflops * 1e12)
        axes.plot(intensity, roof, color=colour, linewidth=1)
        axes.annotate(f"{name} {number(tflops)} TFLOP/s", (1e3, tflops * 1e12), ha="right", va="bottom", fontsize=8)
    slope = f"memory {number(peak['gb_per_s'])} GB/s"
    axes.annotate(slope, (0.4, 0.3 * peak["gb_per_s"] * 1e9), ha="left", va="top", fontsize=8)
    axes.set_xscale("log")
    axes.set_yscale("log")
    highest = max(peak["tflops"].values()) * 1e12
    axes.set_xlim(0.01, 2000)
    axes.set_ylim(0.002 * peak["gb_per_s"] * 1e9, 6 * highest)
