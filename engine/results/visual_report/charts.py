"""Where things go in the charts: plain geometry in units of the picture (x right, y down).

page.html draws it as SVG, `figures` for TensorBoard. As SVG a chart follows the reader's colours, light or dark, stays sharp
on a phone, and tells a point's name without a script.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from engine.evaluation.metrics import ZeroShotResult
from engine.results.figures import class_colors
from engine.results.labels import Label, place_labels, short, text_width
from engine.results.visual_report.embedding_map import EmbeddingMap
from engine.results.visual_report.findings import Findings

Spelling = Callable[[str], str]
_LABEL = 13.0  # 12 in page.css, and bold, which is wider
_MOST_NAMED = 60  # classes of a confusion matrix with names: of more it is drawn as a whole, which fits a screen
_PLANE, _DISTANCES = (760, 560), (760, 360)  # width and height of the charts
_WHOLE, _LEAST_SQUARE = 700.0, 4.0  # sides of that picture, and of the smallest square that is seen in it


@dataclass(frozen=True, slots=True)
class Cell:
    """Videos of one class that were given one name."""

    x: float
    y: float
    share: float
    count: int
    is_right: bool
    title: str


@dataclass(frozen=True, slots=True)
class ConfusionChart:
    """Rows are true classes, columns answers; `marks`: (place along the axis, name) of the classes, empty where they are too
    many to be named. square: side of what is drawn in the middle of a cell."""

    width: float
    height: float
    left: float
    top: float
    cell: float
    square: float
    font: float
    side: float
    marks: tuple[tuple[float, str], ...]
    cells: tuple[Cell, ...]
    shows_counts: bool


@dataclass(frozen=True, slots=True)
class Point:
    """A dot of a chart, with what it tells when pointed at."""

    x: float
    y: float
    color: str
    title: str
    is_right: bool = True


@dataclass(frozen=True, slots=True)
class PlaneChart:
    """t-SNE: `videos` as dots, `classes` as larger marks with `labels`."""

    width: float
    height: float
    videos: tuple[Point, ...]
    classes: tuple[Point, ...]
    labels: tuple[Label, ...]


@dataclass(frozen=True, slots=True)
class DistanceChart:
    """Accuracy of the classes over the distance to the nearest seen class; `x_ticks`, `y_ticks`: (place, text)."""

    width: float
    height: float
    left: float
    right: float
    top: float
    bottom: float
    chance_y: float
    points: tuple[Point, ...]
    labels: tuple[Label, ...]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]


def confusion_chart(result: ZeroShotResult) -> ConfusionChart:
    """The confusion matrix; only cells with videos are drawn, so that hundreds of classes are no burden."""
    num_classes = len(result.classes)
    is_named = num_classes <= _MOST_NAMED
    cell = 30.0 if num_classes <= 16 else 20.0 if num_classes <= 40 else 12.0 if is_named else _WHOLE / num_classes
    square = max(cell - 2, _LEAST_SQUARE)
    font = 12.0 if num_classes <= 40 else 10.0
    names = [short(name) for name in result.classes] if is_named else []
    room = 12 + max(text_width(name, font) for name in names) if is_named else 8
    totals = np.maximum(result.confusion.sum(axis=1), 1)
    cells = []
    for true, predicted in np.argwhere(result.confusion > 0).tolist():
        count = int(result.confusion[true, predicted])
        title = f"{result.classes[true]} → {result.classes[predicted]}: {count} of {totals[true]}"
        x, y = room + predicted * cell, room + true * cell
        cells.append(Cell(x, y, count / totals[true], count, true == predicted, title))
    marks = tuple((room + (i + 0.5) * cell, name) for i, name in enumerate(names))
    side = num_classes * cell
    size = room + side + 8
    return ConfusionChart(size, size, room, room, cell, square, font, side, marks, tuple(cells), cell >= 20)


def plane_chart(result: ZeroShotResult, plane: EmbeddingMap, spell: Spelling = str) -> PlaneChart:
    """The t-SNE of videos among class names; `spell` as in `distance_chart`."""
    colors = class_colors(len(result.classes))
    (width, height), edge = _PLANE, 30.0

    def in_chart(points: np.ndarray) -> list[tuple[float, float]]:
        scaled = edge + points * (width - 2 * edge, height - 2 * edge)
        return [(round(x, 1), round(y, 1)) for x, y in scaled.tolist()]

    videos = []
    for (x, y), video in zip(in_chart(plane.videos), plane.places.tolist(), strict=True):
        true, nearest = int(result.labels[video]), int(result.predicted[video, 0])
        said = "named right" if true == nearest else f"taken for {result.classes[nearest]}"
        videos.append(Point(x, y, colors[true], f"{result.classes[true]}, {said}", true == nearest))
    spots = in_chart(plane.classes)
    classes = [Point(x, y, colors[i], result.classes[i]) for i, (x, y) in enumerate(spots)]
    dots = [(video.x, video.y) for video in videos]
    labels = place_labels(spots, list(map(spell, result.classes)), _LABEL, width, height, dots=dots)
    return PlaneChart(width, height, tuple(videos), tuple(classes), labels)


def distance_chart(findings: Findings, spell: Spelling = str) -> DistanceChart | None:
    """Accuracy of each unseen class that has videos over its distance to the nearest seen class; None without distances.

    spell: how names are written: as they are, or as a PNG can show them.
    """
    result = findings.result
    pairs = zip(findings.nearest_seen, result.per_class, strict=False)
    rows = [(near, row) for near, row in pairs if row.num_videos and row.name not in (result.seen_classes or ())]
    if not rows:
        return None
    width, height = _DISTANCES
    left, right, top, bottom = 52.0, width - 16, 30.0, height - 44
    distances = [near.distance for near, _ in rows]
    step = _tick_step(max(distances) - min(distances))
    first, last = min(distances) // step, max(distances) // step + 1  # ticks, in steps

    def x_of(distance: float) -> float:
        return left + (distance / step - first) / (last - first) * (right - left)

    def y_of(share: float) -> float:
        return bottom - share * (bottom - top)

    points, names = [], []
    for near, row in rows:
        title = f"{row.name}: {row.top1:.0%} of {row.num_videos}; nearest seen class {near.name}, {near.distance:.3f}"
        points.append(Point(round(x_of(near.distance), 1), round(y_of(row.top1), 1), class_colors(1)[0], title))
        names.append(spell(row.name))
    return DistanceChart(
        width, height, left, right, top, bottom, y_of(result.all_classes.chance_top1), tuple(points),
        place_labels([(p.x, p.y) for p in points], names, _LABEL, width, bottom, left),
        tuple((x_of(i * step), f"{i * step:g}") for i in range(int(first), int(last) + 1)),
        tuple((y_of(i / 4), f"{25 * i} %") for i in range(5)),
    )  # fmt: skip


def _tick_step(reach: float) -> float:
    return next(step for step in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5) if reach / step <= 7 or step == 0.5)
