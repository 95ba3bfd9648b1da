"""What a set of videos gave, as it is kept: accuracies of both protocols, of each class, and the confusion matrix.

All accuracies are shares in [0, 1]. No torch is needed.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

TOP = 5
_EVALUATED = ("seen_classes", "trained_videos", "contents", "seconds", "generalised")


@dataclass(frozen=True, slots=True)
class Accuracy:
    """One evaluation of some videos against `num_classes` candidate classes.

    top1, top5: share of the videos whose class is the nearest, or among the five nearest.
    mean_class: mean over the classes that have videos of their own top-1 (every class counts the same).
    """

    num_classes: int
    num_videos: int
    top1: float
    top5: float
    mean_class: float

    @property
    def chance_top1(self) -> float:
        """Top-1 (and mean-class accuracy) of guessing."""
        return 1 / self.num_classes

    @property
    def chance_top5(self) -> float:
        """Top-5 of guessing; 1 where there are no more than five classes."""
        return min(TOP, self.num_classes) / self.num_classes

    @classmethod
    def from_dict(cls, tree: Mapping[str, Any]) -> "Accuracy":
        """From JSON, which has more."""
        return cls(**{each.name: tree[each.name] for each in dataclasses.fields(cls)})


@dataclass(frozen=True, slots=True)
class HalfClasses:
    """Evaluation Protocol 1 (paper Sec. 4.3): random halves of the classes, each its own small test.

    splits: one accuracy per seed that had videos. Means and sample standard deviations are over them.
    """

    splits: tuple[Accuracy, ...]

    def mean(self, measure: str) -> float:
        """Mean of "top1", "top5" or "mean_class" over the halves."""
        return float(np.mean([getattr(split, measure) for split in self.splits]))

    def std(self, measure: str) -> float:
        """Sample standard deviation (n - 1) over the halves; 0 for a single one."""
        values = [getattr(split, measure) for split in self.splits]
        return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Means, standard deviations, chance, and the halves one by one."""
        first = self.splits[0]
        measures = {}
        for measure in ("top1", "top5", "mean_class"):
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
        together, as `GeneralisedResult` has it. The last two of tools/evaluate.py alone.
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

    @property
    def unseen_top1(self) -> float | None:
        """Top-1 of the videos of classes that were not trained on, among all candidates; None where there is none."""
        rows = [row for row in self.per_class if row.num_videos and row.name not in (self.seen_classes or ())]
        total = sum(row.num_videos for row in rows)
        return sum(row.top1 * row.num_videos for row in rows) / total if total else None

    @property
    def doubts(self) -> list[str]:
        """Why the set's accuracy may say nothing, for people: it lies at chance, or one class takes most answers."""
        whole, told = self.all_classes, []
        chance, videos = whole.chance_top1, whole.num_videos
        error = (chance * (1 - chance) / videos) ** 0.5 if videos else 0.0
        if videos and whole.num_classes > 1 and whole.top1 <= chance + 2 * error:
            told.append(
                f"top-1 {whole.top1:.3f} of {videos} videos is not above chance ({chance:.3f}) by more than two standard "
                f"errors ({2 * error:.3f})"
            )
        if self.confusion.sum() and whole.num_classes > 1:
            answers = self.confusion.sum(axis=0) / self.confusion.sum()
            most = int(answers.argmax())
            own = self.confusion[most].sum() / self.confusion.sum()
            if answers[most] > 0.5 and answers[most] >= 2 * own:
                name = self.per_class[most].name
                told.append(f"'{name}' takes {answers[most]:.0%} of all answers, and has {own:.0%} of the videos")
        return told

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
        half = tree["half_classes"]
        rows = [row | {"top1": float("nan") if row["top1"] is None else row["top1"]} for row in tree["per_class"]]
        return SetResult(
            name=tree["name"],
            all_classes=Accuracy.from_dict(tree["all_classes"]),
            half_classes=HalfClasses(tuple(map(Accuracy.from_dict, half["splits"]))) if half else None,
            per_class=tuple(ClassAccuracy(**row) for row in rows),
            confusion=np.array(tree["confusion"], dtype=np.int64),
            failures=tuple(FailedVideo(Path(each["path"]), each["reason"]) for each in tree["failures"]),
            **{name: tree.get(name) for name in _EVALUATED},
        )
