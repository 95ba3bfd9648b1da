"""What repeated measurements say: mean, standard error, the interval of a paired difference, rank correlation."""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Mean:
    """A mean, its standard error and the sample standard deviation (both 0 of one value: `spread` says so)."""

    value: float
    error: float
    std: float
    count: int

    @property
    def spread(self) -> float | None:
        """The standard deviation, where it is known."""
        return self.std if self.count > 1 else None

    def with_spread(self) -> str:
        """The mean and, where it is known, the standard deviation."""
        return f"{self.value:.3f} ± {self.std:.3f}" if self.count > 1 else f"{self.value:.3f}"

    def __str__(self) -> str:
        return f"{self.value:.3f} ± {self.error:.3f}" if self.count > 1 else f"{self.value:.3f}"


def mean_of(values: Sequence[float]) -> Mean:
    """Of at least one value."""
    std = statistics.stdev(values) if len(values) > 1 else 0.0
    return Mean(statistics.mean(values), std / math.sqrt(len(values)), std, len(values))


def split_means(values: Iterable[tuple[int, float]]) -> dict[int, float]:
    """Of values each with its split: the mean over the draws of each. Draws of one split share their test classes, so they are
    not independent."""
    found: dict[int, list[float]] = {}
    for split, value in values:
        found.setdefault(split, []).append(value)
    return {split: statistics.mean(draws) for split, draws in sorted(found.items())}


def mean_over_splits(values: Sequence[tuple[int, float]]) -> Mean:
    """Mean over splits of the mean over draws; of one split, over its draws."""
    if len({split for split, _ in values}) == 1:
        return mean_of([value for _, value in values])
    return mean_of(list(split_means(values).values()))


@dataclass(frozen=True)
class Difference:
    """The mean of paired differences and its 95 % interval (Student's t). One pair has no interval: low and high are None."""

    value: float
    low: float | None
    high: float | None

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.value:+.3f} (one pair says nothing)"
        return f"{self.value:+.3f} ({self.low:+.3f} to {self.high:+.3f})"


def difference(pairs: Sequence[tuple[float, float]]) -> Difference:
    """Of the first of each pair less the second; at least one pair, each measured on the same classes and videos."""
    return interval([one - other for one, other in pairs])


def interval(values: Sequence[float]) -> Difference:
    """The mean of at least one difference, and its interval."""
    mean = mean_of(values)
    if mean.count < 2:
        return Difference(mean.value, None, None)
    reach = mean.error * _quantile(mean.count)
    return Difference(mean.value, mean.value - reach, mean.value + reach)


def values_needed(values: Sequence[float], most: int) -> int | None:
    """How many values of this mean and standard deviation have an interval without 0; None: more than `most`."""
    mean = mean_of(values)
    for count in range(2, most + 1):
        if mean.std / math.sqrt(count) * _quantile(count) < abs(mean.value):
            return count
    return None


def _quantile(count: int) -> float:
    """Student's t of a two-sided 95 % interval of the mean of so many values."""
    from scipy.stats import t

    return float(t.ppf(0.975, count - 1))


def rank_correlation(one: Sequence[float], other: Sequence[float]) -> float:
    """Spearman's; equal values share their mean rank. 0 where one of them does not vary."""
    from scipy.stats import spearmanr

    varies = len(set(one)) > 1 and len(set(other)) > 1
    return float(spearmanr(one, other).statistic) if varies else 0.0
