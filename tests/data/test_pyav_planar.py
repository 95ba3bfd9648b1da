"""Windows of 4:2:0 pictures: every place, size and range agrees with the formulas of BT.601 in floating point."""

import av
import numpy as np
import pytest

from engine.data.pyav.planar import PlanarWindows, Workspace, is_planar_420, plane_rows


def noise(generator, height, width):
    picture = av.VideoFrame(width, height, "yuv420p")
    for plane in picture.planes:
        plane_rows(plane)[:] = generator.integers(0, 256, (plane.height, plane.line_size))
    return picture


def stretched(plane, shape):
    """Linear interpolation between samples in the middle of 2x2 pixels."""
    for axis, length in enumerate(shape):
        place = ((np.arange(length) + 0.5) / 2 - 0.5).clip(0, plane.shape[axis] - 1)
        low = np.floor(place).astype(int)
        part = np.expand_dims(place - low, 1 - axis)
        high = np.minimum(low + 1, plane.shape[axis] - 1)
        plane = plane.take(low, axis) * (1 - part) + plane.take(high, axis) * part
    return plane


def reference(picture, full_range, whole_levels=False):
    """float [height, width, 3]; `whole_levels`: of chroma rounded, halves upwards."""
    y, u, v = (plane_rows(plane)[:, : plane.width].astype(float) for plane in picture.planes)
    u, v = (stretched(plane, y.shape) - 128 for plane in (u, v))
    if whole_levels:
        u, v = np.floor(u + 0.5), np.floor(v + 0.5)
    if not full_range:
        y, u, v = (y - 16) * 255 / 219, u * 255 / 224, v * 255 / 224
    red, blue = y + 1.402 * v, y + 1.772 * u
    return np.stack([red, (y - 0.299 * red - 0.114 * blue) / 0.587, blue], -1).clip(0, 255)


@pytest.mark.parametrize("full_range", [False, True])
def test_any_window_of_any_picture(full_range):
    """Noise is the hardest picture: chroma is rounded to whole levels once, which the matrix may double."""
    generator, workspace, errors = np.random.default_rng(5), Workspace(), []
    for _ in range(150):
        picture_height, picture_width = (2 * generator.integers(1, 25, 2)).tolist()
        height, width = generator.integers(1, (picture_height + 1, picture_width + 1)).tolist()
        top = int(generator.integers(picture_height - height, endpoint=True))
        left = int(generator.integers(picture_width - width, endpoint=True))
        pictures = [noise(generator, picture_height, picture_width) for _ in range(generator.integers(1, 4))]
        place = (top, left, height, width, picture_height, picture_width)
        windows = PlanarWindows(*place, full_range, workspace)
        rgb = np.full((len(pictures), height, width, 3), 77, np.uint8)
        for picture, square in zip(pictures, rgb, strict=True):
            windows.put(picture, square)
        windows.flush()
        for found, picture in zip(rgb, pictures, strict=True):
            expected = reference(picture, full_range)[top : top + height, left : left + width]
            errors.append(np.abs(found - expected).ravel())
    errors = np.concatenate(errors)
    assert errors.max() < 2
    assert errors.mean() < 0.5


def test_chroma_is_rounded_once_in_whole_numbers():
    """However many pictures are converted together, mirrored or not. A level of chroma is at least 1.4 of a colour."""
    generator, workspace = np.random.default_rng(6), Workspace()
    for num_pictures, flip in ((1, False), (7, True), (19, False)):
        pictures = [noise(generator, 24, 38) for _ in range(num_pictures)]
        windows = PlanarWindows(3, 5, 20, 31, 24, 38, True, workspace, flip=flip)
        rgb = np.zeros((num_pictures, 20, 31, 3), np.uint8)
        for picture, square in zip(pictures, rgb, strict=True):
            windows.put(picture, square)
        windows.flush()
        expected = np.stack([reference(picture, True, whole_levels=True)[3:23, 5:36] for picture in pictures])
        assert np.abs(rgb - (expected[:, :, ::-1] if flip else expected)).max() < 0.75


def test_other_formats_are_not_for_this_file():
    assert is_planar_420(av.VideoFrame(4, 4, "yuv420p"))
    assert is_planar_420(av.VideoFrame(4, 4, "yuvj420p"))
    for name in ("yuv420p10le", "yuv422p", "nv12", "rgb24", "gray"):
        assert not is_planar_420(av.VideoFrame(4, 4, name))
    assert not is_planar_420(av.VideoFrame(5, 4, "yuv420p"))
    assert not is_planar_420(av.VideoFrame(4, 5, "yuv420p"))
