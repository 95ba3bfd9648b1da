"""How much accuracy rises where training classes that overlap with test classes are left in (paper Sec. 3.3)."""

from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np

from engine.data.sets.sources import load_tests, load_training_sets
from engine.errors import InputError
from engine.experiments.cells import Cell
from engine.experiments.claims import Finding, less
from engine.experiments.curves import single_values, tests_of
from engine.experiments.results import Measured, Point, chance
from engine.experiments.setup import (
    Setup,
    as_long,
    class_pool,
    for_split,
    leaving_out_overlap,
    whole_training,
    with_sources,
)
from engine.experiments.tables import Report, Table
from engine.results.plots import bars_figure
from engine.results.spread import mean_of
from engine.schema.keys import with_keys
from engine.semantics.overlap import near_classes

_OUT, _IN = "overlap left out", "overlap left in"


def leak_points(setup: Setup) -> list[Point]:
    """The same training twice, in as many steps: without the overlapping classes, and with them.

    Raises:
        InputError: no training class overlaps with a test class.
    """
    points = []
    for split in setup.splits:
        strict = leaving_out_overlap(for_split(setup, split))
        pool = class_pool(strict)
        lax = with_keys(strict, {"train.exclude_overlap.training": "allow"})
        more = class_pool(lax)
        if len(more.names) == len(pool.names):
            raise InputError(
                "no training class of the config overlaps with a test class: there is nothing to leave in; add sets or splits to "
                "data.train that have some, or raise train.exclude_overlap.tau"
            )
        points.append(Point(_OUT, 0, split, 0, Cell(f"e2e-split{split}", strict), whole_training(strict, pool)))
        training = as_long(lax, more, lax.data.train, points[-1].training.epoch)
        cell = Cell(f"overlap-split{split}", with_sources(lax, training.sources))
        points.append(Point(_IN, 0, split, 0, cell, training))
    return points


def leak_report(setup: Setup, measured: Sequence[Measured]) -> Report:
    """Accuracy on all test classes, on those that are trained under another name, and on the others."""
    rows, panels, findings = [], [], []
    overlapped = {split: _overlapped(setup, split) for split in dict.fromkeys(each.point.split for each in measured)}
    for test in tests_of(measured):
        bars = []
        for which in ("all", "overlapping", "other"):
            found = {
                curve: dict(
                    _accuracies([m for m in measured if (m.test, m.point.curve) == (test, curve)], overlapped, which)
                )
                for curve in (_OUT, _IN)
            }
            gain = less(found[_IN], found[_OUT])
            findings.append(Finding(f"left in above left out, {which} test classes", test, gain))
            for curve, by_split in found.items():
                if by_split:
                    mean = mean_of(list(by_split.values()))
                    rows.append([test, which, curve, mean.count, str(mean)])
                    bars.append((f"{curve}\n{which}", mean))
        panels.append((test, bars, chance(measured, test)))
    notes = [
        f"Overlapping: a training class lies within {setup.base.train.exclude_overlap.tau:g} (cosine distance) of the test class. "
        "Both trainings take the same number of steps. All test classes are candidates in every row. Mean ± standard error over "
        "the splits."
    ]
    header = ["test set", "test classes", "training", "splits", "mean-class"]
    figure = bars_figure(panels, "Overlapping classes left out and left in")
    title = "What overlapping classes give (paper Sec. 3.3)"
    return Report(title, notes, [Table(header, rows)], single_values(measured), figure, findings)


def _accuracies(
    measured: Sequence[Measured], overlapped: Mapping[int, Collection[str]], which: str
) -> Iterator[tuple[int, float]]:
    """Split -> mean accuracy of the test classes that are asked for, where there are some.

    Args:
        overlapped: of each split the test classes that overlap.
    """
    for each in measured:
        near = overlapped[each.point.split]
        values = [
            accuracy
            for name, _, accuracy in each.per_class
            if which in ("all", "overlapping" if name in near else "other")
        ]
        if values:
            yield each.point.split, float(np.mean(values))


def _overlapped(setup: Setup, split: int) -> set[str]:
    """Test classes that overlap with a training class of the split: asked of each, since one training class may be near several."""
    config = for_split(setup, split)
    training = [(data.name, data.classes) for data in load_training_sets(config.data)]
    tests = [(data.name, data.classes) for data in load_tests(config.data.tests)]
    return {row.name for row in near_classes(config.train.exclude_overlap, tests, training, config.words)}
