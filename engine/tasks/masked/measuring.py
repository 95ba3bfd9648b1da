"""How well a model fills in what is hidden of videos, and examples of it."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from engine.data.manifests.manifest import Manifest
from engine.errors import InputError, SourceGone
from engine.evaluation.snippets import decode_ahead, video_requests
from engine.processes.distributed import gather
from engine.processes.preemption import Preempted
from engine.processes.watchdog import WAITING
from engine.tasks.decoding import Decoding
from engine.tasks.masked.filling import Filling
from engine.tasks.masked.network import constant_loss, empty_sums
from engine.tasks.masked.pictures import Example, example_of
from engine.training.run import Run


@dataclass(frozen=True)
class Filled:
    """The mean loss over the hidden patches of so many clips, and that of the best constant patch."""

    loss: float
    constant: float
    clips: int

    def __str__(self) -> str:
        return f"loss {self.loss:.4f}, a constant's {self.constant:.4f} ({self.clips} clips)"


@dataclass(frozen=True)
class Measuring:
    """Evenly spaced snippets of the videos of a manifest, each with a mask that is the same each time."""

    run: Run
    filling: Filling
    decoding: Decoding
    manifest: Manifest

    def filled(self, num_snippets: int, max_videos: int | None) -> Filled:
        """The loss over at most so many videos. Collective: all ranks get the same.

        Raises:
            Preempted: asked to stop meanwhile.
        """
        run = self.run
        rows = self._spread(max_videos)[run.ranks.rank :: run.ranks.world_size]
        total, patches, is_stopped = torch.zeros(2, dtype=torch.float64), empty_sums(run.ranks.device), False
        try:
            for frames, mask in self._clips(rows, num_snippets):
                run.watchdog.beat(run.step, "evaluating")
                is_stopped = run.stop.requested()
                if is_stopped:
                    break
                with torch.inference_mode():
                    predicted, targets = self.filling(run.evaluated, frames, mask)
                loss = targets.errors(predicted).double().mean(dim=1).sum().item()
                total += torch.tensor([loss, len(frames)], dtype=torch.float64)
                patches += targets.sums()
        except SourceGone:  # also of a store that is not waited for any more
            is_stopped = run.stop.requested()
            if not is_stopped:
                raise
        run.watchdog.beat(run.step, WAITING)
        parts = gather((total, patches.cpu(), is_stopped))
        if any(stopped for *_, stopped in parts):
            raise Preempted("asked to stop while the model was measured")
        loss, clips = sum(part[0] for part in parts).tolist()
        if not clips:
            raise InputError("no held-out video could be decoded: index the data set again")
        return Filled(loss / clips, constant_loss(sum(part[1] for part in parts)), int(clips))

    def examples(self, count: int) -> list[Example]:
        """The middle snippets of so many videos."""
        found = []
        for frames, mask in self._clips(self._spread(count), 1):
            with torch.inference_mode():
                predicted, targets = self.filling(self.run.evaluated, frames, mask)
            parts = zip(frames, self.filling.split(mask)[1], targets.pixels(predicted), strict=True)
            found += [example_of(*part, self.filling.masker.grid) for part in parts]
        return found

    def _spread(self, count: int | None) -> np.ndarray:
        """int64: at most so many rows, evenly spaced."""
        total = len(self.manifest)
        count = total if count is None else min(count, total)
        return np.arange(count) * total // max(count, 1)

    def _clips(self, rows: np.ndarray, num_snippets: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Batches of those that decode: frames uint8 [N, T, H, W, 3] and masks bool [N, T', h, w] on the device."""
        config, device, masker = self.run.config, self.run.ranks.device, self.filling.masker
        seeds = (rows[:, None] * num_snippets + np.arange(num_snippets)).flatten().tolist()
        requests = video_requests(self.manifest, rows, config.clip, num_snippets)
        decoder = self.decoding.open(config.evaluate.batch_size)
        try:
            for decoded in decode_ahead(decoder, requests, config.evaluate.batch_size, config.clip):
                mine, seeds = seeds[: len(decoded.frames)], seeds[len(decoded.frames) :]
                numbers = torch.cat([masker.draw(seed, 1, device) for seed in mine])
                good = [index for index in range(len(mine)) if index not in decoded.failures]
                if good:
                    motion = None if decoded.motion is None else decoded.motion[good].to(device)
                    yield decoded.frames[good].to(device), masker(numbers[good], motion)
        finally:
            decoder.close()
