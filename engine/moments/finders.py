"""Who finds the moments of a query in an index of videos: cosine alone, or a trained model after it.

all windows ──`cosine_topk`──▶ candidate videos ──▶ moments of each (by cosine, or the model) ──▶ the best of all
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from engine.errors import InputError
from engine.features.cache import FeatureCache
from engine.features.encoder import Encoder, ObjectEncoder
from engine.models.image_weights import INSTALLED, installed_network
from engine.moments.index import FeatureKind
from engine.moments.objects import (
    FoundMoment,
    ObjectIndex,
    ObjectQueries,
    find_moments,
    looked_for,
    nearest_videos,
    query_curve,
)
from engine.moments.retrieval import relevance
from engine.moments.segments import cut_edges, cut_segments
from engine.moments.word_space import find_network, open_space
from engine.semantics.config import WordsConfig, WordSourceConfig
from engine.tasks.moments.trained import load_finder
from kernels.cosine_topk import MAX_K

# Weight of the mean cosine beside the score, between videos: fixed on held-out queries (docs/moments.md).
_COSINE = 20.0


@dataclass(frozen=True)
class Curve:
    """How relevant each segment of a video is to a query: values float64 [T], edges float64 [T + 1], seconds."""

    edges: np.ndarray
    values: np.ndarray


class Finder(Protocol):
    """Finds moments by one way of comparing.

    facts: what it is and what it has seen, (what, value). kind: the features that it needs. measure: what its curves show.
    words: what reads queries.
    """

    facts: Sequence[tuple[str, str]]
    kind: FeatureKind
    measure: str
    words: WordSourceConfig

    def check(self, query: str) -> None:
        """Raises InputError for a query that cannot be looked for: no words, too many, or none that is known."""
        ...

    def find(self, cache: FeatureCache, videos: Sequence[str], query: str, top: int) -> list[FoundMoment]:
        """The `top` best moments in these videos, the best first."""
        ...

    def curve(self, cache: FeatureCache, videos: Sequence[str], video: str, query: str) -> Curve:
        """What the moments of one of these videos were chosen by, or near to it: to be looked at."""
        ...


class ObjectFinder:
    """Without training: the objects that an installed network sees, held against the words of the query.

    Args:
        model: one of `installed_names`.
    """

    measure = "cosine"

    def __init__(self, device: torch.device, model: str = INSTALLED) -> None:
        network, encoder = installed_network(model), ObjectEncoder(device, model.partition(":")[2])
        self.kind = FeatureKind(encoder.digest, lambda: encoder)
        self.facts = [
            ("model", f"none: what {network.title} sees of ImageNet's 1,000 objects, held against the words"),
            ("has seen", "photos of these objects, and text; no videos and no moments"),
        ]
        self.words = WordsConfig(source="sentence")
        self._vector = functools.cache(ObjectQueries(self.words))
        self._index = functools.lru_cache(1)(ObjectIndex)
        self._looked_for = functools.lru_cache(self._with_looks)

    def check(self, query: str) -> None:
        self._vector(query)

    def find(self, cache: FeatureCache, videos: Sequence[str], query: str, top: int) -> list[FoundMoment]:
        return find_moments(self._index(cache), videos, query, self._looked_for(cache, tuple(videos), query), top)

    def curve(self, cache: FeatureCache, videos: Sequence[str], video: str, query: str) -> Curve:
        seen, vector = cache[video], self._looked_for(cache, tuple(videos), query)
        return Curve(cut_edges(seen), query_curve(seen.features, vector, self._index(cache).shots(video)))

    def _with_looks(self, cache: FeatureCache, videos: tuple[str, ...], query: str) -> np.ndarray:
        return looked_for(self._index(cache), videos, self._vector(query))


class TrainedFinder:
    """A trained model. In what order the moments of one video come is its word. Between videos, the best of each first, its
    score decides, and beside it the cosine of the moment with the query, where features and words can be compared.

    A score is the log-likelihood of start, end and what lies between, counted from chance: so that it compares between
    videos of different lengths.

    Args:
        run: folder or checkpoint of a run of task `moments`.
        encoder: the network of its features, as `build_encoder` takes it; None: see `find_network`.

    Raises:
        InputError: there is no such run, or `encoder` is another network.
    """

    measure = "probability"

    def __init__(self, run: Path, encoder: str | None, device: torch.device) -> None:
        self._loaded = loaded = load_finder(run, device)
        self._search, stamp, self.words = loaded.finder, loaded.stamp, loaded.words
        self._network = find_network(stamp, encoder, loaded.path.absolute().parent.parent, device)
        self._space = open_space(stamp, self._network, self._search.queries)
        self.kind = FeatureKind(stamp.digest, self._demanded, stamp.grid, stamp.dtype)
        self.facts = [("model", loaded.name), ("has seen", loaded.seen), ("features", stamp.model)]
        self._tokens = functools.cache(self._search.queries.tokens)

    def _demanded(self) -> Encoder:
        stamp = self._loaded.stamp
        if self._network is None:
            raise InputError(
                f"'{self._loaded.path}' was trained with features of {stamp.model}, digest {stamp.digest[:12]}, and the videos "
                "need the same: the network that made them is not at hand: name its run with --encoder (features that others "
                "have published can be searched only where their network is a run of yours)"
            )
        return self._network

    def check(self, query: str) -> None:
        self._tokens(query)

    def find(self, cache: FeatureCache, videos: Sequence[str], query: str, top: int) -> list[FoundMoment]:
        self._loaded.check(cache.stamp)
        vector = self._space.vector(query) if self._space else None
        if self._space and len(videos) > MAX_K:
            videos = nearest_videos(self._space.windows(cache), videos, vector)
        ordered = []
        for begin in range(0, len(videos), MAX_K):
            ordered += self._refined(cache, videos[begin : begin + MAX_K], query, vector, top)
        return [moment for _, _, moment in sorted(ordered, key=lambda each: each[:2])[:top]]

    def _refined(
        self, cache: FeatureCache, videos: Sequence[str], query: str, vector: np.ndarray | None, top: int
    ) -> list[tuple[int, float, FoundMoment]]:
        """The model's moments in some videos: place within the video, the less the better, moment."""
        config, tokens = self._search.config, self._tokens(query)
        segments = [cut_segments(cache[video], config.segment_s) for video in videos]
        of_each = self._search.find_pairs([(each, tokens) for each in segments], top)
        found = []
        for video, seen, moments in zip(videos, segments, of_each, strict=True):
            edges = cut_edges(cache[video])
            near = relevance(self._space.points(cache[video].features), vector) if self._space else None
            chance = 2 * np.log(min(len(seen), config.segments))
            for place, (start, end, score) in enumerate(moments.tolist()):
                likely = score + chance
                first = int(np.searchsorted(edges, start, "right")) - 1
                behind = max(first + 1, int(np.searchsorted(edges, end)))
                close = 0.0 if near is None else _COSINE * float(near[first:behind].mean())
                found.append((place, -(likely + close), FoundMoment(query, video, start, end, float(likely))))
        return found

    def curve(self, cache: FeatureCache, videos: Sequence[str], video: str, query: str) -> Curve:
        segments = cut_segments(cache[video], self._search.config.segment_s)
        return Curve(segments.edges, self._search.relevance(segments, self._tokens(query)))


def open_finder(model: Path | None, encoder: str | None, device: torch.device) -> Finder:
    """The finder that --model and --encoder name: a run, or one of `installed_names`, which None is the first of.

    Raises:
        InputError: there is no such model, or `encoder` goes with none that is trained.
    """
    if model is not None and (model.exists() or str(model).partition(":")[0] != INSTALLED):
        return TrainedFinder(model, encoder, device)
    if encoder is not None:
        raise InputError(f"--encoder is the network of a run's features, and --model '{model or INSTALLED}' is no run")
    return ObjectFinder(device, str(model or INSTALLED))
