"""The look of every figure: its colours, its size in pixels, bars and frames, and its way into a file or an array.

Figures are drawn without a display and without global state. `save_figure` writes one as PNG, `figure_array` turns it into
an array for TensorBoard's `add_image(..., dataformats="HWC")`.
"""

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from engine.errors import writing
from engine.results.accuracy import percent
from engine.results.labels import Label, short, wrapped
from engine.results.scripts import fit_scripts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Told apart by colour-blind readers too (Okabe and Ito).
BLUE, VERMILION, ORANGE, GREEN = "#0072B2", "#D55E00", "#E69F00", "#009E73"
PINK, SKY, YELLOW, GREY = "#CC79A7", "#56B4E9", "#F0E442", "#999999"
RIGHT, WRONG, OTHER, NEUTRAL = BLUE, VERMILION, ORANGE, GREY
SERIES = (BLUE, VERMILION, ORANGE, GREEN, PINK, SKY, YELLOW)  # of lines and kinds that follow each other
LINE = "#dddddd"
BEHIND = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.5}  # behind text that lines may cross
_CLASSES = (  # seen on white and on black
    "#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#b07aa1", "#76b7b2",
    "#d4a518", "#ff7d90", "#9c755f", "#8086d9", "#3f9e8f", "#a0a338",
)  # fmt: skip
_DPI = 100


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar of accuracy: a share in [0, 1], with its standard deviation or error where there is one."""

    label: str
    value: float
    error: float = 0.0
    color: str = RIGHT


def class_colors(count: int) -> list[str]:
    """A colour for each class, "#rrggbb": told apart on white and on black, as far as so many can be."""
    if count <= len(_CLASSES):
        return list(_CLASSES[:count])
    parts = [colorsys.hls_to_rgb(i / count, (0.5, 0.62)[i % 2], 0.55) for i in range(count)]
    return ["#" + "".join(f"{round(255 * part):02x}" for part in color) for color in parts]


def series_colors(count: int) -> list[str]:
    """The colours of `SERIES` in turn."""
    return [SERIES[index % len(SERIES)] for index in range(count)]


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure of so many inches, of 100 pixels each."""
    from matplotlib.figure import Figure  # not pyplot: that keeps every figure and may want a display

    return Figure(figsize=(width, height), dpi=_DPI, layout="constrained")


def save_figure(figure: "Figure", path: Path) -> np.ndarray:
    """Write a figure as PNG; returns its pixels, as `figure_array` does, so that they are drawn once."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = figure_array(figure)  # `savefig` gives the same, but lays everything out twice
    with writing(path):
        Image.fromarray(pixels).save(path, format="PNG", dpi=(_DPI, _DPI))
    return pixels


def figure_array(figure: "Figure") -> np.ndarray:
    """A figure as pixels: uint8 [H, W, 3]."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    fit_scripts(figure)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def open_frame(axes: "Axes") -> None:
    """Without the lines above and to the right."""
    axes.spines[["top", "right"]].set_visible(False)


def say_nothing(axes: "Axes", reason: str) -> None:
    """Instead of an empty chart a sentence that says why."""
    axes.set_axis_off()
    axes.text(0.5, 0.5, reason, ha="center", va="center", fontsize=11, transform=axes.transAxes)


def draw_label(axes: "Axes", label: Label, points: float) -> None:
    """A placed label, in axes whose units are those that it was placed in; nothing where there was no room."""
    sides = {"start": "left", "end": "right", "middle": "center"}
    if label.text:
        axes.text(label.x, label.y, label.text, ha=sides[label.anchor], fontsize=points, parse_math=False, bbox=BEHIND)


def accuracy_axis(axes: "Axes", title: str = "", inches: float = 5.0) -> None:
    """Axes with accuracy upwards, from zero to above all that is drawn, under a title of at most so many inches."""
    axes.set_ylabel("mean-class accuracy, %")
    # Of points that lie close together matplotlib cuts the topmost.
    axes.set_ylim(0, max(axes.get_ylim()[1], 1.05 * axes.dataLim.y1))
    axes.set_title(wrapped(title, inches, 10), fontsize=10, parse_math=False)
    open_frame(axes)


def legend_below(axes: "Axes", columns: int = 1) -> None:
    """The legend under the axes, where it covers nothing."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        shown = [short(label, 60) for label in labels]
        height = -0.16 if axes.get_xlabel() else -0.02
        axes.legend(handles, shown, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, height), ncols=columns)


def accuracy_bars(axes: "Axes", bars: Sequence[Bar], title: str = "", inches: float = 5.0) -> float:
    """Bars in per cent with their numbers above them; returns the highest end of a bar's error.

    Each needs 0.95 inches. inches: of the title, at most.
    """
    values, errors = [100 * bar.value for bar in bars], [100 * bar.error for bar in bars]
    axes.bar(range(len(bars)), values, color=[bar.color for bar in bars], width=0.65)
    for index, (bar, value, error) in enumerate(zip(bars, values, errors, strict=True)):
        if error:
            axes.errorbar(index, value, yerr=[[min(value, error)], [error]], color="black", capsize=4)
        above = {"xytext": (0, 3), "textcoords": "offset points", "ha": "center", "va": "bottom"}
        axes.annotate(f"{percent(bar.value)} %", (index, value + error), fontsize=9, bbox=BEHIND, **above)
    names = [wrapped(bar.label, 0.95, 9, lines=3) for bar in bars]
    axes.set_xticks(range(len(bars)), names, fontsize=9, parse_math=False)
    accuracy_axis(axes, title, inches)
    return max((value + error for value, error in zip(values, errors, strict=True)), default=1.0)
