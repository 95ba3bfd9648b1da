"""Finding moments of videos without any training: the objects that a network sees, held against a query's words.

query ──sentence encoder──▶ cosines with ImageNet's class names, the 50 nearest ─┐
window ──network──▶ root of the mean scores of these classes ────────────────────┴▶ cosine ──▶ candidates, then moments
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from engine.features.cache import FeatureCache
from engine.models.image_weights import imagenet_classes
from engine.moments.queries import check_query
from engine.moments.retrieval import high_moments, relevance
from engine.moments.segments import cut_edges
from engine.naming.known_classes import KnownClasses
from engine.semantics.config import WordsConfig
from kernels.cosine_topk import MAX_K, cosine_topk

_MAX_OVERLAP = 0.5


@dataclass(frozen=True)
class FoundMoment:
    """Seconds of a video. score: mean smoothed cosine of its windows with the query."""

    query: str
    video: str
    start_s: float
    end_s: float
    score: float


class ObjectQueries:
    """Queries -> unit vectors over the classes of ImageNet. Loads the sentence encoder."""

    def __init__(self) -> None:
        self._classes = KnownClasses(imagenet_classes(), WordsConfig(source="sentence"))

    def __call__(self, query: str) -> np.ndarray:
        """float32 [1000].

        Raises:
            InputError: the query has no words, or too many.
        """
        check_query(query)
        vector = self._classes.embed([query]).vectors[0, : len(self._classes.known)].double()
        return (vector / vector.norm()).float().numpy()


def find_moments(
    cache: FeatureCache, videos: Sequence[str], query: str, vector: np.ndarray, top: int
) -> list[FoundMoment]:
    """The `top` moments of a query in these videos, the best first. Of more than 32 videos those with the nearest windows.

    Args:
        vector: float32 [D] of the query, in the space of the features.
    """
    found = []
    for video in videos if len(videos) <= MAX_K else nearest_videos(cache, videos, vector):
        seen = cache[video]
        curve = relevance(seen.features, vector)
        edges = cut_edges(seen)
        for start, end, _ in high_moments(curve, edges, count=top, max_overlap=_MAX_OVERLAP):
            inside = curve[np.searchsorted(edges, start) : np.searchsorted(edges, end)]
            found.append(FoundMoment(query, video, float(start), float(end), float(inside.mean())))
    return sorted(found, key=lambda moment: -moment.score)[:top]


def nearest_videos(cache: FeatureCache, videos: Sequence[str], vector: np.ndarray) -> list[str]:
    """Those of the videos whose windows are the nearest to a query, by `cosine_topk` over all windows; the nearest first."""
    features, video_of = cache.features, cache.video_of
    if len(videos) < len(cache.videos):
        rows = np.flatnonzero(np.isin(np.array(cache.videos, object)[video_of], list(videos)))
        features, video_of = features[rows], video_of[rows]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        windows = torch.from_numpy(np.asarray(features))
    _, nearest = cosine_topk(torch.from_numpy(vector)[None], windows, min(MAX_K, len(windows)))
    return list(dict.fromkeys(cache.videos[place] for place in video_of[nearest[0].numpy()]))
