"""The findings as matplotlib figures, for TensorBoard (the HTML page draws its own, see `charts`)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from engine.metrics import ZeroShotResult
from engine.pictures import DPI, RIGHT, WRONG, clip_strip
from engine.visual_report.charts import class_colors, short
from engine.visual_report.contact_sheets import ContactSheet
from engine.visual_report.embedding_map import EmbeddingMap
from engine.visual_report.findings import Findings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NAMED = 60  # classes from which on names would cover the points


def contact_sheet_figure(sheets: Sequence[ContactSheet]) -> "Figure":
    """A row of frames for each video, under what the model said of it."""
    figure = _figure(9, 1.75 * len(sheets))
    for axes, sheet in zip(figure.subplots(len(sheets), squeeze=False)[:, 0], sheets, strict=True):
        axes.set_axis_off()
        verdict = "right" if sheet.is_right else f"wrong: it is {sheet.true} ({sheet.true_cosine:.2f})"
        title = f"{sheet.predicted} (cosine {sheet.cosine:.2f}), {verdict}"
        axes.set_title(title, fontsize=9, loc="left", color=RIGHT if sheet.is_right else WRONG, parse_math=False, pad=3)
        if sheet.frames is None:
            axes.text(0, 0.5, f"cannot be shown: {sheet.problem}", fontsize=8, wrap=True, parse_math=False)
        else:
            axes.imshow(clip_strip(sheet.frames, num_shown=len(sheet.frames)))
    return figure


def plane_figure(result: ZeroShotResult, plane: EmbeddingMap) -> "Figure":
    """t-SNE: videos in the colour of their true class (hollow where named wrong), class vectors as diamonds."""
    figure = _figure(10, 7.5)
    axes = figure.subplots()
    colors = np.array(class_colors(len(result.classes)), dtype=object)
    labels = result.labels[plane.places]
    is_right = result.predicted[plane.places, 0] == labels
    x, y = plane.videos[:, 0], 1 - plane.videos[:, 1]  # as on the page, where y runs down
    edges = colors[labels].tolist()
    faces = [color if right else "none" for color, right in zip(edges, is_right, strict=True)]
    axes.scatter(x, y, s=18, c=faces, edgecolors=edges, linewidths=0.8)
    axes.scatter(plane.classes[:, 0], 1 - plane.classes[:, 1], s=70, c=colors.tolist(), marker="D", edgecolors="black")
    if len(result.classes) <= _NAMED:
        for (at_x, at_y), name in zip(plane.classes.tolist(), result.classes, strict=True):
            axes.annotate(
                short(name), (at_x, 1 - at_y), (6, 4), textcoords="offset points", fontsize=9, parse_math=False
            )
    axes.set_axis_off()
    axes.set_title("videos (dots; hollow: named wrong) among class names (diamonds), t-SNE", fontsize=11)
    return figure


def distance_figure(findings: Findings) -> "Figure":
    """Accuracy of each class over the distance of its name to the nearest seen class."""
    figure = _figure(9, 5)
    axes = figure.subplots()
    rows = [
        (near.distance, row.top1, row.name)
        for near, row in zip(findings.nearest_seen, findings.result.per_class, strict=True)
        if row.num_videos
    ]
    axes.scatter([row[0] for row in rows], [100 * row[1] for row in rows], c=RIGHT, s=30)
    if len(rows) <= _NAMED:
        for distance, top1, name in rows:
            axes.annotate(
                short(name), (distance, 100 * top1), (5, 4), textcoords="offset points", fontsize=8, parse_math=False
            )
    axes.axhline(100 * findings.result.all_classes.chance_top1, color=WRONG, linestyle="--", linewidth=1)
    axes.set_xlabel("cosine distance to the nearest seen class")
    axes.set_ylabel("top-1 accuracy, % (dashed: chance)")
    axes.set_xlim(left=0)
    axes.set_ylim(-4, 104)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=DPI, layout="constrained")
