"""Charts of experiments: curves with error bars, bars, points of the word space.

Each `*_figure` returns a matplotlib `Figure`; accuracies come in as shares and are shown in per cent.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from engine.results.figures import (
    BEHIND,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PINK,
    SKY,
    VERMILION,
    YELLOW,
    Bar,
    accuracy_axis,
    accuracy_bars,
    draw_label,
    legend_below,
    new_figure,
)
from engine.results.labels import place_labels, wrapped
from engine.results.scripts import drawable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class Estimate(Protocol):
    """A mean and its standard error."""

    @property
    def value(self) -> float: ...

    @property
    def error(self) -> float: ...


@dataclass(frozen=True)
class Line:
    """A curve: places, values and standard errors of one length. marks: texts at its points, which are then shaded.
    band: the errors (whatever they are) as a band, not as bars."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    error: Sequence[float]
    color: str
    style: str = "-"
    marks: Sequence[str] | None = None
    band: bool = False


@dataclass(frozen=True)
class Panel:
    """The curves of one test set, and the chance level."""

    title: str
    xlabel: str
    lines: Sequence[Line]
    chance: float | None = None
    log: bool = False


def lines_figure(panels: Sequence[Panel], title: str) -> "Figure | None":
    """Curves side by side, a panel for each test set; accuracy upwards, error bars of one standard error. None of nothing."""
    if not panels:
        return None
    figure = new_figure(6.2 * len(panels) + 0.3, 4.4 + 0.2 * max(len(panel.lines) for panel in panels))
    figure.suptitle(wrapped(title, figure.get_figwidth() - 0.5, 12), fontsize=12, parse_math=False)
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for line in panel.lines:
            _draw_line(axes, line)
        _chance_line(axes, panel.chance)
        if panel.log:
            axes.set_xscale("log")
            ticks = sorted({round(x) for line in panel.lines for x in line.x})
            axes.set_xticks(_apart(ticks), [f"{tick:,}" for tick in _apart(ticks)])
            axes.minorticks_off()
        axes.set_xlabel(panel.xlabel)
        accuracy_axis(axes, panel.title)
        legend_below(axes)
        axes.grid(alpha=0.3)
    return figure


def _draw_line(axes: "Axes", line: Line) -> None:
    y, error = 100 * np.array(line.y), 100 * np.array(line.error)
    if line.band:
        axes.fill_between(line.x, y - error, y + error, color=line.color, alpha=0.15, linewidth=0)
    bars = None if line.band else error
    axes.errorbar(
        line.x, y, yerr=bars, color=line.color, linestyle=line.style, marker="" if line.marks else "o", capsize=3,
        markersize=5, linewidth=1.5, label=line.label,
    )  # fmt: skip
    if line.marks is None:
        return
    light = np.linspace(0, 0.75, len(line.x))  # brighter with every step, as in the paper
    for x, value, mark, share in zip(line.x, y, line.marks, light, strict=True):
        axes.plot([x], [value], "o", color=_lighter(line.color, share), markeredgecolor=line.color, markersize=7)
        axes.annotate(
            mark, (x, value), xytext=(5, 5), textcoords="offset points", fontsize=8, color=line.color, bbox=BEHIND
        )


def _lighter(color: str, share: float) -> tuple[float, ...]:
    from matplotlib.colors import to_rgb

    return tuple(part + (1 - part) * share for part in to_rgb(color))


def _apart(ticks: Sequence[int], ratio: float = 1.25) -> list[int]:
    """The ticks that are far enough from the one before to be read on a logarithmic axis."""
    kept: list[int] = []
    for tick in ticks:
        if tick > 0 and (not kept or tick >= ratio * kept[-1]):
            kept.append(tick)
    return kept


_LOWEST_TOP = 5.0  # per cent, of an axis of accuracy


def bars_figure(
    panels: Sequence[tuple[str, Sequence[tuple[str, Estimate]], float | None]], title: str
) -> "Figure | None":
    """Bars with standard errors: for each test set its name, (label, mean) for each bar, and the chance level. None of nothing."""
    if not any(bars for _, bars, _ in panels):
        return None
    widest = max(len(bars) for _, bars, _ in panels)
    wide = 1.05 * widest + 1.6
    figure = new_figure(wide * len(panels) + 0.3, 4.6)
    figure.suptitle(wrapped(title, figure.get_figwidth() - 0.3, 12), fontsize=12, parse_math=False)
    for axes, (name, bars, chance) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        highest = accuracy_bars(axes, [Bar(label, mean.value, mean.error) for label, mean in bars], name, wide - 0.5)
        axes.set_ylim(0, max(1.15 * highest, _LOWEST_TOP))
        _chance_line(axes, chance)
        if chance is not None:
            axes.set_xlim(-0.6, len(bars) + 0.05)  # room for the word
            place = {"xycoords": ("axes fraction", "data"), "xytext": (-2, 2), "textcoords": "offset points"}
            axes.annotate("chance", (1, 100 * chance), ha="right", va="bottom", fontsize=8, color=GREY, **place)
    return figure


def _chance_line(axes: "Axes", chance: float | None) -> None:
    if chance is not None:
        axes.axhline(100 * chance, color=GREY, linestyle=":", linewidth=1.2, label="chance")


@dataclass(frozen=True)
class Steps:
    """A method of Figure 7: accuracy on the classes at least so far away, and class by class."""

    label: str
    thresholds: Sequence[float]
    accuracy: Sequence[float]
    distances: Sequence[float]
    single: Sequence[float]


_STEP_COLORS = (ORANGE, BLUE, GREEN, PINK, VERMILION, SKY, YELLOW)


def steps_figure(panels: Sequence[tuple[str, Sequence[Steps]]], xlabel: str) -> "Figure | None":
    """For each test set the accuracy over distance, cumulative (left) and of each class (right). None of nothing."""
    if not panels:
        return None
    most = max(len(curves) for _, curves in panels)
    figure = new_figure(11.5, (4.2 + 0.2 * most) * len(panels) + 0.2)
    for (left, right), (name, curves) in zip(figure.subplots(len(panels), 2, squeeze=False), panels, strict=True):
        for index, curve in enumerate(curves):
            color = _STEP_COLORS[index % len(_STEP_COLORS)]
            look = {"color": color, "label": curve.label, "clip_on": False}  # points at zero are whole
            left.plot(curve.thresholds, 100 * np.array(curve.accuracy), "o-", markersize=3, **look)
            right.plot(curve.distances, 100 * np.array(curve.single), "o", alpha=0.7, **look)
        for axes, which in ((left, "classes at least so far away"), (right, "each class")):
            accuracy_axis(axes, f"{name}: {which}")
            axes.set_xlabel(xlabel)
            axes.grid(alpha=0.3)
            legend_below(axes)
    return figure


@dataclass(frozen=True)
class Cloud:
    """Classes of one set and kind ("training", "removed" or "test") as points [N, 2]."""

    label: str
    kind: str
    places: np.ndarray
    names: Sequence[str]


_MANY = 90  # classes: of more the names would fill the picture
_DOTS = (VERMILION, BLUE, GREEN, PINK)
_CROSSES = ("black", SKY, YELLOW, GREEN)
_PLANE = (1000, 800)  # pixels
_NAME = 7  # points


def points_figure(clouds: Sequence[Cloud]) -> "Figure | None":
    """Training classes as dots, removed ones grey, test classes as crosses (paper Fig. 2); names where there is room.

    None where there are no classes.
    """
    if not any(cloud.names for cloud in clouds):
        return None
    width, height = _PLANE
    figure = new_figure(width / 100 + 0.2, height / 100 + 0.4 + 0.2 * len(clouds))
    axes = figure.subplots()
    axes.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])
    places = _in_pixels([cloud.places for cloud in clouds])
    named = sum(len(cloud.names) for cloud in clouds) <= _MANY
    sources = list(dict.fromkeys(c.label.rpartition(":")[0] for c in clouds if c.kind != "test"))
    num_tests = 0
    for cloud, spots in zip(clouds, places, strict=True):
        if cloud.kind == "test":
            color, marker = _CROSSES[num_tests % len(_CROSSES)], "x"
            num_tests += 1
        else:
            color, marker = _DOTS[sources.index(cloud.label.rpartition(":")[0]) % len(_DOTS)], "o"
        color = GREY if cloud.kind == "removed" else color
        label = f"{cloud.label} ({len(cloud.names)})"
        axes.scatter(*spots.T, c=color, marker=marker, s=28 if named else 10, label=label)
    if named:
        names = [drawable(name) for cloud in clouds for name in cloud.names]
        for label in place_labels(np.concatenate(places).tolist(), names, _NAME * 100 / 72, width, height):
            draw_label(axes, label, _NAME)
    legend_below(axes, columns=3)
    return figure


def _in_pixels(clouds: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Points [N, 2] of all clouds in the picture, y down, away from its edges."""
    every = np.concatenate(clouds).astype(np.float64)
    low, reach = every.min(axis=0), np.maximum(np.ptp(every, axis=0), 1e-12)
    scale = np.array(_PLANE) - 80
    return [40 + scale * ((points - low) / reach * (1, -1) + (0, 1)) for points in clouds]
