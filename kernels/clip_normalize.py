"""uint8 video frames -> the normalised clips that a 3-D CNN takes."""

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

KINETICS_MEAN = (0.43216, 0.394666, 0.37645)  # RGB of 0..1, torchvision's for its Kinetics-400 weights
KINETICS_STD = (0.22803, 0.22145, 0.216989)


def clip_normalize(
    frames: Tensor,
    dtype: torch.dtype = torch.float32,
    mean: Sequence[float] = KINETICS_MEAN,
    std: Sequence[float] = KINETICS_STD,
    *,
    channels_last: bool = True,
) -> Tensor:
    """(frames / 255 - mean) / std, with the channels moved to the second axis.

    Args:
        frames: uint8 [N, T, H, W, C].
        dtype: floating type of the result; the arithmetic is fp32 or better and is rounded once.
        mean, std: C values each, in units of 0..1.
        channels_last: True leaves the memory in the order of `frames`, which is channels_last_3d; False makes it
            contiguous, as the paper's own recipe had it.

    Returns:
        [N, C, T, H, W] on the device of `frames`.
    """
    _check(frames, mean, std)
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
) -> Tensor:
    """The definition of `clip_normalize`, step by step."""
    _check(frames, mean, std)
    work = torch.promote_types(dtype, torch.float32)
    mean, std = (torch.tensor(values, dtype=work, device=frames.device) for values in (mean, std))
    clips = (frames.to(work) / 255 - mean) / std
    layout = torch.channels_last_3d if channels_last else torch.contiguous_format
    return clips.to(dtype).permute(0, 4, 1, 2, 3).contiguous(memory_format=layout)


@cache  # the constants reach the device once, not at every step
def _scale_and_shift(
    mean: tuple[float, ...], std: tuple[float, ...], repeats: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    scale = [1 / (255 * s) for s in std]
    shift = [-m / s for m, s in zip(mean, std, strict=True)]
    return tuple(torch.tensor(values * repeats, dtype=dtype, device=device) for values in (scale, shift))


def _check(frames: Tensor, mean: Sequence[float], std: Sequence[float]) -> None:
    if frames.dtype != torch.uint8 or frames.ndim != 5:
        raise ValueError(f"frames must be uint8 [N, T, H, W, C], not {frames.dtype} {tuple(frames.shape)}")
    if not frames.shape[-1] == len(mean) == len(std):
        raise ValueError(
            f"{frames.shape[-1]} channels need as many means and deviations, not {len(mean)} and {len(std)}"
        )
