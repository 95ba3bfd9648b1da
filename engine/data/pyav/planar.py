"""8-bit 4:2:0 frames to RGB: a window of a frame in one pass, compiled for the processor at hand.

By the rule of `convert.py`, steps 1 and 2: chroma linearly between its samples, which sit in the middle of four luma
pixels, then the matrix of BT.601; rounded once, at the end. Only the window is touched.
"""

import numba
import numpy as np
from av.video.frame import VideoFrame
from av.video.plane import VideoPlane
from av.video.reformatter import ColorRange

from engine.data.colour import MATRIX_BITS, rgb_matrix
from engine.data.pyav.compiled import compiled

_FORMATS = ("yuv420p", "yuvj420p")


def is_planar_420(frame: VideoFrame) -> bool:
    """Whether this file can convert the frame. (swscale and DALI stretch the chroma of odd sizes a little.)"""
    return frame.format.name in _FORMATS and not (frame.width % 2 or frame.height % 2)


def is_full_range(frame: VideoFrame) -> bool:
    """Whether 0-255 is coded, not 16-235; untagged is 16-235."""
    return frame.color_range == ColorRange.JPEG or frame.format.name.startswith("yuvj")


def plane_rows(plane: VideoPlane) -> np.ndarray:
    """The bytes of a plane, a view uint8 [rows, bytes of a row]; a negative line size means stored bottom up."""
    rows = np.frombuffer(plane, np.uint8).reshape(plane.height, abs(plane.line_size))
    return rows if plane.line_size > 0 else rows[::-1]


def convert_window(frame: VideoFrame, top: int, left: int, square: np.ndarray, *, flip: bool = False) -> None:
    """Fill `square`, uint8 [height, width, 3], contiguous, with the window that begins at luma pixel (top, left).

    Args:
        frame: for which `is_planar_420` holds, at least as large as the window.
        flip: mirror left-right.
    """
    planes = frame.planes
    luma, blue, red = map(_flat, planes)
    lines = (abs(planes[0].line_size), abs(planes[1].line_size))
    size, matrix = (frame.height, frame.width), _MATRICES[is_full_range(frame)]
    _convert(luma, blue, red, lines, size, (top, left), matrix, flip, square)


def _flat(plane: VideoPlane) -> np.ndarray:
    """The bytes of a plane, rows from top to bottom: a view, if they lie so."""
    return np.frombuffer(plane, np.uint8) if plane.line_size > 0 else plane_rows(plane).ravel()


_MATRICES = {full_range: rgb_matrix(full_range) for full_range in (False, True)}


# LLVM makes vector instructions of long loops over a few flat arrays: hence the small functions, and windows gathered
# with their rows one behind the other. Numba would compute in 64 bits: hence the types.
_int16, _int32, _uint = np.int16, np.int32, np.uintp


@compiled()
def _gather(
    plane: np.ndarray,
    line: int,
    size: tuple[int, int],
    origin: tuple[int, int, int],
    columns: int,
    mirror: bool,
    window: np.ndarray,
) -> None:
    """Copy a window of a plane; one sample beside the frame, the outermost is repeated.

    Args:
        plane: uint8, rows of `line` bytes, of which `size` (height, width) is the frame.
        origin: (top, left, step): every `step`th row from `top`, `columns` from `left`.
        mirror: columns from right to left.
        window: uint8 [rows, at least `columns`], to be filled from its left.
    """
    (height, width), (top, left, step) = size, origin
    low, end = max(left, 0), min(left + columns, width)
    before = left + columns - end if mirror else low - left
    for y in range(len(window)):
        begin = min(max(top + step * y, 0), height - 1) * line
        source = plane[begin + low : begin + end]
        row = window[y, :columns]
        inside, last = row[before : before + len(source)], _uint(len(source) - 1)
        for x in range(len(source)):
            inside[x] = source[last - _uint(x)] if mirror else source[x]
        if before:
            row[0] = row[1]
        if before + len(source) < columns:
            row[-1] = row[-2]


@compiled()
def _widen(samples: np.ndarray, wide: np.ndarray) -> None:
    """Chroma along its rows at luma pixels: uint8 [n] to int16 [2 * n], 4 times the level; at either end not filled."""
    before, own, after, inside = samples[:-2], samples[1:-1], samples[2:], wide[2:-2]
    for k in range(len(own)):
        inside[2 * k] = _int16(3) * _int16(own[k]) + _int16(before[k])
        inside[2 * k + 1] = _int16(3) * _int16(own[k]) + _int16(after[k])


@compiled()
def _to_level(value: int) -> int:
    """A level of 0 to 255 of a number with `MATRIX_BITS` of fraction."""
    return np.uint8(min(max(_int32(value >> _int32(MATRIX_BITS)), _int32(0)), _int32(255)))


@compiled()
def _mix(
    luma: np.ndarray,
    blue_near: np.ndarray,
    blue_far: np.ndarray,
    red_near: np.ndarray,
    red_far: np.ndarray,
    matrix: np.ndarray,
    pixels: np.ndarray,
) -> None:
    """RGB, uint8 [3 * n], of luma uint8 [n] and Cb and Cr in the nearer and the farther row of samples, int16 [n]."""
    of_luma, red_of_red, blue_of_blue = matrix[0, 0], matrix[0, 2], matrix[2, 1]
    green_of_blue, green_of_red = matrix[1, 1], matrix[1, 2]
    add_red, add_green, add_blue = matrix[0, 3], matrix[1, 3], matrix[2, 3]
    for x in range(len(luma)):
        grey = _int32(_int32(luma[x]) * of_luma)
        blue = _int32(_int32(3) * _int32(blue_near[x]) + _int32(blue_far[x]))
        red = _int32(_int32(3) * _int32(red_near[x]) + _int32(red_far[x]))
        pixels[3 * x] = _to_level(_int32(grey + _int32(red * red_of_red) + add_red))
        pixels[3 * x + 1] = _to_level(
            _int32(grey + _int32(blue * green_of_blue) + _int32(red * green_of_red) + add_green)
        )
        pixels[3 * x + 2] = _to_level(_int32(grey + _int32(blue * blue_of_blue) + add_blue))


_PLANE = numba.types.Array(numba.uint8, 1, "C", readonly=True)
_PAIR = numba.types.UniTuple(numba.intp, 2)


@compiled(
    numba.void(_PLANE, _PLANE, _PLANE, _PAIR, _PAIR, _PAIR, numba.int32[:, ::1], numba.boolean, numba.uint8[:, :, ::1])
)
def _convert(
    luma: np.ndarray,
    blue: np.ndarray,
    red: np.ndarray,
    lines: tuple[int, int],
    size: tuple[int, int],
    corner: tuple[int, int],
    matrix: np.ndarray,
    flip: bool,
    square: np.ndarray,
) -> None:
    """`convert_window` of flat planes with so many bytes a row (of luma, of chroma).

    `size` is (height, width) of the frame, `corner` (top, left) of the window.
    """
    (top, left), (height, width, _) = corner, square.shape
    # Chroma: the samples that the window touches, and one more on every side.
    top_sample, left_sample = top // 2 - 1, left // 2 - 1
    num_rows, num_columns = (top + height - 1) // 2 + 2 - top_sample, (left + width - 1) // 2 + 2 - left_sample
    samples, pitch = np.empty((num_rows, num_columns), np.uint8), 2 * num_columns
    wide = np.empty((2, num_rows * pitch), np.int16)
    half, origin = (size[0] // 2, size[1] // 2), (top_sample, left_sample, 1)
    for plane in range(2):
        _gather(blue if plane == 0 else red, lines[1], half, origin, num_columns, flip, samples)
        _widen(samples.reshape(num_rows * num_columns), wide[plane])
    offset = pitch - 2 - left % 2 - width if flip else 2 + left % 2  # of the window's first pixel in a row of `wide`
    rows, pixels = np.empty(((height + 1) // 2, pitch), np.uint8), np.empty((height + 1) // 2 * pitch * 3, np.uint8)
    # Every other row: even rows of a frame have the farther row of samples above them, odd ones below.
    for start in range(min(height, 2)):
        count = (height - start + 1) // 2
        _gather(luma, lines[0], size, (top + start, left, 2), width, flip, rows[:count])
        near = ((top + start) // 2 - top_sample) * pitch + offset
        far = near + pitch if (top + start) % 2 else near - pitch
        length = (count - 1) * pitch + width
        _mix(
            rows.reshape(rows.size)[:length],
            wide[0, near : near + length],
            wide[0, far : far + length],
            wide[1, near : near + length],
            wide[1, far : far + length],
            matrix,
            pixels,
        )
        for y in range(count):
            source = pixels[3 * y * pitch : 3 * (y * pitch + width)]
            target = square[start + 2 * y].reshape(3 * width)
            for x in range(3 * width):
                target[x] = source[x]
