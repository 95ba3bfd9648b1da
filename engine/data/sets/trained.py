"""The training data of a run that is over, by what it remembers of them (`footage.py`)."""

import dataclasses
from collections.abc import Collection

import numpy as np

from engine.data.config import DataConfig
from engine.data.sets.footage import HELD_OUT_CLASS, HELD_OUT_VIDEO, LEFT_OUT, TRAINED, Footage
from engine.data.sets.sources import DataSet, TrainingData, load_training, load_training_sets
from engine.errors import InputError


def load_trained(config: DataConfig, train_classes: Collection[str], remembered: Footage) -> TrainingData:
    """The training data of a run that is over: which videos it trained on and which of those classes it held out.

    Rows that the run does not remember are in neither; a held-out video of equal contents with one trained on is left out.

    Args:
        train_classes: of the run, as its checkpoint has them (without overlapping and held-out classes).
    """
    sets = load_training_sets(config, undrawn=not remembered.is_large)
    others = {name for data in sets for name in data.classes} - set(train_classes)
    kept = remembered.only(TRAINED, HELD_OUT_VIDEO)
    is_seen = (kept.part == HELD_OUT_VIDEO) & np.isin(kept.files, kept.trained_files)
    kept = dataclasses.replace(kept, part=np.where(is_seen, LEFT_OUT, kept.part).astype(np.uint8))
    return load_training(config, without=others, sets=sets, remembered=kept)


def load_held_out(config: DataConfig, train_classes: Collection[str], remembered: Footage) -> TrainingData:
    """As `load_trained`, where there must be held-out videos.

    Raises:
        InputError: the run held no videos out, or none of them is there any more.
    """
    data = load_trained(config, train_classes, remembered)
    if data.held_out_videos is None:
        if (remembered.part == HELD_OUT_VIDEO).any():
            raise InputError(
                f"no video that the run held out can be measured: {'; '.join(data.changes) or 'all are trained on'}"
            )
        raise InputError(
            "the run held out no videos of its training classes (data.validation.video_share): name a set of other videos"
        )
    return data


def load_held_out_classes(config: DataConfig, train_classes: Collection[str], remembered: Footage) -> DataSet | None:
    """The videos of the training sets' classes that a run held out whole, as far as they are still there; None if none."""
    kept = remembered.only(HELD_OUT_CLASS)
    if not len(kept.part):
        return None
    sets = load_training_sets(config, undrawn=True)
    if not {name for data in sets for name in data.classes} - set(train_classes):
        return None
    return load_training(config, without=train_classes, sets=sets, remembered=kept).held_out_classes
