"""How well embeddings of videos find their class among the class vectors: both protocols of the paper.

Pure functions of embeddings that were computed once. Every comparison is the nearest class by cosine
(paper Eq. 1) through the one kernel `cosine_topk`. All accuracies are shares in [0, 1].
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from engine.data.batch import SampleFailure
from engine.errors import InputError
from kernels.cosine_topk import cosine_topk

HALF_SEEDS = tuple(range(10))  # Evaluation Protocol 1 repeats ten times
TOP = 5


@dataclass(frozen=True, slots=True)
class Accuracy:
    """One evaluation of some videos against `num_classes` candidate classes.

    top1, top5: share of the videos whose class is the nearest, or among the five nearest.
    mean_class: mean over the classes that have videos of their own top-1 (every class counts the same).
    """

    num_classes: int
    num_videos: int
    top1: float
    top5: float
    mean_class: float

    @property
    def chance_top1(self) -> float:
        """Top-1 (and mean-class accuracy) of guessing."""
        return 1 / self.num_classes

    @property
    def chance_top5(self) -> float:
        """Top-5 of guessing; 1 where there are no more than five classes."""
        return min(TOP, self.num_classes) / self.num_classes


@dataclass(frozen=True, slots=True)
class HalfClasses:
    """Evaluation Protocol 1 (paper Sec. 4.3): random halves of the classes, each its own small test.

    splits: one accuracy per seed that had videos. Means and sample standard deviations are over them.
    """

    splits: tuple[Accuracy, ...]

    def mean(self, measure: str) -> float:
        """Mean of "top1", "top5" or "mean_class" over the halves."""
        return float(np.mean([getattr(split, measure) for split in self.splits]))

    def std(self, measure: str) -> float:
        """Sample standard deviation (n - 1) over the halves; 0 for a single one."""
        values = [getattr(split, measure) for split in self.splits]
        return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Means, standard deviations, chance, and the halves one by one."""
        first = self.splits[0]
        measures = {}
        for measure in ("top1", "top5", "mean_class"):
            measures[measure] = self.mean(measure)
            measures[f"{measure}_std"] = self.std(measure)
        chance = {"chance_top1": first.chance_top1, "chance_top5": first.chance_top5}
        return {
            "num_classes": first.num_classes,
            **measures,
            **chance,
            "splits": [dataclasses.asdict(s) for s in self.splits],
        }


@dataclass(frozen=True, slots=True)
class ClassAccuracy:
    """One row of the per-class table; `confused_with` is the most frequent wrong answer ("" if none)."""

    name: str
    num_videos: int
    top1: float  # NaN where the class has no video
    confused_with: str
    confused_count: int


@dataclass(frozen=True, slots=True)
class ZeroShotResult:
    """What a test set gave.

    all_classes: Evaluation Protocol 2: all classes are candidates.
    half_classes: Evaluation Protocol 1; None with fewer than four classes, where half of them is no choice.
    confusion: int64 [C, C], videos of class (row) that were taken for class (column).
    rows: int64 [V], which video (row of the manifest) each prediction is of.
    labels: int64 [V], the true class.
    predicted: int64 [V, k], the k = min(5, C) nearest classes, nearest first.
    cosine: float32 [V, k], their cosine similarity.
    embeddings: float32 [V, D], the videos as points in word space.
    failures: videos that could not be decoded: left out of every number here.
    """

    name: str
    classes: tuple[str, ...]
    all_classes: Accuracy
    half_classes: HalfClasses | None
    per_class: tuple[ClassAccuracy, ...]
    confusion: np.ndarray
    rows: np.ndarray
    labels: np.ndarray
    predicted: np.ndarray
    cosine: np.ndarray
    embeddings: np.ndarray
    failures: tuple[SampleFailure, ...]

    def to_dict(self) -> dict[str, Any]:
        """Everything but the single videos, ready for JSON."""
        whole = self.all_classes
        chance = {"chance_top1": whole.chance_top1, "chance_top5": whole.chance_top5}
        per_class = [dataclasses.asdict(row) | {"top1": row.top1 if row.num_videos else None} for row in self.per_class]
        return {
            "name": self.name,
            "all_classes": {**dataclasses.asdict(whole), **chance},
            "half_classes": self.half_classes.to_dict() if self.half_classes else None,
            "per_class": per_class,
            "confusion": self.confusion.tolist(),
            "failures": [{"path": str(failure.path), "reason": failure.reason} for failure in self.failures],
        }


def evaluate_embeddings(
    name: str,
    embeddings: torch.Tensor,
    labels: torch.Tensor,
    classes: Sequence[str],
    class_vectors: torch.Tensor,
    *,
    rows: torch.Tensor | None = None,
    failures: Sequence[SampleFailure] = (),
) -> ZeroShotResult:
    """Both evaluation protocols, the per-class table and the confusion matrix of one test set.

    Args:
        name: what the test set is called.
        embeddings: float32 [V, D], one per video, of any length (only the direction counts).
        labels: int64 [V], index of each video's class in `classes`.
        classes: the C candidate names.
        class_vectors: float32 [C, D] on the device of the embeddings.
        rows: int64 [V], the videos' rows in their manifest; default 0..V-1.
        failures: videos left out, to be reported with the result.

    Raises:
        InputError: no video, or embeddings that are not finite.
    """
    _check(name, embeddings, failures)
    answers = labels.cpu().numpy()
    predicted, cosine = _nearest(embeddings, class_vectors)
    confusion = np.zeros((len(classes), len(classes)), dtype=np.int64)
    np.add.at(confusion, (answers, predicted[:, 0]), 1)
    return ZeroShotResult(
        name=name,
        classes=tuple(classes),
        all_classes=_accuracy(predicted, answers, len(classes)),
        half_classes=_half_classes(embeddings, answers, classes, class_vectors),
        per_class=_per_class(classes, confusion),
        confusion=confusion,
        rows=np.arange(len(answers)) if rows is None else rows.cpu().numpy(),
        labels=answers,
        predicted=predicted,
        cosine=cosine,
        embeddings=embeddings.float().cpu().numpy(),
        failures=tuple(failures),
    )


def half_of_classes(classes: Sequence[str], seed: int) -> np.ndarray:
    """Evaluation Protocol 1: the classes of one half, as indices into `classes` (int64 [C // 2]).

    The authors' rule (`np.random.seed(s); permutation(C)[:C // 2]` over the sorted names), with a
    generator of its own, so that the halves are theirs and no global state moves.
    """
    by_name = np.array(sorted(range(len(classes)), key=lambda index: classes[index]), dtype=np.int64)
    return by_name[np.random.RandomState(seed).permutation(len(classes))[: len(classes) // 2]]


def _check(name: str, embeddings: torch.Tensor, failures: Sequence[SampleFailure]) -> None:
    if not len(embeddings):
        reason = "it has no videos"
        if failures:
            first = failures[0]
            reason = f"none of its {len(failures)} videos could be decoded; '{first.path}': {first.reason}"
        raise InputError(f"test set '{name}' cannot be evaluated: {reason}")
    check_finite(embeddings, f"test set '{name}'")


def check_finite(embeddings: torch.Tensor, what: str) -> None:
    """NaN is near nothing: better an error than a score of chance.

    Raises:
        InputError: an embedding of `what` ([V, D]) is not finite.
    """
    broken = int((~torch.isfinite(embeddings)).any(dim=1).sum())
    if broken:
        raise InputError(
            f"{what}: the embeddings of {broken} of {len(embeddings)} videos are not finite numbers: "
            "the training diverged (train anew in another run.folder, with a lower train.lr or train.precision=fp32)"
        )


def _nearest(embeddings: torch.Tensor, class_vectors: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    scores, indices = cosine_topk(embeddings, class_vectors, min(TOP, len(class_vectors)))
    return indices.cpu().numpy().astype(np.int64), scores.float().cpu().numpy()


def _accuracy(predicted: np.ndarray, labels: np.ndarray, num_classes: int) -> Accuracy:
    hits = predicted == labels[:, None]
    videos = np.bincount(labels, minlength=num_classes)
    correct = np.bincount(labels[hits[:, 0]], minlength=num_classes)
    present = videos > 0
    return Accuracy(
        num_classes=num_classes,
        num_videos=len(labels),
        top1=float(hits[:, 0].mean()),
        top5=float(hits.any(axis=1).mean()),
        mean_class=float((correct[present] / videos[present]).mean()),
    )


def _half_classes(
    embeddings: torch.Tensor, labels: np.ndarray, classes: Sequence[str], class_vectors: torch.Tensor
) -> HalfClasses | None:
    if len(classes) < 4:
        return None
    splits = []
    for seed in HALF_SEEDS:
        half = half_of_classes(classes, seed)
        place = np.full(len(classes), -1, dtype=np.int64)
        place[half] = np.arange(len(half))
        kept = np.flatnonzero(place[labels] >= 0)
        if len(kept):
            queries = embeddings[torch.from_numpy(kept).to(embeddings.device)]
            candidates = class_vectors[torch.from_numpy(half).to(class_vectors.device)]
            predicted, _ = _nearest(queries, candidates)
            splits.append(_accuracy(predicted, place[labels[kept]], len(half)))
    return HalfClasses(tuple(splits))


def _per_class(classes: Sequence[str], confusion: np.ndarray) -> tuple[ClassAccuracy, ...]:
    table = []
    for index, name in enumerate(classes):
        counts = confusion[index].copy()
        videos, correct = int(counts.sum()), int(counts[index])
        counts[index] = 0
        worst = int(counts.argmax())
        wrong = classes[worst] if counts[worst] else ""
        table.append(
            ClassAccuracy(name, videos, correct / videos if videos else float("nan"), wrong, int(counts[worst]))
        )
    return tuple(table)
