"""What a model has seen, held against what it is tested on: such classes and videos are not unseen."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from engine.data.manifests.contents import digest, file_identities, rows_of_files
from engine.data.sets.footage import Footage
from engine.data.sets.sources import DataSet
from engine.errors import InputError
from engine.evaluation.metrics import ZeroShotResult
from engine.results.accuracy import SetResult
from engine.semantics.class_lists import NamedClasses
from engine.semantics.classes import KeptVectors
from engine.semantics.config import OverlapConfig
from engine.semantics.overlap import Words, nearest_of_any, overlapping
from engine.semantics.same_names import same_named
from engine.tasks.zero_shot.trained import LoadedModel

_SHOWN = 10  # videos of a warning; results.json has all


@dataclass(frozen=True)
class Known:
    """All that a model was trained on, by itself or in the weights it started from.

    classes: sets of class names. files: int64, contents of its videos; None where that is not known.
    overlap: how near two names are one class (paper Eq. 3). words: that measure it, where `overlap` names no others.
    unlabelled: int64, contents of the videos that scores are standardised over (`class_vectors`); None where there are none.
    """

    classes: Sequence[NamedClasses]
    files: np.ndarray | None
    overlap: OverlapConfig
    words: Words
    unlabelled: np.ndarray | None = None

    def classes_of(self, data: DataSet) -> list[str]:
        """The classes of a set that were trained on: by the same name, or by one within `overlap.tau`."""
        return self._compared(data)[0]

    def _compared(self, data: DataSet) -> tuple[list[str], list[str]]:
        """As `classes_of`; and lines on those of `classes` that were compared by name alone, with the reason."""
        found = set(same_named(data.classes, (name for _, names in self.classes for name in names)))
        apart = []
        for source, names in self.classes:
            try:
                near = nearest_of_any([("", data.classes)], [(source, names)], self.overlap.words or self.words)
                found.update(row.name for row in overlapping(near, self.overlap.tau))
            except InputError as error:  # as of vectors that know only the test classes
                apart.append(f"the classes of {source} could not be compared by vectors: {str(error).splitlines()[0]}")
        return [name for name in data.classes if name in found], apart

    def videos_of(self, data: DataSet) -> list[str] | None:
        """Paths of the videos of a set that were trained on, by their contents; None where that is not known."""
        return None if self.files is None else _paths_of(data, self.files)

    @classmethod
    def of(cls, loaded: LoadedModel, footage: Footage | None, unlabelled: Sequence[DataSet] = ()) -> Self:
        """Of a trained model; its footage where it is known. unlabelled: that its scores are standardised over."""
        classes = [("training", loaded.train_classes), ("pretrained weights", loaded.prior_classes)]
        files = None if footage is None or footage.is_large else footage.trained_files
        shown = np.concatenate([file_identities(each.manifest) for each in unlabelled]) if unlabelled else None
        return cls(classes, files, loaded.config.train.exclude_overlap, KeptVectors(loaded.config.words), shown)

    def look(self, data: DataSet) -> "SeenBefore":
        """What of a test set was trained on, or is standardised over, looked for once."""
        unlabelled = None if self.unlabelled is None else len(rows_of_files(data.manifest, self.unlabelled))
        classes, apart = self._compared(data)
        return SeenBefore(data, classes, self.videos_of(data), unlabelled, apart)


@dataclass(frozen=True)
class SeenBefore:
    """Classes and videos of a test set that a model was trained on; `videos`: None where that is not known.

    unlabelled: how many of its videos are among those that scores are standardised over; None where
        these are not.
    apart: why some classes were compared by name alone.
    """

    data: DataSet
    classes: list[str]
    videos: list[str] | None
    unlabelled: int | None = None
    apart: Sequence[str] = ()

    def warnings(self) -> list[str]:
        """Lines that name them."""
        name, lines = self.data.name, [f"'{self.data.name}': {line}" for line in self.apart]
        unknown = self.data.manifest.table.column("content_hash").null_count
        if self.videos is not None and unknown:
            lines.append(
                f"'{name}': the manifest does not tell the contents of {unknown} videos, so they are held against those "
                "trained on by path and size alone (a store's by checksum): index, or ingest, them again"
            )
        if self.videos:
            lines.append(
                f"warning: '{name}': the model was trained on {len(self.videos)} of these videos, by their contents under any "
                f"name, so they are not unseen: {_some(self.videos, _SHOWN)}"
            )
        if self.classes:
            lines.append(
                f"warning: '{name}': the model was trained on {len(self.classes)} of these classes, so they are not unseen: "
                f"{', '.join(map(repr, self.classes))}. Leave them out with data.tests.N.exclude_classes"
            )
        return lines

    def transductive_warnings(self) -> list[str]:
        """A line if scores are standardised over videos of the set itself."""
        if not self.unlabelled:
            return []
        return [
            f"warning: '{self.data.name}': {self.unlabelled} of its {len(self.data.manifest)} videos are among those of "
            "--unlabelled, by their contents, so its result is transductive, not the paper's protocol: name other videos"
        ]

    def mark(self, result: ZeroShotResult) -> ZeroShotResult:
        """A result of the set that says of which videos it is, which of its classes and videos were trained on, and whether scores
        were standardised over some of them."""
        seen = {"seen_classes": self.classes, "trained_videos": self.videos, "contents": digest(self.data.manifest)}
        together = {"transductive": bool(result.transductive or self.unlabelled), "own_unlabelled": self.unlabelled}
        return dataclasses.replace(result, **seen, **together)


def videos_seen_before(files: np.ndarray, measured: Sequence[DataSet]) -> list[str]:
    """A line for each set with videos that the weights a run starts from were trained on; `files`: int64, their contents."""
    found = [(data, _paths_of(data, files)) for data in measured]
    return [
        f"warning: the weights were trained on {len(paths)} of the {len(data.manifest)} videos of '{data.name}', by their "
        f"contents: {_some(paths, 3)}"
        for data, paths in found
        if paths
    ]


def _paths_of(data: DataSet, files: np.ndarray) -> list[str]:
    return [data.manifest.path(row) for row in rows_of_files(data.manifest, files).tolist()]


def _some(names: Sequence[str], shown: int) -> str:
    return "; ".join(names[:shown]) + "; ..." * (len(names) > shown)


def not_unseen(result: SetResult) -> str:
    """What of a test set is not unseen, in a few words; empty where all is, or nothing is known."""
    classes, videos = len(result.seen_classes or ()), len(result.trained_videos or ())
    told = [f"{classes} of {result.all_classes.num_classes} classes trained on"] if classes else []
    total = result.all_classes.num_videos + len(result.failures)
    return ", ".join([*told, *([f"{videos} of {total} videos trained on"] if videos else [])])


def check_unseen(results: Sequence[SetResult]) -> None:
    """The last word where nothing unseen was measured.

    Raises:
        InputError: of every test set all classes, or all videos, were trained on.
    """
    for result in results:
        videos = result.all_classes.num_videos + len(result.failures)
        if result.all_classes.num_classes > len(result.seen_classes or ()) and videos > len(
            result.trained_videos or ()
        ):
            return
    told = "; ".join(f"'{result.name}': {not_unseen(result)}" for result in results)
    raise InputError(
        f"nothing unseen was measured ({told}): name test sets of other classes and videos with --data MANIFEST"
    )
