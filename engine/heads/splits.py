"""Heads over random splits of the classes of a data set: who names the unseen classes how well, and by how much.

The splits are those of `tools/untrained_splits.py`. In each split every head is fitted to the seen classes' videos twice: with
the class vectors, and with random ones (the control, drawn anew in every split), which must stay at chance.

Videos of further data sets may be learnt from in every split. Then all seen classes, wherever they are from, that overlap with
an unseen class of the split are left out of it: within `tau` by their words, or saying the same (engine/semantics/overlap.py).
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from engine import metrics
from engine.data.config import ClassSplitConfig
from engine.data.sources import split_classes
from engine.errors import InputError
from engine.heads.catalogue import HEADS, OBJECT_HEADS
from engine.heads.objects import KnownObjects
from engine.models.image_weights import imagenet_classes, installed_classifier
from engine.naming.known_classes import known_vectors
from engine.semantics.classes import build_class_embeddings
from engine.semantics.config import WordsConfig
from engine.semantics.overlap import says_the_same

WORDS, RANDOM = "words", "random words"


@dataclass(frozen=True)
class LabelledFeatures:
    """A feature for each video, float32 [V, F], with its class, int64 [V] into `classes`."""

    features: torch.Tensor
    label: torch.Tensor
    classes: tuple[str, ...]

    def among(self, names: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """The features of the videos of some classes, and their classes as indices into `names`."""
        place = {name: index for index, name in enumerate(names)}
        label = torch.tensor([place.get(name, -1) for name in self.classes])[self.label]
        return self.features[label >= 0], label[label >= 0]

    def only(self, names: Sequence[str]) -> "LabelledFeatures":
        """The videos of some classes."""
        return LabelledFeatures(*self.among(names), tuple(names))


@dataclass(frozen=True, slots=True)
class Measured:
    """A head in a split: accuracy among the unseen classes, chance, and seconds of fitting."""

    head: str
    words: str
    split: int
    top1: float
    mean_class: float
    chance: float
    fit_s: float
    seen: int = 0  # classes learnt from


def measure(
    data: LabelledFeatures,
    splits: Sequence[ClassSplitConfig],
    heads: Sequence[str],
    words: WordsConfig,
    also: Sequence[LabelledFeatures] = (),
    tau: float = 0.05,
) -> Iterator[Measured]:
    """Each head in each split, with the class vectors of `words` and with random ones.

    Args:
        also: further videos to learn from, of features of the same kind.
        tau: cosine distance of two names up to which they overlap, where there are further videos.

    Raises:
        InputError: too few classes for the split or a head, all of them overlap, or a class without a vector.
    """
    kept_all = _vectors(words, [name for each in (data, *also) for name in each.classes])
    objects = _objects(words) if set(heads) & set(OBJECT_HEADS) else None
    for split in splits:
        sides = split_classes(data.classes, split)
        unseen, seen = sides["unseen"], [(data, sides["train"]), *((each, list(each.classes)) for each in also)]
        if also:
            seen = [(each, apart_from(unseen, names, kept_all, tau)) for each, names in seen]
        names = [name for _, each in seen for name in each]
        if not names:
            raise InputError(
                f"split {split.seed}: every seen class overlaps with an unseen one at a distance of {tau:g}"
            )
        features, label = together(seen)
        asked, truth = data.among(unseen)
        random = WordsConfig(source="random", seed=split.seed)
        for kind in (WORDS, RANDOM):
            vector_of = kept_all if kind == WORDS else _vectors(random, names + unseen)
            known = objects if kind == WORDS or objects is None else _objects(random)
            for name in heads:
                head = HEADS[name]() if name in HEADS else OBJECT_HEADS[name](known)
                started = time.perf_counter()
                head.fit(features, label, torch.stack([vector_of[name] for name in names]), split.seed)
                seconds = time.perf_counter() - started
                accuracies = accuracy(head.rank(asked, torch.stack([vector_of[name] for name in unseen])), truth)
                yield Measured(name, kind, split.seed, *accuracies, 1 / len(unseen), seconds, len(names))


def apart_from(
    unseen: Sequence[str], names: Sequence[str], vectors: Mapping[str, torch.Tensor], tau: float
) -> list[str]:
    """Those of the names that overlap with no unseen class, neither by the distance of their vectors nor by their words."""
    others = torch.stack([vectors[name] for name in unseen])
    return [
        name
        for name in names
        if 1 - (others @ vectors[name]).max() > tau
        and not any(says_the_same(name, other) or says_the_same(other, name) for other in unseen)
    ]


def together(seen: Sequence[tuple[LabelledFeatures, Sequence[str]]]) -> tuple[torch.Tensor, torch.Tensor]:
    """The features of the videos of some classes of each set, and their classes as indices into all those names in turn."""
    features, labels, first = [], [], 0
    for data, names in seen:
        own, label = data.among(names)
        features, labels, first = [*features, own], [*labels, label + first], first + len(names)
    return torch.cat(features), torch.cat(labels)


def _vectors(words: WordsConfig, names: Sequence[str]) -> dict[str, torch.Tensor]:
    """Each name's vector; one name of two data sets is one vector, but stays two classes."""
    return dict(zip(names, build_class_embeddings(names, words).vectors, strict=True))


def _objects(words: WordsConfig) -> KnownObjects:
    """What the installed network knows, named in `words`."""
    return KnownObjects(*installed_classifier(), known_vectors(imagenet_classes(), words))


def accuracy(scores: torch.Tensor, label: torch.Tensor) -> tuple[float, float]:
    """Top-1 and mean-class accuracy of scores [V, K] of videos of classes int64 [V]."""
    found = metrics.accuracy(scores.argmax(dim=1, keepdim=True).numpy(), label.numpy(), scores.shape[1])
    return found.top1, found.mean_class


def summarise(found: Sequence[Measured], baseline: str) -> Iterator[Mapping[str, object]]:
    """A row for each head and kind of words: mean and standard deviation over the splits, and the paired difference.

    difference, difference_se: mean-class accuracy less that of `baseline` with the same words in the same split, mean over
    the splits and its standard error; splits share classes and videos, so they are no independent draws.
    """
    pairs = dict.fromkeys((each.head, each.words) for each in found)
    for head, words in pairs:
        mine = {each.split: each for each in found if (each.head, each.words) == (head, words)}
        base = {each.split: each.mean_class for each in found if (each.head, each.words) == (baseline, words)}
        row: dict[str, object] = {"head": head, "words": words, "splits": len(mine)}
        for name in ("top1", "mean_class", "chance", "fit_s", "seen"):
            values = np.array([getattr(each, name) for each in mine.values()])
            row |= {name: float(values.mean()), f"{name}_sd": float(values.std(ddof=len(values) > 1))}
        gaps = np.array([each.mean_class - base[split] for split, each in mine.items()])
        row["difference"] = float(gaps.mean())
        row["difference_se"] = float(gaps.std(ddof=len(gaps) > 1) / np.sqrt(len(gaps)))
        yield row
