"""Cropping taken out of H.264 and HEVC frames: FFmpeg then shows all that is coded, and nothing else has changed."""

from fractions import Fraction

import av
import numpy as np
import pytest

from engine.data.dali.parameter_sets import (
    StreamFacts,
    coded_size,
    drop_cropping,
    read_configuration,
    read_h264_set,
    set_cropping,
)
from engine.data.pyav.gops import split_frames
from engine.data.pyav.normalise import build_encoder
from engine.data.store.index import StoreSettings
from tests.data.videos import numbered_frame


def encode(width, height, rate=Fraction(25), codec="h264", **options):
    """A group of eight frames, as a store holds it; `options` are x264's."""
    context = build_encoder(width, height, rate, StoreSettings(gop=8, preset="veryfast", codec=codec))
    if options:
        context = av.CodecContext.create("libx264", "w")
        context.width, context.height, context.pix_fmt = width, height, "yuv420p"
        context.time_base, context.framerate, context.gop_size = 1 / rate, rate, 8
        context.options = {"aud": "1", "bf": "0"} | options
    packets = []
    for number in range(8):
        frame = av.VideoFrame.from_ndarray(numbered_frame(number, width, height), format="rgb24").reformat(
            format="yuv420p"
        )
        frame.pts, frame.time_base = number, 1 / rate
        packets += context.encode(frame)
    return split_frames(b"".join(map(bytes, [*packets, *context.encode(None)])), codec)


def decode(coded_frames, codec="h264"):
    """Planes of the frames, each as [height, width]."""
    context = av.CodecContext.create(codec, "r")
    context.options = {"err_detect": "explode"}
    frames = [frame for data in [*map(av.Packet, coded_frames), None] for frame in context.decode(data)]
    return [
        [np.frombuffer(plane, np.uint8).reshape(plane.height, -1)[:, : plane.width] for plane in frame.planes]
        for frame in frames
    ]


def test_what_stores_code():
    assert coded_size(170, 128) == coded_size(170, 128, "h264") == (176, 128)
    assert coded_size(170, 128, "hevc") == (176, 144)  # NVDEC decodes no smaller HEVC
    assert coded_size(64, 1082, "hevc") == (144, 1088)


@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_cropping_that_is_put_in_is_what_a_decoder_leaves_out(codec):
    coded_frames = encode(170, 150, codec=codec)
    cropped = [set_cropping(each, codec, 40, 22) for each in [drop_cropping(each, codec) for each in coded_frames]]
    right, bottom = {"h264": (176, 160), "hevc": (176, 152)}[codec]
    for before, after in zip(decode(coded_frames, codec), decode(cropped, codec), strict=True):
        assert after[0].shape == (bottom - 22, right - 40)
        assert np.array_equal(after[0], before[0][: bottom - 22, : right - 40])
    assert [drop_cropping(each, codec) for each in cropped] == [drop_cropping(each, codec) for each in coded_frames]


SIZES = [(170, 128), (128, 228), (228, 128), (98, 66), (128, 130), (50, 50), (1918, 1080)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_all_that_is_coded_is_shown_and_the_frame_is_its_upper_left_part(codec, size):
    coded_frames = encode(*size, codec=codec)
    plain = [drop_cropping(each, codec) for each in coded_frames]
    block = {"h264": 16, "hevc": 8}[codec]
    width, height = (-(-side // block) * block for side in size)  # as the encoders code them, left to themselves
    num_changed = int((width, height) != size)  # the key frame alone
    assert sum(one != other for one, other in zip(coded_frames, plain, strict=True)) == num_changed
    for before, after in zip(decode(coded_frames, codec), decode(plain, codec), strict=True):
        assert after[0].shape == (height, width)
        for one, other in zip(before, after, strict=True):
            assert np.array_equal(one, other[: one.shape[0], : one.shape[1]])


def test_whole_blocks_are_left_alone():
    coded_frames = encode(176, 128)
    assert [drop_cropping(each) for each in coded_frames] == coded_frames
    coded_frames = encode(168, 120, codec="hevc")
    assert [drop_cropping(each, "hevc") for each in coded_frames] == coded_frames


@pytest.mark.parametrize(
    "options",
    [
        {"profile": "baseline"},
        {"profile": "main"},
        {"profile": "high", "color_range": "pc", "colorspace": "bt709"},
        {"level": "5.1", "x264-params": "nal-hrd=vbr:vbv-maxrate=1000:vbv-bufsize=1000"},
    ],
)
@pytest.mark.parametrize("rate", [Fraction(25), Fraction(30000, 1001)])
def test_parameter_sets_of_all_kinds(options, rate):
    coded_frames = encode(170, 98, rate, **options)
    after = decode([drop_cropping(each) for each in coded_frames])
    assert {planes[0].shape for planes in after} == {(112, 176)}
    assert np.array_equal(after[5][0][:98, :170], decode(coded_frames)[5][0])


def test_bytes_that_look_like_a_start_code_are_kept_apart():
    unit = b"\x00\x00\x00\x01\x67" + bytes.fromhex("64000bacb20588f270800000030080000019078a1524")
    changed = drop_cropping(unit + b"\x00\x00\x00\x01\x68\xcb")
    assert changed.startswith(unit[:12])
    assert changed.endswith(b"\x00\x00\x00\x01\x68\xcb")
    assert b"\x00\x00\x03" in changed
    assert changed[5:-6].count(b"\x00\x00\x00") + changed[5:-6].count(b"\x00\x00\x01") == 0


def test_layers_of_hevc_are_refused():
    key, *_ = encode(170, 98, codec="hevc")
    offset = key.index(b"\x00\x00\x01\x42\x01") + 5
    layered = key[:offset] + bytes([key[offset] | 0b0010]) + key[offset + 1 :]  # sps_max_sub_layers_minus1
    with pytest.raises(ValueError, match="several temporal layers"):
        drop_cropping(layered, "hevc")


@pytest.mark.parametrize("lists", ["jvt", "flat"])
def test_scaling_lists_are_read_over(lists):
    coded_frames = encode(170, 98, **{"x264-params": f"cqm={lists}"})
    unit = next(iter(coded_frames[0].split(b"\x00\x00\x01\x67")[1:]))
    assert read_h264_set(b"\x67" + unit) == StreamFacts(1, 8, True)
    after = decode([drop_cropping(each) for each in coded_frames])
    assert {planes[0].shape for planes in after} == {(112, 176)}
    assert np.array_equal(after[5][0][:98, :170], decode(coded_frames)[5][0])


def bits(*numbers):
    """A parameter set's bytes after its header byte: strings of bits as they are, numbers in Exp-Golomb (9.1)."""
    text = ""
    for number in numbers:
        code = number if isinstance(number, str) else f"{number + 1:b}"
        text += code if isinstance(number, str) else "0" * (len(code) - 1) + code
    text += "1"
    text += "0" * (-len(text) % 8)
    return b"\x67" + int(text, 2).to_bytes(len(text) // 8, "big")


def head(profile):
    return f"{profile:08b}" + "0" * 16


def test_what_no_x264_writes_is_read_over_too():
    size = (1, "0", 10, 8)  # reference frames, gaps, width and height in macroblocks
    cycle = (1, "1", 0, 3, 2, 5, 6)  # picture order of type 1 with a cycle of two
    assert read_h264_set(bits(head(66), 0, 0, *cycle, *size, "1")) == StreamFacts(1, 8, True)
    assert read_h264_set(bits(head(77), 0, 0, 2, *size, "0")) == StreamFacts(1, 8, False)
    lists = "1" + "1" + "1" * 0  # one list that is there, seven that are not
    delta = [16, "1" * 15]  # 8 - 8 = 0 ends a list at its first number, or it goes on with differences of 0
    assert read_h264_set(bits(head(100), 0, 1, 0, 0, "0", lists, delta[0], "0" * 7, 0, 2, *size, "1")) == (
        StreamFacts(1, 8, True)
    )
    assert read_h264_set(bits(head(100), 0, 1, 0, 0, "0", lists, 0, delta[1], "0" * 7, 0, 2, *size, "1")) == (
        StreamFacts(1, 8, True)
    )
    assert read_h264_set(bits(head(244), 0, 3, "1", 2, 6, "0", "0", 0, 2, *size, "1")) == StreamFacts(3, 14, True)
    with pytest.raises(ValueError):
        read_h264_set(bits(head(66), 0, 0, 1, "1", 0, 3, 10**9))


@pytest.mark.parametrize(
    "record", [b"", bytes(30), b"\x01" + bytes(30), b"\x01\x64\x00\x0b\xff\xe1\x00\x18\x68" + bytes(30)]
)
def test_what_is_no_configuration_record_is_said(record):
    with pytest.raises(ValueError):
        read_configuration("h264", record)


def test_interlaced_frames_are_refused():
    with pytest.raises(ValueError, match="interlaced"):
        [drop_cropping(each) for each in encode(176, 96, **{"x264-params": "tff=1"})]
