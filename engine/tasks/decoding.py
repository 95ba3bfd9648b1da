"""The decoder of a training, an evaluation or a prediction: chosen once for all its videos, opened whenever one is needed."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from engine.config import Config
from engine.data.batch import VideoDecoder
from engine.data.decoders import DecoderChoice, build_decoder, choose_decoder
from engine.data.loading.loader import ClipLoader, StreamPlan
from engine.data.manifests.manifest import Manifest
from engine.data.remote.settings import use
from engine.data.sampling.weights import RowWeights


@dataclass(frozen=True)
class Decoding:
    """Who decodes, and for what clips."""

    config: Config
    device: torch.device
    choice: DecoderChoice

    def __str__(self) -> str:
        """Which and why, in one line for the log."""
        return f"{self.choice.name} ({self.choice.why})"

    def open(self, max_batch_size: int) -> VideoDecoder:
        """Decoders of that choice for batches of at most `max_batch_size` snippets."""
        clip, data = self.config.clip, self.config.data
        use(data.remote)
        return build_decoder(
            self.choice, clip, self.device, data.decode_threads, max_batch_size, in_processes=data.decode_processes
        )

    def training_clips(
        self,
        manifest: Manifest,
        labels: np.ndarray,
        weights: RowWeights | None,
        part: tuple[int, int],
        position: tuple[int, int],
        plan: int,
    ) -> ClipLoader:
        """The endless batches of one rank.

        Args:
            labels, weights: as `ClipLoader` takes them.
            part: rank and world size.
            position: epoch, and place in it, of the first batch.
            plan: the version of the stream, see `engine/data/sampling/plans.py`.
        """
        config, (rank, world_size), (epoch, first) = self.config, part, position
        stream = StreamPlan(config.run.seed, config.train.batch_size, rank, world_size, config.clip.flip, plan)
        return ClipLoader(
            manifest,
            labels,
            self.open(stream.batch_size // world_size),
            config.clip,
            stream,
            config.data,
            epoch=epoch,
            position=first,
            weights=weights,
        )

    @property
    def is_settled(self) -> bool:
        """Whether nothing is left to be measured before it is known who decodes what."""
        return self.choice.routes is None or self.choice.routes.share.is_settled

    @property
    def found(self) -> str:
        """What was measured and chosen, in one line; nothing where there was no choice."""
        return "" if self.choice.routes is None else self.choice.routes.share.found

    def news(self, *, sums: bool) -> list[str]:
        """What this rank's decoders have found out since the last call; with `sums`, what each has decoded so far."""
        routes = self.choice.routes
        if routes is None:
            return []
        lines = []
        while routes.share.news:
            lines.append(routes.share.news.popleft())
        if sums:
            told = ", ".join(f"{name} {count:,}" for name, count in sorted(routes.clips.items()))
            failed = f"; {self.choice.name} failed {routes.num_failed:,}, the last: {routes.last_failure}"
            lines.append(f"decoder: clips so far: {told}{failed if routes.num_failed else ''}")
        return lines


def choose_decoding(config: Config, device: torch.device, manifests: Sequence[Manifest]) -> Decoding:
    """What the `data` keys mean for these videos, on this device.

    Raises:
        InputError: as `choose_decoder`.
    """
    by_rule, motion = config.run.deterministic, config.clip.motion
    choice = choose_decoder(config.data.decoder, device, manifests, by_rule=by_rule, motion=motion)
    return Decoding(config, device, choice)
