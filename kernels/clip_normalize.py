"""uint8 video frames -> the normalised clips that a 3-D CNN takes."""

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from kernels.triton_support import can_use_triton

KINETICS_MEAN = (0.43216, 0.394666, 0.37645)  # RGB of 0..1, torchvision's for its Kinetics-400 weights
KINETICS_STD = (0.22803, 0.22145, 0.216989)
_TRITON_DTYPES = (torch.float16, torch.bfloat16, torch.float32)


def clip_normalize(
    frames: Tensor,
    dtype: torch.dtype = torch.float32,
    mean: Sequence[float] = KINETICS_MEAN,
    std: Sequence[float] = KINETICS_STD,
    *,
    channels_last: bool = True,
    channels: int | None = None,
) -> Tensor:
    """(frames / 255 - mean) / std, with the channels moved to the second axis.

    Args:
        frames: uint8 [N, T, H, W, C].
        dtype: floating type of the result; the arithmetic is fp32 or better and is rounded once.
        mean, std: C values each, in units of 0..1.
        channels_last: True leaves the memory in the order of `frames`, which is channels_last_3d; False makes it
            contiguous, as the paper's own recipe had it.
        channels: of the result, default C; those past C are filled with zeros (tensor cores like multiples of 8).

    Returns:
        [N, channels, T, H, W] on the device of `frames`. One pass over memory on a GPU that Triton supports.

    Raises:
        ValueError: shapes or types are not as above.
    """
    channels = _check(frames, mean, std, channels)
    is_indexed = frames.shape[1:-1].numel() * channels < 2**31  # by the kernel, within a clip
    if channels_last and is_indexed and dtype in _TRITON_DTYPES and can_use_triton(frames.device):
        from kernels.clip_normalize_triton import clip_normalize_triton

        return clip_normalize_triton(frames, dtype, *scales_and_shifts(mean, std), channels)
    clips = _normalize_in_torch(frames, dtype, mean, std, channels_last)
    return clips if channels == clips.shape[1] else _pad_channels(clips, channels, channels_last)


def _normalize_in_torch(
    frames: Tensor, dtype: torch.dtype, mean: Sequence[float], std: Sequence[float], channels_last: bool
) -> Tensor:
    batch, *size, channels = frames.shape
    width = size[-1]
    work = torch.promote_types(dtype, torch.float32)
    scale, shift = _scale_and_shift(tuple(mean), tuple(std), width if channels_last else 1, work, frames.device)
    if channels_last:  # whole rows instead of a last axis of 3, which would leave a CPU's vector units empty
        rows = frames.reshape(batch, size[0] * size[1], width * channels).to(work)
        clips = torch.addcmul(shift, rows, scale, out=rows).to(dtype)
        return clips.view(frames.shape).permute(0, 4, 1, 2, 3)
    planes = frames.permute(0, 4, 1, 2, 3).to(work, memory_format=torch.contiguous_format).flatten(2)
    clips = torch.addcmul(shift[:, None], planes, scale[:, None], out=planes).to(dtype)
    return clips.view(batch, channels, *size)


def clip_normalize_ref(
    frames: Tensor,
    dtype: torch.dtype = torch.float32,
    mean: Sequence[float] = KINETICS_MEAN,
    std: Sequence[float] = KINETICS_STD,
    *,
    channels_last: bool = True,
    channels: int | None = None,
) -> Tensor:
    """The definition of `clip_normalize`, step by step."""
    channels = _check(frames, mean, std, channels)
    work = torch.promote_types(dtype, torch.float32)
    mean, std = (torch.tensor(values, dtype=work, device=frames.device) for values in (mean, std))
    clips = (frames.to(work) / 255 - mean) / std
    layout = torch.channels_last_3d if channels_last else torch.contiguous_format
    clips = torch.nn.functional.pad(clips, (0, channels - clips.shape[-1]))
    return clips.to(dtype).permute(0, 4, 1, 2, 3).contiguous(memory_format=layout)


def _pad_channels(clips: Tensor, channels: int, channels_last: bool) -> Tensor:
    batch, filled, *size = clips.shape
    layout = torch.channels_last_3d if channels_last else torch.contiguous_format
    padded = torch.zeros((batch, channels, *size), dtype=clips.dtype, device=clips.device)
    padded = padded.contiguous(memory_format=layout)
    padded[:, :filled] = clips
    return padded


def scales_and_shifts(mean: Sequence[float], std: Sequence[float]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Of each channel: the result is frames * scale + shift."""
    return tuple(1 / (255 * float(s)) for s in std), tuple(-float(m) / float(s) for m, s in zip(mean, std, strict=True))


@cache  # the constants reach the device once, not at every step
def _scale_and_shift(
    mean: tuple[float, ...], std: tuple[float, ...], repeats: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    both = scales_and_shifts(mean, std)
    return tuple(torch.tensor(values * repeats, dtype=dtype, device=device) for values in both)


def _check(frames: Tensor, mean: Sequence[float], std: Sequence[float], channels: int | None) -> int:
    """The number of channels of the result."""
    if frames.dtype != torch.uint8 or frames.ndim != 5:
        raise ValueError(f"frames must be uint8 [N, T, H, W, C], not {frames.dtype} {tuple(frames.shape)}")
    given = frames.shape[-1]
    if not given == len(mean) == len(std):
        raise ValueError(f"{given} channels need as many means and deviations, not {len(mean)} and {len(std)}")
    if channels is not None and channels < given:
        raise ValueError(f"{channels} channels cannot hold the {given} of the frames")
    return given if channels is None else channels
