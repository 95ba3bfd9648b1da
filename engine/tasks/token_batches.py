"""Batches of clips with some of their tokens chosen, the same however a step is divided over ranks and a run is resumed."""

from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

from engine.data.batch import ClipBatch
from engine.data.loading.loader import ClipLoader
from engine.training.step import step_seed

B = TypeVar("B")


class TokenChooser(Protocol):
    """Chooses tokens of clips by random numbers or by motion, or by both."""

    def draw(self, seed: int, count: int, device: torch.device) -> Tensor:
        """The random numbers of so many clips [count, ...]."""
        ...

    def __call__(self, numbers: Tensor, motion: Tensor | None) -> Tensor:
        """What is chosen [N, ...] of clips with these numbers and motion uint8 [N, T, h, w]."""
        ...


class TokenBatches(Generic[B]):
    """Endless iterator of the batches of one rank.

    The random numbers of a step are drawn for all its clips, whoever has them, from (seed, step).

    Args:
        loader: the rank's clips. choose: of their tokens. made: a batch, from clips and what is chosen of them.
        step: the first one. rank, world_size: which clips of a step these are.
    """

    def __init__(
        self,
        loader: ClipLoader,
        choose: TokenChooser,
        made: Callable[[ClipBatch, Tensor], B],
        step: int,
        rank: int,
        world_size: int,
    ) -> None:
        self.loader, self.choose, self.made, self.step = loader, choose, made, step
        self.mine = slice(rank, None, world_size)

    def __iter__(self) -> "TokenBatches[B]":
        return self

    def __next__(self) -> B:
        clips, stream = next(self.loader), self.loader.stream
        numbers = self.choose.draw(step_seed(stream.seed, self.step, 0, 1), stream.batch_size, clips.frames.device)
        self.step += 1
        return self.made(clips, self.choose(numbers[self.mine], clips.motion))

    def close(self) -> None:
        self.loader.close()
