"""The decoder of a run: chosen once for all of its videos, opened whenever a stream or an evaluation needs one."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from engine.checkpoint import clip_format
from engine.config import Config
from engine.data.batch import VideoDecoder
from engine.data.decoders import build_decoder, choose_decoder
from engine.data.manifest import Manifest


@dataclass(frozen=True)
class Decoding:
    """The kind of decoder, `name`, and why it was chosen, in one line for the log."""

    config: Config
    device: torch.device
    name: str
    why: str

    def open(self, max_batch_size: int) -> VideoDecoder:
        """A decoder of that kind for batches of at most `max_batch_size` snippets."""
        clip, threads = clip_format(self.config), self.config.data.decode_threads
        processes = self.config.data.decode_processes
        return build_decoder(self.name, clip, self.device, threads, max_batch_size, in_processes=processes)


def choose_decoding(config: Config, device: torch.device, manifests: Sequence[Manifest]) -> Decoding:
    """Choose for these videos, on this device.

    Raises:
        InputError: as `choose_decoder`.
    """
    name, why = choose_decoder(config.data.decoder, device, manifests)
    return Decoding(config, device, name, why)
