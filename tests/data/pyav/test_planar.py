"""Windows of 4:2:0 frames: every position, size and range agrees with the formulas of BT.601 in floating point."""

from fractions import Fraction

import av
import av.filter
import numpy as np
import pytest

from engine.data.pyav.planar import convert_window, is_planar_420, plane_rows


def noise(generator, height, width):
    frame = av.VideoFrame(width, height, "yuv420p")
    for plane in frame.planes:
        plane_rows(plane)[:] = generator.integers(0, 256, (plane.height, plane.line_size))
    return frame


def stretched(plane, shape):
    """Linear interpolation between samples in the middle of 2x2 pixels."""
    for axis, length in enumerate(shape):
        position = ((np.arange(length) + 0.5) / 2 - 0.5).clip(0, plane.shape[axis] - 1)
        low = np.floor(position).astype(int)
        part = np.expand_dims(position - low, 1 - axis)
        high = np.minimum(low + 1, plane.shape[axis] - 1)
        plane = plane.take(low, axis) * (1 - part) + plane.take(high, axis) * part
    return plane


def reference(frame, full_range):
    """float [height, width, 3]."""
    y, u, v = (plane_rows(plane)[:, : plane.width].astype(float) for plane in frame.planes)
    u, v = (stretched(plane, y.shape) - 128 for plane in (u, v))
    if not full_range:
        y, u, v = (y - 16) * 255 / 219, u * 255 / 224, v * 255 / 224
    red, blue = y + 1.402 * v, y + 1.772 * u
    return np.stack([red, (y - 0.299 * red - 0.114 * blue) / 0.587, blue], -1).clip(0, 255)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("full_range", [False, True])
def test_any_window_of_any_frame(full_range, flip):
    """Noise is the hardest frame; rounding, once, may take half a level and no more."""
    generator = np.random.default_rng(5)
    for _ in range(300):
        frame_height, frame_width = (2 * generator.integers(1, 25, 2)).tolist()
        height, width = generator.integers(1, (frame_height + 1, frame_width + 1)).tolist()
        top = int(generator.integers(frame_height - height, endpoint=True))
        left = int(generator.integers(frame_width - width, endpoint=True))
        frame = noise(generator, frame_height, frame_width)
        frame.color_range = 2 if full_range else 1
        rgb = np.full((height, width, 3), 77, np.uint8)
        convert_window(frame, top, left, rgb, flip=flip)
        expected = reference(frame, full_range)[top : top + height, left : left + width]
        assert np.abs(rgb - (expected[:, ::-1] if flip else expected)).max() < 0.51


def test_a_frame_that_lies_bottom_up():
    """FFmpeg's negative line size, as its filter for turning frames over makes it."""
    frame = noise(np.random.default_rng(6), 24, 38)
    graph = av.filter.Graph()
    source, flip, sink = (
        graph.add_buffer(width=38, height=24, format="yuv420p", time_base=Fraction(1, 25)),
        graph.add("vflip"),
        graph.add("buffersink"),
    )
    graph.link_nodes(source, flip, sink).configure()
    graph.push(frame)
    turned = graph.pull()
    assert turned.planes[0].line_size < 0
    rgb = np.empty((20, 31, 3), np.uint8)
    convert_window(turned, 3, 5, rgb)
    assert np.abs(rgb - reference(turned, False)[3:23, 5:36]).max() < 0.51


def test_other_formats_are_not_for_this_file():
    assert is_planar_420(av.VideoFrame(4, 4, "yuv420p"))
    assert is_planar_420(av.VideoFrame(4, 4, "yuvj420p"))
    for name in ("yuv420p10le", "yuv422p", "nv12", "rgb24", "gray"):
        assert not is_planar_420(av.VideoFrame(4, 4, name))
    assert not is_planar_420(av.VideoFrame(5, 4, "yuv420p"))
    assert not is_planar_420(av.VideoFrame(4, 5, "yuv420p"))
