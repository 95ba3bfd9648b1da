"""The snippets at any positions of a run's endless stream, by one of two plans that a run keeps in its checkpoints.

1 (drawn): an epoch is drawn at once (`plan_epoch`) and kept. 2 (computed): what is at a position is computed from (seed,
epoch, position) when it is asked for, by a keyed permutation and a generator keyed by a counter (`keyed.py`): it takes no
memory and no start-up, however many videos there are. Both have each video as often as its weight says in an epoch, in an
order, at starts and crops that are independent of all others.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from engine.data.manifests.manifest import MANY_ROWS, Manifest
from engine.data.sampling.keyed import ORDER, REST, ROUNDS, keys, permuted, uniform_words
from engine.data.sampling.sampler import EpochPlan, epoch_length, num_copies, plan_epoch
from engine.data.sampling.weights import RowWeights


def plan_version(chosen: str, num_videos: int) -> int:
    """The plan of a new run: what `data.plan` says of so many videos; plan 1 keeps up to two epochs of 49 bytes a video."""
    return 2 if chosen == "computed" or (chosen == "auto" and num_videos >= MANY_ROWS) else 1


@dataclass(frozen=True, slots=True)
class Draw:
    """What a plan is a function of beside the videos; as in `plan_epoch`."""

    seed: int
    span: int = 16
    flip: bool = True
    clips_per_epoch: int | None = None


class Plan(ABC):
    """The snippets of all epochs.

    Args:
        manifest: the training videos. weights: how often each comes in an epoch.
    """

    def __init__(self, manifest: Manifest, weights: RowWeights, draw: Draw) -> None:
        self.manifest, self.weights, self.draw = manifest, weights, draw
        self.epoch_size = epoch_length(weights, draw.clips_per_epoch)

    @abstractmethod
    def of_epoch(self, epoch: int, positions: np.ndarray) -> EpochPlan:
        """What is at some positions of an epoch, int64 [N], each below `epoch_size`."""

    def at(self, epochs: np.ndarray, positions: np.ndarray) -> EpochPlan:
        """What is at some places of the stream, int64 [N] each, epochs ascending (`stream_slice`)."""
        first = np.flatnonzero(np.diff(epochs, prepend=-1))
        parts = [
            self.of_epoch(int(part[0]), places)
            for part, places in zip(np.split(epochs, first[1:]), np.split(positions, first[1:]), strict=True)
        ]
        return EpochPlan(*(np.concatenate([getattr(part, name) for part in parts]) for name in EpochPlan.__slots__))


class DrawnPlan(Plan):
    """Plan 1."""

    def __init__(self, manifest: Manifest, weights: RowWeights, draw: Draw) -> None:
        super().__init__(manifest, weights, draw)
        self._epochs: dict[int, EpochPlan] = {}  # the last two

    def of_epoch(self, epoch: int, positions: np.ndarray) -> EpochPlan:
        if epoch not in self._epochs:
            self._epochs = {old: plan for old, plan in self._epochs.items() if old == epoch - 1}
            draw = self.draw
            self._epochs[epoch] = plan_epoch(
                self.manifest.num_frames,
                seed=draw.seed,
                epoch=epoch,
                span=draw.span,
                flip=draw.flip,
                clips_per_epoch=draw.clips_per_epoch,
                weights=self.weights.each(),
            )
        whole = self._epochs[epoch]
        return EpochPlan(*(getattr(whole, name)[positions] for name in EpochPlan.__slots__))


class ComputedPlan(Plan):
    """Plan 2. An epoch permutes the copies of all videos: first those of the smallest weight, whole ones before the rest."""

    def __init__(self, manifest: Manifest, weights: RowWeights, draw: Draw) -> None:
        super().__init__(manifest, weights, draw)
        counts = weights.counts()
        self._groups = [
            (*divmod(num_copies(weight, count), count), count, *weights.runs_of(weight)) for weight, count in counts
        ]
        self._num_copies = epoch_length(weights)
        self._keys = lru_cache(maxsize=4)(lambda epoch: keys(draw.seed, epoch, count=ROUNDS + 1, purpose=ORDER))

    def of_epoch(self, epoch: int, positions: np.ndarray) -> EpochPlan:
        key, draw = self._keys(epoch), self.draw
        video = self._videos(epoch, permuted(positions, self._num_copies, key[:ROUNDS]))
        words = uniform_words(positions, key[ROUNDS], 11)
        room = np.maximum(self.manifest.frames_of(video).astype(np.int64) - draw.span, 0)
        share = ((words[0] << np.uint64(21)) | (words[1] >> np.uint64(11))) * 2.0**-53  # in [0, 1), all 53 bits
        start = np.minimum((share * (room + 1)).astype(np.int64), room)
        flip = (words[2] >= 2**31) & draw.flip
        places = (words[3:] >> np.uint64(8)).astype(np.float32) * np.float32(2.0**-24)
        return EpochPlan(video, start, places[0], places[1], flip, places[2:].T)

    def _videos(self, epoch: int, copies: np.ndarray) -> np.ndarray:
        """int64 [N]: whose the copies of an epoch are."""
        rows, first = np.empty(len(copies), np.int64), 0
        for index, (whole, rest, count, starts, ends) in enumerate(self._groups):
            mine = (copies >= first) & (copies < first + whole * count + rest)
            place = copies[mine] - first
            if rest:
                of_rest = place >= whole * count
                rounds = keys(self.draw.seed, epoch, index, count=ROUNDS, purpose=REST)
                place[of_rest] = permuted(place[of_rest] - whole * count, count, rounds)
            place %= count
            run = np.searchsorted(ends, place, side="right")
            rows[mine] = starts[run] + place - np.append(0, ends)[run]
            first += whole * count + rest
        return rows


PLANS = {1: DrawnPlan, 2: ComputedPlan}
