"""Sums over all but the channels: what batch-norm needs of clips in channels-last memory.

In that memory [N, C, T, H, W] is the matrix [N * T * H * W, C]. torch.compile makes these reductions at a third to two thirds
of the memory's speed (docs/performance.md); here every element is read once, in the order in which it lies. The matrix is made
within the operations: made before them, it would be written to memory once more.

Both are operations of torch.library, so that torch.compile takes them as they are and fuses what stands around them.
"""

import torch
from torch import Tensor

from kernels.triton_support import can_use_triton

_TRITON_DTYPES = (torch.float16, torch.bfloat16, torch.float32)


@torch.library.custom_op("unseen::channel_moments", mutates_args=())
def channel_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and (biased) variance of each channel.

    Args:
        x: floating [M, C] or [N, C, ...], at least one value of each channel; copied unless channels lie last in memory.

    Returns:
        Two [C] in fp32, or fp64 for fp64. Deviations are summed from the first row on, so that a large mean costs no digits.
    """
    x = _rows(x)
    if _goes_to_triton(x):
        from kernels.channel_sums_triton import channel_moments_triton

        return channel_moments_triton(x)
    return channel_moments_ref(x)


@torch.library.custom_op("unseen::gradient_sums", mutates_args=())
def gradient_sums(grad: Tensor, x: Tensor, mean: Tensor, scale: Tensor, shift: Tensor, relu: bool) -> Tensor:
    """What the backward pass of a batch-norm sums: grad and grad * (x - mean), for each channel.

    Args:
        grad, x: floating [M, C] or [N, C, ...], of one shape and type; copied unless channels lie last in memory.
        mean, scale, shift: [C], as `channel_moments` returns it.
        relu: the batch-norm's result x * scale + shift went through a ReLU: where it is not above 0, grad counts as 0.

    Returns:
        [2, C] in the type of `mean`.
    """
    grad, x = _rows(grad), _rows(x)
    if _goes_to_triton(x):
        from kernels.channel_sums_triton import gradient_sums_triton

        return gradient_sums_triton(grad, x, mean, scale, shift, relu)
    return gradient_sums_ref(grad, x, mean, scale, shift, relu)


def channel_moments_ref(x: Tensor) -> tuple[Tensor, Tensor]:
    """The definition of `channel_moments`, of [M, C]."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    mean = wide.mean(dim=0)
    return mean, (wide - mean).square().mean(dim=0)


def gradient_sums_ref(grad: Tensor, x: Tensor, mean: Tensor, scale: Tensor, shift: Tensor, relu: bool) -> Tensor:
    """The definition of `gradient_sums`, of [M, C]."""
    grad, x = grad.to(mean.dtype), x.to(mean.dtype)
    if relu:
        grad = torch.where(x * scale + shift > 0, grad, 0)
    return torch.stack((grad.sum(dim=0), (grad * (x - mean)).sum(dim=0)))


@channel_moments.register_fake
def _(x: Tensor) -> tuple[Tensor, Tensor]:
    dtype = torch.promote_types(x.dtype, torch.float32)
    return x.new_empty(x.shape[1], dtype=dtype), x.new_empty(x.shape[1], dtype=dtype)


@gradient_sums.register_fake
def _(grad: Tensor, x: Tensor, mean: Tensor, scale: Tensor, shift: Tensor, relu: bool) -> Tensor:
    return mean.new_empty((2, *mean.shape))


def _rows(x: Tensor) -> Tensor:
    """[N, C, ...] -> [M, C], contiguous: a view where channels lie last in memory."""
    return x.movedim(1, -1).reshape(-1, x.shape[1]).contiguous()


def _goes_to_triton(x: Tensor) -> bool:
    return x.dtype in _TRITON_DTYPES and can_use_triton(x.device)
