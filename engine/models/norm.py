"""Batch-norm of clips, with the ReLU that follows it.

In channels_last_3d memory [N, C, T, H, W] *is* the channels-last [N, C, T * H, W], and the matrix [N * T * H * W, C]. Statistics go
over all but the channels, so these are the same function. torch's kernels for bf16 know the second memory order, and treat
the first as the general, slow case.

torch.compile fuses what is element-wise well and sums badly (docs/lab_notes.md). In the fused form the sums are
`kernels.channel_sums`, and only the rest is the compiler's.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from kernels.channel_sums import channel_moments, gradient_sums


class ClipBatchNorm(nn.BatchNorm3d):
    """`nn.BatchNorm3d`, float [N, C, T, H, W] -> the same; parameters and state dict are its own."""

    by_sums = False  # whether the training pass takes `kernels.channel_sums`

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type == "cpu" and not self.by_sums:
            return super().forward(x)
        if not x.is_contiguous(memory_format=torch.channels_last_3d):
            return super().forward(x)
        if sums_itself(self):
            return batch_norm(x, self)
        return as_clips(batch_norm(as_planes(x), self), x.shape[3], x.shape[4])


def as_planes(x: Tensor) -> Tensor:
    """[N, C, T, H, W] in channels_last_3d memory -> the same as [N, C, T, H * W] in channels_last.

    The channels go last first: torch.compile takes a tensor for contiguous where its axes are joined as they stand.
    """
    return x.permute(0, 2, 3, 4, 1).flatten(2, 3).permute(0, 3, 1, 2)


def as_clips(planes: Tensor, height: int, width: int) -> Tensor:
    """`as_planes` undone."""
    return planes.permute(0, 2, 3, 1).unflatten(2, (height, width)).permute(0, 4, 1, 2, 3)


class ClipReLU(nn.ReLU):
    """`nn.ReLU`, on a GPU not in place: what `ClipBatchNorm` returns is a view there, and autograd copies a view that is changed
    in place three times on the way back."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x, inplace=self.inplace and x.device.type == "cpu")


class NormedConvolution(nn.Sequential):
    """A convolution, a batch-norm, and a ReLU if there is one."""

    def forward(self, x: Tensor) -> Tensor:
        convolution, norm, *relu = self
        return norm_then_relu(convolution(x), norm, *relu)


def norm_then_relu(x: Tensor, norm: nn.Module, relu: nn.Module | None = None) -> Tensor:
    """Both at once where the batch-norm has sums of its own: its backward pass then sees to the ReLU while it loads."""
    if relu is not None and sums_itself(norm):
        return batch_norm(x, norm, relu=True)
    x = norm(x)
    return x if relu is None else relu(x)


def use_clip_batch_norm(network: nn.Module, *, by_sums: bool) -> None:
    """Let every `nn.BatchNorm3d` in a network compute as `ClipBatchNorm`, and every `nn.ReLU` as `ClipReLU`, in place."""
    for module in network.modules():
        if type(module) is nn.BatchNorm3d:
            module.__class__, module.by_sums = ClipBatchNorm, by_sums
        elif type(module) is nn.ReLU:
            module.__class__ = ClipReLU


def is_plain(norm: nn.Module) -> bool:
    """Whether a batch-norm is torch's own over one device, which may be computed in any way."""
    return type(norm) in (nn.BatchNorm3d, ClipBatchNorm)


def sums_itself(norm: nn.Module) -> bool:
    """Whether a batch-norm's pass takes `kernels.channel_sums`."""
    return norm.training and getattr(norm, "by_sums", False)


def batch_norm(x: Tensor, norm: nn.Module, *, relu: bool = False, extra: int = 0) -> Tensor:
    """What `norm` does, on float [N, C + extra, ...]; its running statistics move as ever.

    Args:
        norm: over C channels; if it is not plain (SyncBatchNorm) it is called as it is, without `extra`.
        relu: follow it by a ReLU.
        extra: channels behind those of `norm`, which are zero and stay so.
    """
    if not is_plain(norm):
        return functional.relu(norm(x), inplace=True) if relu else norm(x)
    if sums_itself(norm):
        mean, var = channel_moments(x.detach())
        move_statistics(norm, mean, var, x.numel() // x.shape[1])
        return normalise(x, norm, mean, var, relu=relu)
    names = ("running_mean", "running_var", "weight", "bias")
    mean, var, weight, bias = (fill(getattr(norm, name), extra) for name in names)
    y = functional.batch_norm(x, mean, var, weight, bias, norm.training, norm.momentum, norm.eps)
    if norm.training:
        norm.num_batches_tracked.add_(1)
        if extra:  # they moved in the filled copies
            norm.running_mean.copy_(mean[:-extra])
            norm.running_var.copy_(var[:-extra])
    return functional.relu(y, inplace=True) if relu else y


def fill(values: Tensor, extra: int) -> Tensor:
    """[C] -> [C + extra], zeros behind."""
    return functional.pad(values, (0, extra)) if extra else values


def move_statistics(norm: nn.BatchNorm3d, mean: Tensor, var: Tensor, count: int) -> None:
    """The running statistics towards those of a batch.

    Args:
        mean, var: of the batch, `var` biased; channels past those of `norm` are left out.
        count: values of each channel in the batch.

    Raises:
        ValueError: a single value has no variance.
    """
    if count < 2:
        raise ValueError("batch-norm needs more than one value for each channel in training")
    with torch.no_grad():
        norm.num_batches_tracked.add_(1)
        for running, batch in ((norm.running_mean, mean), (norm.running_var, var * (count / (count - 1)))):
            running.lerp_(batch[: norm.num_features].to(running.dtype), norm.momentum)


def normalise(x: Tensor, norm: nn.BatchNorm3d, mean: Tensor, var: Tensor, *, relu: bool) -> Tensor:
    """Batch-norm, and ReLU, of float [N, C + extra, ...] with x's own statistics; its gradient is batch-norm's.

    Args:
        norm: gives weight and bias of C channels; the channels behind them are zero and stay so.
        mean, var: [C + extra], biased; no gradient goes through them, since it is accounted for.
    """
    weight, bias = (fill(values, x.shape[1] - norm.num_features) for values in (norm.weight, norm.bias))
    return _Normalise.apply(x, weight, bias, mean, torch.rsqrt(var + norm.eps), relu)


class _Normalise(torch.autograd.Function):
    """relu((x - mean) * inverse * weight + bias) of [N, C, ...], where mean and inverse are x's own (Ioffe & Szegedy 2015)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, inverse: Tensor, relu: bool) -> Tensor:
        scale = inverse * weight
        shift = bias - mean * scale
        ctx.save_for_backward(x, mean, inverse, scale, shift)
        ctx.relu = relu
        y = x * _wide(scale, x) + _wide(shift, x)
        y = functional.relu(y) if relu else y
        # A cast to the type it has returns y itself, and torch 2.11's compiler then loses all gradients without a word.
        return y if y.dtype == x.dtype else y.to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, mean, inverse, scale, shift = ctx.saved_tensors
        total, products = gradient_sums(grad, x, mean, scale, shift, ctx.relu)
        slope = torch.where(x * _wide(scale, x) + _wide(shift, x) > 0, grad, 0) if ctx.relu else grad
        count = x.numel() // x.shape[1]
        along = products * inverse.square() / count
        dx = _wide(scale, x) * (slope - _wide(total / count, x) - (x - _wide(mean, x)) * _wide(along, x))
        return dx.to(x.dtype), products * inverse, total, None, None, None


def _wide(values: Tensor, x: Tensor) -> Tensor:
    """[C] -> what is broadcast over x [N, C, ...]."""
    return values.view(-1, *[1] * (x.ndim - 2))
