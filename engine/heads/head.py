"""What every head is: fitted to the videos of seen classes, it scores any classes for any videos.

windows of V videos, label [V], the seen classes ──▶ fit
windows of V videos, any K classes ──▶ rank ──▶ scores [V, K], the largest is the answer
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch

from engine.heads.classes import Classes
from engine.heads.sequences import Sequences


class Head(Protocol):
    """One way to name videos of classes that were never seen. Settings are fixed; test classes choose nothing."""

    def fit(self, videos: Sequences, label: torch.Tensor, classes: Classes, seed: int) -> None:
        """Learn from the windows of V videos, their classes int64 [V] into `classes`, the seen. Draws come from `seed`."""
        ...

    def rank(self, videos: Sequences, classes: Classes) -> torch.Tensor:
        """Scores [V, K] of V videos for K classes."""
        ...


@dataclass(frozen=True, slots=True)
class Standard:
    """Features of mean 0 and deviation 1 over what was learnt from; features that never change are 0."""

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


@dataclass(frozen=True, slots=True)
class Components:
    """The first principal components of standardised features, all scaled by one factor to a mean variance of 1."""

    standard: Standard
    basis: torch.Tensor

    @classmethod
    def of(cls, features: torch.Tensor, most: int) -> "Components":
        """From features [V, F]: `most` components, or F."""
        standard = Standard.of(features)
        inputs = standard(features).double()
        variance, basis = torch.linalg.eigh(inputs.T @ inputs / len(inputs))
        scale = variance[-most:].mean().clamp(min=1e-12).sqrt()
        return cls(standard, (basis[:, -most:].flip(1) / scale).float())

    def __call__(self, features: torch.Tensor) -> torch.Tensor:
        """Of features [V, F], float32 [V, components]."""
        return self.standard(features) @ self.basis


@contextmanager
def seeded(seed: int) -> Iterator[torch.Generator]:
    """Within, torch draws from `seed`; outside its generator is as it was. Gives a generator of order, of the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield torch.Generator().manual_seed(seed)


def batches(number: int, size: int, epochs: int, generator: torch.Generator) -> Iterator[torch.Tensor]:
    """Each epoch the rows 0..number-1 in a new order, in parts of at most `size`, int64."""
    for _ in range(epochs):
        yield from torch.randperm(number, generator=generator).split(size)
