"""What a zero-shot run trains on and what it is measured on, each set with the vectors of its classes."""

from dataclasses import dataclass, field
from pathlib import Path

import torch

from engine.config import Config
from engine.data.sampling.weights import RowWeights
from engine.data.sets.footage import LEFT_OUT, Footage
from engine.data.sets.holding_out import nothing_held_out
from engine.data.sets.sources import DataSet, load_tests, load_training, load_training_sets, same_videos
from engine.models.weights import weights_classes
from engine.semantics.class_lists import NamedClasses, read_class_names
from engine.semantics.classes import KeptVectors, build_class_embeddings
from engine.semantics.embeddings import ClassEmbeddings
from engine.semantics.overlap import remove_overlap
from engine.tasks.decoding import Decoding, choose_decoding


@dataclass(frozen=True)
class MeasuredSet:
    """Videos whose accuracy is measured, and the classes that compete for them.

    key: what its curves are called.
    """

    key: str
    data: DataSet
    classes: ClassEmbeddings


@dataclass(frozen=True)
class Sets:
    """All of a run's videos, read and checked once, each set with its class vectors.

    train: the videos trained on. weights: how often each comes in an epoch.
    classes: of `train`, in the order of the labels.
    held_out_videos: of those same classes. held_out_classes: videos of training classes that are held out whole.
    words: what gave all of them their vectors.
    footage: the training data row by row, as checkpoints remember them.
    prior_classes: that `model.weights` were trained on (D_p of the paper).
    notes: lines for the log.
    """

    train: DataSet
    weights: RowWeights
    classes: ClassEmbeddings
    held_out_videos: MeasuredSet | None
    held_out_classes: MeasuredSet | None
    tests: list[MeasuredSet]
    words: KeptVectors
    decoding: Decoding
    footage: Footage
    prior_classes: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)

    @property
    def measured(self) -> list[MeasuredSet]:
        """The sets that are measured while training."""
        return [each for each in (self.held_out_videos, self.held_out_classes, *self.tests) if each is not None]

    @property
    def test_classes(self) -> list[NamedClasses]:
        return [(test.data.name, test.data.classes) for test in self.tests]


def read_sets(
    config: Config, device: torch.device, remembered: Footage | None = None, *, join_copies: bool = True
) -> Sets:
    """Read manifests and words; leave out training classes that overlap with test classes, as the config says.

    Args:
        remembered, join_copies: as in `load_training`.

    Raises:
        InputError: what cannot be read, classes that overlap, a class without a vector.
    """
    words = KeptVectors(config.words)
    tests = load_tests(config.data.tests)
    training_sets = load_training_sets(config.data, undrawn=remembered is not None)
    removed, notes = remove_overlap(
        config.train.exclude_overlap,
        [(part.name, part.classes) for part in training_sets],
        [(test.name, test.classes) for test in tests],
        words,
    )
    data = load_training(config.data, removed, training_sets, remembered, join_copies=join_copies)
    prior_classes, unknown = _weights_classes(config)
    classes = build_class_embeddings(data.train.classes, words)

    def with_own_classes(key: str, held: DataSet) -> MeasuredSet:
        return MeasuredSet(key, held, build_class_embeddings(held.classes, words))

    every = [data.train, *(held for held in (data.held_out_videos, data.held_out_classes) if held), *tests]
    return Sets(
        train=data.train,
        weights=data.weights,
        classes=classes,
        # Videos of training classes compete among all training classes, those of others among the classes of their set.
        held_out_videos=MeasuredSet("seen", data.held_out_videos, classes) if data.held_out_videos else None,
        held_out_classes=with_own_classes("held_out_classes", data.held_out_classes) if data.held_out_classes else None,
        words=words,
        tests=[with_own_classes(f"unseen/{test.name}", test) for test in tests],
        decoding=choose_decoding(config, device, [each.manifest for each in every]),
        footage=data.footage,
        prior_classes=prior_classes,
        notes=[
            *notes,
            *unknown,
            *nothing_held_out(config.data.validation, data.held_out_videos),
            *_copies(data.footage),
            *same_videos(data.train, every[1:]),
        ],
    )


def _copies(footage: Footage) -> list[str]:
    count = int((footage.part == LEFT_OUT).sum())
    return (
        [f"{count} videos are neither trained on nor held out: they show what others show that are trained on"]
        if count
        else []
    )


def _weights_classes(config: Config) -> tuple[tuple[str, ...], list[str]]:
    """The classes that `model.weights` were trained on, and a line for the log where that is not known."""
    named = config.train.exclude_overlap.pretrained_classes
    if named:
        return read_class_names(Path(named)), []
    known = weights_classes(config.model.weights) if config.model.weights else ()
    if known is not None:
        return known, []
    return (), [
        f"what classes '{config.model.weights}' was trained on is not known, so they are not held against the test "
        "classes: name them in train.exclude_overlap.pretrained_classes"
    ]
