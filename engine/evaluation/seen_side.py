"""The seen side of a generalised evaluation: videos of the training classes, and those that may choose a bias."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch

from engine.data.config import DataConfig, SourceConfig
from engine.data.manifests.contents import file_identities
from engine.data.manifests.manifest import Manifest
from engine.data.sets.footage import Footage
from engine.data.sets.sources import DataSet, load_source
from engine.data.sets.trained import load_held_out, load_held_out_classes
from engine.errors import InputError
from engine.evaluation.embedding import EmbeddedVideos
from engine.evaluation.generalised import Embedded, GeneralisedResult, evaluate_generalised
from engine.semantics.classes import build_class_embeddings
from engine.semantics.config import WordsConfig
from engine.semantics.embeddings import ClassEmbeddings


@dataclass(frozen=True)
class SeenSide:
    """What a run saw, as data sets.

    videos: of the training classes, and not trained on. held: held-out videos of the training classes and the videos of
    classes that were held out whole, which may choose a bias; None where there are none. notes: lines for the user.
    """

    videos: DataSet
    held: tuple[DataSet, DataSet] | None
    notes: list[str]

    @classmethod
    def read(
        cls, config: DataConfig, train_classes: Sequence[str], footage: Footage | None, source: SourceConfig | None
    ) -> Self:
        """As `seen_videos` and `calibration_videos`, which raise what this does."""
        videos, notes = seen_videos(config, train_classes, footage, source)
        held, why_not = calibration_videos(config, train_classes, footage, None if source else videos)
        return cls(videos, held, [*notes, *filter(None, [why_not])])

    @property
    def datasets(self) -> list[DataSet]:
        """All that is to be embedded."""
        return [self.videos, *(self.held or ())]

    def embed(
        self,
        classes: ClassEmbeddings,
        words: WordsConfig,
        embed: Callable[[Manifest], EmbeddedVideos],
    ) -> "EmbeddedSeenSide":
        """Each video once, by `embed`; classes: those of the training."""
        held_classes = None if self.held is None else build_class_embeddings(self.held[1].classes, words)
        videos, held = (self.videos, embed(self.videos.manifest)), None
        if self.held is not None:
            ours, others = (videos if data is self.videos else (data, embed(data.manifest)) for data in self.held)
            held = ours, others, held_classes
        return EmbeddedSeenSide(videos, classes, held)


@dataclass(frozen=True)
class EmbeddedSeenSide:
    """The seen side as points, with the vectors of the training classes."""

    videos: Embedded
    classes: ClassEmbeddings
    held: tuple[Embedded, Embedded, ClassEmbeddings] | None

    def against(
        self, unseen: Embedded, classes: ClassEmbeddings, device: torch.device, trained: Sequence[str]
    ) -> GeneralisedResult:
        """Both sides among all classes; `trained`: classes of the test set that are not unseen."""
        return evaluate_generalised(self.videos, unseen, self.classes, classes, device, trained, self.held)


def seen_videos(
    config: DataConfig, train_classes: Sequence[str], footage: Footage | None, source: SourceConfig | None = None
) -> tuple[DataSet, list[str]]:
    """Videos of seen classes that were not trained on: those of `source`, or those that the run itself held out.

    Args:
        footage: what the model was trained on and what was held out of it; None, with a `source`, where nothing tells.

    Returns:
        The videos, and lines that say what was left out of them, or could not be.

    Raises:
        InputError: none were held out, all were trained on, or `source` has a class that was not trained on.
    """
    if source is None:
        data = load_held_out(config, train_classes, footage)
        seen, notes = data.held_out_videos, [f"warning: {change}: left out" for change in data.changes]
    else:
        seen, notes = load_source(source), []
        unknown = sorted(set(seen.classes) - set(train_classes))
        if unknown:
            raise InputError(
                f"videos of seen classes, '{seen.name}': the model was not trained on {', '.join(unknown)}"
            )
    if footage is None:
        return seen, notes
    if source is not None and footage.is_large:
        notes.append(
            f"warning: videos of '{seen.name}' are not held against those trained on: of a large manifest a run does not remember "
            "single videos"
        )
    trained = np.isin(file_identities(seen.manifest), footage.trained_files)
    if trained.all():
        raise InputError(f"videos of seen classes, '{seen.name}': all {len(trained)} were trained on: name new videos")
    if trained.any():
        notes.append(
            f"warning: {trained.sum()} of {len(trained)} videos of '{seen.name}' were trained on, by their contents: left out"
        )
        seen = DataSet(seen.name, seen.manifest.select(~trained))
    return seen, notes


def calibration_videos(
    config: DataConfig, train_classes: Sequence[str], footage: Footage | None, held_out: DataSet | None
) -> tuple[tuple[DataSet, DataSet] | None, str]:
    """Held-out videos of the training classes, and the videos of classes that were held out whole: they may choose a bias.

    Args:
        held_out: the former, where they are read already.

    Returns:
        Both sets, or None and why there are none.
    """
    why = "no bias is calibrated"
    if footage is None:
        return None, f"{why}: nothing tells what the run held out"
    try:
        classes = load_held_out_classes(config, train_classes, footage)
        if classes is None:
            return None, f"{why}: the run held out no whole classes (data.validation.num_classes)"
        return (held_out or load_held_out(config, train_classes, footage).held_out_videos, classes), ""
    except InputError as error:
        return None, f"{why}: {error}"
