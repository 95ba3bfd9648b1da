"""What all sources of class vectors yield, and the one interface they share.

    class names ──▶ ClassVectorSource.embed ──▶ ClassEmbeddings ──▶ loss, nearest class

Averaged word vectors, ready vectors from a file, a sentence encoder and random vectors are such sources; nothing after them
knows which it was.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from engine.errors import InputError


class MissingVectors(InputError):
    """Class names that a source of class vectors does not know."""


@dataclass(frozen=True, eq=False)
class ClassEmbeddings:
    """Classes as points of the word space.

    names: C class names. vectors: float32 [C, D] on the CPU, rows of unit length.
    description: one line for the log: source, dimension, centring, rules.
    words: for each class, what its vector was made of.
    """

    names: tuple[str, ...]
    vectors: torch.Tensor
    description: str
    words: tuple[tuple[str, ...], ...]

    def __len__(self) -> int:
        return len(self.names)

    @property
    def dim(self) -> int:
        return self.vectors.shape[1]

    @classmethod
    def from_raw(
        cls, names: Sequence[str], vectors: np.ndarray, description: str, words: Sequence[Sequence[str]]
    ) -> "ClassEmbeddings":
        """Scale raw class vectors, float [C, D], to unit length.

        Raises:
            InputError: a vector is zero or not finite; names the classes.
        """
        unit, bad = unit_rows(vectors)
        if bad.any():
            classes = ", ".join(repr(name) for name, is_bad in zip(names, bad, strict=True) if is_bad)
            raise InputError(f"{description}: the vector of {classes} is zero or not finite, so it has no direction")
        tensor = torch.from_numpy(unit.astype(np.float32))
        return cls(tuple(names), tensor, description, tuple(tuple(part) for part in words))


class ClassVectorSource(Protocol):
    """Gives any class names their vectors; the same name always the same vector."""

    def embed(self, names: Sequence[str]) -> ClassEmbeddings:
        """Vectors of all the names, or one `InputError` that lists every name it cannot serve."""
        ...


def random_vector(text: str, dim: int, seed: int) -> np.ndarray:
    """Normally distributed float64 [dim] that is a function of the arguments alone."""
    digest = hashlib.blake2b(text.encode("utf-8"), digest_size=16).digest()
    entropy = (seed, int.from_bytes(digest, "little"))
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(entropy))).standard_normal(dim)


def unit_rows(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of [N, D] at unit length, float64, and bool [N]: rows that are zero or not finite (left as they are)."""
    vectors = np.asarray(vectors, dtype=np.float64)
    norms = np.linalg.norm(vectors, axis=1)
    bad = ~np.isfinite(norms) | (norms < 1e-12)
    return vectors / np.where(bad, 1.0, norms)[:, None], bad
