"""Domain shift, class by class: is a class that was learnt from one source known in the videos of another?

    all classes of `here`, half of the groups of those that are shared ──────fit──▶ within ─┐
    the same, but the shared classes' videos are as many of `there` ─────────fit──▶ across ─┴▶ the other half, named among all

Both are asked about the same videos, and learn as many of every class, so that they differ in the source alone. A group (the
clips of one video) never stands on both sides, and what `there` shows of the half that is asked about is not learnt. Each half
is asked about once.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from engine.errors import InputError
from engine.heads.classes import WordClasses
from engine.heads.head import Head
from engine.heads.labelled import LabelledFeatures
from engine.heads.sequences import Sequences
from engine.results.spread import difference, mean_of
from engine.results.table import Table
from engine.semantics.overlap import nearest_test_classes, overlapping, preferring_same_names


@dataclass(frozen=True, slots=True)
class Shifted:
    """A shared class: what it is called there, videos asked about, videos it was learnt from (mean of the halves), and the
    share of those named right, learnt within the source and across; chance; videos of there that one of the halves did not learn
    from, for it was asked about what they show."""

    name: str
    there: str
    videos: int
    learnt: float
    within: float
    across: float
    chance: float
    left_out: int = 0


def shared_classes(here: Sequence[str], there: Sequence[str], words: WordClasses, tau: float) -> dict[str, str]:
    """Classes of `here` and what is the same of `there`: of the same name, or the nearest no further than tau.

    Of several that are one class of `there` only the nearest: its videos would be learnt under two names.

    Raises:
        InputError: there is none.
    """
    rows = nearest_test_classes([("here", here)], [("there", there)], words.source)
    near = overlapping(preferring_same_names(rows, [("there", there)], words.source), tau, same_names=True)
    nearest = {row.test_class: row.name for row in reversed(near)}  # of each of `there`: `near` begins with the nearest
    called = {name: other for other, name in nearest.items()}
    found = {name: called[name] for name in here if name in called}
    if not found:
        raise InputError(
            f"no class of the one set lies within {tau:g} of a class of the other, or has its name: nothing is learnt across"
        )
    return found


def measure_shift(
    here: LabelledFeatures,
    groups: Sequence[str],
    there: LabelledFeatures,
    shared: Mapping[str, str],
    make: Callable[[], Head],
    words: WordClasses,
    seed: int = 0,
) -> list[Shifted]:
    """Each shared class, in videos of `here`.

    Args:
        groups: of each video of `here`.
        shared: of `shared_classes`.
        make: the head.

    Raises:
        InputError: a shared class has one group alone, or in `there` no video but those that are asked about.
    """
    generator = torch.Generator().manual_seed(seed)
    half = _halves(here, groups, list(shared), generator)
    names = words(here.classes)
    asked: Counter[str] = Counter()
    learnt: Counter[str] = Counter()
    videos_there, left_out = there.counts(), Counter[str]()
    right = {"within": Counter[str](), "across": Counter[str]()}
    for fold in (0, 1):
        own, other, kept = [], [], (half < 0).nonzero()[:, 0]
        unasked = there.without(None if here.shown is None else here.shown[half == fold])
        for name, called in shared.items():
            mine = _drawn(((here.label == here.classes.index(name)) & (half == 1 - fold)).nonzero()[:, 0], generator)
            theirs = _drawn((unasked.label == there.classes.index(called)).nonzero()[:, 0], generator)
            if not len(theirs):
                raise InputError(
                    f"class '{called}' of the other source has no video but those that are asked about: nothing is learnt across"
                )
            left_out[name] += videos_there[called] - len(theirs)
            count = min(len(mine), len(theirs))
            own.append(mine[:count])
            other.append(theirs[:count])
            learnt[name] += count
        index = torch.cat(
            [torch.full((len(rows),), here.classes.index(name)) for name, rows in zip(shared, own, strict=True)]
        )
        label = torch.cat([here.label[kept], index])
        test = (half == fold).nonzero()[:, 0]
        asked.update(here.classes[k] for k in here.label[test].tolist())
        for kind, rest in (("within", here.videos[torch.cat(own)]), ("across", there.videos[torch.cat(other)])):
            head = make()
            head.fit(Sequences.joined([here.videos[kept], rest]), label, names, seed)
            hits = head.rank(here.videos[test], names).argmax(dim=1) == here.label[test]
            right[kind].update(here.classes[k] for k in here.label[test][hits].tolist())
    chance = 1 / len(here.classes)
    shares = {name: [right[kind][name] / asked[name] for kind in right] for name in shared}
    return [
        Shifted(name, called, asked[name], learnt[name] / 2, *shares[name], chance, left_out[name])
        for name, called in shared.items()
    ]


def shift_table(head: str, found: Sequence[Shifted]) -> Table:
    """A row for each class, and the mean with the paired difference."""
    shown: list[list[object]] = [
        [each.name, each.there, each.videos, f"{each.learnt:.0f}", each.within, each.across, f"{each.across - each.within:+.3f}",
         each.chance]
        for each in found
    ]  # fmt: skip
    means = [mean_of([getattr(each, of) for each in found]).value for of in ("within", "across", "chance")]
    gap = difference([(each.across, each.within) for each in found])
    shown.append(["mean", None, sum(each.videos for each in found), None, *means[:2], str(gap), means[2]])
    header = [
        "class",
        "learnt as",
        "videos",
        "learnt from",
        "within the source",
        "across",
        "less within (95 %)",
        "chance",
    ]
    return Table(header, shown, head)


def _drawn(rows: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return rows[torch.randperm(len(rows), generator=generator)]


def _halves(
    here: LabelledFeatures, groups: Sequence[str], names: Sequence[str], generator: torch.Generator
) -> torch.Tensor:
    """Of each video of the classes its half, 0 or 1, whole groups alike; -1 of all others. int64 [V]."""
    half = torch.full((len(here.label),), -1)
    for name in names:
        rows = (here.label == here.classes.index(name)).nonzero()[:, 0].tolist()
        listed = sorted({groups[row] for row in rows})
        if len(listed) < 2:
            raise InputError(f"class '{name}' has one group of videos alone: none would be left to ask about")
        order = torch.randperm(len(listed), generator=generator).tolist()
        side = {group: place % 2 for group, place in zip(listed, order, strict=True)}
        for row in rows:
            half[row] = side[groups[row]]
    return half
