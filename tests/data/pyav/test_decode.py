"""The PyAV decoder: the right frames by number whatever the codec and container, and a reason where there are none."""

import threading
import wave
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from engine.data.batch import ClipFormat, SnippetRequest
from engine.data.pyav.decode import PyAVDecoder, split_into_jobs
from engine.data.pyav.encode import write_video
from engine.data.pyav.files import FileFrames
from tests.data.videos import describe, hide_frames, numbered_frame, numbers, remux
from tests.environment import no_more_files

CPU = torch.device("cpu")
NUM_FRAMES, GOP = 48, 12
CLIP = ClipFormat(num_frames=4, stride=1, short_side=64, crop=64)
OPEN_GOP = {"bf": "3", "x264-params": "open-gop=1:b-pyramid=normal:scenecut=0"}

KINDS = {
    "h264_open_gop.mp4": {"options": OPEN_GOP},
    "h264_open_gop.mkv": {"options": OPEN_GOP},
    "h264_no_b.mp4": {"options": {"bf": "0"}},
    "h264_one_gop.mp4": {"gop": 250},
    "h264.ts": {"options": {"bf": "2"}},
    "h264.avi": {"options": {"bf": "2"}},
    "h264_10bit.mp4": {"pixel_format": "yuv420p10le"},
    "h264_444_odd.mp4": {"pixel_format": "yuv444p", "size": (67, 65)},
    "h264_variable_rate.mp4": {"times": [round(index**1.2 / 25, 3) for index in range(NUM_FRAMES)]},
    "hevc.mp4": {"codec": "libx265", "options": {"x265-params": "log-level=none:pools=none:bframes=3:open-gop=1"}},
    "mpeg4.avi": {"codec": "mpeg4"},
    "mpeg4_b.mp4": {"codec": "mpeg4", "options": {"bf": "2"}},
    "mpeg4_b.avi": {"codec": "mpeg4", "options": {"bf": "2"}},
    "mpeg2.mpg": {"codec": "mpeg2video", "options": {"bf": "2", "qmax": "3"}},
    "mjpeg.avi": {"codec": "mjpeg", "pixel_format": "yuvj420p"},
    "vp9.webm": {"codec": "libvpx-vp9"},
    "vp9_odd.webm": {"codec": "libvpx-vp9", "size": (67, 65)},
    "vp8_alt_ref.webm": {
        "codec": "libvpx",
        "options": {"auto-alt-ref": "1", "lag-in-frames": "16", "deadline": "good", "b:v": "2M"},
    },
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("videos")


@pytest.fixture
def decoder():
    decoder = PyAVDecoder(CLIP, CPU, 1)
    yield decoder
    decoder.close()


def numbered(path, *, size=(64, 64), count=NUM_FRAMES, **settings):
    """A file whose frames carry their number, and its facts."""
    if not path.exists():
        write_video(path, (numbered_frame(number, *size) for number in range(count)), **{"gop": GOP, **settings})
    return describe(path)


@pytest.fixture(scope="module")
def plain(folder):
    return numbered(folder / "h264_open_gop.mp4", options=OPEN_GOP)


def ask(video, *starts):
    return [SnippetRequest(video, start, 0.5, 0.5, False) for start in starts]


def read_numbers(decoded):
    assert not decoded.failures
    return [numbers(clip_THWC) for clip_THWC in decoded.frames.numpy()]


@pytest.mark.parametrize("name", KINDS)
def test_frame_numbers_are_exact(folder, decoder, name):
    video = numbered(folder / name, **KINDS[name])
    assert video.num_frames == NUM_FRAMES
    starts = [0, 1, 9, 11, 12, 13, 23, 25, 35, 36, 40, 44, 46]
    expected = [[min(start + index, NUM_FRAMES - 1) for index in range(4)] for start in starts]
    alone = [read_numbers(decoder.decode(ask(video, start)))[0] for start in starts]  # each its own seek
    assert alone == expected
    assert read_numbers(decoder.decode(ask(video, *reversed(starts)))) == expected[::-1]  # one pass for all


@pytest.mark.parametrize("name", ["h264_open_gop.mp4", "mjpeg.avi", "vp9.webm"])
def test_stride_segment_and_edge_repeat(folder, name):
    decoder = PyAVDecoder(replace(CLIP, num_frames=5, stride=3), CPU, 1)
    video = numbered(folder / name, **KINDS[name])
    segment = replace(video, first_frame=14, num_frames=11)
    found = read_numbers(
        decoder.decode([*ask(video, 2, 30), *ask(segment, 0, 5), *ask(replace(video, num_frames=2), 0)])
    )
    assert found == [
        [2, 5, 8, 11, 14],
        [30, 33, 36, 39, 42],
        [14, 17, 20, 23, 24],
        [19, 22, 24, 24, 24],
        [0, 1, 1, 1, 1],
    ]
    decoder.close()


def test_frames_cut_off_by_an_edit_list_do_not_count(folder, decoder, plain):
    path = remux(plain.path, folder / "cut.mp4", first_pts=-15)
    video = describe(path)
    assert video.num_frames == NUM_FRAMES - 15
    assert read_numbers(decoder.decode(ask(video, 0, 20, 28))) == [[15, 16, 17, 18], [35, 36, 37, 38], [43, 44, 45, 46]]


def test_hidden_frames_do_not_count(folder, decoder):
    intra = numbered(folder / "intra.webm", codec="libvpx-vp9", gop=1)
    video = describe(hide_frames(intra.path, folder / "hidden.webm", every=5))
    shown = [number for number in range(NUM_FRAMES) if number % 5 != 4]
    assert video.num_frames == len(shown)
    assert read_numbers(decoder.decode(ask(video, 0, 17, 30))) == [shown[start : start + 4] for start in (0, 17, 30)]


def test_wrong_key_frames_in_the_manifest_cost_time_and_no_exactness(decoder, plain):
    shifted = tuple(pts + 512 for pts in plain.key_pts)
    repeated = tuple(plain.key_pts[0] for _ in plain.key_pts)
    late = (plain.key_pts[0], *plain.key_pts[2:], 10**9)  # every number belongs to the key frame after it
    for key_pts in (shifted, repeated, late):
        assert read_numbers(decoder.decode(ask(replace(plain, key_pts=key_pts), 0, 20, 41))) == [
            [start + index for index in range(4)] for start in (0, 20, 41)
        ]


@pytest.mark.parametrize(
    ("name", "most"), [("h264_open_gop.mp4", 9), ("mjpeg.avi", 4), ("mpeg2.mpg", 40), ("h264.ts", 40)]
)
def test_a_seek_decodes_no_more_than_it_must(folder, decoder, monkeypatch, name, most):
    """The snippet, what comes before it in its group, and B-frames of the open group; two groups without an index."""
    decoded = []
    original = FileFrames._output
    monkeypatch.setattr(
        FileFrames, "_output", lambda self: (decoded.append(frame) or frame for frame in original(self))
    )
    video = numbered(folder / name, **KINDS[name])
    assert read_numbers(decoder.decode(ask(video, 38))) == [[38, 39, 40, 41]]
    assert len(decoded) <= most


def test_a_decoder_that_fails_after_a_seek_starts_over(decoder, plain, monkeypatch):
    def fail(self, key, number):
        raise av.error.InvalidDataError(av.error.tag_to_code(b"INDA"), "no start here")

    monkeypatch.setattr(FileFrames, "_seek", fail)
    assert read_numbers(decoder.decode(ask(plain, 2, 38))) == [[2, 3, 4, 5], [38, 39, 40, 41]]


def test_damage_fails_only_the_snippets_that_need_it(folder, decoder, plain):
    with av.open(str(plain.path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    data = bytearray(plain.path.read_bytes())
    for start, size in packets[8:11]:
        data[start : start + size] = bytes(size)
    (folder / "damaged.mp4").write_bytes(data)
    decoded = decoder.decode(ask(replace(plain, path=folder / "damaged.mp4"), 30, 7, 0, 40))
    assert decoded.failures == {1: "FFmpeg: Invalid data found when processing input"}
    found = [numbers(clip_THWC) for clip_THWC in decoded.frames.numpy()]
    assert [found[0], found[2], found[3]] == [[30, 31, 32, 33], [0, 1, 2, 3], [40, 41, 42, 43]]


def test_every_failure_has_its_reason_and_spares_the_others(folder, decoder, plain):
    (folder / "text.mp4").write_text("no video at all")
    with wave.open(str(folder / "sound.wav"), "wb") as sound:
        sound.setparams((1, 2, 8000, 800, "NONE", ""))
        sound.writeframes(bytes(1600))
    half = plain.path.read_bytes()[: plain.file_bytes // 2]
    (folder / "half.mp4").write_bytes(half)

    def other(name, **changes):
        size = (folder / name).stat().st_size if (folder / name).exists() else 1
        return replace(plain, path=folder / name, file_bytes=size, **changes)

    cases = [
        (plain, 10, None),
        (other("missing.mp4"), 0, "the file is missing"),
        (replace(plain, path=folder / "half.mp4"), 0, f"it has {len(half)} bytes, but had {plain.file_bytes} when"),
        (other("half.mp4"), 0, "FFmpeg: Invalid data found when processing input"),
        (other("text.mp4"), 0, "FFmpeg: Invalid data found when processing input"),
        (other("sound.wav"), 0, "FFmpeg: no container of videos"),
        (replace(plain, num_frames=80, file_frames=80), 70, "only 48 frames decode, frame 70 was asked for (the manif"),
        (replace(plain, num_frames=80, file_frames=80), 10, None),
        (replace(plain, width=128, height=96), 0, "its frames are 64x64, the manifest says 128x96: index it again"),
        (replace(plain, path=folder, file_bytes=folder.stat().st_size), 0, "FFmpeg: Is a directory"),
        (plain, 30, None),
    ]
    decoded = decoder.decode([SnippetRequest(video, start, 0.5, 0.5, False) for video, start, _ in cases])
    for index, (_, start, reason) in enumerate(cases):
        if reason is None:
            assert numbers(decoded.frames[index].numpy()) == [start, start + 1, start + 2, start + 3]
        else:
            assert decoded.failures.pop(index).startswith(reason)
    assert not decoded.failures


def test_time_limit_ends_a_sample(plain):
    decoder = PyAVDecoder(CLIP, CPU, 1, time_limit_s=1e-4)
    assert decoder.decode(ask(plain, 44)).failures == {0: "decoding took longer than the time limit"}
    decoder.close()


def test_two_threads_give_the_bytes_of_one(folder, decoder):
    videos = [numbered(folder / name, **KINDS[name]) for name in ("h264_open_gop.mp4", "vp9.webm", "mjpeg.avi")]
    asked = [SnippetRequest(video, start, 0.2, 0.9, start % 2 == 0) for start in (40, 3, 17) for video in videos]
    asked += ask(replace(videos[0], path=folder / "missing.mp4"), 1)
    pair = PyAVDecoder(CLIP, CPU, 2)
    one, two = decoder.decode(asked), pair.decode(asked)
    assert torch.equal(one.frames[:-1], two.frames[:-1])
    assert one.failures == two.failures == {9: "the file is missing"}
    assert one.frames.dtype == torch.uint8
    assert one.frames.shape == (10, 4, 64, 64, 3)
    assert one.frames.is_contiguous()
    assert one.frames.permute(0, 4, 1, 2, 3).is_contiguous(memory_format=torch.channels_last_3d)
    alone = [*range(0, NUM_FRAMES - 4, 4)]
    assert torch.equal(decoder.decode(ask(videos[0], *alone)).frames, pair.decode(ask(videos[0], *alone)).frames)
    pair.close()


def test_jobs_keep_a_file_together_unless_threads_would_idle(plain):
    other = replace(plain, path=Path("other.mp4"))
    assert split_into_jobs(ask(plain, 9, 3, 6) + ask(other, 1), 2) == [[1, 2, 0], [3]]
    assert split_into_jobs(ask(plain, 9, 3, 6, 0), 2) == [[3, 1], [2, 0]]
    assert split_into_jobs(ask(replace(plain, key_frames=(), key_pts=()), 9, 3, 6, 0), 2) == [[3, 1, 2, 0]]
    assert split_into_jobs([], 2) == []


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_rotated_files_are_turned_once(folder, rotation):
    path = folder / f"turned_{rotation}.mp4"
    write_video(path, [numbered_frame(number, 96, 64) for number in range(8)], rotation=rotation)
    decoder = PyAVDecoder(replace(CLIP, short_side=64, crop=64), CPU, 1)
    video = describe(path)
    upright = decoder.decode([SnippetRequest(video, 2, 0, 0.5, False)]).frames
    turned = decoder.decode([SnippetRequest(replace(video, rotation=rotation), 2, 0.5, 0.5, False)]).frames
    assert np.array_equal(turned.numpy()[0], np.rot90(upright.numpy()[0], -rotation // 90, axes=(1, 2)))
    decoder.close()


def test_names_that_ffmpeg_would_take_for_something_else(folder, decoder, plain, monkeypatch):
    monkeypatch.chdir(folder)
    for name in ("concat:a|b.mp4", "http: %03d.mp4", "-dash.mp4", "grüße.mp4"):
        Path(name).write_bytes(plain.path.read_bytes())
        assert read_numbers(decoder.decode(ask(replace(plain, path=Path(name)), 5))) == [[5, 6, 7, 8]]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files the way Linux shows them")
def test_no_file_stays_open(folder, decoder, plain):
    (folder / "text.mp4").write_text("no video at all")
    bad = replace(plain, path=folder / "text.mp4", file_bytes=15)
    decoder.decode(ask(plain, 3))
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        decoder.decode([*ask(plain, 3, 20), *ask(bad, 0), *ask(replace(plain, num_frames=99), 90)])
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_too_few_open_files_is_no_fault_of_the_video(decoder, plain):
    """Else samples would be replaced, and videos left out of an accuracy, because of `ulimit -n`."""
    decoder.decode(ask(plain, 3))
    with no_more_files(), pytest.raises(OSError, match="Too many open files"):
        decoder.decode(ask(plain, 3))


@pytest.mark.gpu
def test_clips_arrive_on_the_gpu(decoder, plain):
    on_gpu = PyAVDecoder(CLIP, torch.device("cuda"), 2)
    decoded = on_gpu.decode(ask(plain, 7, 30))
    assert decoded.frames.is_cuda
    assert torch.equal(decoded.frames.cpu(), decoder.decode(ask(plain, 7, 30)).frames)
    on_gpu.close()


def test_decoding_threads_compute_alone_and_leave_the_others_their_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        decoder = PyAVDecoder(ClipFormat(2, 1, 32, 32), torch.device("cpu"), 3)
        together = threading.Barrier(3)  # so that each of the three takes one
        asked = [decoder._pool.submit(lambda: (together.wait(60), torch.get_num_threads())[1]) for _ in range(3)]
        assert [each.result() for each in asked] == [1] * 3
        with ThreadPoolExecutor(1) as other:
            assert (other.submit(torch.get_num_threads).result(), torch.get_num_threads()) == (2, 2)
        decoder.close()
    finally:
        torch.set_num_threads(before)
