"""What an experiment decides: for each of the paper's claims a difference over the splits, its interval, and a verdict."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from engine.experiments.results import Measured, by_x, split_means
from engine.results.spread import interval, values_needed
from engine.results.table import Table

FROZEN_PRETRAINED = "frozen after pictures, fewer videos"  # a curve of Figure 4
_MOST_SPLITS = 1000  # that are ever said to be needed
_EQUAL = 0.1  # numbers of videos that differ by less, relatively, count as equal

Gain = Mapping[int, float]  # split -> how much more mean-class accuracy, draws averaged


@dataclass(frozen=True)
class Finding:
    """claim: says that something is larger. gain: by how much it was, split by split."""

    claim: str
    test: str
    gain: Gain

    @property
    def verdict(self) -> str:
        """`holds` where the 95 % interval lies above 0, that the opposite holds, or how many splits of this spread would tell."""
        values = list(self.gain.values())
        found = interval(values)
        if found.low is None or found.high is None:
            return "cannot be told from one split"
        if found.low > 0:
            return "holds"
        if found.high < 0:
            return "does not hold: the opposite does"
        needed = values_needed(values, _MOST_SPLITS)
        return f"cannot be told; {f'over {_MOST_SPLITS}' if needed is None else needed} splits would tell"


def claims_table(findings: Sequence[Finding]) -> Table:
    """A row for each claim and test set that was measured on any split."""
    rows = [
        [each.claim, each.test, len(each.gain), str(interval(list(each.gain.values()))), each.verdict]
        for each in findings
        if each.gain
    ]
    return Table(["claim", "test set", "splits", "mean-class, difference (95 %)", "verdict"], rows, "What this decides")


def amounts(measured: Sequence[Measured], test: str) -> Iterator[Finding]:
    """Of Figure 4: end to end beside frozen; many classes beside many videos of each, where both are as many videos."""
    ours, fewer = "end to end, fewer videos", "end to end, fewer classes"
    for curve, what in (("frozen, fewer videos", "random"), (FROZEN_PRETRAINED, "pretrained")):
        yield from _above(f"end to end above frozen {what} features", measured, test, (ours, curve), most_with_all=True)
    shares = {x: group for x, group in by_x(measured, test, ours).items() if x < 1}
    for count, group in by_x(measured, test, fewer).items():
        apart = {x: abs(_videos(other) / _videos(group) - 1) for x, other in shares.items()}
        nearest = min(apart, key=apart.__getitem__, default=None)
        if nearest is not None and apart[nearest] < _EQUAL:
            claim = _more_classes(shares[nearest], count, group)
            yield Finding(claim, test, _gain(measured, test, (ours, nearest), (fewer, count)))


def _more_classes(many: Sequence[Measured], count: float, few: Sequence[Measured]) -> str:
    """The claim that a share of all classes' videos gives more than the videos of a number of classes."""
    classes = many[0].point.classes
    videos, of_few = (f"{_videos(group):.0f}" for group in (many, few))
    if videos == of_few:
        return f"{classes} classes above {count:g}, {videos} videos of either"
    return f"{classes} classes above {count:g}, {videos} videos above {of_few}"


def diversity(measured: Sequence[Measured], test: str) -> Iterator[Finding]:
    """Of Figure 5: classes of one large cluster beside classes of one of many small ones."""
    diverse, *more = by_x(measured, test, "end to end")
    for alike in more:
        claim = f"classes of one of {diverse:g} clusters above classes of one of {alike:g}"
        yield Finding(claim, test, _gain(measured, test, ("end to end", diverse), ("end to end", alike)))


def pretraining(measured: Sequence[Measured], test: str) -> Iterator[Finding]:
    """Of Figure 6: with pictures before beside from scratch, and whether most so with few videos."""
    curves = ("pretrained on pictures", "from scratch")
    yield from _above("pretrained on pictures above from scratch", measured, test, curves, most_with_all=False)


def snippets(measured: Sequence[Measured], test: str, many: int) -> Iterator[Finding]:
    """Of Table 3: the average of several snippets of a video beside one."""
    for one, several in (("e2e", "e2e + multi"), ("e2e + augment", "e2e + augment + multi")):
        gain = _gain(measured, test, (several, 0), (one, 0))
        yield Finding(f"{several}: {many} snippets of a video above one", test, gain)


def _above(
    claim: str, measured: Sequence[Measured], test: str, curves: tuple[str, str], *, most_with_all: bool
) -> Iterator[Finding]:
    """One curve above another with each share of the videos; and by more with the largest than with the smallest, or with
    the smallest than with the largest."""
    above = _gains(measured, test, *curves)
    for x, gain in above.items():
        yield Finding(f"{claim}, {x:g} of the videos", test, gain)
    if len(above) > 1:
        shares = list(above)
        more, fewer = (shares[-1], shares[0]) if most_with_all else (shares[0], shares[-1])
        by_more = f"{claim}: by more with {more:g} of the videos than with {fewer:g}"
        yield Finding(by_more, test, less(above[more], above[fewer]))


def _gain(measured: Sequence[Measured], test: str, one: tuple[str, float], other: tuple[str, float]) -> Gain:
    """Of one place of a curve, (curve, x), over another, in the splits that have both."""
    first, second = (
        split_means([m for m in measured if m.test == test and (m.point.curve, m.point.x) == place])
        for place in (one, other)
    )
    return less(first, second)


def _gains(measured: Sequence[Measured], test: str, one: str, other: str) -> dict[float, Gain]:
    """Of one curve over another at each x that both have, ascending."""
    both = by_x(measured, test, one).keys() & by_x(measured, test, other).keys()
    return {x: _gain(measured, test, (one, x), (other, x)) for x in sorted(both)}


def less(one: Gain, other: Gain) -> Gain:
    """The first less the second, in the splits that have both."""
    return {split: value - other[split] for split, value in one.items() if split in other}


def _videos(group: Sequence[Measured]) -> float:
    return float(np.mean([each.point.videos for each in group]))
