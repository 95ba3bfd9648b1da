"""Any methods side by side on the same class splits: a list in a YAML file, each a config and what is changed in it.

reference: end to end
methods:
  end to end: {config: configs/ucf15.yaml, control: true}
  images: {config: configs/ucf15_stills.yaml, shown: false}
  pretrained: {config: configs/ucf15.yaml, start: images}
  cosine: {config: configs/ucf15.yaml, set: [loss.name=cosine]}
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.config import load_config
from engine.errors import InputError
from engine.experiments.cells import Cell
from engine.experiments.curves import single_values, tests_of
from engine.experiments.results import (
    Measured,
    Point,
    chance,
    control,
    largest_class,
    mean_over_splits,
    split_means,
    splits_told,
)
from engine.experiments.setup import Method, Setup, class_pool, for_split, whole_training
from engine.experiments.tables import Report, Table
from engine.results.plots import bars_figure
from engine.results.spread import difference, mean_of
from engine.schema.files import read_yaml
from engine.schema.parser import option, parse


@dataclass(frozen=True)
class MethodConfig:
    """One method."""

    config: str = option(..., "the config of its training run", path=True)
    set: list[str] = option([], "section.key=value: changes of that config")
    start: str | None = option(None, "the method of this list whose weights it starts from, split by split")
    control: bool | None = option(None, "also train on random class vectors; default: as its config says")
    shown: bool = option(True, "in the table; else it is only a start of others")


@dataclass(frozen=True)
class MethodsConfig:
    """The list."""

    reference: str = option(..., "the method that the others are held against")
    methods: dict[str, MethodConfig] = option(..., "name -> method")


def read_methods(path: Path, overrides: Sequence[str]) -> tuple[str, tuple[Method, ...]]:
    """The reference's name and the methods of a file.

    Args:
        overrides: changes of all methods' configs; what a method sets itself goes before them.

    Raises:
        InputError: naming the file and the method.
    """
    tree = read_yaml(path)
    try:
        listed = parse(MethodsConfig, tree)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    methods = []
    for name, method in listed.methods.items():
        if method.start is not None and method.start not in listed.methods:
            raise InputError(f"{path}: method '{name}' starts from '{method.start}', which is not in the list")
        _check_starts(path, listed, name)
        config = load_config(Path(method.config), [*overrides, *method.set])
        if method.control is not None:
            config = dataclasses.replace(config, run=dataclasses.replace(config.run, control=method.control))
        methods.append(Method(name, config, method.start, method.shown))
    if not any(method.name == listed.reference and method.is_shown for method in methods):
        raise InputError(f"{path}: the reference '{listed.reference}' is not a shown method of the list")
    return listed.reference, tuple(methods)


def _check_starts(path: Path, listed: MethodsConfig, name: str) -> None:
    chain = [name]
    while (start := listed.methods[chain[-1]].start) is not None and start in listed.methods:
        if start in chain:
            raise InputError(f"{path}: methods start from each other in a circle: {' <- '.join([*chain, start])}")
        chain.append(start)


def method_cells(setup: Setup, split: int) -> dict[str, Cell]:
    """The cell of every method on one split."""
    by_name = {method.name: method for method in setup.methods}
    cells: dict[str, Cell] = {}

    def cell(name: str) -> Cell:
        if name not in cells:
            method = by_name[name]
            start = cell(method.start) if method.start is not None else None
            config = for_split(dataclasses.replace(setup, base=method.config), split)
            cells[name] = Cell(f"{name}-split{split}", config, start)
        return cells[name]

    return {name: cell(name) for name in by_name}


def methods_points(setup: Setup) -> list[Point]:
    """Every shown method on every split."""
    if not setup.methods:
        raise InputError("experiment 'methods' compares the methods of a file: name it with --methods FILE")
    points = []
    for split in setup.splits:
        cells = method_cells(setup, split)
        for method in setup.methods:
            if method.is_shown:
                config = cells[method.name].config
                training = whole_training(config, class_pool(config))
                points.append(Point(method.name, 0, split, 0, cells[method.name], training))
    return points


def methods_report(setup: Setup, measured: Sequence[Measured]) -> Report:
    """Mean and spread of each method, and its paired difference to the reference with its 95 % interval."""
    tables, panels, every = [], [], []
    header = ["method", "splits", "unseen mean-class", "standard deviation", f"less {setup.reference} (95 %)",
              "random-vector control", "top-1", "largest class"]  # fmt: skip
    for test in tests_of(measured):
        groups = {
            name: [m for m in measured if m.test == test and m.point.curve == name]
            for name in (method.name for method in setup.methods if method.is_shown)
        }
        every += filter(None, groups.values())
        reference = split_means(groups[setup.reference])
        rows, bars = [], []
        for name, group in groups.items():
            if not group:
                continue
            own = split_means(group)
            mean = mean_of(list(own.values()))
            bars.append((name, mean))
            pairs = [(own[split], reference[split]) for split in own if split in reference]
            less = str(difference(pairs)) if pairs and name != setup.reference else None
            rows.append([name, mean.count, mean.value, mean.spread, less, control(group),
                         mean_over_splits(group, "top1").value, largest_class(group)])  # fmt: skip
        guessing = chance(measured, test)
        rows.append(["chance", None, guessing, *[None] * 5])
        tables.append(Table(header, rows, test))
        panels.append((test, bars, guessing))
    notes = [
        "Differences are paired: split by split, the same unseen classes and videos; in brackets the 95 % interval of the mean "
        "(Student's t over the splits): one that holds zero decides nothing. The control is the same training towards random "
        "class vectors, which must come out at chance. Largest class: top-1 of one answer for all videos."
    ]
    figure = bars_figure(panels, f"Methods, {splits_told(every, 'class split')} (mean ± standard error)")
    return Report("Methods", notes, tables, single_values(measured), figure)
