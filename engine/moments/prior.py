"""The query-blind prior: what is reached by one answer, in shares of the video, for every query. It sees no video either.

Any claimed number must clear it: in Charades-STA nearly half of the queries have IoU 0.3 with the first 52 % of their video.
"""

from dataclasses import dataclass

import numpy as np

from engine.errors import InputError
from engine.moments.annotations import Annotations
from engine.moments.measures import IOUS, ROUNDING, iou

STEPS = 40  # starts and ends are tried at multiples of 1 / STEPS
_CHUNK = 4096
_NO_DURATION = "the prior needs the duration of every video: index the annotations with their manifest"


@dataclass(frozen=True)
class Prior:
    """The interval (start, end), in shares of the video, that is right most often at each of `IOUS`."""

    intervals: tuple[tuple[float, float], ...]

    def recall(self, annotations: Annotations) -> dict[float, float]:
        """R@1 at each of `IOUS`: the interval of that IoU for every query."""
        overlap = _overlaps(np.array(self.intervals), annotations)
        return {at: float((row >= at - ROUNDING).mean()) for at, row in zip(IOUS, overlap, strict=True)}


def fit_prior(annotations: Annotations) -> Prior:
    """The prior of these queries; those of a video of unknown duration have no say.

    Raises:
        InputError: no duration is known.
    """
    shares = np.arange(STEPS + 1) / STEPS
    start, end = np.triu_indices(STEPS + 1, k=1)
    intervals = np.stack([shares[start], shares[end]], axis=1)
    known = annotations.select(np.isfinite(annotations.durations))
    if not len(known):
        raise InputError(_NO_DURATION)
    hits = np.zeros((len(IOUS), len(intervals)))
    for first in range(0, len(known), _CHUNK):
        overlap = _overlaps(intervals, known.select(np.arange(first, min(first + _CHUNK, len(known)))))
        hits += [(overlap >= at - ROUNDING).sum(axis=1) for at in IOUS]
    return Prior(tuple(tuple(intervals[row].tolist()) for row in hits.argmax(axis=1)))


def _overlaps(intervals: np.ndarray, annotations: Annotations) -> np.ndarray:
    """float64 [I, N]: of each interval with the true window nearest to it, of each query."""
    if not len(annotations) or not np.isfinite(annotations.durations).all():
        raise InputError(_NO_DURATION)
    counts = [len(windows) for windows in annotations.windows]
    shares = np.concatenate(annotations.windows) / np.repeat(annotations.durations, counts)[:, None]
    first = np.cumsum([0, *counts[:-1]])
    return np.maximum.reduceat(iou(intervals, shares), first, axis=1)
