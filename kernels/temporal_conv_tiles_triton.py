"""Kernels of `temporal_conv` for layers of any size: matrix products over tiles.

Rows are the elements [N, T', P] of the result, one after the other; its three taps are the rows of `x` one frame back,
the same and one frame on. A program owns a tile of rows and channels; neighbours run together and find each other's
frames in the second-level cache. Tiles are wide, since each activation is loaded and normalised anew for every tile of
columns. The gradient of the taps finds within its loop where its rows lie, and knows the lengths when it is compiled.
Sums are of the rounded results, in fp32, a partial sum for each program.
"""

import triton
import triton.language as tl


@triton.jit
def activate(x, scale, shift):
    """relu(batch_norm(x)) in fp32, rounded once."""
    return tl.maximum(tl.fma(x.to(tl.float32), scale[None, :], shift[None, :]), 0.0).to(x.dtype)


@triton.jit
def dot(a, b, sums, UPCAST: tl.constexpr):
    """sums + a @ b. UPCAST is for the interpreter, which would multiply the bit patterns of bf16 as integers."""
    if UPCAST:
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, sums, input_precision="ieee")


@triton.jit
def store_sums(partial, block, columns, C, first, second):
    """[2, C] of a program's own."""
    here = partial + block.to(tl.int64) * 2 * C + columns
    tl.store(here, first, mask=columns < C)
    tl.store(here + C, second, mask=columns < C)


@triton.jit
def forward(
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
        a = tl.where(inside[:, None], activate(raw, factor, offset), 0.0).to(raw.dtype)
        b_there = (k < C)[:, None] & (columns < C_OUT)[None, :]
        b = tl.load(taps + (tap * C + k)[:, None] * C_OUT + columns[None, :], mask=b_there, other=0.0)
        sums = dot(a, b, sums, UPCAST)
    result = sums.to(z.dtype.element_ty)
    to_store = (row < rows_out)[:, None] & (columns < C_OUT)[None, :]
    tl.store(z + row.to(tl.int64)[:, None] * C_OUT + columns[None, :], result, mask=to_store)
    rounded = result.to(tl.float32)  # zero in the rows that are not there
    store_sums(partial, block, columns, C_OUT, tl.sum(rounded, 0), tl.sum(rounded * rounded, 0))


@triton.jit
def activation_gradient(
    dz, x, taps, scale, shift, dx, partial, rows, T, T_OUT, P,
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
        sums = dot(a, b, sums, UPCAST)
    is_column = columns < C
    there = (row < rows)[:, None] & is_column[None, :]
    offsets = row.to(tl.int64)[:, None] * C + columns[None, :]
    raw = tl.load(x + offsets, mask=there, other=0.0).to(tl.float32)
    factor, offset = (
        tl.load(scale + columns, mask=is_column, other=0.0),
        tl.load(shift + columns, mask=is_column, other=0.0),
    )
    sums = tl.where(tl.fma(raw, factor[None, :], offset[None, :]) > 0.0, sums, 0.0)
    tl.store(dx + offsets, sums.to(dx.dtype.element_ty), mask=there)
    sums = tl.where(there, sums, 0.0)
    store_sums(partial, block, columns, C, tl.sum(sums, 0), tl.sum(sums * raw, 0))


@triton.jit
def tap_gradient(
    dz, x, scale, shift, partial, rows_out, splits, T: tl.constexpr, T_OUT: tl.constexpr, P: tl.constexpr,
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
        a = tl.where(inside[:, None], activate(raw, factor, offset), 0.0).to(raw.dtype)
        there = inside[:, None] & (column < C_OUT)[None, :]
        b = tl.load(dz + row.to(tl.int64)[:, None] * C_OUT + column[None, :], mask=there, other=0.0)
        sums = dot(tl.trans(a), b, sums, UPCAST)
    here = ((split * 3 + tap).to(tl.int64) * C + channel)[:, None] * C_OUT + column[None, :]
    tl.store(partial + here, sums, mask=(channel < C)[:, None] & (column < C_OUT)[None, :])
