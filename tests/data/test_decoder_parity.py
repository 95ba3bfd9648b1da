"""PyAV and DALI give the same frames and, within the contract's bounds, the same pixels for the same request."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from engine.data.batch import ClipFormat, SnippetRequest
from engine.data.pyav.decode import PyAVDecoder
from tests.data.videos import describe, numbers, offset_counts, write_numbered

CPU = torch.device("cpu")
CLIP = ClipFormat(num_frames=4, stride=2, short_side=64, crop=56)

KINDS = {  # several codecs, containers, sizes (up, down, odd, tall), chroma samplings and ranges
    "vp9.webm": {},
    "vp8.webm": {"codec": "libvpx"},
    "mjpeg.avi": {"codec": "mjpeg", "pixel_format": "yuvj420p"},
    "mjpeg_422.mov": {"codec": "mjpeg", "pixel_format": "yuvj422p", "size": (322, 242)},
    "odd.webm": {"size": (161, 121)},
    "tall.webm": {"size": (96, 170)},
    "small.webm": {"size": (48, 40)},
    "large.webm": {"size": (640, 360)},
    "colour_444.mp4": {"pixel_format": "yuv444p"},
    "full_range.webm": {"full_range": True},
}
REAL = {  # in the folder of real data: 10 bits, odd sizes, hidden frames
    "androidx__media__roadtrip-vp92-10bit.webm",
    "androidx__media__bear-vp9-odd-dimensions.webm",
    "meta-pytorch__torchcodec__testsrc2_odd_height_and_width_vp9_10bit.mp4",
    "meta-pytorch__torchcodec__testsrc2_odd_width_vp9.mp4",
    "meta-pytorch__torchcodec__testsrc2_vp8.webm",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("parity")


@pytest.fixture(scope="module")
def pair(dali):
    decoders = PyAVDecoder(CLIP, CPU, 1), dali.DaliDecoder(CLIP, CPU, 1, 12)
    yield decoders
    for decoder in decoders:
        decoder.close()


def requests(video):
    """The corners and the middle, flipped and not, turned every way; from start to past the end."""
    last = video.num_frames - 2
    return [
        SnippetRequest(replace(video, rotation=rotation), start, y, x, flip)
        for rotation in (0, 90, 180, 270)
        for start, y, x, flip in ((0, 0.0, 0.0, False), (9, 0.4, 0.7, True), (last, 1.0, 1.0, True))
    ]


def compare(one, other, video, *, mean=2.0):
    """Hold two decoders against each other: mean absolute difference below `mean`, 99 % of values within 8."""
    asked = requests(video)
    first, second = one.decode(asked), other.decode(asked)
    assert not first.failures
    assert not second.failures
    assert first.frames.float().std() > 20  # there is a picture to agree on
    difference = (first.frames.cpu().int() - second.frames.cpu().int()).abs().flatten(1)
    assert difference.float().mean(dim=1).max() < mean
    assert (difference <= 8).float().mean(dim=1).min() >= 0.99


@pytest.mark.parametrize("name", KINDS)
def test_pixels_agree(pair, folder, name):
    compare(*pair, describe(write_numbered(folder / name, **KINDS[name])), mean=0.5)


@pytest.mark.parametrize("name", sorted(REAL))
def test_pixels_agree_on_real_files(pair, shared_data, name):
    compare(*pair, describe(shared_data / "decode_pack" / name), mean=0.5)


@pytest.mark.parametrize("codec", ["libvpx-vp9", "mjpeg"])
def test_frame_numbers_are_equal(dali, folder, codec):
    path = folder / {"mjpeg": "numbers.avi"}.get(codec, "numbers.webm")
    video = describe(
        write_numbered(path, codec, size=(128, 128), pixel_format="yuv420p" if "vpx" in codec else "yuvj420p")
    )
    clip = ClipFormat(num_frames=6, stride=3, short_side=64, crop=64)
    segment = replace(video, first_frame=7, num_frames=20)
    asked = [SnippetRequest(v, start, 0.5, 0.5, False) for v in (video, segment) for start in range(v.num_frames)]
    found = []
    for decoder in (PyAVDecoder(clip, CPU, 1), dali.DaliDecoder(clip, CPU, 1, 16)):
        decoded = decoder.decode(asked)
        assert not decoded.failures
        found.append([numbers(clip_THWC) for clip_THWC in decoded.frames.numpy()])
        decoder.close()
    assert found[0] == found[1]
    assert found[0][: video.num_frames] == [np.minimum(start + 3 * np.arange(6), 39).tolist() for start in range(40)]


def test_every_offset_of_a_crop_comes_equally_often(dali, folder):
    """By nvcodec and from stores: tests/data/nvcodec/test_nvcodec.py."""
    video = describe(write_numbered(folder / "offsets.webm", size=(128, 128), num_frames=2))
    for build in (lambda clip: PyAVDecoder(clip, CPU, 1), lambda clip: dali.DaliDecoder(clip, CPU, 1, 22)):
        assert offset_counts(build, video) == ([2] * 11, [2] * 11)


@pytest.mark.gpu
@pytest.mark.nvdec
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("h264.mp4", {"codec": "libx264", "size": (320, 240), "options": {"bf": "3"}}),
        ("h264_full.mkv", {"codec": "libx264", "size": (320, 240), "full_range": True}),
        ("hevc.mp4", {"codec": "libx265", "size": (320, 240), "options": {"x265-params": "log-level=none"}}),
        ("hevc_10.mp4", {"codec": "libx265", "size": (320, 240), "pixel_format": "yuv420p10le"}),
    ],
)
def test_nvdec_agrees_with_pyav(dali, folder, name, kind):
    gpu = torch.device("cuda")
    one, other = PyAVDecoder(CLIP, gpu, 2), dali.DaliDecoder(CLIP, gpu, 4, 12)
    compare(one, other, describe(write_numbered(folder / name, **kind)))
    one.close()
    other.close()
