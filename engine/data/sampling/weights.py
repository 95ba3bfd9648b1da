"""How often each row of the training data comes in an epoch: a number for a run of rows, not for each."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np


@dataclass(frozen=True)
class RowWeights:
    """Weights of V rows, by runs of neighbours of one weight.

    values: float64 [R]. ends: int64 [R], ascending: the row behind the last of each run.
    """

    values: np.ndarray
    ends: np.ndarray

    @classmethod
    def of_sets(cls, sets: Sequence[tuple[float, int]]) -> Self:
        """Of data sets one after the other, each with its weight and number of rows (at least one)."""
        values, lengths = zip(*sets, strict=True)
        return cls(np.array(values, np.float64), np.cumsum(lengths, dtype=np.int64))

    @classmethod
    def of_rows(cls, weights: np.ndarray) -> Self:
        """Of each row, float [V]."""
        ends = np.append(np.flatnonzero(np.diff(weights)) + 1, len(weights))[: len(weights)]
        return cls(weights[ends - 1].astype(np.float64), ends)

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def each(self) -> np.ndarray:
        """float64 [V]: of each row."""
        return np.repeat(self.values, np.diff(self.ends, prepend=0))

    def sum(self) -> float:
        """How often all rows come together, before rounding."""
        return float(self.values @ np.diff(self.ends, prepend=0))

    def select(self, rows: np.ndarray) -> Self:
        """Of the rows named by an index or boolean array, in that order."""
        if rows.dtype != bool and len(self.values) > 1:
            return self.of_rows(self.each()[rows])
        is_mask = rows.dtype == bool
        starts = np.append(0, self.ends)[:-1]
        counts = (
            [np.count_nonzero(rows[a:b]) for a, b in zip(starts, self.ends, strict=True)] if is_mask else [len(rows)]
        )
        kept = np.array(counts, np.int64)
        return type(self)(self.values[kept > 0], np.cumsum(kept)[kept > 0])

    def thinned(self, ends: np.ndarray, kept: Sequence[int]) -> Self:
        """Of fewer rows: of each stretch of them, up to `ends`, int64 [P], within a run, so many are kept."""
        counts = np.bincount(np.searchsorted(self.ends, ends), kept, len(self.values)).astype(np.int64)
        return type(self)(self.values[counts > 0], np.cumsum(counts)[counts > 0])

    def counts(self) -> list[tuple[float, int]]:
        """Each weight that there is, ascending, and how many rows have it."""
        lengths = np.diff(self.ends, prepend=0)
        return [(float(value), int(lengths[self.values == value].sum())) for value in np.unique(self.values)]

    def runs_of(self, weight: float) -> tuple[np.ndarray, np.ndarray]:
        """The runs of a weight: int64 [r] each, their first rows, and how many rows there are up to the end of each."""
        lengths, mine = np.diff(self.ends, prepend=0), self.values == weight
        return (self.ends - lengths)[mine], np.cumsum(lengths[mine])
