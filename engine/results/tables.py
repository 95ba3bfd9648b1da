"""What test sets gave, as tables: of text for people, and as CSV for other programs (each class, and each video)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from engine.data.config import file_name
from engine.data.sets.sources import DataSet
from engine.evaluation.metrics import ZeroShotResult
from engine.results.accuracy import MEASURES
from engine.results.figures import save_figure
from engine.results.pictures import confusion_figure
from engine.results.table import Table

_WHERE = ("test set", "protocol", "classes", "videos")


def accuracy_table(results: Sequence[ZeroShotResult]) -> Table:
    """Both protocols of every test set."""
    rows = []
    for result in results:
        whole, halves = result.all_classes, result.half_classes
        accuracy = [whole.shown(getattr(whole, measure)) for measure in MEASURES]
        beside = [whole.shown(whole.chance_top1), whole.shown(whole.largest_class)]
        rows.append([result.name, "all classes", whole.num_classes, whole.num_videos, *accuracy, *beside])
        if halves is None:
            continue
        half = halves.splits[0]
        accuracy = [f"{half.shown(halves.mean(measure))} ± {half.shown(halves.std(measure))}" for measure in MEASURES]
        beside = [half.shown(half.chance_top1), half.shown(halves.mean("largest_class"))]
        rows.append(["", "random halves", half.num_classes, round(halves.mean("num_videos")), *accuracy, *beside])
    return Table([*_WHERE, "mean-class", "top-1", "top-5", "chance", "largest class"], rows)


def class_table(result: ZeroShotResult) -> Table:
    """One line per class, under the name of the test set."""
    rows = [
        [
            row.name,
            row.num_videos,
            row.top1,
            f"{row.confused_with} ({row.confused_count})" if row.confused_with else "-",
        ]
        for row in result.per_class
    ]
    return Table(["class", "videos", "top-1", "most often taken for"], rows, result.name)


def write_set(folder: Path, result: ZeroShotResult, dataset: DataSet) -> np.ndarray:
    """Write classes_NAME.csv (videos, top-1, most frequent wrong answer), predictions_NAME.csv (see `predictions`) and
    confusion_NAME.png; returns the pixels of the latter, uint8 [H, W, 3]."""
    name = file_name(result.name)
    fields = ["class", "videos", "top1", "confused_with", "confused_count"]
    rows = [
        [r.name, r.num_videos, r.top1 if r.num_videos else "", r.confused_with, r.confused_count]
        for r in result.per_class
    ]
    Table(fields, rows).write_csv(folder / f"classes_{name}.csv")
    predictions(result, dataset).write_csv(folder / f"predictions_{name}.csv")
    return save_figure(confusion_figure(result), folder / f"confusion_{name}.png")


def predictions(result: ZeroShotResult, dataset: DataSet) -> Table:
    """A row for each video: path, true class, whether it was found, the nearest classes with their cosines or shares."""
    paths = dataset.manifest.strings("path")
    rows = []
    for row, label, nearest, cosine in zip(result.rows, result.labels, result.predicted, result.cosine, strict=True):
        answers = [part for i, c in zip(nearest, cosine, strict=True) for part in (result.classes[i], f"{c:.4f}")]
        rows.append([paths[row], result.classes[label], int(nearest[0] == label), *answers])
    ranks = range(1, result.predicted.shape[1] + 1)
    scored = "share" if result.is_named_together else "cosine"
    return Table(["path", "class", "correct", *(f for k in ranks for f in (f"predicted_{k}", f"{scored}_{k}"))], rows)
