"""Whole videos in order: every frame once, with the pixels and motion that the snippet decoder gives, and the time written."""

from dataclasses import replace

import av
import numpy as np
import pytest
import torch

from engine.data.batch import ClipFormat, SnippetRequest
from engine.data.manifests.manifest import Manifest
from engine.data.motion import VECTOR_CODECS
from engine.data.pyav.decode import PyAVDecoder
from engine.data.pyav.encode import write_video
from engine.data.pyav.files import FileFrames, Unusable
from engine.data.pyav.in_order import InOrderDecoder
from engine.data.pyav.probe import probe
from engine.data.pyav.times import Timeline
from tests.data.videos import describe, numbered_frame
from tests.small_run import call_tool

NUM_FRAMES, SIZE = 48, (160, 120)
CLIP = ClipFormat(num_frames=NUM_FRAMES, stride=1, short_side=64, crop=48)
CONSTANT = Timeline((0, NUM_FRAMES), (0.0, NUM_FRAMES / 25))
EDGES = [round(0.5 + place**1.2 / 25, 3) for place in range(NUM_FRAMES)]  # of a variable frame rate

KINDS = {
    "constant.mp4": {"options": {"bf": "3"}},
    "rotated.mp4": {"rotation": 90},
    "variable.mkv": {"times": EDGES, "options": {"bf": "2"}},
    "variable.mp4": {"times": EDGES},
    "vp9.webm": {"codec": "libvpx-vp9", "times": EDGES},
    "no_b.avi": {"options": {"bf": "0"}},
    "b.avi": {"options": {"bf": "2"}},
    "odd_444.mkv": {"pixel_format": "yuv444p", "size": (67, 65)},
}


def write(path, size=SIZE, **options):
    write_video(path, (numbered_frame(number, *size) for number in range(NUM_FRAMES)), gop=12, **options)
    return describe(path)


def assert_same_pictures(pictures, whole):
    """Those of a video in order, and the snippet decoder's clip of all its frames; something moves."""
    pixels, motion = zip(*pictures, strict=True)
    assert np.array_equal(np.stack(pixels), whole.frames[0].numpy())
    if whole.motion is None:
        assert set(motion) == {None}
    else:
        assert np.array_equal(np.stack(motion), whole.motion[0].numpy()) and whole.motion.any()


@pytest.mark.parametrize("name", KINDS)
def test_pixels_and_motion_are_those_of_the_snippet_decoder_and_times_those_written(tmp_path, name):
    video = write(tmp_path / name, **KINDS[name])
    clip = replace(CLIP, motion=video.codec in VECTOR_CODECS)
    found = [(start, end, get()) for start, end, get in InOrderDecoder(clip).frames(video, probe(video.path).timeline)]
    decoder = PyAVDecoder(clip, torch.device("cpu"), 1)
    whole = decoder.decode([SnippetRequest(video, 0, 0.5, 0.5, flip=False)])
    decoder.close()
    assert not whole.failures
    assert_same_pictures([picture for *_, picture in found], whole)
    assert clip.motion == (name != "vp9.webm")
    starts = np.array([start for start, *_ in found])
    wanted = np.array(KINDS[name].get("times", np.arange(NUM_FRAMES) / 25))
    assert np.allclose(starts, wanted - wanted[0], atol=2e-3)  # a file whose first frame is late begins with it
    assert [end for _, end, _ in found[:-1]] == starts[1:].tolist()
    assert found[-1][1] - found[-1][0] == pytest.approx(starts[-1] - starts[-2])


def test_a_video_that_begins_after_its_sound_keeps_that_time(tmp_path):
    write(tmp_path / "silent.mp4")
    with av.open(str(tmp_path / "silent.mp4")) as old, av.open(str(tmp_path / "late.mkv"), "w") as new:
        source = old.streams.video[0]
        copy, sound = new.add_stream_from_template(source), new.add_stream("pcm_s16le", rate=8000)
        for number in range(30):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
            frame.sample_rate, frame.pts = 8000, 800 * number
            new.mux(sound.encode(frame))
        for packet in old.demux(source):
            if packet.size:
                shift = round(1.4 / packet.time_base)
                packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, copy
                new.mux(packet)
    late = tmp_path / "late.mkv"
    times = [start for start, *_ in InOrderDecoder(CLIP).frames(describe(late), probe(late).timeline)]
    assert np.allclose(times, 1.4 + np.arange(NUM_FRAMES) / 25, atol=2e-3)


def test_a_stored_video_is_read_in_order_at_its_constant_rate(tmp_path, monkeypatch):
    (tmp_path / "set" / "a").mkdir(parents=True)
    write(tmp_path / "set" / "a" / "v.mp4")
    store = tmp_path / "store"
    fast = ("--preset", "ultrafast", "--short-side", 64, "--gop", 5, "--workers", 1, "--motion")
    assert call_tool("ingest.py", tmp_path / "set", "--out", store, *fast, monkeypatch=monkeypatch) == 0
    manifest = Manifest.load(store / "manifest.parquet")
    monkeypatch.setattr("engine.data.pyav.in_order._STORED_RUN", 7)  # no multiple of the GOP
    clip = replace(CLIP, crop=64, motion=True)
    found = list(InOrderDecoder(clip).frames(manifest.video(0), CONSTANT))
    assert np.allclose([start for start, *_ in found], np.arange(NUM_FRAMES) / 25)
    assert len(found) == NUM_FRAMES
    decoder = PyAVDecoder(clip, torch.device("cpu"), 1)
    whole = decoder.decode([SnippetRequest(manifest.video(0), 0, 0.5, 0.5, flip=False)])
    decoder.close()
    assert_same_pictures([get() for *_, get in found], whole)


def test_a_file_is_decoded_once_and_nothing_is_sought(tmp_path, monkeypatch):
    video = write(tmp_path / "a.mp4")
    monkeypatch.setattr(FileFrames, "_seek", None)
    clip = replace(CLIP, short_side=120, crop=120)
    frames = [get().pixels for *_, get in InOrderDecoder(clip).frames(video, CONSTANT)]
    assert len(frames) == NUM_FRAMES


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (lambda path: path.unlink(), "the file is missing"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "index it again"),
        (lambda path: path.write_bytes(bytes(path.stat().st_size)), r"\S"),
    ],
)
def test_a_file_that_cannot_be_used_is_told(tmp_path, harm, told):
    video = write(tmp_path / "a.mp4")
    harm(tmp_path / "a.mp4")
    with pytest.raises(Unusable, match=told):
        list(InOrderDecoder(CLIP).frames(video, CONSTANT))


def test_fewer_frames_than_indexed_are_an_error_behind_those_that_decode(tmp_path):
    video = replace(write(tmp_path / "a.mp4"), file_frames=NUM_FRAMES + 3)
    seen = []
    with pytest.raises(Unusable, match=f"only {NUM_FRAMES} frames decode"):
        for frame in InOrderDecoder(CLIP).frames(video, Timeline((0, NUM_FRAMES + 3), (0.0, 2.0))):
            seen.append(frame)
    assert len(seen) >= NUM_FRAMES - 1


def test_waiting_for_the_user_of_the_frames_does_not_count_as_a_stall(tmp_path, monkeypatch):
    video, now = write(tmp_path / "a.mp4"), [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    for _ in InOrderDecoder(CLIP, patience_s=5.0).frames(video, CONSTANT):
        now[0] += 60.0
    assert now[0] == 60.0 * NUM_FRAMES
