"""The experiments by name: what each runs and how it is shown."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from engine.experiments import comparisons, curves
from engine.experiments.results import Measured, Point
from engine.experiments.setup import Setup
from engine.experiments.tables import Report


@dataclass(frozen=True)
class Experiment:
    """points: what is to be measured, each with its cell. report: from what was measured."""

    about: str
    points: Callable[[Setup], list[Point]]
    report: Callable[[Setup, Sequence[Measured]], Report]


EXPERIMENTS = {
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
    "table3": Experiment(
        "ablation: frozen, end to end, pretraining, joint training, several snippets",
        comparisons.table3_points, comparisons.table3_report,
    ),
}  # fmt: skip
