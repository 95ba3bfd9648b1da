"""Batches of clips with their masks, the same however the batch is divided over ranks and steps are resumed."""

from dataclasses import dataclass

import torch

from engine.data.batch import ClipBatch, SampleFailure
from engine.data.loader import ClipLoader
from engine.step import step_seed
from engine.tasks.masked.masks import Masker


@dataclass(slots=True)
class MaskedBatch:
    """Clips, and what is hidden of them: `mask`, bool [N, T', h, w], on their device."""

    clips: ClipBatch
    mask: torch.Tensor

    @property
    def video(self) -> torch.Tensor:
        return self.clips.video

    @property
    def start(self) -> torch.Tensor:
        return self.clips.start

    @property
    def failures(self) -> list[SampleFailure]:
        return self.clips.failures

    def __len__(self) -> int:
        return len(self.clips)

    def chunk(self, parts: int) -> list["MaskedBatch"]:
        """Micro-batches, as `ClipBatch.chunk`."""
        return [MaskedBatch(*part) for part in zip(self.clips.chunk(parts), self.mask.chunk(parts), strict=True)]


class MaskedBatches:
    """Endless iterator of the `MaskedBatch`es of one rank.

    The random numbers of a step are drawn for all its clips, whoever has them, from (seed, step).

    Args:
        loader: the rank's clips. masker: hides. step: the first one. rank, world_size: which clips of a step these are.
    """

    def __init__(self, loader: ClipLoader, masker: Masker, step: int, rank: int, world_size: int) -> None:
        self.loader, self.masker, self.step = loader, masker, step
        self.mine = slice(rank, None, world_size)

    def __iter__(self) -> "MaskedBatches":
        return self

    def __next__(self) -> MaskedBatch:
        clips, stream = next(self.loader), self.loader.stream
        numbers = self.masker.draw(step_seed(stream.seed, self.step, 0, 1), stream.batch_size, clips.frames.device)
        self.step += 1
        return MaskedBatch(clips, self.masker(numbers[self.mine], clips.motion))

    def close(self) -> None:
        self.loader.close()
