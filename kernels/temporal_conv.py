"""A 3x1x1 convolution of a (2+1)D block with the batch-norm and ReLU before it, and the sums that the one after it needs.

With channels last a clip's activations are [T, P, C], P its pixels, and the convolution in time is a matrix product
over three shifted views. Normalised activations are made from the raw ones where they are loaded, forward and
backward, and never stored; the sums of the result are taken where it is stored.
"""

import torch
from torch import Tensor
from torch.nn import functional

from kernels.triton_support import can_use_triton

_TRITON_DTYPES = (torch.float16, torch.bfloat16)
_TAPS = 3


def temporal_conv(
    x: Tensor, weight: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, var: Tensor, eps: float, stride: int = 1,
    *, is_batch: bool = True,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """conv(relu(batch_norm(x))) in time, and the sum and sum of squares of each channel of the result.

    Args:
        x: floating [N, T, P, C], contiguous for the kernel.
        weight: [C', C, 3], rounded to the type of `x`; padded by one frame of zeros at either end.
        gamma, beta: [C], the batch-norm's weight and bias.
        mean, var: [C], biased variance; what the batch-norm subtracts and divides by. No gradient reaches them.
        eps: added to `var`.
        stride: in time, 1 or 2.
        is_batch: `mean` and `var` are those of `x` itself, and the gradient of `x` takes them so.

    Returns:
        [N, ceil(T / stride), P, C'] of the type of `x`, and fp64 [2, C'], through which no gradient flows. Kernels where
        `takes_triton`; elsewhere PyTorch's operations.

    Raises:
        ValueError: shapes do not fit together, or another stride.
    """
    _check(x, weight, (gamma, beta, mean, var), stride)
    if not takes_triton(x.dtype, x.device):
        return temporal_conv_ref(x, weight, gamma, beta, mean, var, eps, stride, is_batch=is_batch)
    taps = weight.permute(2, 1, 0).to(x.dtype).contiguous()
    mean, inverse = mean.detach().float(), torch.rsqrt(var.detach().float() + eps)
    scale = gamma.float() * inverse
    _, length, pixels, _ = x.shape
    x = x.contiguous().flatten(1, 2)
    z, sums = _temporal_conv(x, taps, scale, beta.float(), mean, inverse, length, stride, is_batch)
    return z.unflatten(1, (-1, pixels)), sums


def temporal_conv_ref(
    x: Tensor, weight: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, var: Tensor, eps: float, stride: int = 1,
    *, is_batch: bool = True,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The definition of `temporal_conv`, in PyTorch's own operations, which autograd differentiates."""
    planes = x.permute(0, 3, 1, 2)  # [N, C, T, P]
    if is_batch:
        planes = functional.batch_norm(planes, None, None, gamma, beta, True, 0.0, eps)
    else:
        planes = functional.batch_norm(planes, mean, var, gamma, beta, False, 0.0, eps)
    taps = weight.to(x.dtype)[..., None].contiguous()
    z = functional.conv2d(functional.relu(planes), taps, None, (stride, 1), (1, 0)).permute(0, 2, 3, 1)
    wide = z.detach().flatten(0, -2).double()
    return z, torch.stack((wide.sum(0), wide.square().sum(0)))


def takes_triton(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether tensors of this type are computed by the kernels: fp16 and bf16 on a GPU that Triton supports."""
    return dtype in _TRITON_DTYPES and _can_use_triton(device)


@torch.compiler.assume_constant_result  # a compiler need not look into how it is found out
def _can_use_triton(device: torch.device) -> bool:
    return can_use_triton(device)


def _check(x: Tensor, weight: Tensor, of_channels: tuple[Tensor, ...], stride: int) -> None:
    if x.ndim != 4 or not x.is_floating_point():
        raise ValueError(f"x must be floating [N, T, P, C], not {x.dtype} {tuple(x.shape)}")
    channels = x.shape[-1]
    if weight.ndim != 3 or weight.shape[1:] != (channels, _TAPS):
        raise ValueError(f"weight must be [C', {channels}, {_TAPS}], not {tuple(weight.shape)}")
    if any(value.shape != (channels,) for value in of_channels):
        raise ValueError(f"gamma, beta, mean and var must be [{channels}]: {[tuple(v.shape) for v in of_channels]}")
    if stride not in (1, 2):
        raise ValueError(f"stride must be 1 or 2, not {stride}")


# Activations go in and out as [N, T * P, C]. Four axes would be taken for those of an image: torch.compile turns the memory
# order of whatever stands beside a convolution and has four, and a step would copy all of them (docs/lab_notes.md). What can
# be computed of [C] before and after them is left to the compiler, which makes one launch of it.
@torch.library.custom_op("unseen::temporal_conv", mutates_args=())
def _temporal_conv(
    x: Tensor, taps: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, inverse: Tensor, length: int, stride: int,
    is_batch: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """conv(relu((x - mean) * scale + bias)), and its sums; `inverse`, of the root of the variance, is for the gradient of x."""
    from kernels.temporal_conv_triton import temporal_conv_triton

    x = x.unflatten(1, (length, -1))
    z, sums = temporal_conv_triton(x, taps, scale, _shift(scale, bias, mean), stride)
    return z.flatten(1, 2), sums


@_temporal_conv.register_fake
def _(
    x: Tensor, taps: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, inverse: Tensor, length: int, stride: int,
    is_batch: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    out_channels = taps.shape[2]
    z = x.new_empty((len(x), x.shape[1] // length * ((length - 1) // stride + 1), out_channels))
    return z, x.new_empty((2, out_channels), dtype=torch.float64)


@torch.library.custom_op("unseen::temporal_conv_backward", mutates_args=())
def _temporal_conv_backward(
    dz: Tensor, x: Tensor, taps: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, inverse: Tensor, length: int,
    stride: int, is_batch: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of x, of taps (fp32), and of bias and scale together (fp32 [2, C])."""
    from kernels.temporal_conv_triton import activation_gradient_triton, tap_gradient_triton

    dz, x = (values.unflatten(1, (-1, x.shape[1] // length)) for values in (dz, x))
    shift = _shift(scale, bias, mean)
    dtaps = tap_gradient_triton(dz, x, scale, shift, stride)
    dx, of_channels = activation_gradient_triton(dz, x, taps, scale, shift, mean, inverse, stride, is_batch)
    return dx.flatten(1, 2), dtaps, of_channels


@_temporal_conv_backward.register_fake
def _(
    dz: Tensor, x: Tensor, taps: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, inverse: Tensor, length: int,
    stride: int, is_batch: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    dtaps = taps.new_empty(taps.shape, dtype=torch.float32)
    return torch.empty_like(x), dtaps, scale.new_empty((2, *scale.shape))


def _shift(scale: Tensor, bias: Tensor, mean: Tensor) -> Tensor:
    """x * scale + shift is (x - mean) * scale + bias."""
    return torch.addcmul(bias, mean, scale, value=-1)


def _keep(ctx, inputs, output) -> None:  # noqa: ANN001
    *tensors, ctx.length, ctx.stride, ctx.is_batch = inputs
    ctx.save_for_backward(*tensors)
    ctx.mark_non_differentiable(output[1])


def _differentiate(ctx, dz: Tensor, _: Tensor):  # noqa: ANN001, ANN202
    rest = ctx.length, ctx.stride, ctx.is_batch
    dx, dtaps, (dbias, dscale) = _temporal_conv_backward(dz.contiguous(), *ctx.saved_tensors, *rest)
    return dx, dtaps.to(dz.dtype), dscale, dbias, None, None, None, None, None


_temporal_conv.register_autograd(_differentiate, setup_context=_keep)
