"""The videos of a pretraining run. Their classes are not used."""

from dataclasses import dataclass, field

import torch

from engine.config import Config
from engine.data.sampling.weights import RowWeights
from engine.data.sets.footage import Footage
from engine.data.sets.holding_out import nothing_held_out
from engine.data.sets.sources import DataSet, load_tests, load_training, load_training_sets, same_videos
from engine.tasks.decoding import Decoding, choose_decoding


@dataclass(frozen=True)
class MaskedData:
    """What is trained on, and what is held out of it.

    weights: how often each video comes in an epoch. held_out: None if nothing is.
    footage: the training data row by row, as checkpoints remember them. notes: lines for the log.
    """

    train: DataSet
    weights: RowWeights
    held_out: DataSet | None
    decoding: Decoding
    footage: Footage
    notes: list[str] = field(default_factory=list)


def read_data(config: Config, device: torch.device, remembered: Footage | None = None) -> MaskedData:
    """Read the manifests, those of `data.tests` only to say which of their videos are trained on.

    Args:
        remembered: as in `load_training`.

    Raises:
        InputError: what cannot be read, or no video.
    """
    sets = load_training_sets(config.data, undrawn=remembered is not None)
    data = load_training(config.data, sets=sets, remembered=remembered)
    held_out = data.held_out_videos or data.held_out_classes
    seen = [each.manifest for each in (data.train, held_out) if each is not None]
    notes = same_videos(data.train, load_tests(config.data.tests))
    if notes:
        notes.append("so these sets are unseen by their names alone: zero-shot results on them are transductive")
    notes += nothing_held_out(config.data.validation, data.held_out_videos)
    return MaskedData(data.train, data.weights, held_out, choose_decoding(config, device, seen), data.footage, notes)
