"""Vision transformers for clips: `model.backbone: vit_tiny`, `vit_small`, `vit_base`.

    clips [N, 3, T, H, W] ──▶ patches of 2x16x16 pixels ──▶ [N, L, D], + position ──▶ 12 blocks ──▶ mean over tokens ──▶ [N, D]

L = T/2 * H/16 * W/16 tokens in the order time, row, column. The widths are those of DeiT (Touvron et al. 2021), the patches
those of VideoMAE (Tong et al. 2022). For masked pretraining `encode` takes which tokens are visible: of the others it reads
no pixel. With `model.tokens` every clip is encoded so.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.data.batch import ClipFormat
from engine.errors import InputError
from engine.models.backbone import Backbone
from engine.models.config import ModelConfig
from engine.models.token_selection import Grid, TokenSelection

PATCH = (2, 16, 16)  # frames, rows, columns
PATCH_VALUES = math.prod(PATCH) * 3
DEPTH = 12
_WIDTHS = {"vit_tiny": 192, "vit_small": 384, "vit_base": 768}
_HEAD = 64  # values of an attention head


class VideoTransformer(Backbone):
    """A transformer over the patches of clips.

    Args:
        name: one of the three sizes.
        grid: tokens in time, rows and columns of the clips it is built for; clips of another size get position embeddings
            that are interpolated.

    Input float [N, 3, T, H, W] with T a multiple of 2, H and W of 16; output [N, feature_dim].
    """

    frame_multiple = PATCH[0]

    def __init__(self, name: str, grid: Grid) -> None:
        super().__init__()
        self.name = name
        self.width = self.feature_dim = _WIDTHS[name]
        self.patch_embed = nn.Linear(PATCH_VALUES, self.width)
        self.position = nn.Parameter(sine_positions(self.width, grid))
        self.blocks = nn.ModuleList(Block(self.width) for _ in range(DEPTH))
        self.norm = nn.LayerNorm(self.width)
        initialise(self)

    @classmethod
    def build(cls, config: ModelConfig, clip: ClipFormat) -> Self:
        network = cls(config.backbone, token_grid(clip, config.backbone))
        network.tokens = TokenSelection.of(config.tokens, clip, token_grid(clip, config.backbone))
        return network

    def stages(self, visible: Tensor | None = None) -> Sequence[Callable[[Tensor], Tensor]]:
        return (partial(self.embed, visible=visible), *self.blocks, self.norm)

    def embed(self, clips: Tensor, visible: Tensor | None = None) -> Tensor:
        """Normalised clips [N, 3, T, H, W] -> tokens [N, L, D], or [N, K, D] of those that are `visible`, see `encode`."""
        frames = clips.permute(0, 2, 3, 4, 1)
        grid = tuple(size // side for size, side in zip(frames.shape[1:4], PATCH, strict=True))
        patches, position = to_patches(frames), as_tokens(resized(self.position, grid))
        if visible is not None:
            patches, position = take(patches, visible), take(position.expand(len(clips), -1, -1), visible)
        return self.patch_embed(patches) + position

    def encode(self, clips: Tensor, visible: Tensor | None = None) -> Tensor:
        """Normalised clips [N, 3, T, H, W] -> what the last block says of each token, [N, L, D].

        Args:
            visible: int64 [N, K], the tokens that are encoded; the output is [N, K, D] in their order and does not depend
                on any pixel of the others. None: all.
        """
        return self.through(self.stages(visible), clips)

    def forward(self, clips: Tensor, visible: Tensor | None = None) -> Tensor:
        """Normalised clips [N, 3, T, H, W] -> features [N, D], of the tokens that are `visible`, see `encode`."""
        assert visible is not None or self.tokens is None, "which tokens of the clips are shown was not said"
        return self.pool(self.encode(clips, visible))

    def pool(self, x: Tensor) -> Tensor:
        """Tokens [N, L, D] -> features [N, D]."""
        return x.mean(dim=1)

    def adapted(self, name: str, tensor: Tensor) -> Tensor:
        """Position embeddings follow the clip size; all else fits any."""
        fits = name == "position" and tensor.ndim == 5 and tensor.shape[:2] == self.position.shape[:2]
        return resized(tensor, self.position.shape[2:]) if fits else tensor


class Block(nn.Module):
    """Self-attention and a perceptron four times as wide, each behind a layer norm and beside a residual: [N, L, D] -> the same."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = max(1, width // _HEAD)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(self.norm1(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(query, key, value)
        x = x + self.proj(attended.transpose(1, 2).flatten(2))
        return x + self.fc2(functional.gelu(self.fc1(self.norm2(x))))


def token_grid(clip: ClipFormat, name: str) -> Grid:
    """Tokens in time, rows and columns of a clip.

    Raises:
        InputError: the clip does not consist of whole patches.
    """
    frames, side, _ = PATCH
    if clip.num_frames % frames or clip.crop % side:
        raise InputError(
            f"model.backbone '{name}' takes clips of whole patches of {frames}x{side}x{side}: clip.num_frames={clip.num_frames} "
            f"must be a multiple of {frames}, clip.crop={clip.crop} of {side}"
        )
    return clip.num_frames // frames, clip.crop // side, clip.crop // side


def to_patches(frames: Tensor) -> Tensor:
    """[N, T, H, W, C] of any type -> the values of each patch [N, L, 2 * 16 * 16 * C], tokens in their order."""
    (t, h, w), shape = PATCH, frames.shape
    cut = frames.reshape(shape[0], shape[1] // t, t, shape[2] // h, h, shape[3] // w, w, shape[4])
    return cut.permute(0, 1, 3, 5, 2, 4, 6, 7).flatten(4).flatten(1, 3)


def from_patches(patches: Tensor, grid: Grid) -> Tensor:
    """`to_patches` undone: [N, L, values] -> [N, T, H, W, C]."""
    cut = patches.unflatten(1, grid).unflatten(4, (*PATCH, -1)).permute(0, 1, 4, 2, 5, 3, 6, 7)
    return cut.flatten(1, 2).flatten(2, 3).flatten(3, 4)


def take(tokens: Tensor, index: Tensor) -> Tensor:
    """Some tokens of each clip: [N, L, D] at int64 [N, K] -> [N, K, D]; no two of a clip may be the same."""
    return tokens.gather(1, index.unsqueeze(2).expand(-1, -1, tokens.shape[2]))


def sine_positions(width: int, grid: Grid) -> Tensor:
    """Where position embeddings start: float32 [1, width, *grid], a third of the values sines and cosines of each axis."""
    share = width // 6
    rates = 10000.0 ** -(torch.arange(share) / share)
    position = torch.zeros(1, width, *grid)
    for axis, places in enumerate(torch.meshgrid(*(torch.arange(size) for size in grid), indexing="ij")):
        angles = rates[:, None, None, None] * places
        position[0, 2 * share * axis : 2 * share * (axis + 1)] = torch.cat([angles.sin(), angles.cos()])
    return position


def resized(position: Tensor, grid: Sequence[int]) -> Tensor:
    """Position embeddings [1, D, T', H', W'] for another grid, interpolated between the tokens' centres."""
    if tuple(position.shape[2:]) == tuple(grid):
        return position
    return functional.interpolate(position, size=tuple(grid), mode="trilinear")


def as_tokens(position: Tensor) -> Tensor:
    """[1, D, T', H', W'] -> [1, L, D]."""
    return position.flatten(2).transpose(1, 2)


def initialise(network: nn.Module) -> None:
    """Linear layers as in MAE (He et al. 2022): Xavier's uniform weights, no bias."""
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
