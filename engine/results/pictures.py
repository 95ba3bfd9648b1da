"""Pictures of results and of clips: each `*_figure` returns a matplotlib `Figure` (see `engine/results/figures.py`)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from engine.data.batch import ClipFormat, VideoDecoder
from engine.data.sets.sources import DataSet
from engine.evaluation.metrics import ZeroShotResult
from engine.evaluation.snippets import middle_snippets
from engine.results.accuracy import percent
from engine.results.figures import BEHIND, RIGHT, WRONG, Bar, accuracy_bars, new_figure, say_nothing
from engine.results.labels import short, wrapped
from engine.semantics.overlap import Neighbour

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LABEL_INCHES = 0.13  # least distance of two readable labels
_STRIP_FRAMES = 6  # of a video on the page of results
_TALLEST = 600.0  # inches, of 100 pixels: matplotlib draws no more than 2**16 pixels


@dataclass(frozen=True, slots=True)
class Strip:
    """A video and what the model said of it. frames: uint8 [T, H, W, C]."""

    frames: np.ndarray
    true: str
    predicted: str
    cosine: float


def clip_strip(frames: np.ndarray, num_shown: int) -> np.ndarray:
    """Evenly spaced frames of a clip side by side: uint8 [T, H, W, C] -> [H, W', C], white gaps of two pixels."""
    shown = np.rint(np.linspace(0, len(frames) - 1, min(num_shown, len(frames)))).astype(int)
    padded = np.pad(frames[shown], ((0, 0), (0, 0), (0, 2), (0, 0)), constant_values=255)
    return np.concatenate(list(padded), axis=1)[:, :-2]


def sample_sheet(frames: torch.Tensor, titles: Sequence[str], num_shown: int = 8) -> "Figure":
    """A sheet of clips (uint8 [N, T, H, W, C]), a strip each, with a title over it."""
    figure = new_figure(1.35 * num_shown, 1.7 * len(titles))
    rows = figure.subplots(len(titles), squeeze=False)[:, 0]
    for axes, clip, title in zip(rows, frames.cpu().numpy(), titles, strict=True):
        draw_strip(axes, clip, title, num_shown)
    return figure


def confusion_figure(result: ZeroShotResult) -> "Figure":
    """The confusion matrix: rows are true classes, shades are shares of a row; counts where there is room."""
    num_classes = len(result.classes)
    side = float(np.clip(0.2 * num_classes + 4, 6.5, 28))
    figure = new_figure(side + 1, side)
    axes = figure.subplots()
    videos = result.confusion.sum(axis=1, keepdims=True)
    share = result.confusion / np.maximum(videos, 1)
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    figure.colorbar(image, ax=axes, fraction=0.04, pad=0.02, label="share of the true class's videos")
    step = max(1, int(np.ceil(_LABEL_INCHES * num_classes / (side - 3))))
    ticks = np.arange(0, num_classes, step)
    names = [short(result.classes[index]) for index in ticks]
    size = 10 if num_classes <= 20 else 8
    axes.set_xticks(ticks, names, rotation=90, fontsize=size, parse_math=False)
    axes.set_yticks(ticks, names, fontsize=size, parse_math=False)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    if num_classes <= 20:
        for row, column in np.argwhere(result.confusion > 0):
            color = "white" if share[row, column] > 0.5 else "black"
            axes.text(column, row, str(result.confusion[row, column]), ha="center", va="center", color=color)
    axes.set_title(wrapped(_headline(result), figure.get_figwidth() - 2.5, 12), parse_math=False)
    return figure


def class_accuracy_figure(result: ZeroShotResult) -> "Figure":
    """Top-1 of each class, best first, with the class it is most often taken for, and the chance level."""
    rows = sorted(result.per_class, key=lambda row: (row.num_videos == 0, -np.nan_to_num(row.top1), row.name))
    height = max(3.0, min(0.2 * len(rows) + 1.6, max(60.0, _LABEL_INCHES * 1.05 * len(rows) + 1.6)))
    figure = new_figure(9, min(height, _TALLEST))
    axes = figure.subplots()
    indices = np.arange(len(rows))
    accuracy = np.array([row.top1 if row.num_videos else 0.0 for row in rows])
    axes.barh(indices, 100 * accuracy, color=RIGHT, height=0.75)
    for index, row, value in zip(indices, rows, accuracy, strict=True):
        note = f"taken for {short(row.confused_with)} ({row.confused_count})" if row.confused_with else ""
        note = note if row.num_videos else "no video"
        if note:
            axes.text(100 * value + 1, index, note, va="center", fontsize=7, parse_math=False, bbox=BEHIND)
    axes.axvline(100 * result.all_classes.chance_top1, color=WRONG, linestyle="--", linewidth=1)
    labels = [f"{short(row.name)} ({row.num_videos})" for row in rows]
    axes.set_yticks(indices, labels, fontsize=8, parse_math=False)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0, 140)  # room for the notes beside full bars
    axes.set_xticks(range(0, 101, 20))
    axes.set_xlabel("accuracy, % (in brackets: videos; dashed: chance)")
    axes.set_title(wrapped(_headline(result), figure.get_figwidth() - 2.5, 12), parse_math=False)
    return figure


def overlap_figure(neighbours: Sequence[Neighbour], tau: float, num_shown: int = 60) -> "Figure":
    """The training classes nearest to a test class, their distance, and the threshold (paper Fig. 3); nearest on top."""
    shown = sorted(neighbours, key=lambda row: row.distance)[:num_shown]
    figure = new_figure(9, float(np.clip(0.19 * len(shown) + 1.4, 2.5, 60)))
    axes = figure.subplots()
    if not shown:
        say_nothing(axes, "no training class was compared with a test class")
        return figure
    distances = np.array([row.distance for row in shown])
    colors = [WRONG if row.distance <= tau else RIGHT for row in shown]
    axes.hlines(range(len(shown)), 0, distances, colors=colors, linewidth=1)
    axes.scatter(distances, range(len(shown)), c=colors, s=16, zorder=3)
    room = 0.015 * max([tau, *distances])
    for index, row in enumerate(shown):
        text = f"{short(row.test_class)} ({short(row.test_set)})"
        axes.text(row.distance + room, index, text, va="center", fontsize=7, parse_math=False, bbox=BEHIND)
    axes.axvline(tau, color="red", linewidth=1)
    axes.set_yticks(range(len(shown)), [short(row.name) for row in shown], fontsize=7, parse_math=False)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlim(left=0, right=1.6 * max([tau, *distances]))  # room for the names of test classes
    axes.set_xlabel("cosine distance to the nearest test class (named beside the point)")
    near = sum(row.distance <= tau for row in neighbours)
    axes.set_title(f"{near} of {len(neighbours)} training classes lie within {tau:g} (red) of a test class")
    return figure


def result_page(title: str, strips: Sequence[Strip], bars: Sequence[Bar]) -> "Figure":
    """One page: some test videos with what was said of them, and accuracies beside chance and control."""
    height, bars_width = max(3.5, 1.35 * len(strips) + 0.8), max(4.5, 0.95 * len(bars) + 0.8)
    figure = new_figure(bars_width + (8.5 if strips else 0), height)
    figure.suptitle(wrapped(title, figure.get_figwidth() - 0.5, 13), fontsize=13, parse_math=False)
    if strips:
        left, right = figure.subfigures(1, 2, width_ratios=[8.5, bars_width])
        for axes, strip in zip(left.subplots(len(strips), squeeze=False)[:, 0], strips, strict=True):
            is_right = strip.true == strip.predicted
            verdict = "right" if is_right else f"wrong: it is {short(strip.true)}"
            text = f"{short(strip.predicted)}  (cosine {strip.cosine:.2f}), {verdict}"
            draw_strip(axes, strip.frames, text, _STRIP_FRAMES, color=RIGHT if is_right else WRONG)
    axes = (right if strips else figure).subplots()
    if bars:
        axes.set_ylim(0, max(100.0, accuracy_bars(axes, bars)) * 1.08)
    else:
        say_nothing(axes, "nothing was measured")
    return figure


def example_strips(
    dataset: DataSet, result: ZeroShotResult, decoder: VideoDecoder, clip: ClipFormat, count: int = 6
) -> list[Strip]:
    """The first video of each class in turn, then the second, ...: no choosing of good ones. Decodes them anew."""
    turns: dict[int, int] = {}
    order = []
    for index, label in enumerate(result.labels.tolist()):
        turns[label] = turns.get(label, 0) + 1
        order.append((turns[label], label, index))
    chosen = {int(result.rows[index]): index for _, _, index in sorted(order)[:count]}
    frames, rows = middle_snippets(dataset.manifest, list(chosen), decoder, clip)
    strips = []
    for picture, row in zip(frames.numpy(), rows, strict=True):
        index = chosen[row]
        true, predicted = result.classes[result.labels[index]], result.classes[result.predicted[index, 0]]
        strips.append(Strip(picture, true, predicted, float(result.cosine[index, 0])))
    return strips


def draw_strip(axes: "Axes", frames: np.ndarray | None, title: str, num_shown: int, color: str = "black") -> None:
    """Some frames of a clip (uint8 [T, H, W, C]), where there is one, side by side under a title."""
    if frames is not None:
        axes.imshow(clip_strip(frames, num_shown))
    axes.set_axis_off()
    inches = axes.get_figure(root=False).bbox.width / axes.figure.dpi
    axes.set_title(wrapped(title, inches, 9, lines=1), fontsize=9, loc="left", color=color, parse_math=False, pad=3)


def _headline(result: ZeroShotResult) -> str:
    whole = result.all_classes
    told = f"mean over classes {percent(whole.mean_class)}% (chance {percent(whole.chance_top1)}%)"
    return f"{result.name}: {whole.num_videos} videos, {told}"
