"""Files whose display matrix mirrors them, as those of front cameras: the picture stands upright, and is not mirrored."""

import io
import struct

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from engine.data.batch import ClipFormat, SnippetRequest
from engine.data.pyav.decode import PyAVDecoder
from engine.data.pyav.encode import write_video
from engine.data.pyav.excerpt import write_excerpt
from engine.data.pyav.probe import probe
from tests.data.videos import describe

# Name -> the matrix a, b, c, d; what of a picture that is to be shown so is stored; degrees to turn it clockwise.
MIRRORS = {
    "left_right": ((-1, 0, 0, 1), lambda shown: shown[:, ::-1], 0),
    "top_bottom": ((1, 0, 0, -1), lambda shown: shown[::-1], 180),
    "transposed": ((0, 1, 1, 0), lambda shown: shown.transpose(1, 0, 2), 90),
    "transposed_the_other_way": ((0, -1, -1, 0), lambda shown: shown[::-1, ::-1].transpose(1, 0, 2), 270),
}


def packed(a, b, c, d):
    return struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)


def picture():
    """What a player shows, uint8 [64, 96, 3]: the sky red with a white spot on its right side, the ground blue."""
    shown = np.full((64, 96, 3), (0, 0, 200), np.uint8)
    shown[:32] = (200, 0, 0)
    shown[8:24, 56:72] = 255
    return shown


def write_mirrored(path, name):
    matrix, stored, _ = MIRRORS[name]
    write_video(path, [np.ascontiguousarray(stored(picture()))] * 8)
    data = path.read_bytes()
    track = data.index(b"tkhd")
    path.write_bytes(data[:track] + data[track:].replace(packed(1, 0, 0, 1), packed(*matrix), 1))
    return describe(path, rotation=probe(path).rotation)


def first_frame(video, side=64):
    decoder = PyAVDecoder(ClipFormat(num_frames=1, short_side=side, crop=side), torch.device("cpu"), 1)
    decoded = decoder.decode([SnippetRequest(video, 0, 0.5, 0.5, flip=False)])
    decoder.close()
    assert not decoded.failures
    return decoded.frames[0, 0].numpy().astype(int)


@pytest.mark.parametrize("name", MIRRORS)
def test_up_is_up_and_left_and_right_are_as_stored(tmp_path, name):
    video = write_mirrored(tmp_path / "mirrored.mp4", name)
    write_excerpt(video, probe(video.path).timeline, 0.0, 0.2, tmp_path / "cut.mp4")
    assert video.rotation == MIRRORS[name][2]
    assert video.displayed_size == (96, 64)
    wanted = picture()[:, ::-1][:, 16:80]
    for found in (first_frame(video), first_frame(describe(tmp_path / "cut.mp4"))):
        assert np.abs(found - wanted).mean() < 8


@pytest.mark.parametrize(("orientation", "degrees"), [(1, 0), (3, 180), (6, 90), (8, 270)])
def test_side_data_that_pyav_has_no_name_for_do_no_harm(tmp_path, orientation, degrees):
    """EXIF of Motion JPEG, in FFmpeg 8."""
    photo, tags = io.BytesIO(), Image.Exif()
    tags[ExifTags.Base.Orientation] = orientation
    Image.fromarray(picture()).save(photo, "JPEG", exif=tags)
    (tmp_path / "a.mjpeg").write_bytes(photo.getvalue() * 5)
    assert probe(tmp_path / "a.mjpeg").rotation == degrees
