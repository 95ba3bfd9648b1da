"""Heads over random splits of the classes of a data set: who names the unseen classes how well, and by how much.

The splits are those of `tools/untrained_splits.py`. In each split every head is fitted to the seen classes' videos twice: with
the class vectors, and with random ones (the control, drawn anew in every split), which must stay at chance.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from engine import metrics
from engine.data.config import ClassSplitConfig
from engine.data.sources import split_classes
from engine.heads.catalogue import HEADS
from engine.heads.classes import NamedClasses, RandomClasses
from engine.heads.sequences import Sequences
from engine.semantics.config import WordsConfig

WORDS, RANDOM = "words", "random words"
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


def measure(
    data: LabelledFeatures, splits: Sequence[ClassSplitConfig], heads: Sequence[str], words: WordsConfig
) -> Iterator[Measured]:
    """Each head in each split, with the class vectors of `words` and with random ones.

    Raises:
        InputError: too few classes for the split or a head, or a class without a vector.
    """
    named = NamedClasses(words)
    for split in splits:
        sides = split_classes(data.classes, split)
        for kind, source in ((WORDS, named), (RANDOM, RandomClasses(split.seed))):
            seen, unseen = source(sides["train"]), source(sides["unseen"])
            for name in heads:
                head = HEADS[name]()
                started = time.perf_counter()
                head.fit(*data.among(seen.names), seen, split.seed)
                seconds = time.perf_counter() - started
                videos, label = data.among(unseen.names)
                accuracies = accuracy(head.rank(videos, unseen), label)
                largest = float(label.bincount().max()) / len(label)
                yield Measured(name, kind, split.seed, *accuracies, 1 / len(unseen), largest, seconds)


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
        for name in ("top1", "mean_class", "chance", "largest", "fit_s"):
            values = np.array([getattr(each, name) for each in mine.values()])
            row |= {name: float(values.mean()), f"{name}_sd": float(values.std(ddof=len(values) > 1))}
        gaps = np.array([each.mean_class - base[split] for split, each in mine.items()])
        again = np.random.default_rng(0).integers(len(gaps), size=(_DRAWS, len(gaps)))
        low, high = np.quantile(gaps[again].mean(axis=1), [0.025, 0.975])
        yield row | {"difference": float(gaps.mean()), "difference_low": float(low), "difference_high": float(high)}
