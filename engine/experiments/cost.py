"""What the cells of some experiments train on, and what they will cost: told before the first of them starts."""

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.errors import InputError
from engine.experiments.cells import Cell, is_finished
from engine.experiments.results import Point
from engine.experiments.setup import Training, class_pool, whole_training
from engine.results.record import read_results
from engine.results.table import Table
from engine.terminal.wording import counted


@dataclass(frozen=True)
class CellCost:
    """A cell and what it trains on. snippets: of its whole training, its control's with them; is_done: it is finished."""

    cell: Cell
    training: Training
    folder: Path
    is_done: bool

    @property
    def steps(self) -> int:
        """Of one training."""
        train = self.cell.config.train
        return -(-self.training.epoch * train.epochs // train.batch_size)  # as `Run.total_steps`

    @property
    def snippets(self) -> int:
        return self.steps * self.cell.config.train.batch_size * (2 if self.cell.config.run.control else 1)


def cell_costs(
    points: Sequence[Point], out: Path, renamed: Callable[[Cell], Cell] = lambda cell: cell
) -> list[CellCost]:
    """Every cell once, those that others start from before them.

    Args:
        renamed: what a cell will be called, where its sets are only planned (`planned_sets`).
    """
    found: dict[str, CellCost] = {}
    for point in points:
        start = point.cell.start
        if start is not None and start.digest not in found:
            found[start.digest] = _cost(renamed(start), whole_training(start.config, class_pool(start.config)), out)
        if point.cell.digest not in found:
            found[point.cell.digest] = _cost(renamed(point.cell), point.training, out)
    return list(found.values())


def _cost(cell: Cell, training: Training, out: Path) -> CellCost:
    folder = cell.folder(out)
    return CellCost(cell, training, folder, is_finished(cell, folder))


def plan_table(costs: Iterable[CellCost]) -> Table:
    """A row for each cell."""
    rows = [
        [each.cell.name, each.training.classes, each.training.videos, each.steps, f"{each.snippets / 1e6:.2f}",
         "yes" if each.is_done else "no", each.folder.name]
        for each in costs
    ]  # fmt: skip
    return Table(["cell", "classes", "videos", "steps", "million snippets", "finished", "folder"], rows)


def told(costs: Sequence[CellCost], workers: int, rate: float | None) -> str:
    """How much there is to do, and how long that will take.

    Args:
        rate: snippets a second of one worker; None: as the finished cells had it, if there are some.
    """
    left = [each for each in costs if not each.is_done]
    snippets = sum(each.snippets for each in left)
    amount = f"{snippets / 1e6:.1f} million" if snippets >= 1e5 else f"{snippets:,}"
    text = f"{counted(len(costs), 'cell')}, {len(left)} to run: {amount} snippets"
    measured = [speed for each in costs if each.is_done if (speed := _speed(each.folder))]
    rate = rate or (statistics.median(measured) if measured else None)
    if rate is None:
        return f"{text}; how long they take is told with --rate SNIPPETS_A_SECOND, or once a cell is finished"
    hours = snippets / rate / 3600
    return (
        f"{text}, at {rate:,.0f} a second about {_duration(hours)} of a worker, {_duration(hours / workers)} by the clock with "
        f"{workers}; evaluation comes to it"
    )


def _duration(hours: float) -> str:
    return f"{hours:,.1f} hours" if hours >= 1 else f"{60 * hours:.0f} minutes"


def _speed(folder: Path) -> float | None:
    try:
        return read_results(folder).clips_per_second
    except (InputError, OSError):  # told where its accuracies are read
        return None
