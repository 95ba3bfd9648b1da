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
from engine.semantics.classes import KeptVectors
from engine.semantics.config import WordsConfig

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


def measure(
    data: LabelledFeatures, splits: Sequence[ClassSplitConfig], heads: Sequence[str], words: WordsConfig
) -> Iterator[Measured]:
    """Each head in each split, with the class vectors of `words` and with random ones.

    Raises:
        InputError: too few classes for the split or a head, or a class without a vector.
    """
    kept = KeptVectors(words)
    kept_all = dict(zip(data.classes, kept.embed(data.classes).vectors, strict=True))
    for split in splits:
        sides = split_classes(data.classes, split)
        random = KeptVectors(WordsConfig(source="random", seed=split.seed))
        for kind in (WORDS, RANDOM):
            seen, unseen = (
                torch.stack([kept_all[name] for name in names]) if kind == WORDS else random.embed(names).vectors
                for names in (sides["train"], sides["unseen"])
            )
            for name in heads:
                head = HEADS[name]()
                started = time.perf_counter()
                head.fit(*data.among(sides["train"]), seen, split.seed)
                seconds = time.perf_counter() - started
                features, label = data.among(sides["unseen"])
                accuracies = accuracy(head.rank(features, unseen), label)
                yield Measured(name, kind, split.seed, *accuracies, 1 / len(unseen), seconds)


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
        for name in ("top1", "mean_class", "chance", "fit_s"):
            values = np.array([getattr(each, name) for each in mine.values()])
            row |= {name: float(values.mean()), f"{name}_sd": float(values.std(ddof=len(values) > 1))}
        gaps = np.array([each.mean_class - base[split] for split, each in mine.items()])
        row["difference"] = float(gaps.mean())
        row["difference_se"] = float(gaps.std(ddof=len(gaps) > 1) / np.sqrt(len(gaps)))
        yield row
