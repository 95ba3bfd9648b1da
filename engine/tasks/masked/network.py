"""The network of masked pretraining, and what it is to say.

    visible tokens ──▶ encoder ──▶ linear ──┐
                                            ├──▶ + position ──▶ decoder ──▶ pixels of the hidden patches
    hidden tokens: one learnt vector ───────┘

The shape is VideoMAE's (Tong et al. 2022). The encoder reads no hidden pixel and is all that is kept.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from engine.models.video_transformer import (
    PATCH_VALUES,
    Block,
    VideoTransformer,
    as_tokens,
    initialise,
    sine_positions,
    take,
    to_patches,
)
from engine.tasks.masked.config import MaskedConfig

_FLAT = (1 / 255) ** 2  # variance of a patch, of pixels 0..1, below which it is flat: less than a step of a byte apart


class MaskedAutoencoder(nn.Module):
    """What is visible of clips -> what is hidden.

    Args:
        backbone: the encoder.
        config: size of the decoder.
    """

    def __init__(self, backbone: VideoTransformer, config: MaskedConfig) -> None:
        super().__init__()
        width = config.decoder_width or backbone.width // 2
        self.backbone = backbone
        self.decoder = nn.Module()
        self.decoder.embed = nn.Linear(backbone.width, width)
        self.decoder.hidden = nn.Parameter(torch.empty(width))
        self.decoder.position = nn.Parameter(sine_positions(width, backbone.position.shape[2:]))
        self.decoder.blocks = nn.Sequential(*(Block(width) for _ in range(config.decoder_depth)))
        self.decoder.norm = nn.LayerNorm(width)
        self.decoder.pixels = nn.Linear(width, PATCH_VALUES)
        initialise(self.decoder)
        nn.init.normal_(self.decoder.hidden, std=0.02)

    def forward(self, clips: Tensor, visible: Tensor, hidden: Tensor) -> Tensor:
        """Normalised clips [N, 3, T, H, W] -> the normalised pixels of the hidden patches, [N, M, 1536], see `patch_targets`.

        Args:
            visible, hidden: int64 [N, K] and [N, M], tokens that the encoder sees and tokens that are asked for.
        """
        decoder = self.decoder
        seen = decoder.embed(self.backbone.encode(clips, visible))
        position = as_tokens(decoder.position).expand(len(clips), -1, -1)
        asked = decoder.hidden + take(position, hidden)
        tokens = decoder.blocks(torch.cat([seen + take(position, visible), asked], dim=1))
        return decoder.pixels(decoder.norm(tokens[:, visible.shape[1] :]))


@dataclass(frozen=True)
class Targets:
    """Hidden patches, each normalised to its own mean and variance over all its values.

    values: [N, M, 1536]. mean, scale: [N, M, 1], of pixels 0..1: pixels are values * scale + mean. A flat patch has values of 0,
    as what would be blown up of it is the rounding of bytes.
    """

    values: Tensor
    mean: Tensor
    scale: Tensor

    def errors(self, predicted: Tensor) -> Tensor:
        """The mean squared error of each hidden patch, [N, M]."""
        return (predicted.to(self.values.dtype) - self.values).square().mean(dim=2)

    def sums(self) -> Tensor:
        """What `constant_loss` needs to know of these patches, float64 [1536 + 2]; it adds up over batches and ranks."""
        squares, count = self.values.square().mean(dim=2).sum(), self.values.shape[0] * self.values.shape[1]
        return torch.cat([self.values.sum(dim=(0, 1)), squares[None], self.values.new_full((1,), count)]).double()

    def pixels(self, predicted: Tensor) -> Tensor:
        """Predicted values as pixels, uint8 [N, M, 1536]."""
        return ((predicted.to(self.values.dtype) * self.scale + self.mean) * 255).round().clamp(0, 255).to(torch.uint8)


def empty_sums(device: torch.device) -> Tensor:
    """`Targets.sums` of no patch."""
    return torch.zeros(PATCH_VALUES + 2, dtype=torch.float64, device=device)


def constant_loss(sums: Tensor) -> float:
    """The loss that the best constant has over the patches of `Targets.sums`: the same patch predicted everywhere, their mean."""
    mean, squares = sums[:-2] / sums[-1], sums[-2] / sums[-1]
    return (squares - mean.square().mean()).item()


def patch_targets(frames: Tensor, hidden: Tensor, dtype: torch.dtype) -> Targets:
    """Frames uint8 [N, T, H, W, 3] and hidden tokens int64 [N, M] -> what is to be predicted."""
    patches = take(to_patches(frames), hidden).to(dtype) / 255
    variance, mean = torch.var_mean(patches, dim=2, correction=0, keepdim=True)
    scale = (variance + _FLAT).sqrt()
    return Targets((patches - mean) / scale, mean, scale)
