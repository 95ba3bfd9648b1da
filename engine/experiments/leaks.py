"""How much accuracy rises where training classes that overlap with test classes are left in (paper Sec. 3.3)."""

from collections.abc import Collection, Iterator, Sequence

import numpy as np

from engine.data.sources import load_tests, load_training_sets
from engine.errors import InputError
from engine.experiments.cells import Cell
from engine.experiments.claims import Finding
from engine.experiments.curves import single_values, tests_of
from engine.experiments.results import Measured, Point, chance
from engine.experiments.setup import (
    Setup,
    as_long,
    class_pool,
    for_split,
    leaving_out_overlap,
    method_cell,
    whole_training,
    with_sources,
)
from engine.experiments.tables import Report, Table
from engine.results.plots import bars_figure
from engine.results.spread import mean_of
from engine.schema_keys import with_keys
from engine.semantics.overlap import nearest_test_classes, overlapping

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
        cell = method_cell(setup, "end to end", split, strict.data.train)
        points.append(Point(_OUT, 0, split, 0, Cell(cell.name, strict), whole_training(strict, pool)))
        training = as_long(lax, more, lax.data.train, points[-1].training.epoch)
        cell = Cell(f"overlap-split{split}", with_sources(lax, training.sources))
        points.append(Point(_IN, 0, split, 0, cell, training))
    return points


def leak_report(setup: Setup, measured: Sequence[Measured]) -> Report:
    """Accuracy on all test classes, on those that are trained under another name, and on the others."""
    rows, panels, findings = [], [], []
    for test in tests_of(measured):
        bars = []
        for which in ("all", "overlapping", "other"):
            found = {curve: dict(_accuracies(setup, measured, test, curve, which)) for curve in (_OUT, _IN)}
            gain = {split: value - found[_OUT][split] for split, value in found[_IN].items() if split in found[_OUT]}
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
    setup: Setup, measured: Sequence[Measured], test: str, curve: str, which: str
) -> Iterator[tuple[int, float]]:
    """Split -> mean accuracy of the test classes that are asked for, where there are some."""
    for each in measured:
        if each.test == test and each.point.curve == curve:
            near = _overlapped(setup, each.point.split)
            values = [accuracy for name, _, accuracy in each.per_class if which in ("all", _kind(name, near))]
            if values:
                yield each.point.split, float(np.mean(values))


def _kind(name: str, near: Collection[str]) -> str:
    return "overlapping" if name in near else "other"


def _overlapped(setup: Setup, split: int) -> set[str]:
    """Test classes that a training class of the split overlaps with."""
    config = for_split(setup, split)
    training = [(data.name, data.classes) for data in load_training_sets(config.data)]
    tests = [(data.name, data.classes) for data in load_tests(config.data.tests)]
    rule = config.train.exclude_overlap
    neighbours = nearest_test_classes(training, tests, rule.words or config.words)
    return {row.test_class for row in overlapping(neighbours, rule.tau)}
