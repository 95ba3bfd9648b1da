"""What every head is: fitted to features of seen classes' videos, it scores any classes for any videos.

features [V, F], label [V], vectors of seen classes [C, D] ──▶ fit
features [V, F], vectors of any classes [K, D] ──▶ rank ──▶ scores [V, K], the largest is the answer
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch


class Head(Protocol):
    """One way to name videos of classes that were never seen. Settings are fixed; test classes choose nothing."""

    def fit(self, features: torch.Tensor, label: torch.Tensor, vectors: torch.Tensor, seed: int) -> None:
        """Learn from float32 [V, F], int64 [V] into the unit `vectors` [C, D] of the seen classes. Draws come from `seed`."""
        ...

    def rank(self, features: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
        """Scores [V, K] of features [V, F] against unit vectors [K, D] of any classes."""
        ...


@dataclass(frozen=True, slots=True)
class Standard:
    """Features of mean 0 and deviation 1 over the videos that were learnt from; features that never change are 0."""

    mean: torch.Tensor
    scale: torch.Tensor

    @classmethod
    def of(cls, features: torch.Tensor) -> "Standard":
        """From features [V, F]."""
        scale = features.std(dim=0, correction=0)
        return cls(features.mean(dim=0), torch.where(scale > 1e-6 * scale.max(), scale, torch.inf))

    def __call__(self, features: torch.Tensor) -> torch.Tensor:
        """Of features [V, F]."""
        return (features - self.mean) / self.scale


def batches(number: int, size: int, epochs: int, generator: torch.Generator) -> Iterator[torch.Tensor]:
    """Each epoch the rows 0..number-1 in a new order, in parts of at most `size`, int64."""
    for _ in range(epochs):
        yield from torch.randperm(number, generator=generator).split(size)
