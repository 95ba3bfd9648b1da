"""8-bit 4:2:0 pictures to RGB: the same window of all pictures of a snippet gathered, then converted in one go.

By the rule of `convert.py`, steps 1 and 2: chroma linearly between its samples, which sit in the middle of four luma
pixels, then the matrix of BT.601. Only the window is touched, and every step works through the whole snippet at once:
a third of the time of swscale's accurate conversion.
"""

import math
import sys

import cv2
import numpy as np
from av.video.frame import VideoFrame
from av.video.plane import VideoPlane
from av.video.reformatter import ColorRange

cv2.setNumThreads(1)  # parallelism is over files; OpenCV's own threads would wait for each other

_FORMATS = ("yuv420p", "yuvj420p")


def is_planar_420(picture: VideoFrame) -> bool:
    """Whether this file can convert the picture. (swscale and DALI stretch the chroma of odd sizes a little.)"""
    return picture.format.name in _FORMATS and not (picture.width % 2 or picture.height % 2)


def is_full_range(picture: VideoFrame) -> bool:
    """Whether 0-255 is coded, not 16-235; untagged is 16-235."""
    return picture.color_range == ColorRange.JPEG or picture.format.name.startswith("yuvj")


def plane_rows(plane: VideoPlane) -> np.ndarray:
    """The bytes of a plane, a view uint8 [rows, bytes of a row]; a negative line size means stored bottom up."""
    rows = np.frombuffer(plane, np.uint8).reshape(plane.height, abs(plane.line_size))
    return rows if plane.line_size > 0 else rows[::-1]


def _matrix(full_range: bool) -> np.ndarray:
    """BT.601 (Kr 0.299, Kb 0.114): (Y, Cb, Cr, 1) to (R, G, B), float64 [3, 4]."""
    red, blue = 1.402, 1.772
    chroma = np.array([[0, red], [-blue * 0.114 / 0.587, -red * 0.299 / 0.587], [blue, 0]])
    luma = np.ones((3, 1))
    if not full_range:
        luma, chroma = luma * 255 / 219, chroma * 255 / 224
    offset = -128 * chroma.sum(axis=1, keepdims=True) - (0 if full_range else 16) * luma
    return np.concatenate([luma, chroma, offset], axis=1)


_MATRICES = {full_range: _matrix(full_range) for full_range in (False, True)}


class _Axis:
    """A window along one axis of a picture, `size` luma pixels from `start`, and the chroma samples it needs.

    The samples are those that the window touches and one more on either side; beyond the picture the outermost
    sample is repeated.
    """

    def __init__(self, start: int, size: int, picture_size: int) -> None:
        first, last = start // 2 - 1, (start + size - 1) // 2 + 1
        low, high = max(first, 0), min(last, picture_size // 2 - 1)
        self.num_samples = last - first + 1
        self.luma = slice(start, start + size)  # of the picture
        self.chroma = slice(low, high + 1)  # of the picture
        self.inside = slice(low - first, high - first + 1)  # of the samples kept
        self.size, self.is_odd = size, start % 2
        self.is_cut = (low > first, high < last)


class Workspace:
    """Memory for what is between the steps, used again and again: fresh pages cost more than the work on them."""

    def __init__(self) -> None:
        self._buffers: dict[str, np.ndarray] = {}

    def take(self, name: str, *shape: int, dtype: type = np.uint8) -> np.ndarray:
        """The buffer of this name, which has one dtype, in a shape, with anything in it."""
        size, buffer = math.prod(shape), self._buffers.get(name)
        if buffer is None or len(buffer) < size:
            buffer = self._buffers[name] = np.empty(size, dtype)
        return buffer[:size].reshape(shape)


class PlanarWindows:
    """A window of `count` pictures, all of one even size and one range.

    Args:
        top, left, height, width: of the window, luma pixels.
        picture_height, picture_width: of the pictures.
    """

    def __init__(
        self, count: int, top: int, left: int, height: int, width: int, picture_height: int, picture_width: int
    ) -> None:
        self._rows, self._columns = rows, columns = (
            _Axis(top, height, picture_height),
            _Axis(left, width, picture_width),
        )
        self._luma = np.empty((count, height, width), np.uint8)
        self._chroma = np.empty((2, count, rows.num_samples, columns.num_samples), np.uint8)
        first, second = self._chroma[:, :, rows.inside, columns.inside]
        chroma = (rows.chroma, columns.chroma)
        self._copies = ((self._luma, rows.luma, columns.luma), (first, *chroma), (second, *chroma))

    def put(self, place: int, picture: VideoFrame) -> None:
        """Copy the window of a picture; the picture need not be kept."""
        for plane, (kept, rows, columns) in zip(picture.planes, self._copies, strict=True):
            line = plane.line_size
            if line > 0:  # `plane_rows(plane)[rows, columns]` in one step
                start = rows.start * line + columns.start
                kept[place] = np.ndarray(kept.shape[1:], np.uint8, plane, start, (line, 1))
            else:
                kept[place] = plane_rows(plane)[rows, columns]

    def to_rgb(self, rgb: np.ndarray, full_range: bool, workspace: Workspace) -> None:
        """Write RGB of all pictures into uint8 [count, height, width, 3], contiguous."""
        lines, width = self._luma.shape[0] * self._luma.shape[1], self._luma.shape[2]
        merged = workspace.take("merged", lines, width, 3)
        planes = (self._luma, *self._enlarged(workspace))
        cv2.merge([plane.reshape(lines, width) for plane in planes], merged)
        cv2.transform(merged, _MATRICES[full_range], rgb.reshape(lines, width, 3))

    def _enlarged(self, workspace: Workspace) -> np.ndarray:
        """Chroma at the window's pixels, uint8 [2, count, height, width].

        A pixel takes 3/4 of its own sample and 1/4 of the next one on its side, along each axis: in 16 bits, weights 3
        and 1 twice make 16, times 16 that is 256, and the upper byte of the sum is the result. All samples are one
        long line, where "below" is a row of samples further on: half the time of `cv2.resize`. What is computed of
        samples from two rows or two pictures lies in the margin that is left out.
        """
        rows, columns, shape = self._rows, self._columns, self._chroma.shape
        _repeat_margins(self._chroma, rows, columns)
        line, size = columns.num_samples, self._chroma.size
        ones, threes, summed = (workspace.take(name, size, dtype=np.uint16) for name in ("ones", "threes", "summed"))
        np.multiply(self._chroma.reshape(-1), 16, out=ones, dtype=np.uint16)
        np.multiply(ones, 3, out=threes)
        np.add(threes, 32, out=threes)  # rounds: the second step makes it 128
        out = workspace.take("enlarged", *shape[:2], rows.size, (columns.size + 1) // 2, dtype=np.uint16)
        for is_lower in (0, 1):
            if is_lower:
                np.add(threes[:-line], ones[line:], out=summed[:-line])
            else:
                np.add(threes[line:], ones[:-line], out=summed[line:])
            target = out[:, :, is_lower ^ rows.is_odd :: 2]  # rows of the window in this half of their sample
            first = 1 + (rows.is_odd and not is_lower)
            pairs = _pairs(summed, columns.is_odd, workspace).reshape(shape)
            target[...] = pairs[:, :, first : first + target.shape[2], 1 : 1 + target.shape[3]]
        return np.ascontiguousarray(out.view(np.uint8)[..., : columns.size])


def _pairs(values: np.ndarray, is_odd: int, workspace: Workspace) -> np.ndarray:
    """Two neighbouring pixels for each sample of a line, the first in the lower address of 16 bits.

    They are the left and the right one of the sample, or, for a window that begins with a right one, the right one
    of the sample and the left one of the next.
    """
    pairs, left, right = (workspace.take(name, len(values), dtype=np.uint16) for name in ("pairs", "left", "right"))
    np.multiply(values, 3, out=pairs)
    np.add(pairs[1:], values[:-1], out=left[1:])
    np.add(pairs[:-1], values[1:], out=right[:-1])
    first, second = (right[:-1], left[1:]) if is_odd else (left, right)
    np.right_shift(first, 8, out=first)
    np.bitwise_and(second, 0xFF00, out=second)
    np.bitwise_or(first, second, out=pairs[: len(first)])
    return pairs if sys.byteorder == "little" else pairs.byteswap(inplace=True)


def _repeat_margins(chroma: np.ndarray, rows: _Axis, columns: _Axis) -> None:
    """Repeat the outermost samples of [2, count, rows, columns] where the window reaches the picture's edge."""
    for axis, samples in ((chroma.swapaxes(2, 3), columns), (chroma, rows)):
        if samples.is_cut[0]:
            axis[:, :, 0] = axis[:, :, 1]
        if samples.is_cut[1]:
            axis[:, :, -1] = axis[:, :, -2]
