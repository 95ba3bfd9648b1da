"""Pixels: the stated rule (BT.601, range as tagged, chroma in the middle, triangle filter) in plain floating point."""

import av
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from engine.data.pyav.convert import FrameConverter
from engine.data.pyav.encode import write_video

KINDS = {
    "untagged.mp4": {},
    "bt709.mp4": {"colorspace": "bt709"},
    "full.mp4": {"full_range": True},
    "bt709_full.mkv": {"colorspace": "bt709", "full_range": True},
    "mjpeg.avi": {"codec": "mjpeg"},
    "mjpeg_422.mkv": {"codec": "mjpeg", "pixel_format": "yuvj422p"},
    "mpeg4.avi": {"codec": "mpeg4"},
    "vp9_full.webm": {"codec": "libvpx-vp9", "full_range": True},
    "h264_422.mp4": {"pixel_format": "yuv422p"},
    "h264_444.mp4": {"pixel_format": "yuv444p"},
    "h264_10.mp4": {"pixel_format": "yuv420p10le"},
    "h264_444_10.mp4": {"pixel_format": "yuv444p10le"},
    "hdr_12.mp4": {
        "codec": "libx265", "pixel_format": "yuv420p12le", "colorspace": "bt2020",
        "options": {"x265-params": "log-level=none:pools=none:colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc"},
    },
}  # fmt: skip
SIZES = [(192, 128), (120, 80), (96, 64), (60, 40), (37, 25), (250, 167)]  # from 192x128: as it is, down, up


def scene(width=192, height=128):
    """Saturated blocks with sharp edges beside slopes: what the order of the steps shows on."""
    blocks = np.random.default_rng(3).integers(0, 2, (height // 8, width // 8, 3)) * 200 + 28
    image = np.kron(blocks, np.ones((8, 8, 1)))
    image[:, : width // 3] = (np.mgrid[0:height, 0 : width // 3][0] * 255 / height)[:, :, None]
    return image.astype(np.uint8)


def frame_of(path):
    with av.open(str(path)) as container:
        return next(container.decode(container.streams.video[0]))


def written(path, **settings):
    write_video(path, [scene()] * 2, **settings)
    return frame_of(path)


def upside_down(frame):
    """The frame mirrored in height, by the order of its rows alone."""
    graph = av.filter.Graph()
    graph.link_nodes(
        graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base),
        graph.add("vflip"),
        graph.add("buffersink"),
    ).configure()
    graph.push(frame)
    return graph.pull()


def planes(frame):
    """float [h, w] planes on the scale of 8 bits."""
    bits = frame.format.components[0].bits
    kind = np.uint8 if bits == 8 else np.uint16
    rows = [np.frombuffer(plane, kind).reshape(plane.height, -1)[:, : plane.width] for plane in frame.planes]
    return [row.astype(np.float64) / 2 ** (bits - 8) for row in rows]


def stretched(plane, height, width, left=False):
    """Bilinear samples of a chroma plane at the luma pixels; chroma in the middle of them, or over the left one."""
    for axis, length in ((0, height), (1, width)):
        factor = length / plane.shape[axis]
        position = np.arange(length) / factor if left and axis == 1 else (np.arange(length) + 0.5) / factor - 0.5
        position = position.clip(0, plane.shape[axis] - 1)
        low = np.floor(position).astype(int)
        high = np.minimum(low + 1, plane.shape[axis] - 1)
        part = np.expand_dims(position - low, 1 - axis)
        plane = plane.take(low, axis) * (1 - part) + plane.take(high, axis) * part
    return plane


def reference(frame, width, height, *, left=False):
    """float [height, width, 3] by the formulas of BT.601 and an independent resampler."""
    y, u, v = planes(frame)
    u, v = (stretched(plane, *y.shape, left) - 128 for plane in (u, v))
    if frame.color_range != 2:  # AVCOL_RANGE_JPEG
        y, u, v = (y - 16) * 255 / 219, u * 255 / 224, v * 255 / 224
    red, blue = y + 1.402 * v, y + 1.772 * u
    green = (y - 0.299 * red - 0.114 * blue) / 0.587
    image = torch.from_numpy(np.stack([red, green, blue]).clip(0, 255))[None]
    if image.shape[2:] != (height, width):
        image = F.interpolate(image, (height, width), mode="bilinear", antialias=True)
    return image[0].permute(1, 2, 0).numpy()


def convert(frame, width, height):
    return FrameConverter()(frame, width, height)


@pytest.mark.parametrize("name", KINDS)
def test_follows_the_stated_rule(tmp_path, name):
    frame = written(tmp_path / name, **KINDS[name])
    for width, height in SIZES:
        found = convert(frame, width, height)
        assert found.dtype == np.uint8
        assert found.std() > 40  # a picture, not a grey field
        difference = np.abs(found - reference(frame, width, height))
        assert difference.mean() < 0.6, (width, height)
        assert (difference <= 3).mean() > 0.995, (width, height)


def test_the_tag_of_the_matrix_is_not_followed(tmp_path):
    """The same coded values give the same colours, whatever matrix the file names."""
    frame = written(tmp_path / "v.mp4", pixel_format="yuv444p", colorspace="bt709")
    as_tagged = convert(frame, 192, 128)
    frame.colorspace = 6  # SMPTE 170M
    assert np.array_equal(convert(frame, 192, 128), as_tagged)
    assert np.abs(as_tagged.astype(int) - frame_of(tmp_path / "v.mp4").to_ndarray(format="rgb24")).mean() > 4


def test_chroma_sits_in_the_middle_where_h264_says_left(tmp_path):
    frame = written(tmp_path / "v.mp4")
    found = convert(frame, 192, 128)
    middle, left = (np.abs(found - reference(frame, 192, 128, left=side)).mean() for side in (False, True))
    assert middle < 0.4
    assert left > 5 * middle


@pytest.mark.parametrize(("width", "height"), [(228, 128), (114, 64)])
def test_full_hd_follows_the_rule_to_its_rim(tmp_path, width, height):
    """Converted in bands, and eight times smaller: neither may show."""
    write_video(tmp_path / "v.mp4", [scene(1920, 1080)] * 2)
    frame = frame_of(tmp_path / "v.mp4")
    difference = np.abs(convert(frame, width, height) - reference(frame, width, height))
    assert difference.max() <= 2
    assert difference.mean() < 0.6


def test_reduction_is_antialiased(tmp_path):
    """Stripes of single pixels become an even grey; a filter that skips pixels would give beats."""
    stripes = np.zeros((1080, 1920, 3), np.uint8)
    stripes[:, ::2] = 255
    write_video(tmp_path / "v.mp4", [stripes, stripes])
    found = convert(frame_of(tmp_path / "v.mp4"), 228, 128).astype(float)
    assert abs(found.mean() - 127.5) < 4
    assert found.std() < 4


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv444p"])
def test_odd_sizes(tmp_path, pixel_format):
    y, x = np.mgrid[0:101, 0:163]
    image = np.stack([x * 255 / 162, y * 255 / 100, (x + y) * 255 / 262], -1).astype(np.uint8)
    write_video(tmp_path / "v.webm", [image] * 2, codec="libvpx-vp9", pixel_format=pixel_format)
    frame = frame_of(tmp_path / "v.webm")
    assert (frame.width, frame.height) == (163, 101)
    for width, height in ((163, 101), (103, 64), (207, 128)):
        difference = np.abs(convert(frame, width, height) - reference(frame, width, height))
        assert difference.mean() < 1
        assert difference.max() < 8


def test_rgb_files_come_back_as_they_are(tmp_path):
    write_video(tmp_path / "v.mkv", [scene()] * 2, codec="ffv1", pixel_format="bgr0")
    assert np.array_equal(convert(frame_of(tmp_path / "v.mkv"), 192, 128), scene())


def test_grey_files_are_grey(tmp_path):
    write_video(tmp_path / "v.mp4", [scene()] * 2, pixel_format="gray", full_range=True, options={"crf": "1"})
    found = convert(frame_of(tmp_path / "v.mp4"), 192, 128).astype(int)
    luma = scene() @ [0.299, 0.587, 0.114]
    assert np.abs(found - luma[:, :, None]).mean() < 2


def test_frames_stored_bottom_up(tmp_path):
    frame = written(tmp_path / "v.mp4")
    flipped = upside_down(frame)
    assert flipped.planes[0].line_size < 0
    assert np.array_equal(convert(flipped, 96, 64), convert(frame, 96, 64)[::-1])


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv422p"])
def test_one_converter_serves_frames_of_many_sizes(tmp_path, pixel_format):
    frame, convert_frame = written(tmp_path / "v.mp4"), FrameConverter()
    frames = [frame.reformat(64 + 2 * step, 48 + 2 * step, pixel_format) for step in range(20)]
    for frame in frames + frames:
        assert np.array_equal(convert_frame(frame, 50, 40), convert(frame, 50, 40))
    assert len(convert_frame._plans) <= 8


def test_one_converter_serves_frames_of_many_formats(tmp_path):
    """Of one size, as of files side by side: each as if it were alone."""
    frame, convert_frame = written(tmp_path / "v.mp4"), FrameConverter()
    frames = [frame.reformat(format=name) for name in ("yuv422p", "yuv444p", "yuv420p10le", "bgr24", "yuv422p")]
    for frame in frames:
        assert np.array_equal(convert_frame(frame, 192, 128), convert(frame, 192, 128)), frame.format.name
