"""From frames and masks to what a network puts in the hidden places, in training and measuring alike."""

from dataclasses import dataclass

from torch import Tensor, nn

from engine.models.backbone import Normalisation
from engine.tasks.masked.masks import Masker, split_tokens
from engine.tasks.masked.network import Targets, patch_targets
from engine.training.precision import Precision


@dataclass(frozen=True)
class Filling:
    """How clips are hidden and filled in: the masks, how the network takes frames, and what it computes in."""

    masker: Masker
    normalisation: Normalisation
    precision: Precision
    channels_last: bool

    def split(self, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The visible and the hidden tokens of masks, int64 [N, K] and [N, M]."""
        return split_tokens(mask, self.masker.hidden * self.masker.grid[0])

    def __call__(self, network: nn.Module, frames: Tensor, mask: Tensor) -> tuple[Tensor, Targets]:
        """What a `MaskedAutoencoder` says of the hidden patches of frames uint8 [N, T, H, W, 3], and what is there."""
        visible, hidden = self.split(mask)
        clips = self.normalisation(frames, self.precision.compute, channels_last=self.channels_last)
        with self.precision.autocast(frames.device):
            predicted = network(clips, visible, hidden)
        return predicted, patch_targets(frames, hidden, self.precision.weights)
