"""Clips with what is hidden of them."""

from dataclasses import dataclass

import torch

from engine.data.batch import ClipBatch, SampleFailure


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
