"""How well embeddings of videos find their class among the class vectors: both protocols of the paper.

Pure functions of embeddings that were computed once. Every comparison is the nearest class by cosine
(paper Eq. 1) through the one kernel `cosine_topk`, except where videos are named together (engine/evaluation/transductive.py). All
accuracies are shares in [0, 1].
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from engine.data.batch import SampleFailure
from engine.errors import InputError
from engine.evaluation.transductive import check_together, nearest_classes
from engine.results.accuracy import TOP, Accuracy, ClassAccuracy, FailedVideo, HalfClasses, SetResult

HALF_SEEDS = tuple(range(10))  # Evaluation Protocol 1 repeats ten times


@dataclass(frozen=True, slots=True, kw_only=True)
class ZeroShotResult(SetResult):
    """What a test set gave, with the single videos.

    classes: the C candidates.
    rows: int64 [V], which video (row of the manifest) each prediction is of.
    labels: int64 [V], the true class.
    predicted: int64 [V, k], the k = min(5, C) nearest classes, nearest first.
    cosine: float32 [V, k], their cosine similarity; of videos that were named together their shares.
    embeddings: float32 [V, D], the videos as points in word space.
    """

    classes: tuple[str, ...]
    rows: np.ndarray
    labels: np.ndarray
    predicted: np.ndarray
    cosine: np.ndarray
    embeddings: np.ndarray


def evaluate_embeddings(
    name: str,
    embeddings: torch.Tensor,
    labels: torch.Tensor,
    classes: Sequence[str],
    class_vectors: torch.Tensor,
    *,
    rows: torch.Tensor | None = None,
    failures: Sequence[SampleFailure] = (),
    features: torch.Tensor | None = None,
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
        features: float32 [V, F] on the device of the embeddings: name the videos of a test together by these.

    Raises:
        InputError: no video, or embeddings that are not finite; fewer videos than classes, where they are named together.
    """
    _check(name, embeddings, failures)
    if features is not None:
        check_together(len(features), len(classes), f"test set '{name}'")
    answers = labels.cpu().numpy()
    predicted, cosine = _nearest(embeddings, class_vectors, features)
    confusion = np.zeros((len(classes), len(classes)), dtype=np.int64)
    np.add.at(confusion, (answers, predicted[:, 0]), 1)
    return ZeroShotResult(
        name=name,
        classes=tuple(classes),
        all_classes=accuracy(predicted, answers, len(classes)),
        half_classes=_half_classes(embeddings, answers, classes, class_vectors, features),
        per_class=_per_class(classes, confusion),
        confusion=confusion,
        rows=np.arange(len(answers)) if rows is None else rows.cpu().numpy(),
        labels=answers,
        predicted=predicted,
        cosine=cosine,
        embeddings=embeddings.float().cpu().numpy(),
        failures=tuple(FailedVideo(failure.path, failure.reason) for failure in failures),
        transductive=features is not None,
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


def _nearest(
    embeddings: torch.Tensor, class_vectors: torch.Tensor, features: torch.Tensor | None
) -> tuple[np.ndarray, np.ndarray]:
    scores, indices = nearest_classes(embeddings, class_vectors, min(TOP, len(class_vectors)), features)
    return indices.cpu().numpy().astype(np.int64), scores.float().cpu().numpy()


def accuracy(predicted: np.ndarray, labels: np.ndarray, num_classes: int) -> Accuracy:
    """Of the classes named for each video, the nearest first, int64 [V, k up to 5], and the true ones, int64 [V]."""
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
        largest_class=float(videos.max() / len(labels)),
    )


def _half_classes(
    embeddings: torch.Tensor,
    labels: np.ndarray,
    classes: Sequence[str],
    class_vectors: torch.Tensor,
    features: torch.Tensor | None,
) -> HalfClasses | None:
    if len(classes) < 4:
        return None
    splits = []
    for seed in HALF_SEEDS:
        half = half_of_classes(classes, seed)
        index = np.full(len(classes), -1, dtype=np.int64)
        index[half] = np.arange(len(half))
        kept = np.flatnonzero(index[labels] >= 0)
        if len(kept) >= (1 if features is None else len(half)):
            rows = torch.from_numpy(kept).to(embeddings.device)
            candidates = class_vectors[torch.from_numpy(half).to(class_vectors.device)]
            predicted, _ = _nearest(embeddings[rows], candidates, None if features is None else features[rows])
            splits.append(accuracy(predicted, index[labels[kept]], len(half)))
    return HalfClasses(tuple(splits)) if splits else None


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
