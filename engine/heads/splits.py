"""Heads over random splits of the classes of a data set: who names the unseen classes how well, and by how much.

The splits are those of `tools/untrained_splits.py`. In each split every head is fitted to the seen classes' videos twice: with
the class vectors, and with random ones (the control, drawn anew in every split), which must stay at chance.

Videos of further data sets may be learnt from in every split. Then all seen classes, wherever they are from, that overlap with
an unseen class of the split are left out of it: within `tau` by their words, or saying the same (engine/semantics/overlap.py).
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from engine import metrics
from engine.data.class_splits import split_classes
from engine.data.config import ClassSplitConfig
from engine.errors import InputError
from engine.heads.catalogue import HEADS, OBJECT_HEADS
from engine.heads.classes import RANDOM_DIM, NamedClasses, RandomClasses
from engine.heads.head import Head
from engine.heads.objects import KnownObjects
from engine.heads.sequences import Sequences
from engine.heads.trained import TrainedHead
from engine.models.embedder import Embedder
from engine.models.image_weights import imagenet_classes, installed_classifier
from engine.naming.known_classes import known_vectors
from engine.semantics.config import WordsConfig
from engine.semantics.overlap import says_the_same

WORDS, RANDOM = "words", "random words"
TRAINED = "trained"  # the head that a run brings with it
_DRAWS = 10_000  # of the splits, for an interval


@dataclass(frozen=True)
class LabelledFeatures:
    """The features of the windows of V videos, with their classes, int64 [V] into `classes`."""

    videos: Sequences
    label: torch.Tensor
    classes: tuple[str, ...]

    def among(self, names: Sequence[str]) -> tuple[Sequences, torch.Tensor]:
        """The videos of some classes, and their classes as indices into `names`."""
        place = {name: index for index, name in enumerate(names)}
        label = torch.tensor([place.get(name, -1) for name in self.classes])[self.label]
        return self.videos[label >= 0], label[label >= 0]

    def only(self, names: Sequence[str]) -> "LabelledFeatures":
        """The videos of some classes."""
        return LabelledFeatures(*self.among(names), tuple(names))


@dataclass(frozen=True, slots=True)
class Measured:
    """A head in a split: accuracy among the unseen classes, chance, what always naming the largest of them would give, and
    seconds of fitting."""

    head: str
    words: str
    split: int
    top1: float
    mean_class: float
    chance: float
    largest: float
    fit_s: float
    seen: int = 0  # classes learnt from


def measure(
    data: LabelledFeatures,
    splits: Sequence[ClassSplitConfig],
    heads: Sequence[str],
    words: WordsConfig,
    also: Sequence[LabelledFeatures] = (),
    tau: float = 0.05,
    trained: Embedder | None = None,
) -> Iterator[Measured]:
    """Each head in each split, with the class vectors of `words` and with random ones.

    Args:
        also: further videos to learn from, of features of the same kind.
        tau: cosine distance of two names up to which they overlap, where there are further videos.
        trained: the model whose features these are and whose words `words` are, for the head `TRAINED`.

    Raises:
        InputError: too few classes for the split or a head, all of them overlap, or a class without a vector.
    """
    named = NamedClasses(words)
    with_objects = bool(set(heads) & set(OBJECT_HEADS))
    objects = _objects(words) if with_objects else None
    for split in splits:
        sides = split_classes(data.classes, split)
        parts = [(data, sides["train"]), *((each, each.classes) for each in also)]
        if also:
            parts = [(each, apart_from(sides["unseen"], names, named, tau)) for each, names in parts]
        if not any(names for _, names in parts):
            raise InputError(
                f"split {split.seed}: every seen class overlaps with an unseen one at a distance of {tau:g}"
            )
        videos, label, names = together(parts)
        asked, truth = data.among(sides["unseen"])
        largest = float(truth.bincount().max()) / len(truth)
        dim = trained.embed_dim if trained else RANDOM_DIM
        for kind, source in ((WORDS, named), (RANDOM, RandomClasses(split.seed, dim))):
            seen, unseen = source(names), source(sides["unseen"])
            known = objects if kind == WORDS or not with_objects else _objects(source.source.config)
            makers = _makers(known, trained)
            for name in heads:
                head = makers[name]()
                started = time.perf_counter()
                head.fit(videos, label, seen, split.seed)
                seconds = time.perf_counter() - started
                accuracies = accuracy(head.rank(asked, unseen), truth)
                yield Measured(name, kind, split.seed, *accuracies, 1 / len(unseen), largest, seconds, len(seen))


def _makers(known: KnownObjects | None, trained: Embedder | None) -> dict[str, Callable[[], Head]]:
    """What makes each head, by name; of those only that what is at hand serves."""
    of_objects = {name: partial(make, known) for name, make in OBJECT_HEADS.items()} if known else {}
    return {**HEADS, **of_objects, **({TRAINED: partial(TrainedHead, trained)} if trained else {})}


def apart_from(unseen: Sequence[str], names: Sequence[str], words: NamedClasses, tau: float) -> list[str]:
    """Those of the names that overlap with no unseen class, neither by the distance of their vectors nor by their words."""
    near = (words(names).vectors @ words(unseen).vectors.T).max(dim=1).values
    return [
        name
        for name, cosine in zip(names, near.tolist(), strict=True)
        if 1 - cosine > tau
        and not any(says_the_same(*pair) for other in unseen for pair in ((name, other), (other, name)))
    ]


def together(parts: Sequence[tuple[LabelledFeatures, Sequence[str]]]) -> tuple[Sequences, torch.Tensor, list[str]]:
    """The videos of some classes of each set, their classes as indices, and what these are: all those names in turn.

    One name of two sets stays two classes.
    """
    videos, labels, names = [], [], []
    for data, chosen in parts:
        own, label = data.among(chosen)
        videos.append(own)
        labels.append(label + len(names))
        names += chosen
    return Sequences.joined(videos), torch.cat(labels), names


def _objects(words: WordsConfig) -> KnownObjects:
    """What the installed network knows, named in `words`."""
    return KnownObjects(*installed_classifier(), known_vectors(imagenet_classes(), words))


def accuracy(scores: torch.Tensor, label: torch.Tensor) -> tuple[float, float]:
    """Top-1 and mean-class accuracy of scores [V, K] of videos of classes int64 [V]."""
    found = metrics.accuracy(scores.argmax(dim=1, keepdim=True).numpy(), label.numpy(), scores.shape[1])
    return found.top1, found.mean_class


def summarise(found: Sequence[Measured], baseline: str) -> Iterator[Mapping[str, object]]:
    """A row for each head and kind of words: mean and standard deviation over the splits, and the paired difference.

    difference: mean-class accuracy less that of `baseline` with the same words in the same split, mean over the splits;
    difference_low and _high: its 95 % interval, by drawing splits again. Splits share classes and videos and are no
    independent draws, so it is too narrow. One split has no interval: both are the difference.
    """
    pairs = dict.fromkeys((each.head, each.words) for each in found)
    for head, words in pairs:
        mine = {each.split: each for each in found if (each.head, each.words) == (head, words)}
        base = {each.split: each.mean_class for each in found if (each.head, each.words) == (baseline, words)}
        row: dict[str, object] = {"head": head, "words": words, "splits": len(mine)}
        for name in ("top1", "mean_class", "chance", "largest", "fit_s", "seen"):
            values = np.array([getattr(each, name) for each in mine.values()])
            row |= {name: float(values.mean()), f"{name}_sd": float(values.std(ddof=len(values) > 1))}
        gaps = np.array([each.mean_class - base[split] for split, each in mine.items()])
        again = np.random.default_rng(0).integers(len(gaps), size=(_DRAWS, len(gaps)))
        low, high = np.quantile(gaps[again].mean(axis=1), [0.025, 0.975])
        yield row | {"difference": float(gaps.mean()), "difference_low": float(low), "difference_high": float(high)}
