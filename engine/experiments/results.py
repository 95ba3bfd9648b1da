"""What finished cells say: accuracies, grouped and averaged over splits."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.errors import InputError, mend, told
from engine.experiments.cells import Cell
from engine.experiments.setup import Training
from engine.results import spread
from engine.results.accuracy import SetResult
from engine.results.record import FILE, read_control, read_results
from engine.results.spread import Mean


@dataclass(frozen=True)
class Point:
    """One value of an experiment, before it is measured.

    curve: the series or row it belongs to. x: where on that series. training: what the cell trains on.
    snippets: of a test video; None as the config says.
    """

    curve: str
    x: float
    split: int
    draw: int
    cell: Cell
    training: Training
    snippets: int | None = None

    @property
    def videos(self) -> int:
        """Videos that are trained on."""
        return self.training.videos

    @property
    def classes(self) -> int:
        """Of these videos."""
        return self.training.classes


@dataclass(frozen=True)
class Measured:
    """What one test set gave for a point. Accuracies are shares in [0, 1]; half_*: Evaluation Protocol 1, None without."""

    point: Point
    test: str
    folder: Path
    num_classes: int
    top1: float
    top5: float
    mean_class: float
    largest_class: float | None
    half_mean_class: float | None
    half_top1: float | None
    half_top5: float | None
    half_classes: int | None
    per_class: tuple[tuple[str, int, float], ...]  # name, videos, accuracy
    control: float | None  # its mean-class accuracy
    contents: str | None = None  # of the test set, see `SetResult`


def split_means(measured: Sequence[Measured], of: str = "mean_class") -> dict[int, float]:
    """Mean over the draws of each split."""
    return spread.split_means((each.point.split, getattr(each, of)) for each in measured)


def mean_over_splits(measured: Sequence[Measured], of: str = "mean_class") -> Mean:
    """Mean over splits of the mean over draws; of one split, over its draws."""
    return spread.mean_over_splits([(each.point.split, getattr(each, of)) for each in measured])


def splits_told(groups: Iterable[Sequence[Measured]], what: str) -> str:
    """How many splits were measured in each group: `3 splits`, or `1 to 3 splits` where not in each as many; `what`: a split."""
    counts = sorted(len({each.point.split for each in group}) for group in groups)
    told = f"{counts[0]} to {counts[-1]}" if counts[0] < counts[-1] else f"{counts[0]}"
    return f"{told} {what}{'s' if counts[-1] > 1 else ''}"


def by_x(measured: Sequence[Measured], test: str, curve: str) -> dict[float, list[Measured]]:
    """What a curve has at each x, ascending."""
    groups: dict[float, list[Measured]] = {}
    for each in measured:
        if each.test == test and each.point.curve == curve:
            groups.setdefault(each.point.x, []).append(each)
    return dict(sorted(groups.items()))


def chance(measured: Sequence[Measured], test: str) -> float | None:
    """Accuracy of guessing on a test set; None where it is not the same for all that were measured."""
    candidates = {each.num_classes for each in measured if each.test == test}
    return 1 / candidates.pop() if len(candidates) == 1 else None


def largest_class(measured: Sequence[Measured]) -> float | None:
    """Share of the videos that the largest class of a test has, mean over splits; None where a record did not keep it."""
    known = all(each.largest_class is not None for each in measured)
    return mean_over_splits(measured, "largest_class").value if known else None


def control(measured: Sequence[Measured]) -> str | None:
    """Mean-class accuracy of the controls, mean over splits; None where not every run had one."""
    return str(mean_over_splits(measured, "control")) if all(each.control is not None for each in measured) else None


def results_path(folder: Path, snippets: int | None) -> Path:
    """Where a run's results lie: its own, or those of an evaluation with another number of snippets."""
    return folder / FILE if snippets is None else folder / f"snippets_{snippets}" / FILE


def read_point(point: Point, folder: Path) -> list[Measured]:
    """A result for each test set of a finished cell, with its control's where it was measured in the same way.

    Raises:
        InputError: a record cannot be read, or the run had no test set.
    """
    try:
        results = read_results(results_path(folder, point.snippets).parent)
        control = read_control(folder, results)
    except InputError as error:
        raise InputError(f"{error}: remove that file and give the command again, which makes it anew") from error
    except OSError as error:  # the file may be whole
        raise InputError(f"{FILE} of '{folder}' cannot be read ({told(error)}){mend(error)}") from error
    if not results.tests:
        raise InputError(f"run '{folder}' has no test set of unseen classes (data.tests)")
    return [_measured(point, folder, test, control and control.tests.get(name)) for name, test in results.tests.items()]


def unequal_tests(measured: Sequence[Measured]) -> list[str]:
    """A line for each test set of a split that is not the same in all runs: other classes, or other videos."""
    found: dict[tuple[str, int], dict[tuple[object, ...], str]] = {}
    is_known = all(each.contents for each in measured)  # older runs did not say
    for each in measured:
        classes = (each.num_classes, *sorted((name, count) for name, count, _ in each.per_class))
        found.setdefault((each.test, each.point.split), {}).setdefault(
            (classes, is_known and each.contents), each.folder.name
        )
    return [
        f"NOT ONE TEST: '{test}' of split {split} has other classes or videos in {' than in '.join(folders.values())}"
        for (test, split), folders in found.items()
        if len(folders) > 1
    ]


def _measured(point: Point, folder: Path, test: SetResult, control: SetResult | None) -> Measured:
    whole, half = test.all_classes, test.half_classes
    return Measured(
        point=point,
        test=test.name,
        folder=folder,
        num_classes=whole.num_classes,
        top1=whole.top1,
        top5=whole.top5,
        mean_class=whole.mean_class,
        largest_class=whole.largest_class,
        half_mean_class=half.mean("mean_class") if half else None,
        half_top1=half.mean("top1") if half else None,
        half_top5=half.mean("top5") if half else None,
        half_classes=half.splits[0].num_classes if half else None,
        per_class=tuple((row.name, row.num_videos, row.top1) for row in test.per_class if row.num_videos),
        control=control and control.all_classes.mean_class,
        contents=test.contents,
    )
