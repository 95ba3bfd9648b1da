"""What every backbone is: a network from one snippet to one feature vector, in stages."""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import nn

from engine.data.batch import ClipFormat
from engine.models.catalogue import BACKBONES
from engine.models.config import ModelConfig
from engine.models.recompute import recomputed
from engine.models.token_selection import TokenSelection
from kernels.clip_normalize import KINETICS_MEAN, KINETICS_STD, clip_normalize


@dataclass(frozen=True)
class Normalisation:
    """From decoded frames to the clips that a network takes.

    channels: that clips had best come with; those past RGB are zero.
    mean, std: of RGB in units of 0..1.
    """

    channels: int = 3
    mean: tuple[float, ...] = KINETICS_MEAN
    std: tuple[float, ...] = KINETICS_STD

    def __call__(self, frames: torch.Tensor, dtype: torch.dtype, *, channels_last: bool = True) -> torch.Tensor:
        """uint8 [N, T, H, W, 3] -> [N, channels, T, H, W] of the type, in one pass over memory on a GPU."""
        return clip_normalize(frames, dtype, self.mean, self.std, channels_last=channels_last, channels=self.channels)


class Backbone(nn.Module):
    """Clips float [N, 3, T, H, W] -> features float [N, feature_dim].

    The names in its state dict are those of the network as it was published, so that published weights load.

    Attributes:
        name, width: as `model.backbone` and `model.width` call them.
        feature_dim: length of a feature vector.
        classifier: modules of the published network that are not part of this one; their weights are left out.
        published: the module whose state dict has the published names: this one, or one within it.
        clip_channels: channels that clips had best come with: those past RGB are zero (`clip_normalize`).
        mean, std: of the pixels that the published weights were trained on.
        any_length: whether clips of other numbers of frames than it was built for will do: of any multiple of `frame_multiple`
            from `fewest_frames` on.
        recompute: compute the stages again in the backward pass, instead of keeping their activations.
        tokens: which tokens of a clip it is shown: `forward` takes them beside the clips. None: it takes clips whole.
    """

    name: str
    width: int
    feature_dim: int
    classifier: tuple[str, ...] = ()
    any_length = True
    frame_multiple = fewest_frames = 1
    clip_channels = 3
    mean: tuple[float, ...] = KINETICS_MEAN
    std: tuple[float, ...] = KINETICS_STD
    recompute = False
    tokens: TokenSelection | None = None

    @property
    def published(self) -> nn.Module:
        return self

    @property
    def normalisation(self) -> Normalisation:
        """How the frames come that it takes."""
        return Normalisation(self.clip_channels, self.mean, self.std)

    @classmethod
    def build(cls, config: ModelConfig, clip: ClipFormat) -> Self:
        """With random weights, for snippets of this size.

        Raises:
            InputError: the snippets are too small for the network.
        """
        raise NotImplementedError

    def stages(self) -> Sequence[Callable[[torch.Tensor], torch.Tensor]]:
        """The parts that follow each other, first to last; each can be recomputed by itself."""
        raise NotImplementedError

    def pool(self, x: torch.Tensor) -> torch.Tensor:
        """What the last stage gives, [N, C, T', H', W'] -> features [N, feature_dim]."""
        raise NotImplementedError

    def through(self, stages: Sequence[Callable[[torch.Tensor], torch.Tensor]], x: torch.Tensor) -> torch.Tensor:
        """One stage after the other."""
        for stage in stages:
            x = recomputed(stage, x) if self.recompute else stage(x)
        return x

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        return self.pool(self.through(self.stages(), clips))

    def adapted(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """A tensor of a file of weights as this network takes it, where it can follow the clip size; any other as it is."""
        return tensor


def build_backbone(config: ModelConfig, clip: ClipFormat) -> Backbone:
    """Build the backbone that a config names, with random weights.

    Args:
        config: its `backbone` and what belongs to it; the form `auto`, if nobody chose before, is `published`.
        clip: size of the snippets it will see; the residual networks take any, others are bound to it.

    Raises:
        InputError: no such network, or the snippets are too small for it.
    """
    kind, colon, _ = config.backbone.partition(":")
    module, name = BACKBONES[f"{kind}:*" if colon else kind]
    return getattr(importlib.import_module(module), name).build(config, clip)
