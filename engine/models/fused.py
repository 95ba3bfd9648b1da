"""The fused form of (2+1)D convolutions: the flat one, and batch-norms hardly pass over memory by themselves.

What lies between the convolution in space and the one in time is normalised where the latter loads it, and never
stored; the statistics of the batch-norm that follows are collected where the latter stores
(kernels/temporal_conv.py). Where no such kernel runs this is the same function in PyTorch's operations. Parameters and state
dicts are those of torchvision's form. With SyncBatchNorm in place of a batch-norm, and in fp32 on a GPU, the flat form
computes.
"""

import torch
from torch import nn
from torch.nn import functional
from torchvision.models.video.resnet import BasicBlock

from engine.models.flat import FlatConv2Plus1D, FlatFactorisedStem, aligned, convolve_space
from engine.models.norm import NormedConvolution, as_clips, fill, is_plain, move_statistics, normalise
from kernels.channel_sums import channel_moments
from kernels.temporal_conv import takes_triton, temporal_conv


class FusedFactorisedStem(FlatFactorisedStem):
    """The stem of R(2+1)D: 1x7x7, batch-norm, ReLU, 3x1x1, batch-norm, ReLU."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        spatial, between, _, temporal, norm, _ = self
        if not _can_fuse(x, between, norm):
            return super().forward(x)
        return _space_then_time(x, spatial, between, temporal, norm, relu=True)


class FusedConvolution(NormedConvolution):
    """What a residual block calls `conv1` or `conv2`: a (2+1)D convolution, a batch-norm, and ReLU if there is one."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        (spatial, between, _, temporal), norm, *relu = self
        if not _can_fuse(x, between, norm):
            return super().forward(x)
        return _space_then_time(x, spatial, between, temporal, norm, relu=len(relu) > 0)


def fuse(block: BasicBlock) -> BasicBlock:
    """A residual block of `FlatConv2Plus1D` that computes in the fused form, with the same parameters."""
    for name in ("conv1", "conv2"):
        parts = getattr(block, name)
        assert isinstance(parts[0], FlatConv2Plus1D)
        setattr(block, name, FusedConvolution(*parts))
    return block


def _can_fuse(x: torch.Tensor, *norms: nn.Module) -> bool:
    if not all(map(is_plain, norms)):
        return False
    if not x.is_cuda:
        return True
    is_mixed = torch.is_autocast_enabled("cuda")
    return takes_triton(torch.get_autocast_dtype("cuda") if is_mixed else x.dtype, x.device)


def _space_then_time(
    x: torch.Tensor,
    spatial: nn.Conv3d,
    between: nn.BatchNorm3d,
    temporal: nn.Conv3d,
    norm: nn.BatchNorm3d,
    *,
    relu: bool,
) -> torch.Tensor:
    """[N, C, T, H, W] -> [N, C', T', H', W'], the second batch-norm and the ReLU after it included."""
    batch, _, length, _, _ = x.shape
    extra = aligned(spatial.out_channels, x.device) - spatial.out_channels
    frames = convolve_space(x, spatial, extra)
    _, channels, height, width = frames.shape
    lines = frames.permute(0, 2, 3, 1).reshape(batch, length, height * width, channels)
    mean, var = fill(between.running_mean, extra), fill(between.running_var, extra)
    if between.training:
        mean, var = channel_moments(frames.detach())
        move_statistics(between, mean, var, lines.numel() // channels)
    weight = temporal.weight.flatten(2)
    weight = functional.pad(weight, (0, 0, 0, extra)) if extra else weight
    gamma, beta = fill(between.weight, extra), fill(between.bias, extra)
    z, sums = temporal_conv(
        lines, weight, gamma, beta, mean, var, between.eps, temporal.stride[0], is_batch=between.training
    )
    z = as_clips(z.permute(0, 3, 1, 2), height, width)
    if norm.training:
        count = z.numel() // z.shape[1]
        mean = sums[0] / count
        var = (sums[1] / count - mean.square()).clamp_min(0)
        move_statistics(norm, mean, var, count)
        z = normalise(z, norm, mean.to(norm.weight.dtype), var.to(norm.weight.dtype), relu=relu)
    else:
        z = functional.batch_norm(z, norm.running_mean, norm.running_var, norm.weight, norm.bias, False, 0.0, norm.eps)
        z = functional.relu(z) if relu else z
    return z
