"""How fast the blocks of a clip move: from grids of a video's frames to the cells of a clip.

    vectors of a frame ──▶ grid: speed of each block of 16 x 16 pixels ──scale, crop, turn, mirror──▶ cells of the clip

Speed is the length of a block's motion vector against the camera's, from one frame to the next; how it is read off a codec's
vectors is stated in `pyav/vectors.py`. It is kept as uint8 in quarter pixels, of the stored frame or of the clip, 255 at most.
A video without any vectors has speed 0 everywhere, and so has a still.
"""

import functools
from typing import TYPE_CHECKING

import numpy as np

from engine.data.config import MOTION_BLOCK

if TYPE_CHECKING:
    from engine.data.geometry import CropWindow  # it imports torch, which tools import only after --help

VECTOR_CODECS = (  # FFmpeg's names of those whose decoders give out motion vectors
    "h264", "mpeg4", "mpeg1video", "mpeg2video", "h263", "flv1", "msmpeg4v2", "msmpeg4v3", "wmv1", "wmv2", "rv10", "rv20",
)  # fmt: skip
_UNITS = 4  # of a pixel


def grid_size(width: int, height: int) -> tuple[int, int]:
    """(rows, columns) of the blocks of a frame; those at its right and lower edge may be cut."""
    return -(-height // MOTION_BLOCK), -(-width // MOTION_BLOCK)


def quantise(speeds: np.ndarray) -> np.ndarray:
    """uint8, quarter pixels, of speeds in pixels a frame."""
    return np.minimum(np.rint(speeds * _UNITS), 255).astype(np.uint8)


def restore(kept: np.ndarray) -> np.ndarray:
    """float32, pixels a frame, of what `quantise` gave."""
    return kept.astype(np.float32) / _UNITS


def clip_cells(grids: np.ndarray, size: tuple[int, int], window: "CropWindow", crop: int) -> np.ndarray:
    """What the cells of a clip show of grids of the stored frame: each the mean over the pixels it covers.

    Args:
        grids: float32 [n, rows, columns], pixels a frame.
        size: (width, height) of the stored frame, pixels.
        window: where the clip lies in the scaled frame.
        crop: side of the clip, pixels.

    Returns:
        uint8 [n, h, w], quarter pixels of the clip.
    """
    down, across, scale = _shares(size, window, crop)
    cells = down @ grids @ across
    return quantise(scale * (cells.swapaxes(1, 2) if window.quarter_turns % 2 else cells))


@functools.lru_cache(256)
def _shares(size: tuple[int, int], window: "CropWindow", crop: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Shares of the grid's blocks in each cell, float32 [cells, rows] and [columns, cells], and how much larger a pixel became."""
    (width, height), flip = size, window.flip
    # Which way the clip runs along the stored picture's rows and columns, by quarter turns, as in `pyav/snippets.cut`.
    is_upwards = (False, not flip, True, flip)[window.quarter_turns]
    is_leftwards = (flip, False, not flip, True)[window.quarter_turns]
    down = _overlaps(crop, window.top, height, window.height, is_upwards)
    across = _overlaps(crop, window.left, width, window.width, is_leftwards)
    return down, across.T, float(np.sqrt(window.width * window.height / (width * height)))


def _overlaps(crop: int, offset: int, side: int, scaled_side: int, is_backwards: bool) -> np.ndarray:
    """Along one axis: the share of each block of a frame in each cell of the clip, float32 [cells, blocks]; rows sum to 1."""
    edges = np.append(np.arange(0, crop, MOTION_BLOCK), crop)
    edges = (offset + (crop - edges if is_backwards else edges)) * side / scaled_side
    first, last = np.minimum(edges[:-1], edges[1:]), np.maximum(edges[:-1], edges[1:])
    blocks = np.append(np.arange(0, side, MOTION_BLOCK), side)
    common = np.minimum(last[:, None], blocks[1:]) - np.maximum(first[:, None], blocks[:-1])
    return (np.maximum(common, 0) / (last - first)[:, None]).astype(np.float32)
