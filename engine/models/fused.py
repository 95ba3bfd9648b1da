"""The fused form of (2+1)D convolutions: the flat one, and batch-norms do not pass over memory by themselves.

What lies between the convolution in space and the one in time is normalised where the latter loads it, and never
stored; the statistics of the batch-norm that follows are collected where the latter stores
(kernels/temporal_conv.py). Where no such kernel runs this is the same function in PyTorch's operations. Parameters and state
dicts are those of torchvision's form. With SyncBatchNorm in place of a batch-norm, and in fp32 on a GPU, the flat form
computes.
"""

from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torchvision.models.video.resnet import BasicBlock

from engine.models.flat import FlatConv2Plus1D, FlatFactorisedStem, aligned, convolve_space
from kernels.temporal_conv import channel_sums, takes_triton, temporal_conv


class FusedFactorisedStem(FlatFactorisedStem):
    """The stem of R(2+1)D: 1x7x7, batch-norm, ReLU, 3x1x1, batch-norm, ReLU."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        spatial, between, _, temporal, norm, relu = self
        if not _can_fuse(x, between, norm):
            return super().forward(x)
        return relu(_space_then_time(x, spatial, between, temporal, norm))


class FusedConvolution(nn.Sequential):
    """What a residual block calls `conv1` or `conv2`: a (2+1)D convolution, a batch-norm, and ReLU if there is one."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        (spatial, between, _, temporal), norm, *rest = self
        if not _can_fuse(x, between, norm):
            return super().forward(x)
        x = _space_then_time(x, spatial, between, temporal, norm)
        for part in rest:
            x = part(x)
        return x


def fuse(block: BasicBlock) -> BasicBlock:
    """A residual block of `FlatConv2Plus1D` that computes in the fused form, with the same parameters."""
    for name in ("conv1", "conv2"):
        parts = getattr(block, name)
        assert isinstance(parts[0], FlatConv2Plus1D)
        setattr(block, name, FusedConvolution(*parts))
    return block


def _can_fuse(x: torch.Tensor, *norms: nn.Module) -> bool:
    if not all(type(norm) is nn.BatchNorm3d for norm in norms):
        return False
    if not x.is_cuda:
        return True
    is_mixed = torch.is_autocast_enabled("cuda")
    return takes_triton(torch.get_autocast_dtype("cuda") if is_mixed else x.dtype, x.device)


def _space_then_time(
    x: torch.Tensor, spatial: nn.Conv3d, between: nn.BatchNorm3d, temporal: nn.Conv3d, norm: nn.BatchNorm3d
) -> torch.Tensor:
    """[N, C, T, H, W] -> [N, C', T', H', W'], the second batch-norm included."""
    batch, _, length, _, _ = x.shape
    extra = aligned(spatial.out_channels, x.device) - spatial.out_channels
    frames = convolve_space(x, spatial, extra)
    _, channels, height, width = frames.shape
    lines = frames.permute(0, 2, 3, 1).reshape(batch, length, height * width, channels)
    weight, gamma, beta = temporal.weight[..., 0, 0], between.weight, between.bias
    mean, var = _statistics(between, channel_sums(lines)[:, : spatial.out_channels], lines.numel() // channels)
    if extra:
        weight = functional.pad(weight, (0, 0, 0, extra))
        gamma, beta, mean, var = (functional.pad(value, (0, extra)) for value in (gamma, beta, mean, var))
    z, sums = temporal_conv(
        lines, weight, gamma, beta, mean, var, between.eps, temporal.stride[0], is_batch=between.training
    )
    mean, var = _statistics(norm, sums, z.numel() // z.shape[-1])
    z = z.unflatten(2, (height, width)).permute(0, 4, 1, 2, 3)
    if norm.training:
        return _Normalise.apply(z, mean, var, norm.weight, norm.bias, norm.eps)
    return functional.batch_norm(z, mean, var, norm.weight, norm.bias, False, 0.0, norm.eps)


def _statistics(norm: nn.BatchNorm3d, sums: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and biased variance with which a batch-norm normalises; in training its running ones move.

    Args:
        sums: fp64 [2, C], `channel_sums` of `count` values a channel.
    """
    if not norm.training:
        return norm.running_mean, norm.running_var
    if count < 2:
        raise ValueError("batch-norm needs more than one value for each channel in training")
    mean = sums[0] / count
    var = (sums[1] / count - mean.square()).clamp_min(0)
    with torch.no_grad():
        norm.num_batches_tracked.add_(1)
        momentum = norm.momentum
        norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), momentum)
        norm.running_var.lerp_((var * (count / (count - 1))).to(norm.running_var.dtype), momentum)
    return mean.to(norm.weight.dtype), var.to(norm.weight.dtype)


class _Normalise(torch.autograd.Function):
    """Batch-norm of [N, C, T, H, W] whose batch statistics are known; the gradient is that of batch-norm."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, mean: torch.Tensor, var: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor,
        eps: float,
    ) -> torch.Tensor:  # fmt: skip
        ctx.save_for_backward(x, weight, mean, torch.rsqrt(var + eps))
        ctx.eps = eps
        return functional.batch_norm(x, mean, var, weight, bias, False, 0.0, eps)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, mean, inverse = ctx.saved_tensors
        # Of four axes, for which torch has a faster kernel than for five.
        dx, dweight, dbias = torch.ops.aten.native_batch_norm_backward(
            gradient.flatten(3), x.flatten(3), weight, None, None, mean, inverse, True, ctx.eps, [True, True, True]
        )
        return dx.view_as(x), None, None, dweight, dbias, None
