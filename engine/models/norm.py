"""Batch-norm of clips, with the ReLU that follows it.

In channels_last_3d memory [N, C, T, H, W] *is* the channels-last [N, C, T * H, W], and the matrix [N * T * H * W, C]. Statistics go
over all but the channels, so these are the same function. torch's kernels for bf16 know the second memory order, and treat
the first as the general, slow case. torch.compile fuses what is element-wise well and sums badly; in a compiled step on a
GPU the sums are `kernels.channel_sums`, and only the rest is the compiler's.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from kernels.channel_sums import channel_moments, gradient_sums


class ClipBatchNorm(nn.BatchNorm3d):
    """`nn.BatchNorm3d`, float [N, C, T, H, W] -> the same; parameters and state dict are its own."""

    relu = False  # whether a ReLU comes after it, which then is computed here
    by_sums = False  # whether the training pass takes `kernels.channel_sums`

    def forward(self, x: Tensor) -> Tensor:
        is_clips_last = x.is_contiguous(memory_format=torch.channels_last_3d)
        if not is_clips_last or (x.device.type == "cpu" and not self.by_sums):
            y = super().forward(x)
            return functional.relu(y, inplace=True) if self.relu else y
        size = x.shape[2:4]
        return batch_norm(x.flatten(2, 3), self, relu=self.relu).unflatten(2, size)


def batch_norm(x: Tensor, norm: nn.Module, *, relu: bool, extra: int = 0) -> Tensor:
    """What the 5-D `norm` does, on float [N, C + extra, H, W]; its running statistics move as ever.

    Args:
        norm: over C channels; if it is no `nn.BatchNorm3d` (but SyncBatchNorm) it is called as it is, without `extra`.
        relu: follow it by a ReLU.
        extra: channels behind those of `norm`, which are zero and stay so.
    """
    if not isinstance(norm, nn.BatchNorm3d):
        return functional.relu(norm(x), inplace=True) if relu else norm(x)
    names = ("running_mean", "running_var", "weight", "bias")
    values = [getattr(norm, name) for name in names]
    mean, var, weight, bias = [functional.pad(value, (0, extra)) for value in values] if extra else values
    if norm.training:
        norm.num_batches_tracked.add_(1)
    if norm.training and getattr(norm, "by_sums", False):
        rows = x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])
        batch_mean, batch_var = channel_moments(rows.detach())
        _move(norm, batch_mean, batch_var, len(rows), extra)
        return _Normalise.apply(x, weight, bias, batch_mean, torch.rsqrt(batch_var + norm.eps), relu)
    y = functional.batch_norm(x, mean, var, weight, bias, norm.training, norm.momentum, norm.eps)
    if norm.training and extra:  # they moved in the filled copies
        norm.running_mean.copy_(mean[:-extra])
        norm.running_var.copy_(var[:-extra])
    return functional.relu(y, inplace=True) if relu else y


def _move(norm: ClipBatchNorm, mean: Tensor, var: Tensor, count: int, extra: int) -> None:
    """The running statistics towards a batch's, the variance's without bias."""
    with torch.no_grad():
        for running, batch in ((norm.running_mean, mean), (norm.running_var, var * (count / max(1, count - 1)))):
            running.lerp_(batch[: len(batch) - extra].to(running.dtype), norm.momentum)


class _Normalise(torch.autograd.Function):
    """relu((x - mean) * inverse * weight + bias) of [N, C, H, W], where mean and inverse are x's own (Ioffe & Szegedy 2015)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, inverse: Tensor, relu: bool) -> Tensor:
        scale = inverse * weight
        shift = bias - mean * scale
        ctx.save_for_backward(x, mean, inverse, scale, shift)
        ctx.relu = relu
        y = x * _wide(scale) + _wide(shift)
        return (functional.relu(y) if relu else y).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, mean, inverse, scale, shift = ctx.saved_tensors
        rows, slopes = (tensor.permute(0, 2, 3, 1).reshape(-1, tensor.shape[1]) for tensor in (x, grad))
        total, products = gradient_sums(slopes.contiguous(), rows.contiguous(), mean, scale, shift, ctx.relu)
        slope = torch.where(x * _wide(scale) + _wide(shift) > 0, grad, 0) if ctx.relu else grad
        count = len(rows)
        along = products * inverse.square() / count
        dx = _wide(scale) * (slope - _wide(total / count) - (x - _wide(mean)) * _wide(along))
        return dx.to(x.dtype), products * inverse, total, None, None, None


def _wide(values: Tensor) -> Tensor:
    """[C] -> what is broadcast over [N, C, H, W]."""
    return values[:, None, None]


def use_clip_batch_norm(network: nn.Module) -> None:
    """Let every `nn.BatchNorm3d` in a network compute as `ClipBatchNorm`, in place."""
    for module in network.modules():
        if type(module) is nn.BatchNorm3d:
            module.__class__ = ClipBatchNorm


def sum_with_kernels(network: nn.Module) -> None:
    """Let a network that is going to be compiled for a GPU take `kernels.channel_sums` in its batch-norms; in place.

    A ReLU that follows one becomes part of it: its backward pass is then summed where the gradient is read.
    """
    for module in list(network.modules()):
        if isinstance(module, ClipBatchNorm):
            module.by_sums = True
        if isinstance(module, nn.Sequential):
            for place in range(1, len(module)):
                norm, relu = module[place - 1], module[place]
                if isinstance(norm, ClipBatchNorm) and isinstance(relu, nn.ReLU):
                    norm.relu, module[place] = True, nn.Identity()
