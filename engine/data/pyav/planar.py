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

_AT_ONCE = 8  # pictures converted together
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
        self.size = size
        self.shown = slice(start - 2 * first, start - 2 * first + size)  # of the samples kept, each repeated
        self.is_cut = (low > first, high < last)


class Workspace:
    """Memory for what is between the steps, used again and again: fresh pages cost more than the work on them."""

    def __init__(self) -> None:
        self._buffers: dict[str, np.ndarray] = {}

    def take(self, name: str, *shape: int) -> np.ndarray:
        """The buffer of this name in a shape, uint8, with anything in it."""
        size, buffer = math.prod(shape), self._buffers.get(name)
        if buffer is None or len(buffer) < size:
            buffer = self._buffers[name] = np.empty(size, np.uint8)
        return buffer[:size].reshape(shape)


class PlanarWindows:
    """The same window of several pictures, all of one even size and one range, on its way to RGB.

    A few pictures wait for each other: that takes fewer calls than each alone, and what lies between the steps stays in
    the processor's cache.

    Args:
        top, left, height, width: of the window, luma pixels.
        picture_height, picture_width: of the pictures.
        full_range: of the pictures.
        workspace: shared with other windows of the same thread.
        flip: mirror left-right.
    """

    def __init__(
        self,
        top: int,
        left: int,
        height: int,
        width: int,
        picture_height: int,
        picture_width: int,
        full_range: bool,
        workspace: Workspace,
        *,
        flip: bool = False,
    ) -> None:
        self._rows, self._columns = _Axis(top, height, picture_height), _Axis(left, width, picture_width)
        self._matrix, self._workspace, self._flip = _MATRICES[full_range], workspace, flip
        self._waiting: list[tuple[VideoFrame, np.ndarray]] = []

    def put(self, picture: VideoFrame, square: np.ndarray) -> None:
        """Take a picture; `square`, uint8 [height, width, 3], contiguous, is filled now or by a later call."""
        self._waiting.append((picture, square))
        if len(self._waiting) == _AT_ONCE:
            self.flush()

    def flush(self) -> None:
        """Fill the squares of all pictures that wait."""
        rows, columns, count = self._rows, self._columns, len(self._waiting)
        if not count:
            return
        luma = self._workspace.take("luma", count, rows.size, columns.size)
        # All pictures side by side: OpenCV is faster on few long rows.
        chroma = self._workspace.take("chroma", rows.num_samples, 2, count, columns.num_samples)
        self._gather(luma, chroma)
        lines = count * rows.size
        planes = [plane.reshape(lines, -1) for plane in (luma, *self._enlarged(chroma))]
        merged = cv2.merge(planes, self._workspace.take("merged", lines, columns.size, 3))
        if self._flip:
            merged = cv2.flip(merged, 1, self._workspace.take("flipped", lines, columns.size, 3))
        for (_, square), pixels in zip(self._waiting, merged.reshape(*luma.shape, 3), strict=True):
            cv2.transform(pixels, self._matrix, square)
        self._waiting.clear()

    def _gather(self, luma: np.ndarray, chroma: np.ndarray) -> None:
        """Copy the window of every picture."""
        rows, columns = self._rows, self._columns
        first, second = chroma[rows.inside, :, :, columns.inside].transpose(1, 2, 0, 3)
        samples = (rows.chroma, columns.chroma)
        copies = ((luma, rows.luma, columns.luma), (first, *samples), (second, *samples))
        for place, (picture, _) in enumerate(self._waiting):
            for plane, (kept, down, across) in zip(picture.planes, copies, strict=True):
                line = plane.line_size
                if line > 0:  # `plane_rows(plane)[down, across]` in one step
                    start = down.start * line + across.start
                    kept[place] = np.ndarray(kept.shape[1:], np.uint8, plane, start, (line, 1))
                else:
                    kept[place] = plane_rows(plane)[down, across]
        _repeat_margins(chroma, rows, columns)

    def _enlarged(self, chroma: np.ndarray) -> np.ndarray:
        """Chroma at the window's pixels, uint8 [2, count, height, width], of samples [rows, 2, count, columns].

        A pixel takes 3/4 of its own sample and 1/4 of the next one on its side, along each axis. That is every sample
        repeated, 2x2, and then a filter of 1, 2, 1: OpenCV has that one in whole numbers, rounded once. What it computes
        of samples from two pictures lies in the margin that is left out.
        """
        rows, columns, workspace = self._rows, self._columns, self._workspace
        num_rows, _, count, num_columns = chroma.shape
        lines, long = chroma.reshape(num_rows, -1), 4 * count * num_columns
        wide = cv2.merge([lines, lines], workspace.take("wide", *lines.shape, 2))
        repeated = workspace.take("repeated", num_rows, 2, long)
        repeated[...] = wide.reshape(num_rows, 1, long)
        smooth = workspace.take("smooth", 2 * num_rows, long)
        cv2.GaussianBlur(repeated.reshape(smooth.shape), (3, 3), 0, smooth, borderType=cv2.BORDER_REPLICATE)
        smooth = smooth.reshape(2 * num_rows, 2, count, 2 * num_columns)
        enlarged = workspace.take("enlarged", 2, count, rows.size, columns.size)
        enlarged[...] = smooth[rows.shown, :, :, columns.shown].transpose(1, 2, 0, 3)
        return enlarged


def _repeat_margins(chroma: np.ndarray, rows: _Axis, columns: _Axis) -> None:
    """Repeat the outermost samples of [rows, 2, count, columns] where the window reaches the picture's edge."""
    for axis, samples in ((chroma.swapaxes(0, 3), columns), (chroma, rows)):
        if samples.is_cut[0]:
            axis[0] = axis[1]
        if samples.is_cut[1]:
            axis[-1] = axis[-2]
