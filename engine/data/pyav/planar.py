"""8-bit 4:2:0 pictures to RGB: the same window of all pictures of a snippet gathered, then converted in one go.

By the rule of `convert.py`, steps 1 and 2: chroma linearly between its samples, which sit in the middle of four luma
pixels, then the matrix of BT.601. Only the window is touched, and every step works through the whole snippet at once:
a third of the time of swscale's accurate conversion.
"""

import math

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
        self.window = slice(start - 2 * first, start - 2 * first + size)  # of the samples kept, at twice their number
        self.is_cut = (low > first, high < last)


class Workspace:
    """Memory for what is between the steps, used again and again: fresh pages cost more than the work on them."""

    def __init__(self) -> None:
        self._buffers: dict[str, np.ndarray] = {}

    def take(self, name: str, *shape: int) -> np.ndarray:
        """The buffer of this name, uint8 of a shape, with anything in it."""
        size, buffer = math.prod(shape), self._buffers.get(name)
        if buffer is None or len(buffer) < size:
            buffer = self._buffers[name] = np.empty(size, np.uint8)
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
        """Write RGB of all pictures into uint8 [count, height, width, 3], contiguous.

        All are treated as one picture, one below the other. Chroma is enlarged with its margins: what is
        interpolated between two pictures lies there and is cut off.
        """
        count, height, width, _ = rgb.shape
        _repeat_margins(self._chroma, self._rows, self._columns)
        planes = [self._luma.reshape(-1, width)]
        for place, samples in enumerate(self._chroma):
            rows, columns = 2 * samples.shape[1], 2 * samples.shape[2]
            large = workspace.take("large", count * rows, columns)
            cv2.resize(samples.reshape(-1, columns // 2), (columns, count * rows), large)  # linearly
            plane = workspace.take(f"chroma {place}", count, height, width)
            plane[...] = large.reshape(count, rows, columns)[:, self._rows.window, self._columns.window]
            planes.append(plane.reshape(-1, width))
        merged = workspace.take("merged", count * height, width, 3)
        cv2.merge(planes, merged)
        cv2.transform(merged, _MATRICES[full_range], rgb.reshape(-1, width, 3))


def _repeat_margins(chroma: np.ndarray, rows: _Axis, columns: _Axis) -> None:
    """Repeat the outermost samples of [2, count, rows, columns] where the window reaches the picture's edge."""
    for axis, samples in ((chroma.swapaxes(2, 3), columns), (chroma, rows)):
        if samples.is_cut[0]:
            axis[:, :, 0] = axis[:, :, 1]
        if samples.is_cut[1]:
            axis[:, :, -1] = axis[:, :, -2]
