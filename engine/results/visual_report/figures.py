"""The findings as matplotlib figures, for TensorBoard: what the HTML page shows, from the same `charts`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from engine.results.figures import LINE, RIGHT, WRONG, draw_label, new_figure
from engine.results.labels import Label, short
from engine.results.pictures import draw_strip
from engine.results.visual_report.charts import DistanceChart, PlaneChart, Point
from engine.results.visual_report.contact_sheets import NUM_FRAMES, ContactSheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def contact_sheet_figure(sheets: Sequence[ContactSheet]) -> "Figure":
    """A row of frames for each video, under what the model said of it."""
    figure = new_figure(9, 1.75 * len(sheets))
    for axes, sheet in zip(figure.subplots(len(sheets), squeeze=False)[:, 0], sheets, strict=True):
        verdict = "right" if sheet.is_right else f"wrong: it is {short(sheet.true)} ({sheet.true_cosine:.2f})"
        title = f"{short(sheet.predicted)} (cosine {sheet.cosine:.2f}), {verdict}"
        draw_strip(axes, sheet.frames, title, NUM_FRAMES, RIGHT if sheet.is_right else WRONG)
        if sheet.frames is None:
            axes.text(0, 0.5, f"cannot be shown: {sheet.problem}", fontsize=8, wrap=True, parse_math=False)
    return figure


def plane_figure(chart: PlaneChart) -> "Figure":
    """t-SNE: videos in the colour of their true class (hollow where named wrong), class vectors as diamonds."""
    figure, axes = _canvas(chart.width, chart.height)
    edges = [point.color for point in chart.videos]
    faces = [point.color if point.is_right else "none" for point in chart.videos]
    axes.scatter(*_places(chart.videos), s=22, c=faces, edgecolors=edges, linewidths=0.9)
    axes.scatter(
        *_places(chart.classes), s=75, c=[point.color for point in chart.classes], marker="D", edgecolors="black"
    )
    _name(axes, chart.labels)
    return figure


def distance_figure(chart: DistanceChart) -> "Figure":
    """Accuracy of each class that has videos over the distance of its name to the nearest seen class."""
    figure, axes = _canvas(chart.width, chart.height)
    for y, text in chart.y_ticks:
        axes.plot([chart.left, chart.right], [y, y], color=LINE, linewidth=0.8)
        axes.text(chart.left - 8, y, text, ha="right", va="center", fontsize=9)
    for x, text in chart.x_ticks:
        axes.text(x, chart.bottom + 8, text, ha="center", va="top", fontsize=9)
    middle = (chart.left + chart.right) / 2
    axes.text(middle, chart.height - 2, "cosine distance to the nearest seen class", ha="center", fontsize=9)
    axes.plot([chart.left, chart.right], [chart.chance_y] * 2, color=WRONG, linestyle="--", linewidth=1)
    axes.scatter(*_places(chart.points), c=RIGHT, s=36, zorder=3)
    _name(axes, chart.labels)
    return figure


def _places(points: Sequence[Point]) -> tuple[list[float], list[float]]:
    return [point.x for point in points], [point.y for point in points]


def _name(axes: "Axes", labels: Sequence[Label]) -> None:
    for label in labels:
        draw_label(axes, label, 8.5)


def _canvas(width: float, height: float) -> tuple["Figure", "Axes"]:
    """A figure in the units of a chart: x to the right, y down."""
    figure = new_figure(width / 80, height / 80)
    axes = figure.subplots()
    axes.set_axis_off()
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    return figure, axes
