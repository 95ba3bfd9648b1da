"""A video as the network sees it: segments in order, each with a feature, and the seconds where one ends and the next begins."""

from dataclasses import dataclass

import numpy as np

from engine.errors import InputError
from engine.features.cache import VideoFeatures


@dataclass(frozen=True)
class Segments:
    """features: float32 [T, D]. edges: float64 [T + 1], seconds, ascending from 0 to the video's end."""

    features: np.ndarray
    edges: np.ndarray

    def __len__(self) -> int:
        return len(self.features)

    def part(self, first: int, last: int) -> "Segments":
        """Segments first ... last - 1."""
        return Segments(self.features[first:last], self.edges[first : last + 1])

    def nearest(self, start_s: float, end_s: float) -> tuple[int, int]:
        """The first and the last segment of a moment: those whose edges lie nearest to its start and end."""
        first = int(np.abs(self.edges[:-1] - start_s).argmin())
        return first, max(first, int(np.abs(self.edges[1:] - end_s).argmin()))


def cut_segments(video: VideoFeatures, segment_s: float = 0.0) -> Segments:
    """A segment a window, from halfway to the window before to halfway to the next; or the means over `segment_s` each.

    Raises:
        InputError: the video has no window, or its features are not finite.
    """
    features = np.asarray(video.features, dtype=np.float32)
    duration = float(video.duration_s)
    if not len(features) or not duration > 0:
        raise InputError("a video without frames or windows has no moments")
    if not np.isfinite(features).all():
        raise InputError("features that are not finite: extract them again")
    middle = (np.asarray(video.start_s, dtype=np.float64) + video.end_s) / 2
    if segment_s:
        place = np.minimum(middle, duration * (1 - 1e-9)) // segment_s
        _, first, count = np.unique(place, return_index=True, return_counts=True)
        features = np.add.reduceat(features, first, axis=0) / count[:, None].astype(np.float32)
        middle = np.add.reduceat(middle, first) / count
    return Segments(features, _edges(middle, duration))


def cut_edges(video: VideoFeatures) -> np.ndarray:
    """The edges of a video's segments, one a window, without a copy of its features: float64 [W + 1], seconds."""
    return _edges((np.asarray(video.start_s, np.float64) + video.end_s) / 2, float(video.duration_s))


def _edges(middle: np.ndarray, duration: float) -> np.ndarray:
    edges = np.concatenate([[0.0], (middle[:-1] + middle[1:]) / 2, [duration]])
    return np.maximum.accumulate(np.minimum(edges, duration))


def parts(count: int, length: int) -> list[tuple[int, int]]:
    """(first, last) of the parts that `count` segments are searched in: each of `length`, half of it shared with the next."""
    if count <= length:
        return [(0, count)]
    firsts = [*range(0, count - length, max(1, length // 2)), count - length]
    return [(first, first + length) for first in firsts]
