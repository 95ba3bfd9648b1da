"""`clip_normalize` in one Triton launch: every byte is read once and every result written once.

A program writes a contiguous run of one clip's channels-last memory. Without padding it reads a contiguous run too,
sixteen bytes at a time; else it gathers, which the caches serve. The channels' constants are the kernel's arguments:
nothing is loaded for them.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK, _WARPS = 4096, 8  # 16 elements a thread: one 16-byte load, two 16-byte stores of fp16


@triton.jit
def _kernel(
    frames, clips, scales, shifts, size, blocks, C: tl.constexpr, C_OUT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    clip = (tl.program_id(0) // blocks).to(tl.int64)
    offset = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)  # within the clip's result
    channel = offset % C_OUT
    inside = offset < size * C_OUT
    is_read = inside
    source = offset
    if C_OUT != C:
        is_read = inside & (channel < C)
        source = (offset // C_OUT) * C + channel
    level = tl.load(frames + clip * size * C + source, mask=is_read, other=0).to(tl.float32)
    scale = tl.zeros((BLOCK,), tl.float32)
    shift = tl.zeros((BLOCK,), tl.float32)
    for each in tl.static_range(C):
        scale = tl.where(channel == each, scales[each], scale)
        shift = tl.where(channel == each, shifts[each], shift)
    value = tl.fma(level, scale, shift)
    tl.store(clips + clip * size * C_OUT + offset, value.to(clips.dtype.element_ty), mask=inside)


def clip_normalize_triton(
    frames: Tensor,
    dtype: torch.dtype,
    scales: tuple[float, ...],
    shifts: tuple[float, ...],
    channels: int,
) -> Tensor:
    """`kernels.clip_normalize.clip_normalize` on a GPU, into channels_last_3d; its arguments are checked there.

    Args:
        frames: a clip's result has fewer than 2**31 elements.
        scales, shifts: C each; the result is frames * scale + shift.
        channels: of the result; those past C are zero.
    """
    frames = frames.contiguous()
    batch, *size, width, in_channels = frames.shape
    clips = torch.empty((batch, *size, width, channels), dtype=dtype, device=frames.device)
    pixels = size[0] * size[1] * width
    if clips.numel():
        blocks = triton.cdiv(pixels * channels, _BLOCK)  # of a clip; one axis of programs, as others end at 65,535
        with torch.cuda.device_of(frames):  # Triton launches on the current device
            _kernel[(blocks * batch,)](
                frames, clips, scales, shifts, pixels, blocks,
                C=in_channels, C_OUT=channels, BLOCK=_BLOCK, num_warps=_WARPS,
            )  # fmt: skip
    return clips.permute(0, 4, 1, 2, 3)
