"""Finding moments without training: how like each window is to the query, smoothed, and where that is high.

cosine of window and query ──▶ mean over neighbours ──▶ above a threshold between its middle and its peak ──▶ moments
"""

import warnings

import numpy as np
import torch

from engine.moments.decoding import merged

_BLOCK = 4096
_SAMPLE = 4096  # windows
_NOISE = 1e-6  # of a cosine, in half precision and of sums
SMOOTH = 5  # windows that a mean is over
_THRESHOLDS = (0.3, 0.5, 0.7)  # of the way from the curve's median to its peak


def relevance(points: np.ndarray, query: np.ndarray) -> np.ndarray:
    """The smoothed cosine of each window with the query: float [W, D], [D] -> float64 [W]."""
    return smoothed(cosines(points, query), min(SMOOTH, len(points)), 0, len(points))


def smoothed(curve: np.ndarray, width: int | np.ndarray, low: int | np.ndarray, high: int | np.ndarray) -> np.ndarray:
    """The mean over `width` windows around each of the W, of those from `low` to before `high`: numbers, or one for each window."""
    place, total = np.arange(len(curve)), np.cumsum(np.concatenate([[0.0], curve]))
    first, last = np.maximum(place - (width - 1) // 2, low), np.minimum(place + width // 2 + 1, high)
    return (total[last] - total[first]) / (last - first)


def cosines(points: np.ndarray, query: np.ndarray) -> np.ndarray:
    """The cosine of each window with the query: float [W, D], [D] -> float64 [W]."""
    query, cosine = np.asarray(query, np.float64), np.empty(len(points))
    for first in range(0, len(points), _BLOCK):  # the points of a long video may be on disk
        some = np.asarray(points[first : first + _BLOCK], np.float64)
        length = np.linalg.norm(some, axis=1) * np.linalg.norm(query)
        cosine[first : first + _BLOCK] = some @ query / np.maximum(length, 1e-12)
    return cosine


def as_tensor(features: np.ndarray) -> torch.Tensor:
    """Nothing is copied, and nothing may be written to it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(np.asarray(features))


def as_float32(features: np.ndarray) -> np.ndarray:
    """By torch, which takes a quarter of the time of NumPy for those in half precision."""
    return as_tensor(features).float().numpy()


def average_window(features: np.ndarray) -> np.ndarray:
    """The mean of all windows [W, D], of many those of about 4,096 at equal distances: float32 [D]."""
    return as_float32(features[:: max(1, len(features) // _SAMPLE)]).mean(axis=0)


def high_moments(curve: np.ndarray, edges: np.ndarray, *, count: int, max_overlap: float) -> np.ndarray:
    """The runs of windows above each threshold as moments, the best first: float64 [K, 3], start and end in seconds, score.

    A run's score is how far its mean lies above the mean of all others, so that neither a single window nor the whole wins. Of a
    curve that rises nowhere (a still picture for a video) the whole is the only moment.

    Args:
        curve: float [W]. edges: float64 [W + 1], seconds.
    """
    middle, peak, total = float(np.median(curve)), float(curve.max()), float(curve.sum())
    found = [(edges[0], edges[-1], 0.0)]
    for share in _THRESHOLDS if peak - middle > _NOISE else ():
        is_high = np.concatenate([[False], curve >= middle + share * (peak - middle), [False]])
        starts, ends = (np.flatnonzero(is_high[1:] & ~is_high[:-1]), np.flatnonzero(is_high[:-1] & ~is_high[1:]))
        for start, end in zip(starts, ends, strict=True):
            inside, others = float(curve[start:end].sum()), len(curve) - (end - start)
            if others:
                rest = (total - inside) / others
                found.append((edges[start], edges[end], inside / (end - start) - rest))
    return merged(np.array(found), count, max_overlap)
