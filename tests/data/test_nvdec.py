"""What the GPU decoder refuses, told from real files, so that it never returns frames other than those asked for."""

import numpy as np
import pytest

from engine.data.nvdec import mp4_video_samples, refusal, row_refusal
from tests.data.videos import describe, remux, write_numbered


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("nvdec")


def verdict(path, **changes):
    return refusal(describe(path, **changes), memoryview(path.read_bytes()))


@pytest.mark.parametrize("name", ["plain.mp4", "plain.mov", "plain.mkv"])
def test_h264_with_b_frames_in_stamped_containers_is_decoded(folder, name):
    assert verdict(write_numbered(folder / name, "libx264", options={"bf": "3"})) is None


def test_hevc_is_decoded(folder):
    assert verdict(write_numbered(folder / "hevc.mp4", "libx265", size=(160, 144))) is None


def test_samples_are_counted_as_the_header_lists_them(folder):
    path = write_numbered(folder / "count.mp4", "libx264", num_frames=23)
    assert mp4_video_samples(memoryview(path.read_bytes())) == {23}


def test_fragmented_mp4_lists_no_samples_and_is_decoded(folder):
    options = {"movflags": "frag_keyframe+empty_moov"}
    path = write_numbered(folder / "fragments.mp4", "libx264", container_options=options)
    assert mp4_video_samples(memoryview(path.read_bytes())) == {0}
    assert verdict(path) is None


def test_edit_list_that_hides_frames_is_refused(folder):
    plain = write_numbered(folder / "whole.mp4", "libx264")
    cut = remux(plain, folder / "cut.mp4", first_pts=-5)
    assert describe(cut).num_frames == 35
    assert "lists 40 frames where 35 are shown" in verdict(cut)
    assert "data.decoder=pyav" in verdict(cut)


def test_containers_without_presentation_stamps_are_refused(folder):
    for name in ("b_frames.avi", "raw.h264", "stream.ts"):
        assert "needs the time stamps" in verdict(write_numbered(folder / name, "libx264"))


def test_codecs_with_frames_never_shown_are_refused(folder):
    assert row_refusal(describe(write_numbered(folder / "vp9.webm"))) == "codec vp9"
    assert row_refusal(describe(write_numbered(folder / "mpeg4.mp4", "mpeg4"))) == "codec mpeg4"


def test_odd_sizes_are_refused(folder):
    path = write_numbered(folder / "odd.mp4", "libx264", size=(161, 120), pixel_format="yuv444p")
    assert row_refusal(describe(path)) == "odd size"


KINDS = {  # codec, pixel format, options, what is said of it
    "plain": ("libx264", "yuv420p", {}, None),
    "full_range": ("libx264", "yuvj420p", {}, None),
    "high10": ("libx264", "yuv420p10le", {}, "NVDEC does not decode h264 of 10 bits and 4:2:0"),
    "422": ("libx264", "yuv422p", {}, "h264 of 8 bits and 4:2:2"),
    "444": ("libx264", "yuv444p", {}, "h264 of 8 bits and 4:4:4"),
    "grey": ("libx264", "gray", {}, "h264 of 8 bits and no chroma"),
    "scaling_lists": ("libx264", "yuv420p", {"x264-params": "cqm=jvt"}, None),
    "scaling_lists_444": ("libx264", "yuv444p", {"x264-params": "cqm=jvt"}, "h264 of 8 bits and 4:4:4"),
    "interlaced": ("libx264", "yuv420p", {"x264-params": "tff=1"}, "interlaced"),
    "marked_interlaced": ("libx264", "yuv420p", {"x264-params": "fake-interlaced=1"}, "interlaced"),
    "main": ("libx265", "yuv420p", {"x265-params": "log-level=none"}, None),
    "main10": ("libx265", "yuv420p10le", {"x265-params": "log-level=none"}, None),
    "main12": ("libx265", "yuv420p12le", {"x265-params": "log-level=none"}, "hevc of 12 bits and 4:2:0"),
    "hevc_422": ("libx265", "yuv422p", {"x265-params": "log-level=none"}, "hevc of 8 bits and 4:2:2"),
}


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_nvdec_does_not_decode_is_told_from_the_file(folder, kind, suffix):
    codec, pixel_format, options, reason = KINDS[kind]
    path = folder / f"{kind}.{suffix}"
    write_numbered(path, codec, pixel_format=pixel_format, options=options, size=(160, 128), num_frames=4)
    said = verdict(path)
    assert said is None if reason is None else reason in said
    assert said is None or "data.decoder=pyav" in said


@pytest.mark.parametrize("name", ["fuzzed.mp4", "fuzzed.mkv"])
def test_damaged_headers_are_judged_and_never_raise(folder, name):
    path = write_numbered(folder / name, "libx264", num_frames=4)
    video, data, random = describe(path), path.read_bytes(), np.random.default_rng(0)
    record = data.index(b"\x01\x64\x00")  # the configuration, of profile High
    said = set()
    for _ in range(1500):
        damaged = bytearray(data)
        for offset in random.integers(record, record + 40, size=2):
            damaged[offset] = random.integers(256)
        said.add(refusal(video, memoryview(damaged)))
    assert {None, True} == {reason and "data.decoder=pyav" in reason for reason in said}
    assert any(reason and "interlaced" in reason for reason in said)


def test_a_header_that_says_nothing_of_the_coding_is_refused(folder):
    path = write_numbered(folder / "hidden.mp4", "libx264")
    data = path.read_bytes().replace(b"avcC", b"free")
    assert "does not say how its frames are coded" in refusal(describe(path), memoryview(data))


def test_truncated_and_nonsense_boxes_end_the_search(folder):
    data = write_numbered(folder / "short.mp4", "libx264").read_bytes()
    end = data.index(b"stsz")
    assert mp4_video_samples(memoryview(data[: end + 2])) == set()
    assert mp4_video_samples(memoryview(b"\x00\x00\x00\x02moov" + data)) == set()


def test_box_of_64_bit_length_is_read(folder):
    data = write_numbered(folder / "wide.mp4", "libx264", num_frames=7).read_bytes()
    start = data.index(b"moov") - 4
    length = int.from_bytes(data[start : start + 4], "big")
    moov = b"\x00\x00\x00\x01moov" + (length + 8).to_bytes(8, "big") + data[start + 8 : start + length]
    assert mp4_video_samples(memoryview(moov)) == {7}
