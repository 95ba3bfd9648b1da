"""`temporal_conv` and `channel_sums` as Triton kernels.

Rows are the elements [N, T', P] of the result, one after the other; its three taps are the rows of `x` one frame back,
the same and one frame on. A program owns a tile of rows and channels; neighbours run together and find each other's
frames in the second-level cache. Sums are of the rounded results, in fp32 within a program and fp64 over programs.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

CONFIGS = {"BLOCK_M": 128, "BLOCK_N": 64, "BLOCK_K": 32, "num_warps": 4, "num_stages": 3}
_SUM_ROWS, _SUM_CHANNELS = 64, 64


@triton.jit
def _activate(x, scale, shift):
    """relu(batch_norm(x)) in fp32, rounded once."""
    return tl.maximum(tl.fma(x.to(tl.float32), scale[None, :], shift[None, :]), 0.0).to(x.dtype)


@triton.jit
def _dot(a, b, sums, UPCAST: tl.constexpr):
    """sums + a @ b. UPCAST is for the interpreter, which would multiply the bit patterns of bf16 as integers."""
    if UPCAST:
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, sums, input_precision="ieee")


@triton.jit
def _store_sums(partial, block, columns, C, first, second):
    """[2, C] of a program's own."""
    here = partial + block.to(tl.int64) * 2 * C + columns
    tl.store(here, first, mask=columns < C)
    tl.store(here + C, second, mask=columns < C)


@triton.jit
def _forward(
    x, taps, scale, shift, z, partial, rows_out, T, T_OUT, P,
    C: tl.constexpr, C_OUT: tl.constexpr, STRIDE: tl.constexpr, UPCAST: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    across: tl.constexpr = (C_OUT + BLOCK_N - 1) // BLOCK_N
    block = tl.program_id(0) // across
    columns = tl.program_id(0) % across * BLOCK_N + tl.arange(0, BLOCK_N)
    row = block * BLOCK_M + tl.arange(0, BLOCK_M)
    frame = row // P  # of the result, over all clips
    time = frame % T_OUT * STRIDE - 1  # of the first tap
    source = ((frame // T_OUT) * T + time).to(tl.int64) * P + row % P
    chunks: tl.constexpr = (C + BLOCK_K - 1) // BLOCK_K
    sums = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for step in range(3 * chunks):
        tap = step // chunks
        k = step % chunks * BLOCK_K + tl.arange(0, BLOCK_K)
        inside = (row < rows_out) & (time + tap >= 0) & (time + tap < T)
        there = inside[:, None] & (k < C)[None, :]
        raw = tl.load(x + (source + tap * P)[:, None] * C + k[None, :], mask=there, other=0.0)
        factor, offset = tl.load(scale + k, mask=k < C, other=0.0), tl.load(shift + k, mask=k < C, other=0.0)
        a = tl.where(inside[:, None], _activate(raw, factor, offset), 0.0).to(raw.dtype)
        b_there = (k < C)[:, None] & (columns < C_OUT)[None, :]
        b = tl.load(taps + (tap * C + k)[:, None] * C_OUT + columns[None, :], mask=b_there, other=0.0)
        sums = _dot(a, b, sums, UPCAST)
    result = sums.to(z.dtype.element_ty)
    to_store = (row < rows_out)[:, None] & (columns < C_OUT)[None, :]
    tl.store(z + row.to(tl.int64)[:, None] * C_OUT + columns[None, :], result, mask=to_store)
    rounded = result.to(tl.float32)  # zero in the rows that are not there
    _store_sums(partial, block, columns, C_OUT, tl.sum(rounded, 0), tl.sum(rounded * rounded, 0))


@triton.jit
def _sum_channels(x, partial, rows, per_program, C: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_C: tl.constexpr):
    across: tl.constexpr = (C + BLOCK_C - 1) // BLOCK_C
    block = tl.program_id(0) // across
    columns = tl.program_id(0) % across * BLOCK_C + tl.arange(0, BLOCK_C)
    total, squares = tl.zeros((BLOCK_M, BLOCK_C), tl.float32), tl.zeros((BLOCK_M, BLOCK_C), tl.float32)
    for start in range(0, per_program, BLOCK_M):
        row = block * per_program + start + tl.arange(0, BLOCK_M)
        there = (row < rows)[:, None] & (columns < C)[None, :]
        value = tl.load(x + row.to(tl.int64)[:, None] * C + columns[None, :], mask=there, other=0.0).to(tl.float32)
        total += value
        squares += value * value
    _store_sums(partial, block, columns, C, tl.sum(total, 0), tl.sum(squares, 0))


def channel_sums_triton(x: Tensor) -> Tensor:
    """`kernels.temporal_conv.channel_sums` of contiguous [M, C] on a GPU."""
    rows, channels = x.shape
    across = triton.cdiv(channels, _SUM_CHANNELS)
    per_program = _SUM_ROWS * max(1, min(16, rows * across // (_SUM_ROWS * 1024)))
    blocks = triton.cdiv(rows, per_program)
    partial = torch.empty((blocks, 2, channels), dtype=torch.float32, device=x.device)
    if blocks:
        with torch.cuda.device_of(x):  # Triton launches on the current device
            _sum_channels[(blocks * across,)](
                x, partial, rows, per_program, C=channels, BLOCK_M=_SUM_ROWS, BLOCK_C=_SUM_CHANNELS, num_warps=4
            )
    return partial.sum(0, dtype=torch.float64)


def temporal_conv_triton(
    x: Tensor, taps: Tensor, scale: Tensor, shift: Tensor, stride: int, config: dict[str, int] | None = None
) -> tuple[Tensor, Tensor]:
    """`kernels.temporal_conv.temporal_conv` on a GPU; its arguments are checked there.

    Args:
        x: [N, T, P, C], contiguous.
        taps: [3, C, C'], contiguous, of the type of `x`.
        scale, shift: fp32 [C]; relu(x * scale + shift) is what is convolved.
        config: block sizes and launch options, default by rule.
    """
    batch, length, pixels, channels = x.shape
    out_length, out_channels = (length - 1) // stride + 1, taps.shape[2]
    z = torch.empty((batch, out_length, pixels, out_channels), dtype=x.dtype, device=x.device)
    config = config or CONFIGS
    rows = batch * out_length * pixels
    blocks = triton.cdiv(rows, config["BLOCK_M"])
    partial = torch.empty((blocks, 2, out_channels), dtype=torch.float32, device=x.device)
    if blocks:
        with torch.cuda.device_of(x):  # Triton launches on the current device
            _forward[(blocks * triton.cdiv(out_channels, config["BLOCK_N"]),)](
                x, taps, scale, shift, z, partial, rows, length, out_length, pixels,
                C=channels, C_OUT=out_channels, STRIDE=stride, UPCAST=not x.is_cuda, **config,
            )  # fmt: skip
    return z, partial.sum(0, dtype=torch.float64)
