"""Normalising: which frames are taken at which rate, how large and how turned they become, in groups of which length."""

import io
from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest

from engine.data.dali.parameter_sets import drop_cropping
from engine.data.indexing.journal import Failure
from engine.data.pyav.encode import write_video
from engine.data.pyav.gops import GopDecoder, split_frames
from engine.data.pyav.normalise import SourceVideo, even_size, normalise_file, output_rate
from engine.data.pyav.probe import probe
from engine.data.store.index import StoreSettings
from tests.data.videos import numbered_frame, numbers

SETTINGS = StoreSettings(short_side=64, gop=8, preset="ultrafast")


def normalise(path, *, rotation=0, settings=SETTINGS):
    found = probe(path)
    facts = (path.name, found.fps, rotation, path.stat().st_size, found.num_frames)
    source = SourceVideo(*facts, timed_frames=found.timed_frames, frame_times=found.frame_times)
    return normalise_file(source, path.parent, settings, 60)


def rgb(made, codec="h264"):
    """All frames [T, H, W, 3], decoded in one go by FFmpeg's own reader of raw streams."""
    with av.open(io.BytesIO(made.data), format=codec) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def test_rates_that_cannot_be_believed():
    assert output_rate(29.97003, SETTINGS) == Fraction(30000, 1001)
    assert output_rate(0.0, SETTINGS) == output_rate(1000.0, SETTINGS) == 25
    assert output_rate(0.0, StoreSettings(fps=15)) == 15


def test_sizes_are_even_and_keep_the_shape():
    assert even_size(320, 240, 128) == (170, 128)  # 170.7
    assert even_size(240, 320, 128) == (128, 170)
    assert even_size(67, 65, 128) == (132, 128)  # 131.9, enlarged
    assert even_size(128, 128, 128) == (128, 128)
    assert even_size(1920, 1080, 256) == (456, 256)  # 455.1
    for width in range(65, 300):
        long, short = even_size(width, 65, 64)
        assert (short, long % 2) == (64, 0)
        assert abs(long - width * 64 / 65) <= 1


@pytest.mark.parametrize(("codec", "b_frames"), [("h264", 0), ("h264", 3), ("hevc", 0), ("hevc", 3)])
@pytest.mark.parametrize("count", [1, 7, 8, 9, 24, 29])
def test_groups_are_closed_and_full(tmp_path, count, codec, b_frames):
    path = tmp_path / "v.mp4"
    write_video(path, (numbered_frame(number, 160, 120) for number in range(count)))
    settings = StoreSettings(short_side=64, gop=8, b_frames=b_frames, tune="none", codec=codec)
    made = normalise(path, settings=settings)
    assert (made.num_frames, made.width, made.height, made.fps) == (count, 86, 64, 25)
    assert len(made.group_bytes) == -(-count // 8)
    assert sum(made.group_bytes) == len(made.data)
    whole, decoder, start = rgb(made, codec), GopDecoder(), 0
    assert numbers(whole) == list(range(count))
    for group, length in enumerate(made.group_bytes):
        group_data = made.data[start : start + length]
        alone = [frame.to_ndarray(format="rgb24") for frame in decoder.frames(group_data, codec)]
        assert np.array_equal(np.stack(alone), whole[8 * group : 8 * group + 8])
        start += length


def test_a_variable_rate_stays_or_becomes_constant(tmp_path):
    path = tmp_path / "v.mp4"
    times = [0, 0.04, 0.08, 0.4, 0.44, 0.48]  # six frames in 0.52 s; the third stands still for 0.32 s
    write_video(path, (numbered_frame(number, 160, 120) for number in range(6)), times=times)
    assert numbers(rgb(normalise(path))) == list(range(6))
    made = normalise(path, settings=replace(SETTINGS, fps=25))
    assert numbers(rgb(made)) == [0, 1, *[2] * 8, 3, 4, 5]


@pytest.mark.parametrize(("size", "shown"), [((160, 120), (86, 64)), ((120, 160), (64, 86)), ((640, 360), (114, 64))])
def test_hevc_is_coded_as_large_as_nvdec_asks_and_shows_what_h264_shows(tmp_path, size, shown):
    path = tmp_path / "v.mp4"
    write_video(path, (numbered_frame(number, *size) for number in range(12)))
    made = normalise(path, settings=StoreSettings(short_side=64, gop=8, codec="hevc", crf=8))
    assert (made.width, made.height) == shown
    assert np.abs(rgb(made, "hevc").astype(int) - rgb(normalise(path, settings=replace(SETTINGS, crf=8)))).mean() < 2
    coded = b"".join(drop_cropping(each, "hevc") for each in split_frames(made.data, "hevc"))
    whole = rgb(replace(made, data=coded), "hevc")
    assert whole.shape == (12, 144, 144, 3)
    assert np.array_equal(whole[:, : shown[1], : shown[0]][:, :-2, :-2], rgb(made, "hevc")[:, :-2, :-2])
    beside = whole[:, : shown[1], shown[0] + 8 :].astype(int)
    assert np.abs(beside - whole[:, : shown[1], shown[0] - 1 : shown[0]]).mean() < 8  # its last column, repeated


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_frames_are_turned_upright(tmp_path, rotation):
    path, plain = tmp_path / "v.mp4", tmp_path / "plain.mp4"
    stored = [
        np.rot90(numbered_frame(number, 160, 120), rotation // 90).copy() for number in range(9)
    ]  # counter-clockwise
    write_video(path, stored, rotation=rotation)
    write_video(plain, [numbered_frame(number, 160, 120) for number in range(9)])
    made, upright = normalise(path, rotation=rotation), normalise(plain)
    assert (made.width, made.height) == (86, 64)
    assert numbers(rgb(made)) == list(range(9))
    assert np.abs(rgb(made).astype(int) - rgb(upright)).mean() < 2


@pytest.mark.parametrize(
    ("suffix", "settings"),
    [
        (".mp4", {"pixel_format": "yuv444p"}),
        (".mp4", {"pixel_format": "yuv420p10le"}),
        (".mp4", {"full_range": True}),
        (".avi", {"codec": "mjpeg", "pixel_format": "yuvj420p"}),
        (".mkv", {"codec": "libvpx-vp9"}),
    ],
)
def test_colours_come_through(tmp_path, suffix, settings):
    path = tmp_path / f"v{suffix}"
    colours = [(230, 30, 40), (40, 220, 60), (30, 50, 220), (200, 200, 200), (20, 20, 20)]
    write_video(path, (np.full((120, 160, 3), colour, np.uint8) for colour in colours), **settings)
    found = rgb(normalise(path)).mean(axis=(1, 2))
    assert np.abs(found - colours).max() < 6


def test_an_odd_size_and_a_size_that_changes(tmp_path, shared_data):
    path = tmp_path / "odd.mkv"
    write_video(path, (numbered_frame(number, 67, 65) for number in range(5)), codec="libvpx-vp9")
    made = normalise(path)
    assert (made.width, made.height, made.num_frames) == (66, 64, 5)
    changing = shared_data / "decode_pack" / "RomanArzumanyan__VALI__test_res_change.h264"
    made = normalise(changing)
    assert made.num_frames > 2
    assert {frame.width for frame in GopDecoder().frames(made.data)} == {made.width}


def test_what_cannot_be_used_is_named(tmp_path):
    good = tmp_path / "good.mp4"
    write_video(good, (numbered_frame(number, 160, 120) for number in range(20)))
    changed = normalise_file(SourceVideo("good.mp4", 25, 0, 7, 20), tmp_path, SETTINGS, 60)
    assert isinstance(changed, Failure)
    assert changed.kind == "changed"
    assert normalise_file(SourceVideo("absent.mp4", 25, 0, 7, 20), tmp_path, SETTINGS, 60).kind == "missing"
    page = tmp_path / "page.mp4"
    page.write_text("<html>404</html>")
    source = SourceVideo("page.mp4", 25, 0, page.stat().st_size, 20)
    assert normalise_file(source, tmp_path, SETTINGS, 60).kind == "unreadable"
    source = SourceVideo("good.mp4", 25, 0, good.stat().st_size, 20)
    assert normalise_file(source, tmp_path, SETTINGS, 0.0).kind == "too-slow"
    fewer = normalise_file(replace(source, num_frames=21), tmp_path, SETTINGS, 60)
    assert (fewer.kind, fewer.text) == (
        "undecodable",
        "20 frames decode where the manifest says 21: index it again with --full-decode",
    )
    wide = tmp_path / "wide.mkv"
    write_video(wide, (np.zeros((2, 2000, 3), np.uint8) for _ in range(2)), codec="mpeg4")
    assert normalise(wide).kind == "unencodable"
