"""How good found moments are: recall at an overlap, mean overlap, average precision where several windows are true.

Overlap is IoU, intersection over union in time. All measures are shares in [0, 1], means over queries.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

IOUS = (0.3, 0.5, 0.7)
RANKS = (1, 5)
AP_IOUS = tuple(np.round(np.arange(0.5, 0.96, 0.05), 2).tolist())  # of QVHighlights' mAP
ROUNDING = 1e-9  # an overlap that is a threshold but for its last digits reaches it


@dataclass(frozen=True)
class Measured:
    """recall: (k, IoU) -> share of queries with a true window among the k best at that overlap.

    mean_iou: of the best moment with the true window nearest to it. mean_ap: over `AP_IOUS` and queries; None: every query has
    one true window.
    """

    num_queries: int
    recall: Mapping[tuple[int, float], float]
    mean_iou: float
    mean_ap: float | None

    def to_dict(self) -> dict[str, float | int | None]:
        """Ready for JSON: R@1_IoU0.5 ..."""
        recall = {f"R@{k}_IoU{iou:g}": value for (k, iou), value in self.recall.items()}
        return {"num_queries": self.num_queries, **recall, "mean_IoU": self.mean_iou, "mAP": self.mean_ap}


def iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Overlap of windows (start, end): float [A, 2], [B, 2] -> float64 [A, B]; 0 where both have no length."""
    start, end = a[:, None, 0], a[:, None, 1]
    shared = np.minimum(end, b[None, :, 1]) - np.maximum(start, b[None, :, 0])
    union = (end - start) + (b[:, 1] - b[:, 0])[None] - np.maximum(shared, 0)
    return np.where(union > 0, np.maximum(shared, 0) / np.where(union > 0, union, 1), 0.0)


def measure(found: Sequence[np.ndarray], true: Sequence[np.ndarray]) -> Measured:
    """Measure ranked moments.

    Args:
        found: for each query float [K, >= 2], start and end in seconds, the best first; K may be 0.
        true: for each query float [T, 2], T >= 1.
    """
    overlaps = [iou(f[:, :2], t) for f, t in zip(found, true, strict=True)]
    best = np.zeros((len(overlaps), max(RANKS)))  # of the first k moments, with any true window
    for row, overlap in zip(best, overlaps, strict=True):
        reached = np.maximum.accumulate(overlap.max(axis=1))[: len(row)] if len(overlap) else np.zeros(1)
        row[: len(reached)], row[len(reached) :] = reached, reached[-1]
    recall = {(k, at): float((best[:, k - 1] >= at - ROUNDING).mean()) for k in RANKS for at in IOUS}
    has_several = any(len(windows) > 1 for windows in true)
    mean_ap = np.mean([[average_precision(o, at) for at in AP_IOUS] for o in overlaps]) if has_several else None
    return Measured(len(best), recall, float(best[:, 0].mean()), None if mean_ap is None else float(mean_ap))


def average_precision(overlap: np.ndarray, at: float) -> float:
    """Interpolated average precision of one query's ranked moments.

    Each takes the true window of largest overlap that none before it took, if that overlap is at least `at`.

    Args:
        overlap: float [K, T], of the ranked moments with the true windows.
    """
    taken = np.zeros(overlap.shape[1], dtype=bool)
    is_right = np.zeros(len(overlap), dtype=bool)
    for rank, row in enumerate(overlap):
        free = np.where(taken, -1.0, row)
        choice = int(free.argmax())
        if free[choice] >= at - ROUNDING:
            taken[choice] = is_right[rank] = True
    right = np.cumsum(is_right)
    precision = right / np.arange(1, len(right) + 1)
    interpolated = np.maximum.accumulate(precision[::-1])[::-1]
    return float(interpolated[is_right].sum() / len(taken))
