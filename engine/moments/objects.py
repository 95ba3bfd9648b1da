"""Finding moments of videos without any training: the objects that a network sees, held against a query's words.

query ──sentence encoder──▶ cosines with ImageNet's classes, the 50 nearest, cubed ─┐
window ──network──▶ root of the mean scores of these classes ───────────────────────┴▶ cosine ──means in shots──▶ moments

A query's vector is moved towards the three nearest of Kinetics' action names, so that "jumping jacks" is no fruit and no tool,
and then towards what the best moments of the videos show (`engine.moments.feedback`).
"""

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from engine.features.cache import FeatureCache
from engine.models.image_weights import imagenet_classes
from engine.models.weights import kinetics400_classes
from engine.moments.feedback import with_looks
from engine.moments.queries import check_query
from engine.moments.retrieval import as_tensor, average_window, cosines, high_moments
from engine.moments.segments import cut_edges
from engine.moments.shots import find_shots, looks_of_shots, means_in_shots
from engine.naming.known_classes import nearest_known
from engine.semantics.classes import KeptVectors
from engine.semantics.config import WordsConfig
from engine.semantics.sentence_encoder import load_encoder
from kernels.cosine_topk import MAX_K, cosine_topk

_MAX_OVERLAP = 0.5
_ACTIONS = 3  # the nearest of Kinetics' names
CONTEXT = 1.0  # the weight of their direction beside the query's
_POWER = 3  # of the cosines with objects


@dataclass(frozen=True)
class FoundMoment:
    """Seconds of a video. score: mean over its windows of `query_curve`."""

    query: str
    video: str
    start_s: float
    end_s: float
    score: float


class ObjectQueries:
    """Queries -> unit vectors over the classes of ImageNet. Loads the sentence encoder, if that is what reads them."""

    def __init__(self, words: WordsConfig | None = None, context: float = CONTEXT) -> None:
        self._context, words = context, words or WordsConfig(source="sentence")
        self._encoder = load_encoder(words.path) if words.source == "sentence" else None
        self._words = KeptVectors(words)
        self._objects = self._words.embed(imagenet_classes()).vectors.double()

    def __call__(self, query: str) -> np.ndarray:
        """float32 [1000], of which 50 are not 0.

        Raises:
            InputError: the query has no words, or too many.
        """
        check_query(query, self._encoder)
        vector = self._words.embed([query]).vectors[0].double()
        actions = self._words.embed(kinetics400_classes()).vectors.double()
        near = (actions @ vector).clamp(min=0).topk(_ACTIONS)
        context = near.values @ actions[near.indices]
        vector = vector + self._context * context / context.norm().clamp(min=1e-12)
        weights = nearest_known((vector / vector.norm())[None], self._objects)[0].clamp(min=0) ** _POWER
        return (weights / weights.norm().clamp(min=1e-12)).float().numpy()


def query_curve(features: np.ndarray, vector: np.ndarray, shots: np.ndarray) -> np.ndarray:
    """What moments are cut from: the cosine of each window with a query, a mean over its shot. float [W, D], [D] -> float64 [W]."""
    return means_in_shots(cosines(features, vector), shots)


class ObjectIndex:
    """The features of an index, and what is worked out of them once for all queries.

    shots: those of a video by its name, see `find_shots`; of the last few hundred videos they are kept.
    """

    def __init__(self, cache: FeatureCache) -> None:
        self.cache = cache
        self.shots = functools.lru_cache(8 * MAX_K)(lambda video: find_shots(cache[video].features))

    @functools.cached_property
    def average(self) -> np.ndarray:
        """Float32 [D], see `average_window`."""
        return average_window(self.cache.features)


def looked_for(index: ObjectIndex, videos: Sequence[str], vector: np.ndarray) -> np.ndarray:
    """A query's vector, float32 [D], with what its best moments in these videos look like: what `find_moments` takes."""
    seen = _worth_a_look(index.cache, videos, vector)
    looks = (looks_of_shots(index.cache[video].features, index.shots(video)) for video in seen)
    return with_looks(vector, looks, index.average)


def find_moments(
    index: ObjectIndex, videos: Sequence[str], query: str, vector: np.ndarray, top: int
) -> list[FoundMoment]:
    """The `top` moments of a query in these videos, the best first. Of more than 32 videos those with the nearest windows.

    Args:
        vector: float32 [D] of what is looked for, in the space of the features.
    """
    found = []
    for video in _worth_a_look(index.cache, videos, vector):
        seen = index.cache[video]
        curve = query_curve(seen.features, vector, index.shots(video))
        edges = cut_edges(seen)
        for start, end, _ in high_moments(curve, edges, count=top, max_overlap=_MAX_OVERLAP):
            inside = curve[np.searchsorted(edges, start) : np.searchsorted(edges, end)]
            found.append(FoundMoment(query, video, float(start), float(end), float(inside.mean())))
    return sorted(found, key=lambda moment: -moment.score)[:top]


def _worth_a_look(cache: FeatureCache, videos: Sequence[str], vector: np.ndarray) -> Sequence[str]:
    return videos if len(videos) <= MAX_K else likeliest_videos(cache, videos, vector)


def likeliest_videos(cache: FeatureCache, videos: Sequence[str], vector: np.ndarray) -> list[str]:
    """The 32 of the videos that have the best windows, the best first.

    Features of objects have length 1, so that a product is a cosine: in their own half precision it takes the processor a
    fortieth of the time of `cosine_topk`, and a rounding of 5e-4 decides only which video is looked at.
    """
    windows = as_tensor(cache.features)
    scores = (windows @ torch.from_numpy(vector).to(windows.dtype)).float().numpy()
    firsts = np.flatnonzero(np.diff(cache.video_of, prepend=-1))  # windows of one video lie together
    best = np.maximum.reduceat(scores, firsts)
    order = np.argsort(-best, kind="stable")
    wanted = set(videos)
    ranked = (cache.videos[place] for place in cache.video_of[firsts[order]])
    return list(itertools.islice((video for video in ranked if video in wanted), MAX_K))


def nearest_videos(cache: FeatureCache, videos: Sequence[str], vector: np.ndarray) -> list[str]:
    """Those of the videos whose windows are the nearest to a query, by `cosine_topk` over all windows; the nearest first."""
    features, video_of = cache.features, cache.video_of
    if len(videos) < len(cache.videos):
        wanted = set(videos)
        rows = np.flatnonzero(np.array([video in wanted for video in cache.videos])[video_of])
        features, video_of = features[rows], video_of[rows]
    windows = as_tensor(features)
    _, nearest = cosine_topk(torch.from_numpy(vector)[None], windows, min(MAX_K, len(windows)))
    return list(dict.fromkeys(cache.videos[place] for place in video_of[nearest[0].numpy()]))
