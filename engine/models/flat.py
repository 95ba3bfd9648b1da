"""The flat form of (2+1)D convolutions: the same function and the same parameters, computed as 2-D convolutions.

In channels_last_3d memory (N, T, H, W, C) a 1x3x3 convolution is a 2-D one over the view (N*T, H, W, C), and a 3x1x1
convolution a 2-D one with a 3x1 window over the view (N, T, H*W, C). 2-D kernels for that memory order are older and
better tuned than 3-D ones, and torch.compile's layout optimisation knows only them.

On a GPU the channels between the two are filled up with zeros to a multiple of 8 or 64, which tensor cores want (R(2+1)D-18
has 45, 230, 460 and 921 there), and so are the three of the clips. They stay exactly zero: their weights, scale and
shift are. The filling happens at each call to parameters of the published shapes, so state dicts, gradients and
optimiser states are those of torchvision's form, and a run may change its form at any checkpoint. A CPU gains
nothing from it (docs/performance.md).
"""

import torch
from torch import nn
from torch.nn import functional
from torchvision.models.video.resnet import Conv2Plus1D, Conv3DNoTemporal

from engine.models.norm import batch_norm, is_plain, norm_then_relu

_MULTIPLE = {"cuda": 8}  # of channels, by device; elsewhere they are as published
_WIDE, _WIDE_MULTIPLE = 128, 64  # of more channels than this, if they must be filled at all


def aligned(channels: int, device: torch.device) -> int:
    """The number of channels, filled ones included, with which a device computes a convolution best.

    On an H100 230 channels filled to 256 cost 0.86 of what 232 cost, forward and backward, 460 filled to 512 0.79 of 464.
    """
    multiple = _MULTIPLE.get(device.type, 1)
    if channels % multiple and channels > _WIDE:
        multiple = _WIDE_MULTIPLE
    return -(-channels // multiple) * multiple


class FlatConv2Plus1D(Conv2Plus1D):
    """torchvision's `Conv2Plus1D`, [N, C, T, H, W] -> [N, C', T', H', W'] in channels_last_3d memory."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        spatial, norm, _, temporal = self
        return _space_then_time(x, spatial, norm, temporal)


class FlatFactorisedStem(nn.Sequential):
    """The stem of R(2+1)D: 1x7x7, batch-norm, ReLU, 3x1x1, batch-norm, ReLU.

    The clips may have more channels than its weights, filled with zeros by `clip_normalize`.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        spatial, between, _, temporal, norm, relu = self
        return norm_then_relu(_space_then_time(x, spatial, between, temporal), norm, relu)


class FlatConv3DNoTemporal(Conv3DNoTemporal):
    """torchvision's 1x3x3 `Conv3DNoTemporal`, [N, C, T, H, W] -> [N, C', T, H', W']."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        frames = convolve_space(x, self, extra=0)
        return frames.permute(0, 2, 3, 1).unflatten(0, (-1, x.shape[2])).permute(0, 4, 1, 2, 3)


def _space_then_time(x: torch.Tensor, spatial: nn.Conv3d, norm: nn.Module, temporal: nn.Conv3d) -> torch.Tensor:
    batch, _, length, _, _ = x.shape
    # SyncBatchNorm, which may have taken the batch-norm's place, works on the channels it has.
    planes = spatial.out_channels
    extra = aligned(planes, x.device) - planes if is_plain(norm) else 0
    frames = convolve_space(x, spatial, extra)
    frames = batch_norm(frames, norm, relu=True, extra=extra)
    _, channels, height, width = frames.shape
    lines = frames.permute(0, 2, 3, 1).reshape(batch, length, height * width, channels).permute(0, 3, 1, 2)
    # Not squeezed: its gradient would have other strides than the weight, and DDP would copy it.
    weight = temporal.weight.flatten(3)
    weight = functional.pad(weight, (0, 0, 0, 0, 0, extra)) if extra else weight
    lines = functional.conv2d(lines, weight, None, (temporal.stride[0], 1), (temporal.padding[0], 0))
    return lines.permute(0, 2, 3, 1).unflatten(2, (height, width)).permute(0, 4, 1, 2, 3)


def convolve_space(x: torch.Tensor, spatial: nn.Conv3d, extra: int) -> torch.Tensor:
    """A 1xkxk convolution of [N, C, T, H, W] into [N*T, C' + extra, H', W']; the extra channels are zero."""
    frames = x.permute(0, 2, 3, 4, 1).flatten(0, 1).permute(0, 3, 1, 2)
    weight = spatial.weight.squeeze(2)
    more_inputs = x.shape[1] - weight.shape[1]
    if extra or more_inputs:
        weight = functional.pad(weight, (0, 0, 0, 0, 0, more_inputs, 0, extra))
    return functional.conv2d(frames, weight, None, spatial.stride[1:], spatial.padding[1:])
