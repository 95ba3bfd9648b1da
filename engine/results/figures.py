"""The look of every figure: its colours, its size in pixels, bars and frames, and its way into a file or an array.

Figures are drawn without a display and without global state. `save_figure` writes one as PNG, `figure_array` turns it into
an array for TensorBoard's `add_image(..., dataformats="HWC")`.
"""

import colorsys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

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


def save_figure(figure: "Figure", path: Path) -> None:
    """Write a figure as PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fit_scripts(figure)
    figure.savefig(path, dpi=_DPI, format="png")


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


def accuracy_axis(axes: "Axes", title: str = "") -> None:
    """Axes with accuracy upwards."""
    axes.set_ylabel("top-1 accuracy, %")
    axes.set_title(title, fontsize=10, parse_math=False)
    open_frame(axes)


def accuracy_bars(axes: "Axes", bars: Sequence[Bar], title: str = "") -> float:
    """Bars in per cent with their numbers above them; returns the highest end of a bar's error."""
    indices = np.arange(len(bars))
    values, errors = [100 * bar.value for bar in bars], [100 * bar.error for bar in bars]
    axes.bar(indices, values, color=[bar.color for bar in bars], width=0.65)
    for index, value, error in zip(indices, values, errors, strict=True):
        if error:
            axes.errorbar(index, value, yerr=error, color="black", capsize=4)
        axes.text(index, value + error + 1, f"{value:.1f} %", ha="center", va="bottom", fontsize=9)
    axes.set_xticks(indices, [textwrap.fill(bar.label, 14) for bar in bars], fontsize=9, parse_math=False)
    accuracy_axis(axes, title)
    return max((value + error for value, error in zip(values, errors, strict=True)), default=1.0)
