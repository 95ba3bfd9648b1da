"""`temporal_conv` and its gradients in Triton: which kernel with which block sizes, and its launch.

Layers with few channels, which are bound by memory, walk through time (kernels/temporal_conv_walk_triton.py); the others are
matrix products over tiles (kernels/temporal_conv_tiles_triton.py). Both leave partial sums, which are added up in fp64.

The gradient of x needs two sums over all of ReLU's and the convolution's gradient before its first element is known.
Where memory is what a layer waits for, that gradient is computed twice, first for the sums only; else it is stored, and a second,
element-wise pass completes it in place.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels import temporal_conv_tiles_triton as tiles
from kernels import temporal_conv_walk_triton as walk

Config = dict[str, int]  # block sizes and launch options; BLOCK_P only in those of a walk
TILES: dict[str, Config] = {
    "forward": {"BLOCK_M": 128, "BLOCK_N": 128, "BLOCK_K": 32, "num_warps": 8, "num_stages": 3},
    "activation": {"BLOCK_M": 128, "BLOCK_N": 64, "BLOCK_K": 32, "num_warps": 4, "num_stages": 3},
    "tap": {"BLOCK_C": 128, "BLOCK_N": 128, "BLOCK_M": 32, "num_warps": 8, "num_stages": 3},
}
WALK: dict[str, Config] = {
    "forward": {"BLOCK_P": 128, "num_warps": 8, "num_stages": 2},
    "activation": {"BLOCK_P": 64, "num_warps": 8, "num_stages": 2},
    "tap": {"BLOCK_P": 64, "num_warps": 8, "num_stages": 2},
}
_WALKED = 144, 64  # the most channels before and after whose taps and sums fit into a program
_WALK_SHARED = 132 << 10  # bytes of shared memory that its largest launch takes, and a little
_NARROW = 64  # channels of a result that half of a tile would do for
_TAP_PROGRAMS = {"tiles": 528, "walk": 264}  # of 132 multiprocessors with two each: two rounds, one round


def config_of(kernel: str, channels: int, out_channels: int, stride: int, device: torch.device) -> Config:
    """How a layer's `forward`, `activation` gradient or `tap` gradient is launched.

    The walk keeps all taps in shared memory, of which A100 has 163 KB for a block and H100 227; GPUs with less take the tiles.
    """
    can_walk = stride == 1 and channels <= _WALKED[0] and out_channels <= _WALKED[1]
    if can_walk and device.type == "cuda":
        can_walk = torch.cuda.get_device_properties(device).shared_memory_per_block_optin >= _WALK_SHARED
    if can_walk:
        return WALK[kernel]
    tile = TILES[kernel]
    return {**tile, "BLOCK_N": min(tile["BLOCK_N"], _NARROW)} if out_channels <= _NARROW else tile


@triton.jit
def _complete(
    sums, scale, mean, inverse, of_channels, through, rows, C: tl.constexpr, IS_BATCH: tl.constexpr, BLOCK: tl.constexpr
):
    """From fp64 [2, C], the sums of the gradient so far and of it times x: the gradients of bias and scale, and slope and offset.

    The gradient of x is the gradient so far * scale + x * slope + offset, whose last two go through the statistics (`through`).
    """
    channel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = channel < C
    centre = tl.load(mean + channel, mask=inside, other=0.0).to(tl.float64)
    dbias = tl.load(sums + channel, mask=inside, other=0.0)
    dscale = tl.load(sums + C + channel, mask=inside, other=0.0) - centre * dbias
    tl.store(of_channels + channel, dbias.to(tl.float32), mask=inside)
    tl.store(of_channels + C + channel, dscale.to(tl.float32), mask=inside)
    slope, offset = tl.zeros((BLOCK,), tl.float64), tl.zeros((BLOCK,), tl.float64)
    if IS_BATCH:
        factor = tl.load(scale + channel, mask=inside, other=0.0).to(tl.float64) / rows
        spread = tl.load(inverse + channel, mask=inside, other=0.0).to(tl.float64)
        slope = -factor * spread * spread * dscale
        offset = -factor * dbias - slope * centre
    tl.store(through + channel, slope.to(tl.float32), mask=inside)
    tl.store(through + C + channel, offset.to(tl.float32), mask=inside)


@triton.jit
def _finish(dx, x, factor, slope, offset, size, C: tl.constexpr, BLOCK: tl.constexpr):
    """dx = dx * factor + x * slope + offset, in place, of each channel."""
    offsets = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    there, channel = offsets < size, offsets % C
    gradient = tl.load(dx + offsets, mask=there, other=0.0).to(tl.float32)
    value = tl.load(x + offsets, mask=there, other=0.0).to(tl.float32)
    through = tl.fma(value, tl.load(slope + channel, mask=there), tl.load(offset + channel, mask=there))
    gradient = tl.fma(gradient, tl.load(factor + channel, mask=there), through)
    tl.store(dx + offsets, gradient.to(dx.dtype.element_ty), mask=there)


def temporal_conv_triton(x: Tensor, taps: Tensor, scale: Tensor, shift: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    """`kernels.temporal_conv.temporal_conv` on a GPU; its arguments are checked there.

    Args:
        x: [N, T, P, C], contiguous.
        taps: [3, C, C'], contiguous, of the type of `x`.
        scale, shift: fp32 [C]; relu(x * scale + shift) is what is convolved.
    """
    batch, length, pixels, channels = x.shape
    out_length, out_channels = (length - 1) // stride + 1, taps.shape[2]
    z = x.new_empty((batch, out_length, pixels, out_channels))
    config = config_of("forward", channels, out_channels, stride, x.device)
    sizes = {"C": channels, "C_OUT": out_channels, "UPCAST": not x.is_cuda}
    rows = batch * out_length * pixels
    walks = "BLOCK_P" in config
    blocks = batch * triton.cdiv(pixels, config["BLOCK_P"]) if walks else triton.cdiv(rows, config["BLOCK_M"])
    partial = x.new_empty((blocks, 2, out_channels), dtype=torch.float32)
    if rows:
        with torch.cuda.device_of(x):
            if walks:
                walk.forward[(blocks,)](
                    x, taps, scale, shift, z, partial, length, pixels, **sizes, **walk.parts_of(channels, out_channels),
                    **config,
                )  # fmt: skip
            else:
                tiles.forward[(blocks * triton.cdiv(out_channels, config["BLOCK_N"]),)](
                    x,
                    taps,
                    scale,
                    shift,
                    z,
                    partial,
                    rows,
                    length,
                    out_length,
                    pixels,
                    STRIDE=stride,
                    **sizes,
                    **config,
                )
    return z, partial.sum(0, dtype=torch.float64)


def activation_gradient_triton(
    dz: Tensor, x: Tensor, taps: Tensor, scale: Tensor, shift: Tensor, mean: Tensor, inverse: Tensor, stride: int,
    is_batch: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Gradients of x (its type), and of bias and scale together (fp32 [2, C]), from that of z.

    Args:
        dz: [N, T', P, C'], contiguous; the others as above, where `shift` is bias - mean * scale.
        mean, inverse: fp32 [C], of the batch-norm; `inverse` is 1 / sqrt(var + eps).
        is_batch: they are those of `x`.
    """
    channels, out_channels = x.shape[3], dz.shape[3]
    config = config_of("activation", channels, out_channels, stride, x.device)
    dx = torch.empty_like(x)
    of_channels, through = (scale.new_empty((2, channels)) for _ in range(2))

    def complete(partial: Tensor) -> Tensor:
        """Slope and offset, from the sums of each program."""
        _complete[(triton.cdiv(channels, 256),)](
            partial.sum(0, dtype=torch.float64), scale, mean, inverse, of_channels, through, x.numel() // channels,
            C=channels, IS_BATCH=is_batch, BLOCK=256, num_warps=4,
        )  # fmt: skip
        return through

    if not x.numel():
        return dx, of_channels.zero_()
    launch = _walk_activation_gradient if "BLOCK_P" in config else _tile_activation_gradient
    with torch.cuda.device_of(x):
        launch(dz, x, taps, scale, shift, dx, stride, complete, config)
    return dx, of_channels


def _walk_activation_gradient(dz, x, taps, scale, shift, dx, stride, complete, config) -> None:
    batch, length, pixels, channels = x.shape
    blocks = batch * triton.cdiv(pixels, config["BLOCK_P"])
    partial = x.new_empty((blocks, 2, channels), dtype=torch.float32)
    sizes = {"C": channels, "C_OUT": dz.shape[3], "UPCAST": not x.is_cuda, **walk.parts_of(channels, dz.shape[3])}
    kernel = walk.activation_gradient[(blocks,)]
    kernel(dz, x, taps, scale, shift, scale, scale, dx, partial, length, pixels, FINISH=False, **sizes, **config)
    kernel(dz, x, taps, scale, shift, *complete(partial), dx, partial, length, pixels, FINISH=True, **sizes, **config)


def _tile_activation_gradient(dz, x, taps, scale, shift, dx, stride, complete, config) -> None:
    batch, length, pixels, channels = x.shape
    rows, size = batch * length * pixels, x.numel()
    blocks = triton.cdiv(rows, config["BLOCK_M"])
    partial = x.new_empty((blocks, 2, channels), dtype=torch.float32)
    tiles.activation_gradient[(blocks * triton.cdiv(channels, config["BLOCK_N"]),)](
        dz, x, taps, scale, shift, dx, partial, rows, length, dz.shape[1], pixels,
        C=channels, C_OUT=dz.shape[3], STRIDE=stride, UPCAST=not x.is_cuda, **config,
    )  # fmt: skip
    _finish[(triton.cdiv(size, 4096),)](dx, x, scale, *complete(partial), size, C=channels, BLOCK=4096, num_warps=8)


def tap_gradient_triton(dz: Tensor, x: Tensor, scale: Tensor, shift: Tensor, stride: int) -> Tensor:
    """Gradient of the taps, fp32 [3, C, C'], from that of z."""
    batch, length, pixels, channels = x.shape
    out_length, out_channels = dz.shape[1], dz.shape[3]
    config = config_of("tap", channels, out_channels, stride, x.device)
    sizes = {"C": channels, "C_OUT": out_channels, "UPCAST": not x.is_cuda}
    with torch.cuda.device_of(x):
        if "BLOCK_P" in config:
            frames = batch * length
            splits = max(1, min(_TAP_PROGRAMS["walk"], frames * triton.cdiv(pixels, config["BLOCK_P"])))
            partial = x.new_empty((splits, 3, out_channels, channels), dtype=torch.float32)
            walk.tap_gradient[(splits,)](
                dz, x, scale, shift, partial, length, pixels, frames, **sizes, **walk.parts_of(channels, out_channels),
                **config,
            )  # fmt: skip
            return partial.sum(0).transpose(1, 2).contiguous()
        of_a_split = 3 * triton.cdiv(channels, config["BLOCK_C"]) * triton.cdiv(out_channels, config["BLOCK_N"])
        rows = batch * out_length * pixels
        splits = max(1, min(_TAP_PROGRAMS["tiles"] // of_a_split, triton.cdiv(rows, config["BLOCK_M"])))
        partial = x.new_empty((splits, 3, channels, out_channels), dtype=torch.float32)
        tiles.tap_gradient[(of_a_split * splits,)](
            dz,
            x,
            scale,
            shift,
            partial,
            rows,
            splits,
            T=length,
            T_OUT=out_length,
            P=pixels,
            STRIDE=stride,
            **sizes,
            **config,
        )
    return partial.sum(0)
