"""NV12 frames to RGB windows on a GPU, by the rule of `engine/data/pyav/convert.py`, to the bit.

NV12 is what NVDEC writes: rows of luma, and below them half as many rows in which Cb and Cr take turns. PyNvVideoCodec
could give RGB itself, but by the matrix that a file's tag names and with the nearest chroma sample. Here the whole numbers
of `planar.py` are computed with torch, for all frames of many snippets at once; only what is shown is touched.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from engine.data.colour import MATRIX_BITS, rgb_matrix
from engine.data.geometry import CropWindow

_MATRIX: list[list[int]] = rgb_matrix(full_range=False).tolist()  # stores are of limited range


@dataclass(frozen=True, slots=True)
class Places:
    """Which samples make a window, along one axis of a frame: int64 [3, length].

    In its rows: luma; the nearer and the farther sample of chroma.
    """

    samples: np.ndarray

    @classmethod
    def of(cls, begin: int, length: int, size: int, *, mirrored: bool = False) -> "Places":
        """`length` pixels from `begin` on of a frame of `size`; beside it the outermost chroma is repeated."""
        luma = np.arange(begin, begin + length)
        luma = luma[::-1] if mirrored else luma
        near = luma // 2
        far = np.clip(near + np.where(luma % 2, 1, -1), 0, size // 2 - 1)
        return cls(np.stack([luma, near, far]))


def window_places(window: CropWindow, crop: int) -> tuple[Places, Places]:
    """Rows and columns of a snippet's crop. What lies on its side is mirrored top-bottom, and turned afterwards."""
    lies = window.quarter_turns % 2 == 1
    return (
        Places.of(window.top, crop, window.height, mirrored=window.flip and lies),
        Places.of(window.left, crop, window.width, mirrored=window.flip and not lies),
    )


def to_rgb(nv12: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Windows of frames of limited range.

    Args:
        nv12: uint8 [M, 3 * H / 2, W], H and W even.
        rows, columns: int64 [M, 3, height] and [M, 3, width], `Places` of each frame's window.

    Returns:
        uint8 [M, height, width, 3].
    """
    height, width = nv12.shape[1] // 3 * 2, nv12.shape[2]
    luma, chroma = nv12[:, :height], nv12[:, height:].unflatten(2, (width // 2, 2))
    frame = torch.arange(len(nv12), device=nv12.device)[:, None]
    # Between its samples chroma counts 3/4 of the nearer and 1/4 of the farther one; times 16 it is whole.
    tall = chroma[frame, rows[:, 1]].to(torch.int16) * 3 + chroma[frame, rows[:, 2]]
    frame, row = frame[:, None], torch.arange(rows.shape[2], device=nv12.device)[:, None]
    wide = tall[frame, row, columns[:, 1, None]] * 3 + tall[frame, row, columns[:, 2, None]]
    grey = luma[frame, rows[:, 0, :, None], columns[:, 0, None]].to(torch.int32)
    blue, red = wide.to(torch.int32).unbind(-1)
    rgb = torch.empty((*grey.shape, 3), dtype=torch.uint8, device=nv12.device)
    for channel, (of_luma, of_blue, of_red, offset) in enumerate(_MATRIX):
        level = grey * of_luma
        if of_blue:
            level += blue * of_blue
        if of_red:
            level += red * of_red
        rgb[..., channel] = (level + offset).bitwise_right_shift_(MATRIX_BITS).clamp_(0, 255)
    return rgb


def scaled_crop(nv12: torch.Tensor, size: tuple[int, int], window: CropWindow, crop: int) -> torch.Tensor:
    """The crop of a snippet whose frames have to be scaled, not yet turned; RGB is rounded before it is scaled.

    Args:
        nv12: uint8 [T, 3 * H / 2, W] as coded. size: (width, height) of the upper left part that is shown.

    Returns:
        uint8 [T, crop, crop, 3].
    """
    width, height = size
    axes = Places.of(0, height, height), Places.of(0, width, width)
    rows, columns = (torch.from_numpy(axis.samples).to(nv12.device).expand(len(nv12), -1, -1) for axis in axes)
    rgb_tchw = to_rgb(nv12, rows, columns).permute(0, 3, 1, 2).float()
    scaled = F.interpolate(rgb_tchw, (window.height, window.width), mode="bilinear", antialias=True)
    row_places, column_places = window_places(window, crop)
    cut = scaled.permute(0, 2, 3, 1)[:, row_places.samples[0]][:, :, column_places.samples[0]]
    return cut.round_().clamp_(0, 255).to(torch.uint8)
