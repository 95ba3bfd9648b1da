"""Kernels of `temporal_conv` for few channels and stride 1: a program walks through time and loads each frame once.

With 144 channels and less the layers of R(2+1)D are bound by memory. A program here owns some pixels of a clip in all
its frames and all channels, keeps the taps in shared memory, and carries what a frame gives to its neighbours in
registers. Channels need not be a power of two: they are two powers, the second filled up with zeros (144 = 128 + 16).
"""

import triton
import triton.language as tl

from kernels.temporal_conv_tiles_triton import activate, dot, store_sums


def parts_of(channels: int, out_channels: int) -> dict[str, int]:
    """Two powers of two, at least 16, that hold the channels, and one for those of the result."""
    first = max(16, 1 << (channels.bit_length() - 1))
    second = max(16, triton.next_power_of_2(max(channels - first, 1)))
    return {"FIRST": first, "SECOND": second, "PAD_OUT": max(16, triton.next_power_of_2(out_channels))}


@triton.jit
def _fold(x):
    """[R, N] -> [R / 16, 8, N]: a sum of the rows that tensor cores leave in one thread, so nothing is exchanged."""
    return tl.sum(tl.reshape(x, (x.shape[0] // 16, 2, 8, x.shape[1])), 1)


@triton.jit
def _fold_loaded(x):
    """[R, N] -> [16, N]: the same for rows as they are loaded, 16 at once by eight warps."""
    return tl.sum(tl.reshape(x, (x.shape[0] // 16, 16, x.shape[1])), 0)


@triton.jit
def _load_tap(
    taps, tap: tl.constexpr, start: tl.constexpr, columns, C: tl.constexpr, C_OUT: tl.constexpr, SIZE: tl.constexpr
):
    """[SIZE, columns] of a tap from channel `start`."""
    channel = start + tl.arange(0, SIZE)
    there = (channel < C)[:, None] & (columns < C_OUT)[None, :]
    return tl.load(taps + (tap * C + channel)[:, None] * C_OUT + columns[None, :], mask=there, other=0.0)


@triton.jit
def _of_channels(values, start: tl.constexpr, C: tl.constexpr, SIZE: tl.constexpr):
    """[SIZE] from channel `start`. Loaded before the loop: within one that stores the compiler would load them each time."""
    channel = start + tl.arange(0, SIZE)
    return tl.load(values + channel, mask=channel < C, other=0.0)


@triton.jit
def _load_active(x, rows, inside, factor, offset, start: tl.constexpr, C: tl.constexpr, SIZE: tl.constexpr):
    """Normalised activations [rows, SIZE] from channel `start`, zero outside."""
    channel = start + tl.arange(0, SIZE)
    there = inside[:, None] & (channel < C)[None, :]
    raw = tl.load(x + rows[:, None] * C + channel[None, :], mask=there, other=0.0)
    return tl.where(inside[:, None], activate(raw, factor, offset), 0.0).to(raw.dtype)


@triton.jit
def forward(
    x, taps, scale, shift, z, partial, T, P,
    C: tl.constexpr, C_OUT: tl.constexpr, UPCAST: tl.constexpr,
    FIRST: tl.constexpr, SECOND: tl.constexpr, PAD_OUT: tl.constexpr, BLOCK_P: tl.constexpr,
):  # fmt: skip
    blocks = tl.cdiv(P, BLOCK_P)
    clip = tl.program_id(0) // blocks
    pixel = tl.program_id(0) % blocks * BLOCK_P + tl.arange(0, BLOCK_P)
    columns = tl.arange(0, PAD_OUT)
    a0, b0 = _load_tap(taps, 0, 0, columns, C, C_OUT, FIRST), _load_tap(taps, 0, FIRST, columns, C, C_OUT, SECOND)
    a1, b1 = _load_tap(taps, 1, 0, columns, C, C_OUT, FIRST), _load_tap(taps, 1, FIRST, columns, C, C_OUT, SECOND)
    a2, b2 = _load_tap(taps, 2, 0, columns, C, C_OUT, FIRST), _load_tap(taps, 2, FIRST, columns, C, C_OUT, SECOND)
    factor_a, factor_b = _of_channels(scale, 0, C, FIRST), _of_channels(scale, FIRST, C, SECOND)
    offset_a, offset_b = _of_channels(shift, 0, C, FIRST), _of_channels(shift, FIRST, C, SECOND)
    before = tl.zeros((BLOCK_P, PAD_OUT), tl.float32)  # what is known of the result one frame back
    here = tl.zeros((BLOCK_P, PAD_OUT), tl.float32)
    total = tl.zeros((BLOCK_P // 16, 8, PAD_OUT), tl.float32)
    squares = tl.zeros((BLOCK_P // 16, 8, PAD_OUT), tl.float32)
    for time in range(T + 1):
        rows = (clip * T + time).to(tl.int64) * P + pixel
        inside = (pixel < P) & (time < T)
        first = _load_active(x, rows, inside, factor_a, offset_a, 0, C, FIRST)
        second = _load_active(x, rows, inside, factor_b, offset_b, FIRST, C, SECOND)
        before = dot(second, b2, dot(first, a2, before, UPCAST), UPCAST)
        result = before.to(z.dtype.element_ty)
        is_result = (pixel < P) & (time > 0)
        there = is_result[:, None] & (columns < C_OUT)[None, :]
        tl.store(z + (rows - P)[:, None] * C_OUT + columns[None, :], result, mask=there)
        rounded = tl.where(is_result[:, None], result.to(tl.float32), 0.0)
        total += _fold(rounded)
        squares += _fold(rounded * rounded)
        before = dot(second, b1, dot(first, a1, here, UPCAST), UPCAST)
        here = dot(second, b0, dot(first, a0, tl.zeros((BLOCK_P, PAD_OUT), tl.float32), UPCAST), UPCAST)
    store_sums(partial, tl.program_id(0), columns, C_OUT, tl.sum(tl.sum(total, 0), 0), tl.sum(tl.sum(squares, 0), 0))


@triton.jit
def _through_relu(sums, x, rows, inside, factor, offset, start: tl.constexpr, C: tl.constexpr, SIZE: tl.constexpr):
    """The gradient [rows, SIZE] of batch-norm's result, and the raw activations, from channel `start`."""
    channel = start + tl.arange(0, SIZE)
    there = inside[:, None] & (channel < C)[None, :]
    raw = tl.load(x + rows[:, None] * C + channel[None, :], mask=there, other=0.0)
    sums = sums.to(raw.dtype).to(
        tl.float32
    )  # as a convolution's gradient is stored; moves half the bytes between threads
    raw = raw.to(tl.float32)
    return tl.where(there & (tl.fma(raw, factor[None, :], offset[None, :]) > 0.0), sums, 0.0), raw


@triton.jit
def _gradient_sums(sums, x, rows, inside, factor, offset, start: tl.constexpr, C: tl.constexpr, SIZE: tl.constexpr):
    sums, raw = _through_relu(sums, x, rows, inside, factor, offset, start, C, SIZE)
    return _fold_loaded(sums), _fold_loaded(sums * raw)


@triton.jit
def _store_gradient(
    sums, x, dx, rows, inside, factor, offset, slope, base,
    start: tl.constexpr, C: tl.constexpr, SIZE: tl.constexpr,
):  # fmt: skip
    sums, raw = _through_relu(sums, x, rows, inside, factor, offset, start, C, SIZE)
    channel = start + tl.arange(0, SIZE)
    value = tl.fma(sums, factor[None, :], tl.fma(raw, slope[None, :], base[None, :]))
    there = inside[:, None] & (channel < C)[None, :]
    tl.store(dx + rows[:, None] * C + channel[None, :], value.to(dx.dtype.element_ty), mask=there)


@triton.jit
def activation_gradient(
    dz, x, taps, scale, shift, slope, base, dx, partial, T, P,
    C: tl.constexpr, C_OUT: tl.constexpr, FINISH: tl.constexpr, UPCAST: tl.constexpr,
    FIRST: tl.constexpr, SECOND: tl.constexpr, PAD_OUT: tl.constexpr, BLOCK_P: tl.constexpr,
):  # fmt: skip
    blocks = tl.cdiv(P, BLOCK_P)
    clip = tl.program_id(0) // blocks
    pixel = tl.program_id(0) % blocks * BLOCK_P + tl.arange(0, BLOCK_P)
    columns = tl.arange(0, PAD_OUT)
    a0, b0 = _load_tap(taps, 0, 0, columns, C, C_OUT, FIRST), _load_tap(taps, 0, FIRST, columns, C, C_OUT, SECOND)
    a1, b1 = _load_tap(taps, 1, 0, columns, C, C_OUT, FIRST), _load_tap(taps, 1, FIRST, columns, C, C_OUT, SECOND)
    a2, b2 = _load_tap(taps, 2, 0, columns, C, C_OUT, FIRST), _load_tap(taps, 2, FIRST, columns, C, C_OUT, SECOND)
    factor_a, factor_b = _of_channels(scale, 0, C, FIRST), _of_channels(scale, FIRST, C, SECOND)
    offset_a, offset_b = _of_channels(shift, 0, C, FIRST), _of_channels(shift, FIRST, C, SECOND)
    slope_a, slope_b = _of_channels(slope, 0, C, FIRST), _of_channels(slope, FIRST, C, SECOND)
    base_a, base_b = _of_channels(base, 0, C, FIRST), _of_channels(base, FIRST, C, SECOND)
    total_a = tl.zeros((16, FIRST), tl.float32)
    total_b = tl.zeros((16, SECOND), tl.float32)
    product_a, product_b = total_a, total_b
    for time in range(T):
        rows = (clip * T + time).to(tl.int64) * P + pixel
        inside = pixel < P
        offset = rows[:, None] * C_OUT + columns[None, :]
        there = inside[:, None] & (columns < C_OUT)[None, :]
        after = tl.load(dz + offset + P * C_OUT, mask=there & (time + 1 < T), other=0.0)
        now = tl.load(dz + offset, mask=there, other=0.0)
        before = tl.load(dz + offset - P * C_OUT, mask=there & (time > 0), other=0.0)
        a = dot(after, tl.trans(a0), tl.zeros((BLOCK_P, FIRST), tl.float32), UPCAST)
        a = dot(before, tl.trans(a2), dot(now, tl.trans(a1), a, UPCAST), UPCAST)
        if FINISH:
            _store_gradient(a, x, dx, rows, inside, factor_a, offset_a, slope_a, base_a, 0, C, FIRST)
        else:
            one, other = _gradient_sums(a, x, rows, inside, factor_a, offset_a, 0, C, FIRST)
            total_a, product_a = total_a + one, product_a + other
        b = dot(after, tl.trans(b0), tl.zeros((BLOCK_P, SECOND), tl.float32), UPCAST)
        b = dot(before, tl.trans(b2), dot(now, tl.trans(b1), b, UPCAST), UPCAST)
        if FINISH:
            _store_gradient(b, x, dx, rows, inside, factor_b, offset_b, slope_b, base_b, FIRST, C, SECOND)
        else:
            one, other = _gradient_sums(b, x, rows, inside, factor_b, offset_b, FIRST, C, SECOND)
            total_b, product_b = total_b + one, product_b + other
    if not FINISH:
        store_sums(partial, tl.program_id(0), tl.arange(0, FIRST), C, tl.sum(total_a, 0), tl.sum(product_a, 0))
        store_sums(partial, tl.program_id(0), FIRST + tl.arange(0, SECOND), C, tl.sum(total_b, 0), tl.sum(product_b, 0))


@triton.jit
def _store_tap(
    partial, tap: tl.constexpr, start: tl.constexpr, sums, C: tl.constexpr, C_OUT: tl.constexpr, SIZE: tl.constexpr
):
    """The gradient [C', SIZE] of a tap, of this program's rows."""
    channel, column = start + tl.arange(0, SIZE), tl.arange(0, sums.shape[0])
    offset = ((tl.program_id(0) * 3 + tap).to(tl.int64) * C_OUT + column)[:, None] * C + channel[None, :]
    tl.store(partial + offset, sums, mask=(column < C_OUT)[:, None] & (channel < C)[None, :])


@triton.jit
def tap_gradient(
    dz, x, scale, shift, partial, T, P, frames,
    C: tl.constexpr, C_OUT: tl.constexpr, UPCAST: tl.constexpr,
    FIRST: tl.constexpr, SECOND: tl.constexpr, PAD_OUT: tl.constexpr, BLOCK_P: tl.constexpr,
):  # fmt: skip
    blocks = tl.cdiv(P, BLOCK_P)
    columns = tl.arange(0, PAD_OUT)
    a0, b0 = tl.zeros((PAD_OUT, FIRST), tl.float32), tl.zeros((PAD_OUT, SECOND), tl.float32)
    a1, b1 = tl.zeros((PAD_OUT, FIRST), tl.float32), tl.zeros((PAD_OUT, SECOND), tl.float32)
    a2, b2 = tl.zeros((PAD_OUT, FIRST), tl.float32), tl.zeros((PAD_OUT, SECOND), tl.float32)
    factor_a, factor_b = _of_channels(scale, 0, C, FIRST), _of_channels(scale, FIRST, C, SECOND)
    offset_a, offset_b = _of_channels(shift, 0, C, FIRST), _of_channels(shift, FIRST, C, SECOND)
    for step in range(tl.program_id(0), frames * blocks, tl.num_programs(0)):
        # Pixels outside, time inside: programs that run together are at neighbouring frames.
        frame, pixel = step // blocks, step % blocks * BLOCK_P + tl.arange(0, BLOCK_P)
        time = frame % T
        rows, inside = frame.to(tl.int64) * P + pixel, pixel < P
        offset = rows[:, None] * C_OUT + columns[None, :]
        there = inside[:, None] & (columns < C_OUT)[None, :]
        after = tl.load(dz + offset + P * C_OUT, mask=there & (time + 1 < T), other=0.0)
        now = tl.load(dz + offset, mask=there, other=0.0)
        before = tl.load(dz + offset - P * C_OUT, mask=there & (time > 0), other=0.0)
        first = _load_active(x, rows, inside, factor_a, offset_a, 0, C, FIRST)
        second = _load_active(x, rows, inside, factor_b, offset_b, FIRST, C, SECOND)
        a0, b0 = dot(tl.trans(after), first, a0, UPCAST), dot(tl.trans(after), second, b0, UPCAST)
        a1, b1 = dot(tl.trans(now), first, a1, UPCAST), dot(tl.trans(now), second, b1, UPCAST)
        a2, b2 = dot(tl.trans(before), first, a2, UPCAST), dot(tl.trans(before), second, b2, UPCAST)
    _store_tap(partial, 0, 0, a0, C, C_OUT, FIRST)
    _store_tap(partial, 0, FIRST, b0, C, C_OUT, SECOND)
    _store_tap(partial, 1, 0, a1, C, C_OUT, FIRST)
    _store_tap(partial, 1, FIRST, b1, C, C_OUT, SECOND)
    _store_tap(partial, 2, 0, a2, C, C_OUT, FIRST)
    _store_tap(partial, 2, FIRST, b2, C, C_OUT, SECOND)
