"""What a set of videos gave, as it is kept: accuracies of both protocols, of each class, and the confusion matrix.

All accuracies are shares in [0, 1]. No torch is needed.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

TOP = 5
MEASURES = ("mean_class", "top1", "top5")  # in the order of tables
_EVALUATED = ("seen_classes", "trained_videos", "contents", "seconds", "generalised", "transductive", "own_unlabelled")


def percent(share: float) -> str:
    """A share in per cent for people: one decimal, and of a small one as many as show a digit (1 of 2,000 classes: 0.05)."""
    decimals = max(1, math.ceil(-math.log10(100 * share))) if share > 0 else 1
    return f"{100 * share:.{decimals}f}"


@dataclass(frozen=True, slots=True)
class Accuracy:
    """One evaluation of some videos against `num_classes` candidate classes.

    mean_class: mean over the classes that have videos of their own top-1 (every class counts the same): the headline.
    top1, top5: share of the videos whose class is the nearest, or among the five nearest.
    largest_class: share of the videos that the largest class has, which is the top-1 of one answer for all; None of a
        record made before it was kept.
    """

    num_classes: int
    num_videos: int
    top1: float
    top5: float
    mean_class: float
    largest_class: float | None = None

    @property
    def chance_top1(self) -> float:
        """Top-1 and mean-class accuracy of guessing."""
        return 1 / self.num_classes

    @property
    def chance_top5(self) -> float:
        """Top-5 of guessing; 1 where there are no more than five classes."""
        return min(TOP, self.num_classes) / self.num_classes

    def shown(self, share: float | None) -> str:
        """A share for people: three decimals, and more where chance needs them (one of 2,000 classes: 0.0005); None is "-"."""
        return "-" if share is None else f"{share:.{max(3, len(str(self.num_classes - 1)))}f}"

    @classmethod
    def from_dict(cls, tree: Mapping[str, Any]) -> "Accuracy":
        """From JSON, which has more."""
        needed = [each.name for each in dataclasses.fields(cls) if each.default is dataclasses.MISSING]
        return cls(**{name: tree[name] for name in needed}, largest_class=tree.get("largest_class"))


@dataclass(frozen=True, slots=True)
class HalfClasses:
    """Evaluation Protocol 1 (paper Sec. 4.3): random halves of the classes, each its own small test.

    splits: one accuracy per seed that had videos. Means and sample standard deviations are over them.
    """

    splits: tuple[Accuracy, ...]

    def mean(self, measure: str) -> float:
        """Mean of a field of `Accuracy` over the halves."""
        return float(np.mean([getattr(split, measure) for split in self.splits]))

    def std(self, measure: str) -> float:
        """Sample standard deviation (n - 1) over the halves; 0 for a single one."""
        values = [getattr(split, measure) for split in self.splits]
        return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Means, standard deviations, chance, and the halves one by one."""
        first = self.splits[0]
        measures = {}
        for measure in MEASURES:
            measures[measure] = self.mean(measure)
            measures[f"{measure}_std"] = self.std(measure)
        chance = {"chance_top1": first.chance_top1, "chance_top5": first.chance_top5}
        return {
            "num_classes": first.num_classes,
            **measures,
            **chance,
            "splits": [dataclasses.asdict(s) for s in self.splits],
        }


@dataclass(frozen=True, slots=True)
class ClassAccuracy:
    """One row of the per-class table; `confused_with` is the most frequent wrong answer ("" if none)."""

    name: str
    num_videos: int
    top1: float  # NaN where the class has no video; null in JSON
    confused_with: str
    confused_count: int


@dataclass(frozen=True, slots=True)
class FailedVideo:
    """A video that could not be decoded, and why."""

    path: Path
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SetResult:
    """What a set of videos gave.

    all_classes: Evaluation Protocol 2: all classes are candidates.
    half_classes: Evaluation Protocol 1; None with fewer than four classes, where half of them is no choice.
    confusion: int64 [C, C], videos of class (row) that were taken for class (column).
    failures: videos that could not be decoded: left out of every number here.
    seen_classes: of this test set, that the model was trained on. trained_videos: paths of its videos that were trained
        on, by their contents; None where that is not known. contents: a digest of its videos and their classes, equal for
        equal test sets by any name. seconds: that it took. generalised: seen and unseen classes
        together, as `GeneralisedResult` has it. The last two of tools/evaluate.py alone. transductive: whether the videos were
        named together (engine/evaluation/transductive.py), or scores standardised over some; None of a record made before that
        could be. own_unlabelled: how many of its videos were among those that scores were standardised over (--unlabelled);
        None where they were not.
    """

    name: str
    all_classes: Accuracy
    half_classes: HalfClasses | None
    per_class: tuple[ClassAccuracy, ...]
    confusion: np.ndarray
    failures: tuple[FailedVideo, ...]
    seen_classes: Sequence[str] | None = None
    trained_videos: Sequence[str] | None = None
    contents: str | None = None
    seconds: float | None = None
    generalised: Mapping[str, Any] | None = None
    transductive: bool | None = None
    own_unlabelled: int | None = None

    @property
    def is_named_together(self) -> bool:
        """Whether a video's name came from those that look like it, so that classes have shares in place of cosines."""
        return bool(self.transductive and not self.own_unlabelled)

    @property
    def unseen_mean_class(self) -> float | None:
        """Mean accuracy of the classes that were not trained on, among all candidates; None where there is none."""
        rows = [row for row in self.per_class if row.num_videos and row.name not in (self.seen_classes or ())]
        return float(np.mean([row.top1 for row in rows])) if rows else None

    @property
    def doubts(self) -> list[str]:
        """Why the set's accuracy may say nothing, for people: it lies at chance, or one class or two take most answers."""
        whole, videos = self.all_classes, self.confusion.sum(axis=1)
        if whole.num_classes < 2 or not videos.any():
            return []
        told, chance, present = [], whole.chance_top1, videos[videos > 0]
        error = (chance * (1 - chance) * (1 / present).sum()) ** 0.5 / len(present)
        if whole.mean_class <= chance + 2 * error:
            told.append(
                f"mean-class accuracy {whole.shown(whole.mean_class)} of {whole.num_videos} videos is not above chance "
                f"({whole.shown(chance)}) by more than two standard errors ({whole.shown(2 * error)})"
            )
        return told + self._collapse(videos / videos.sum())

    def _collapse(self, share: np.ndarray) -> list[str]:
        """A line if one class or two take over half of all answers, and twice their `share` of the videos."""
        answers = self.confusion.sum(axis=0) / self.confusion.sum()
        most = (-answers).argsort(kind="stable")
        for taken in (most[:1], most[:2]):
            if answers[taken].sum() > 0.5 and answers[taken].sum() >= 2 * share[taken].sum():
                names = " and ".join(f"'{self.per_class[index].name}'" for index in taken)
                verbs = ("takes", "has") if len(taken) == 1 else ("take", "have")
                return [
                    f"{names} {verbs[0]} {answers[taken].sum():.0%} of all answers, and {verbs[1]} "
                    f"{share[taken].sum():.0%} of the videos"
                ]
        return []

    def is_same_test(self, other: "SetResult | None") -> bool:
        """Whether another result is of the same classes and videos, as far as both tell."""
        if other is None or self.all_classes.num_videos != other.all_classes.num_videos:
            return False
        is_same = self.contents == other.contents or None in (self.contents, other.contents)
        return is_same and {row.name for row in self.per_class} == {row.name for row in other.per_class}

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        whole = self.all_classes
        chance = {"chance_top1": whole.chance_top1, "chance_top5": whole.chance_top5}
        per_class = [dataclasses.asdict(row) | {"top1": row.top1 if row.num_videos else None} for row in self.per_class]
        return {
            "name": self.name,
            "all_classes": {**dataclasses.asdict(whole), **chance},
            "half_classes": self.half_classes.to_dict() if self.half_classes else None,
            "per_class": per_class,
            "confusion": self.confusion.tolist(),
            "failures": [{"path": str(failure.path), "reason": failure.reason} for failure in self.failures],
            "doubts": self.doubts,
            **{name: getattr(self, name) for name in _EVALUATED},
        }

    @classmethod
    def from_dict(cls, tree: Mapping[str, Any]) -> "SetResult":
        """From JSON."""
        half, whole = tree["half_classes"], Accuracy.from_dict(tree["all_classes"])
        if whole.largest_class is None and whole.num_videos:
            most = max((row["num_videos"] for row in tree["per_class"]), default=0)
            whole = dataclasses.replace(whole, largest_class=most / whole.num_videos)
        rows = [row | {"top1": float("nan") if row["top1"] is None else row["top1"]} for row in tree["per_class"]]
        return SetResult(
            name=tree["name"],
            all_classes=whole,
            half_classes=HalfClasses(tuple(map(Accuracy.from_dict, half["splits"]))) if half else None,
            per_class=tuple(ClassAccuracy(**row) for row in rows),
            confusion=np.array(tree["confusion"], dtype=np.int64),
            failures=tuple(FailedVideo(Path(each["path"]), each["reason"]) for each in tree["failures"]),
            **{name: tree.get(name) for name in _EVALUATED},
        )


BESIDE_CONTROL = ("classes", "videos", "mean-class", "control", "chance", "top-1", "largest class")


def beside_control(result: SetResult, control: SetResult | None) -> list[object]:
    """A row of a table, in the order of `BESIDE_CONTROL`; control: of the same test, None where there is none."""
    whole = result.all_classes
    shares = [
        whole.mean_class,
        control and control.all_classes.mean_class,
        whole.chance_top1,
        whole.top1,
        whole.largest_class,
    ]
    return [whole.num_classes, whole.num_videos, *map(whole.shown, shares)]
