"""The gradients of `temporal_conv` as Triton kernels.

That of the activations is the transposed convolution; where it is stored, ReLU's mask is made anew from the raw
activations and the two sums that batch-norm's gradient needs are taken. A second, element-wise pass in place then
subtracts what went through the batch's mean and variance. That of the taps is a product over all rows, shared out over programs
whose partial results are added up; it makes the normalised activations anew too.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.temporal_conv_triton import _activate, _dot, _store_sums

ACTIVATION_CONFIG = {"BLOCK_M": 128, "BLOCK_N": 64, "BLOCK_K": 32, "num_warps": 4, "num_stages": 3}
TAP_CONFIG = {"BLOCK_C": 64, "BLOCK_N": 64, "BLOCK_M": 64, "num_warps": 4, "num_stages": 3}
_PROGRAMS = 1056  # of the product over rows: several for each of a GPU's multiprocessors


@triton.jit
def _activation_gradient(
    dz, x, taps, scale, shift, mean, inverse, dx, partial, rows, T, T_OUT, P,
    C: tl.constexpr, C_OUT: tl.constexpr, STRIDE: tl.constexpr, UPCAST: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    across: tl.constexpr = (C + BLOCK_N - 1) // BLOCK_N
    block = tl.program_id(0) // across
    columns = tl.program_id(0) % across * BLOCK_N + tl.arange(0, BLOCK_N)
    row = block * BLOCK_M + tl.arange(0, BLOCK_M)
    frame = row // P  # of x, over all clips
    time = frame % T + 1  # of the result, times the stride, for the first tap
    clip, position = frame // T, row % P
    chunks: tl.constexpr = (C_OUT + BLOCK_K - 1) // BLOCK_K
    sums = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for step in range(3 * chunks):
        tap = step // chunks
        k = step % chunks * BLOCK_K + tl.arange(0, BLOCK_K)
        at = time - tap
        inside = (row < rows) & (at >= 0) & (at % STRIDE == 0) & (at // STRIDE < T_OUT)
        source = (clip * T_OUT + at // STRIDE).to(tl.int64) * P + position
        there = inside[:, None] & (k < C_OUT)[None, :]
        a = tl.load(dz + source[:, None] * C_OUT + k[None, :], mask=there, other=0.0)
        b_there = (k < C_OUT)[:, None] & (columns < C)[None, :]
        b = tl.load(taps + (tap * C + columns)[None, :] * C_OUT + k[:, None], mask=b_there, other=0.0)
        sums = _dot(a, b, sums, UPCAST)
    is_column = columns < C
    there = (row < rows)[:, None] & is_column[None, :]
    place = row.to(tl.int64)[:, None] * C + columns[None, :]
    raw = tl.load(x + place, mask=there, other=0.0).to(tl.float32)
    factor, offset = tl.load(scale + columns, mask=is_column, other=0.0), tl.load(shift + columns, mask=is_column, other=0.0)
    sums = tl.where(tl.fma(raw, factor[None, :], offset[None, :]) > 0.0, sums, 0.0)
    tl.store(dx + place, sums.to(dx.dtype.element_ty), mask=there)
    middle, steep = tl.load(mean + columns, mask=is_column, other=0.0), tl.load(inverse + columns, mask=is_column, other=0.0)
    normal = (raw - middle[None, :]) * steep[None, :]
    sums = tl.where(there, sums, 0.0)
    _store_sums(partial, block, columns, C, tl.sum(sums, 0), tl.sum(sums * normal, 0))


@triton.jit
def _finish(dx, x, factor, slope, offset, size, C: tl.constexpr, BLOCK: tl.constexpr):
    """dx = dx * factor + x * slope + offset, in place, of each channel."""
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    there, channel = place < size, place % C
    gradient = tl.load(dx + place, mask=there, other=0.0).to(tl.float32)
    value = tl.load(x + place, mask=there, other=0.0).to(tl.float32)
    through = tl.fma(value, tl.load(slope + channel, mask=there), tl.load(offset + channel, mask=there))
    gradient = tl.fma(gradient, tl.load(factor + channel, mask=there), through)
    tl.store(dx + place, gradient.to(dx.dtype.element_ty), mask=there)


@triton.jit
def _tap_gradient(
    dz, x, scale, shift, partial, rows_out, T, T_OUT, P, splits,
    C: tl.constexpr, C_OUT: tl.constexpr, STRIDE: tl.constexpr, UPCAST: tl.constexpr,
    BLOCK_C: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    down: tl.constexpr = (C + BLOCK_C - 1) // BLOCK_C
    across: tl.constexpr = (C_OUT + BLOCK_N - 1) // BLOCK_N
    tile = tl.program_id(0) % (3 * down * across)
    split = tl.program_id(0) // (3 * down * across)
    tap = tile % 3
    channel = tile // 3 % down * BLOCK_C + tl.arange(0, BLOCK_C)
    column = tile // (3 * down) * BLOCK_N + tl.arange(0, BLOCK_N)
    factor = tl.load(scale + channel, mask=channel < C, other=0.0)
    offset = tl.load(shift + channel, mask=channel < C, other=0.0)
    sums = tl.zeros((BLOCK_C, BLOCK_N), tl.float32)
    for start in range(split * BLOCK_M, rows_out, splits * BLOCK_M):
        row = start + tl.arange(0, BLOCK_M)
        frame = row // P
        time = frame % T_OUT * STRIDE + tap - 1
        inside = (row < rows_out) & (time >= 0) & (time < T)
        source = ((frame // T_OUT) * T + time).to(tl.int64) * P + row % P
        raw = tl.load(
            x + source[:, None] * C + channel[None, :], mask=inside[:, None] & (channel < C)[None, :], other=0.0
        )
        a = _activate(raw, factor, offset)
        there = inside[:, None] & (column < C_OUT)[None, :]  # zero rows here make those of `a` harmless
        b = tl.load(dz + row.to(tl.int64)[:, None] * C_OUT + column[None, :], mask=there, other=0.0)
        sums = _dot(tl.trans(a), b, sums, UPCAST)
    here = ((split * 3 + tap).to(tl.int64) * C + channel)[:, None] * C_OUT + column[None, :]
    tl.store(partial + here, sums, mask=(channel < C)[:, None] & (column < C_OUT)[None, :])


def activation_gradient_triton(
    dz: Tensor, x: Tensor, taps: Tensor, scale: Tensor, shift: Tensor, mean: Tensor, inverse: Tensor, stride: int,
    is_batch: bool, config: dict[str, int] | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Gradients of x (its type), and of beta and gamma together (fp32 [2, C]), from that of z; `inverse` is 1 / sqrt(var + eps)."""
    batch, length, pixels, channels = x.shape
    out_length, out_channels = dz.shape[1], dz.shape[3]
    config = config or ACTIVATION_CONFIG
    dx = torch.empty_like(x)
    rows = batch * length * pixels
    blocks = triton.cdiv(rows, config["BLOCK_M"])
    partial = torch.empty((blocks, 2, channels), dtype=torch.float32, device=x.device)
    if blocks:
        with torch.cuda.device_of(x):  # Triton launches on the current device
            _activation_gradient[(blocks * triton.cdiv(channels, config["BLOCK_N"]),)](
                dz, x, taps, scale, shift, mean, inverse, dx, partial, rows, length, out_length, pixels,
                C=channels, C_OUT=out_channels, STRIDE=stride, UPCAST=not x.is_cuda, **config,
            )  # fmt: skip
    of_channels = partial.sum(0, dtype=torch.float64).float()
    dbeta, dgamma = of_channels
    slope = -scale * inverse * dgamma / max(rows, 1) if is_batch else torch.zeros_like(scale)
    offset = -scale * dbeta / max(rows, 1) - slope * mean if is_batch else torch.zeros_like(scale)
    if blocks:
        with torch.cuda.device_of(x):
            _finish[(triton.cdiv(x.numel(), 4096),)](
                dx, x, scale, slope, offset, x.numel(), C=channels, BLOCK=4096, num_warps=8
            )
    return dx, of_channels


def tap_gradient_triton(
    dz: Tensor, x: Tensor, scale: Tensor, shift: Tensor, stride: int, config: dict[str, int] | None = None
) -> Tensor:
    """Gradient of the taps, fp32 [3, C, C'], from that of z."""
    _, length, pixels, channels = x.shape
    batch, out_length, _, out_channels = dz.shape
    config = config or TAP_CONFIG
    tiles = 3 * triton.cdiv(channels, config["BLOCK_C"]) * triton.cdiv(out_channels, config["BLOCK_N"])
    rows = batch * out_length * pixels
    splits = max(1, min(triton.cdiv(_PROGRAMS, tiles), triton.cdiv(rows, config["BLOCK_M"])))
    partial = torch.empty((splits, 3, channels, out_channels), dtype=torch.float32, device=x.device)
    with torch.cuda.device_of(x):  # Triton launches on the current device
        _tap_gradient[(tiles * splits,)](
            dz, x, scale, shift, partial, rows, length, out_length, pixels, splits,
            C=channels, C_OUT=out_channels, STRIDE=stride, UPCAST=not x.is_cuda, **config,
        )  # fmt: skip
    return partial.sum(0)
