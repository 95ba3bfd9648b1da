"""The experiments by name: what each runs and how it is shown."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from engine.experiments import comparisons, curves, distances, methods
from engine.experiments.results import Measured, Point
from engine.experiments.setup import Setup
from engine.experiments.tables import Report


@dataclass(frozen=True)
class Experiment:
    """points: what is to be measured, each with its cell. report: from what was measured."""

    about: str
    points: Callable[[Setup], list[Point]]
    report: Callable[[Setup, Sequence[Measured]], Report]

    @property
    def trains(self) -> bool:
        return self.points is not _no_points


def _no_points(setup: Setup) -> list[Point]:
    return []


EXPERIMENTS = {
    "fig2": Experiment(
        "t-SNE of class vectors: training, removed and test classes (trains nothing)", _no_points, distances.figure2_report
    ),
    "fig3": Experiment(
        "training classes nearest to a test class (trains nothing)", _no_points, distances.figure3_report
    ),
    "fig4": Experiment(
        "accuracy over the number of training videos and of training classes",
        curves.figure4_points, curves.figure4_report,
    ),
    "fig5": Experiment(
        "diversity of the training classes: drawn within 1, 2, 3, 6 clusters",
        curves.figure5_points, curves.figure5_report,
    ),
    "fig6": Experiment(
        "pretraining on pictures, over the number of training videos",
        curves.figure6_points, curves.figure6_report,
    ),
    "fig7": Experiment(
        "accuracy over the distance of a test class from the training classes",
        distances.figure7_points, distances.figure7_report,
    ),
    "table1": Experiment(
        "half of the test classes (Evaluation Protocol 1), beside published numbers",
        comparisons.comparison_points, comparisons.table1_report,
    ),
    "table2": Experiment(
        "all test classes (Evaluation Protocol 2), beside published numbers",
        comparisons.comparison_points, comparisons.table2_report,
    ),
    "table3": Experiment(
        "ablation: frozen, end to end, pretraining, joint training, several snippets",
        comparisons.table3_points, comparisons.table3_report,
    ),
    "methods": Experiment(
        "the methods of a file (--methods) against one of them, with paired differences",
        methods.methods_points, methods.methods_report,
    ),
}  # fmt: skip
