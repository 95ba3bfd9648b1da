"""Which snippet is shown when: a pure function of (seed, epoch, position).

All randomness of the data (order, start, crop, flip) is drawn here for a whole epoch at once, from a
generator keyed by (seed, epoch), or, where there are millions of videos, computed for each position (`plans.py`).
Ranks, workers and decoders only read it, so the snippets are the same whatever their number, and the state to resume
from is two integers: epoch and position.

Epochs follow each other in one endless stream and a batch may straddle two of them: every batch is
full (static shapes), every video appears exactly once per epoch, and nothing is dropped.
"""

from dataclasses import dataclass

import numpy as np

from engine.data.batch import CropMotion
from engine.data.sampling.weights import RowWeights


@dataclass(frozen=True, slots=True)
class EpochPlan:
    """The snippets of one epoch in order, or of some of its positions; arrays of length `len(plan)`.

    video: int64, row of the data set. start: int64, first frame, counted from the row's first frame.
    crop_y, crop_x: float32 in [0, 1). flip: bool. motion: float32 [len, 6] in [0, 1), for stills: the fields
    of `CropMotion` in their order.
    """

    video: np.ndarray
    start: np.ndarray
    crop_y: np.ndarray
    crop_x: np.ndarray
    flip: np.ndarray
    motion: np.ndarray

    def __len__(self) -> int:
        return len(self.video)


def plan_epoch(
    num_frames: np.ndarray,
    *,
    seed: int,
    epoch: int,
    span: int = 16,
    flip: bool = True,
    clips_per_epoch: int | None = None,
    weights: np.ndarray | None = None,
) -> EpochPlan:
    """Plan one epoch: each video once, in random order, at a uniformly random start (paper Sec. 3.2).

    Args:
        num_frames: int [V], decoded frames of each video.
        seed, epoch: what the plan is a pure function of.
        span: source frames a snippet reaches over; starts are uniform over [0, frames - span].
            A shorter video starts at 0 and its last frame is repeated by the decoder.
        flip: mirror half of the snippets left-right (the authors' code does, the paper is silent).
        clips_per_epoch: keep only the first so many of the permutation (the authors' code caps its
            "epoch" at about 100,000); None keeps all.
        weights: float [V], how often each video comes in an epoch; None: once. The part after the point is a
            share of the videos of that weight, drawn anew in each epoch: of 10 videos of weight 2.5 all come
            twice and 5 once more.
    """
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, epoch))))
    rows = np.arange(len(num_frames)) if weights is None else _repeated(generator, weights)
    video = rows[generator.permutation(len(rows))]
    if clips_per_epoch is not None:
        video = video[:clips_per_epoch]
    room = np.maximum(num_frames[video].astype(np.int64) - span, 0)
    start = generator.integers(0, room, endpoint=True)
    crop = generator.random((2, len(video)), dtype=np.float32)
    flips = generator.integers(0, 2, len(video), dtype=np.uint8).astype(bool) & flip
    motion = generator.random((len(video), 6), dtype=np.float32)
    return EpochPlan(video, start, crop[0], crop[1], flips, motion)


def epoch_length(weights: RowWeights, clips_per_epoch: int | None = None) -> int:
    """Snippets of an epoch, of whatever plan."""
    total = sum(num_copies(weight, count) for weight, count in weights.counts())
    return min(total, clips_per_epoch or total)


def num_copies(weight: float, count: int) -> int:
    """How often the `count` videos of a weight come in an epoch, all together."""
    return max(1, round(weight * count))


def _repeated(generator: np.random.Generator, weights: np.ndarray) -> np.ndarray:
    """The rows of an epoch in no order that matters, each as often as its weight says."""
    parts = []
    for weight in np.unique(weights):
        rows = np.flatnonzero(weights == weight)
        whole, rest = divmod(num_copies(weight, len(rows)), len(rows))
        parts += [rows] * whole
        if rest:
            parts.append(generator.permutation(rows)[:rest])
    return np.concatenate(parts)


def stream_slice(epoch: int, position: int, count: int, epoch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """The next `count` places of the endless stream, from (epoch, position): arrays (epochs, positions)."""
    index = position + np.arange(count, dtype=np.int64)
    return epoch + index // epoch_size, index % epoch_size


def evaluation_starts(num_frames: int, num_snippets: int, span: int = 16) -> np.ndarray:
    """First frames of `num_snippets` evenly spaced snippets over [0, frames - span] (paper Sec. 4.4).

    One snippet is taken from the middle. A video shorter than `span` gives starts of 0.
    """
    room = max(num_frames - span, 0)
    if num_snippets == 1:
        return np.array([room // 2], dtype=np.int64)
    return np.rint(np.linspace(0, room, num_snippets)).astype(np.int64)


def evaluation_motions(num_snippets: int) -> list[CropMotion]:
    """The moving crops that stand for `num_snippets` snippets of a still: the same for every still."""
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence(num_snippets)))
    return [CropMotion(*row) for row in generator.random((num_snippets, 6)).tolist()]


def replacement_position(seed: int, epoch: int, position: int, attempt: int, epoch_size: int) -> int:
    """Where in the same epoch to look for a stand-in for a sample that could not be decoded."""
    draw = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, epoch, position, attempt + 1))))
    return int(draw.integers(0, epoch_size))
