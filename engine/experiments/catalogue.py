"""The experiments by name: what each runs and how it is shown. What each is about: engine/experiments/names.py."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from engine.experiments import comparisons, curves, distances, leaks, methods
from engine.experiments.results import Measured, Point
from engine.experiments.setup import Setup
from engine.experiments.tables import Report


@dataclass(frozen=True)
class Experiment:
    """points: what is to be measured, each with its cell. report: from what was measured."""

    points: Callable[[Setup], list[Point]]
    report: Callable[[Setup, Sequence[Measured]], Report]

    @property
    def trains(self) -> bool:
        return self.points is not _no_points


def _no_points(setup: Setup) -> list[Point]:
    return []


EXPERIMENTS = {
    "fig2": Experiment(_no_points, distances.figure2_report),
    "fig3": Experiment(_no_points, distances.figure3_report),
    "fig4": Experiment(curves.figure4_points, curves.figure4_report),
    "fig5": Experiment(curves.figure5_points, curves.figure5_report),
    "fig6": Experiment(curves.figure6_points, curves.figure6_report),
    "fig7": Experiment(distances.figure7_points, distances.figure7_report),
    "table1": Experiment(comparisons.comparison_points, comparisons.table1_report),
    "table2": Experiment(comparisons.comparison_points, comparisons.table2_report),
    "table3": Experiment(comparisons.table3_points, comparisons.table3_report),
    "overlap": Experiment(leaks.leak_points, leaks.leak_report),
    "methods": Experiment(methods.methods_points, methods.methods_report),
}
