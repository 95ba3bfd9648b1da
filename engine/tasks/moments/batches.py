"""Which query is learnt when, and the batches that come of it: a pure function of (seed, epoch, position)."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from engine.data.batch import SampleFailure
from engine.data.sampling.sampler import stream_slice
from engine.errors import InputError
from engine.moments.search import padded
from engine.moments.segments import Segments
from engine.tasks.moments.data import MomentData

_ANYWHERE = 0.2  # of the parts of videos too long to be seen at once: drawn without regard to the moment


@dataclass(frozen=True)
class Sample:
    """A query and (part of) its video. first, last: the moment's segments; of one that does not lie wholly in the part, which
    `has_moment` says, the nearest in it.

    inside: bool [T], the segments of all its true moments.
    """

    row: int
    segments: Segments
    tokens: np.ndarray
    first: int
    last: int
    has_moment: bool
    inside: np.ndarray


@dataclass(slots=True)
class MomentBatch:
    """Samples on the training device.

    frames: float [N, T, D], features of segments (the name that a batch's input has everywhere). tokens: float [N, L, E].
    is_segment, is_token, has_moment: bool [N, T], [N, L], [N]. first, last: int64 [N]. inside: float [N, T].
    video: int64 [N] on the CPU, the row of the query in the training set. start: int64 [N] on the CPU, 0.
    """

    frames: torch.Tensor
    is_segment: torch.Tensor
    tokens: torch.Tensor
    is_token: torch.Tensor
    first: torch.Tensor
    last: torch.Tensor
    has_moment: torch.Tensor
    inside: torch.Tensor
    video: torch.Tensor
    start: torch.Tensor
    failures: list[SampleFailure] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.video)

    def chunk(self, parts: int) -> list["MomentBatch"]:
        """Micro-batches of N / parts samples, in order."""
        columns = [getattr(self, name) for name in self.__dataclass_fields__ if name != "failures"]
        return [MomentBatch(*part) for part in zip(*(column.chunk(parts) for column in columns), strict=True)]


class MomentBatches:
    """Endless iterator of one rank's batches, from (epoch, position) on."""

    def __init__(
        self,
        data: MomentData,
        seed: int,
        batch_size: int,
        rank: int,
        world_size: int,
        device: torch.device,
        dtype: torch.dtype,
        start: tuple[int, int],
    ) -> None:
        if batch_size % world_size:
            raise InputError(f"train.batch_size {batch_size} does not divide over {world_size} ranks")
        self.data, self.seed, self.batch_size = data, seed, batch_size
        self.rank, self.world_size, self.device, self.dtype = rank, world_size, device, dtype
        self._next = start
        self._plans: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def __iter__(self) -> "MomentBatches":
        return self

    def __next__(self) -> MomentBatch:
        size = len(self.data.train)
        epochs, positions = stream_slice(*self._next, self.batch_size + 1, size)
        self._next = (int(epochs[-1]), int(positions[-1]))
        mine = slice(self.rank, self.batch_size, self.world_size)
        places = zip(epochs[mine].tolist(), positions[mine].tolist(), strict=True)
        return as_batch([self.sample(*place) for place in places], self.device, self.dtype)

    def close(self) -> None:
        """Nothing is read ahead."""

    def sample(self, epoch: int, position: int) -> Sample:
        """The sample at a place of the stream."""
        order, draws = self._plan(epoch)
        row = int(order[position])
        return cut_sample(self.data, row, draws[position])

    def _plan(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        if epoch not in self._plans:
            self._plans = {old: plan for old, plan in self._plans.items() if old == epoch - 1}
            generator = np.random.Generator(np.random.Philox(np.random.SeedSequence((self.seed, epoch))))
            size = len(self.data.train)
            self._plans[epoch] = generator.permutation(size), generator.random((size, 3))
        return self._plans[epoch]


def cut_sample(data: MomentData, row: int, draw: Sequence[float]) -> Sample:
    """A query of the training set with its video, or a part of a long one. `draw`, three numbers in [0, 1), decides which of
    several true windows, which part, and whether any part."""
    whole = data.segments(data.train.annotations.videos[row])
    spans = [whole.nearest(*window) for window in data.labels[row].tolist()]
    inside = np.zeros(len(whole), dtype=bool)
    for one, other in spans:
        inside[one : other + 1] = True
    first, last = spans[int(draw[0] * len(spans))]
    length = min(data.config.segments, len(whole))
    room = len(whole) - length
    # Where the part may begin: so that it holds the moment, or where that is longer, is held by it.
    low, high = sorted((last + 1 - length, first))
    low, high = min(max(low, 0), room), min(max(high, 0), room)
    begin = low + int(draw[1] * (high - low + 1))
    if room and draw[2] < _ANYWHERE:
        begin = int(draw[1] * (room + 1))
    part = whole.part(begin, begin + length)
    has_moment = begin <= first and last < begin + length
    first, last = (min(max(place - begin, 0), length - 1) for place in (first, last))
    return Sample(row, part, data.train.tokens[row], first, last, has_moment, inside[begin : begin + length])


def as_batch(samples: Sequence[Sample], device: torch.device, dtype: torch.dtype) -> MomentBatch:
    """Samples as one batch, padded."""
    frames, is_segment = padded([sample.segments.features for sample in samples], device, dtype)
    tokens, is_token = padded([sample.tokens for sample in samples], device, dtype)
    inside, _ = padded([sample.inside[:, None].astype(np.float32) for sample in samples], device, dtype)
    numbers = torch.tensor([(s.first, s.last, s.has_moment) for s in samples], device=device)
    rows = torch.tensor([sample.row for sample in samples])
    return MomentBatch(
        frames, is_segment, tokens, is_token, numbers[:, 0], numbers[:, 1], numbers[:, 2].bool(), inside.squeeze(-1),
        rows, torch.zeros_like(rows),
    )  # fmt: skip
