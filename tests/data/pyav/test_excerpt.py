"""Excerpts: exactly the frames of some seconds, at their times, upright, with the sound of these seconds, or nothing at all."""

import itertools
import time
from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest
import torch

from engine.data.batch import ClipFormat, SnippetRequest
from engine.data.indexing.dataset import index_folder
from engine.data.manifests.manifest import Manifest
from engine.data.pyav import excerpt, files
from engine.data.pyav.decode import PyAVDecoder
from engine.data.pyav.encode import write_video
from engine.data.pyav.excerpt import write_excerpt
from engine.data.pyav.files import Unusable
from engine.data.pyav.in_order import InOrderDecoder
from engine.data.pyav.packets import read_frames
from engine.data.pyav.probe import probe
from engine.data.pyav.times import Timeline
from engine.data.store.index import StoreSettings
from engine.data.store.ingest import WorkSettings, ingest
from engine.features.reading import timed_videos
from tests.data.videos import describe, numbered_frame, numbers

COUNT, SIZE, RATE = 60, (96, 64), 48_000
CLIP = ClipFormat(num_frames=1, short_side=64, crop=64)
UNEVEN = [round(0.04 * place + 0.015 * (place % 3), 3) for place in range(COUNT)]
KINDS = {
    "constant.mp4": {"options": {"bf": "3"}},
    "variable.mp4": {"times": UNEVEN},
    "variable.mkv": {"times": UNEVEN, "options": {"bf": "2"}},
    "one_key.avi": {"gop": 250, "options": {"bf": "0"}},
    "turned.mov": {"rotation": 90},
    "upside_down.mp4": {"rotation": 180},
    "full_range.mp4": {"full_range": True, "colorspace": "bt709"},
    "odd.mkv": {"pixel_format": "yuv444p", "size": (97, 65)},
    "ten_bits.mkv": {"pixel_format": "yuv420p10le"},
}


def write(path, size=SIZE, gop=12, **options):
    write_video(path, (numbered_frame(number, *size) for number in range(COUNT)), gop=gop, **options)
    return describe(path), probe(path).timeline


def read(path):
    """Each frame's start and the number it carries, the end, and the size."""
    video, timeline = describe(path), probe(path).timeline
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return timeline.times(), numbers(np.stack(frames)), video.displayed_size


@pytest.mark.parametrize("name", KINDS)
def test_an_excerpt_has_the_frames_of_its_seconds_and_no_others(tmp_path, name):
    video, timeline = write(tmp_path / name, **KINDS[name])
    times = timeline.times()
    start_s, end_s = times[17], times[41]
    assert write_excerpt(video, timeline, start_s, end_s, tmp_path / "cut.mp4") is False
    found, shown, size = read(tmp_path / "cut.mp4")
    assert np.allclose(found, times[17:42] - times[17], atol=1e-3)
    if video.rotation % 180 == 0:
        assert size == tuple(side // 2 * 2 for side in video.displayed_size)
        assert shown == list(range(17, 41)) or video.rotation
    else:
        assert size == (SIZE[1], SIZE[0])
    pixels = [get().pixels for _, _, get in itertools.islice(InOrderDecoder(CLIP).frames(video, timeline), 17, 41)]
    cut = describe(tmp_path / "cut.mp4")
    again = [get().pixels for _, _, get in InOrderDecoder(CLIP).frames(cut, probe(cut.path).timeline)]
    difference = np.abs(np.stack(pixels).astype(int) - np.stack(again))
    assert len(pixels) == len(again) and difference.mean(axis=(1, 2, 3)).max() < 8
    with av.open(str(cut.path)) as container:
        assert container.streams.video[0].codec_context.name == "h264"
        assert container.streams.video[0].codec_context.pix_fmt == "yuv420p"
        tag = container.streams.video[0].codec_context.colorspace
    assert tag == (1 if "colorspace" in KINDS[name] else 2)


def test_whatever_is_asked_lies_in_the_video_and_is_a_frame_at_least(tmp_path):
    video, timeline = write(tmp_path / "a.mp4")
    for (start_s, end_s), wanted in {
        (0.0, 99.0): range(COUNT), (1.001, 1.002): [25], (2.39, 2.4): [59], (5.0, 6.0): [59], (0.0, 0.04): [0],
    }.items():  # fmt: skip
        write_excerpt(video, timeline, start_s, end_s, tmp_path / "cut.mp4")
        assert read(tmp_path / "cut.mp4")[1] == list(wanted)


def test_frames_without_a_tick_between_them_are_cut_too(tmp_path):
    """Of a broken rate."""
    video, _ = write(tmp_path / "a.mp4")
    for between_s, end_s, last in ((1e-6, 3e-6, 3), (1e-5, 3e-4, 30), (5e-4, 5e-4, 1)):
        write_excerpt(video, Timeline((0, COUNT), (0.0, COUNT * between_s)), 0.0, end_s, tmp_path / "cut.mp4")
        assert read(tmp_path / "cut.mp4")[1] == list(range(last))


def test_pixels_that_are_not_square_stay_so(tmp_path):
    video, timeline = write(tmp_path / "a.mkv", options={"x264-params": "sar=4/3"})
    for rotation, shape in ((0, (4, 3)), (90, (3, 4))):
        write_excerpt(replace(video, rotation=rotation), timeline, 0, 1, tmp_path / "cut.mp4")
        with av.open(str(tmp_path / "cut.mp4")) as container:
            found = container.streams.video[0].sample_aspect_ratio
        assert (found.numerator, found.denominator) == shape


def with_sound(source, target, starts_s=0.0, layout="stereo"):
    """The video with a tone that is loud from second 1.0 on; the sound begins at `starts_s`."""
    moments = np.arange(int(2.4 * RATE)) / RATE
    tone = np.where(moments >= 1.0, 0.8, 0.01) * np.sin(2 * np.pi * 440 * moments)
    with av.open(str(source)) as pictures, av.open(str(target), "w") as container:
        stream = pictures.streams.video[0]
        copied = container.add_stream_from_template(stream)
        sound = container.add_stream("aac", rate=RATE, layout=layout)
        for packet in pictures.demux(stream):
            if packet.dts is not None:
                packet.stream = copied
                container.mux(packet)
        samples = np.tile(tone.astype(np.float32), (2 if layout == "stereo" else 1, 1))[:, round(starts_s * RATE) :]
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout=layout)
        frame.sample_rate, frame.pts = RATE, round(starts_s * RATE)
        container.mux(sound.encode(frame))
        container.mux(sound.encode(None))


@pytest.mark.parametrize(("name", "starts_s", "layout"), [("s.mp4", 0.0, "stereo"), ("s.mkv", 0.9, "mono")])
def test_sound_stays_with_its_pictures(tmp_path, name, starts_s, layout):
    write(tmp_path / "silent.mp4")
    with_sound(tmp_path / "silent.mp4", tmp_path / name, starts_s, layout)
    video, timeline = describe(tmp_path / name), probe(tmp_path / name).timeline
    assert write_excerpt(video, timeline, 0.8, 1.6, tmp_path / "cut.mp4") is True
    with av.open(str(tmp_path / "cut.mp4")) as container:
        parts = [(frame.time, frame.to_ndarray()[0]) for frame in container.decode(audio=0)]
    loud = [at_s + np.flatnonzero(np.abs(part) > 0.3)[0] / RATE for at_s, part in parts if np.abs(part).max() > 0.3]
    assert loud[0] == pytest.approx(0.2, abs=0.03)
    assert parts[-1][0] + len(parts[-1][1]) / RATE == pytest.approx(0.8, abs=0.03)
    assert read(tmp_path / "cut.mp4")[1] == list(range(20, 40))
    assert write_excerpt(video, timeline, 0.0, 0.4, tmp_path / "early.mp4") is (starts_s == 0.0)


def test_sound_lasts_as_long_as_the_last_picture(tmp_path):
    write_video(tmp_path / "slow.mp4", (numbered_frame(number, *SIZE) for number in range(3)), fps=1)
    with_sound(tmp_path / "slow.mp4", tmp_path / "s.mp4")
    video, timeline = describe(tmp_path / "s.mp4"), probe(tmp_path / "s.mp4").timeline
    assert write_excerpt(video, timeline, 0.0, 2.0, tmp_path / "cut.mp4") is True
    with av.open(str(tmp_path / "cut.mp4")) as container:
        assert sum(frame.samples for frame in container.decode(audio=0)) / RATE == pytest.approx(2.0, abs=0.03)


def tone_packets(start_s, layout, rate):
    """1.2 seconds of a tone of 440 Hz in AC-3."""
    context = av.CodecContext.create("ac3", "w")
    context.sample_rate, context.layout, context.format = rate, layout, "fltp"
    for place in range(0, int(1.2 * rate), 1536):
        tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(place, place + 1536, dtype=np.float64) / rate)
        samples = np.tile(tone.astype(np.float32), (context.channels, 1))
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, place, Fraction(1, rate)
        for packet in context.encode(frame):
            packet.pts = packet.dts = packet.pts + round(start_s * rate)
            packet.time_base = Fraction(1, rate)
            yield packet


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("5.1(side)", RATE), ("stereo", RATE)),
        (("stereo", RATE), ("5.1(side)", RATE)),
        (("mono", RATE), ("stereo", RATE)),
        (("stereo", RATE), ("stereo", 44_100)),
        (("stereo", 44_100), ("mono", RATE)),
    ],
)
def test_sound_that_changes_its_format_within_a_moment_keeps_its_pitch(tmp_path, first, second):
    write(tmp_path / "silent.mp4")
    with av.open(str(tmp_path / "silent.mp4")) as pictures, av.open(str(tmp_path / "a.ts"), "w") as container:
        copied = container.add_stream_from_template(pictures.streams.video[0])
        sound = container.add_stream("ac3", rate=first[1], layout=first[0])
        tones = [*tone_packets(0.0, *first), *tone_packets(1.2, *second)]
        shown = [packet for packet in pictures.demux(video=0) if packet.size]
        for packet in sorted(shown + tones, key=lambda packet: packet.dts * packet.time_base):
            packet.stream = sound if packet in tones else copied
            container.mux(packet)
    video, timeline = describe(tmp_path / "a.ts", key_frames=(), key_pts=()), probe(tmp_path / "a.ts").timeline
    assert write_excerpt(video, timeline, 0.4, 2.0, tmp_path / "cut.mp4") is True
    with av.open(str(tmp_path / "cut.mp4")) as container:
        heard = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    assert len(heard) / RATE == pytest.approx(1.6, abs=0.05)
    for part in (heard[int(0.1 * RATE) : int(0.6 * RATE)], heard[int(1.0 * RATE) : int(1.5 * RATE)]):
        spectrum = np.abs(np.fft.rfft(part * np.hanning(len(part)), 8 * len(part)))
        assert spectrum.argmax() * RATE / (8 * len(part)) == pytest.approx(440, abs=2)
        assert np.abs(part).max() > 0.1
    assert np.abs(heard[int(0.6 * RATE) : int(1.0 * RATE)]).reshape(-1, 240).max(axis=1).min() > 0.05  # no gap


def test_sound_is_found_where_a_seek_lands_within_a_packet_of_it(shared_data, tmp_path):
    path = shared_data / "decode_pack" / "meta-pytorch__torchcodec__sine_stereo_mp2.mpg"
    video, timeline = describe(path), probe(path).timeline
    assert write_excerpt(video, timeline, 1.8, 2.6, tmp_path / "cut.mp4") is True
    with av.open(str(tmp_path / "cut.mp4")) as container:
        sound = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    assert len(sound) / RATE == pytest.approx(0.84, abs=0.03)  # 21 frames show something of these seconds
    assert all(np.abs(part).max() > 0.01 for part in np.array_split(sound[4800:-4800], 4))


def test_an_excerpt_of_a_stored_video(tmp_path):
    (tmp_path / "set" / "shown").mkdir(parents=True)
    write(tmp_path / "set" / "shown" / "a.mp4")
    index_folder(tmp_path / "set", tmp_path / "set.parquet")
    settings = StoreSettings(short_side=64, gop=8, preset="veryfast")
    ingest(Manifest.load(tmp_path / "set.parquet"), tmp_path / "store", settings, WorkSettings(num_workers=0))
    ((video, timeline),) = timed_videos(Manifest.load(tmp_path / "store" / "manifest.parquet"), [0])
    assert write_excerpt(video, timeline, 0.8, 1.6, tmp_path / "cut.mp4") is False
    assert read(tmp_path / "cut.mp4")[1] == list(range(20, 40))


def test_what_cannot_be_cut_is_said_and_leaves_nothing(tmp_path):
    video, timeline = write(tmp_path / "a.mp4")
    place = tmp_path / "cuts"
    place.mkdir()
    with pytest.raises(Unusable, match="No such file or directory"):
        write_excerpt(video, timeline, 0, 1, tmp_path / "nowhere" / "cut.mp4")
    with (tmp_path / "a.mp4").open("ab") as file:
        file.write(b"more")
    with pytest.raises(Unusable, match="index it again"):
        write_excerpt(video, timeline, 0, 1, place / "cut.mp4")
    (tmp_path / "a.mp4").unlink()
    with pytest.raises(Unusable, match="the file is missing"):
        write_excerpt(video, timeline, 0, 1, place / "cut.mp4")
    assert not list(place.iterdir())


def test_a_moment_deep_in_a_file_that_cannot_be_sought_takes_its_time(tmp_path, monkeypatch):
    """Frames before it come one by one, which is no standstill; a snippet of training has its limit all the same."""
    write(tmp_path / "a.ts")
    video, timeline = describe(tmp_path / "a.ts", key_frames=(), key_pts=()), probe(tmp_path / "a.ts").timeline
    assert not probe(tmp_path / "a.ts").key_frames

    def read_slowly(*given):
        for frame in read_frames(*given):
            time.sleep(0.02)
            yield frame

    monkeypatch.setattr(files, "read_frames", read_slowly)
    monkeypatch.setattr(excerpt, "_PATIENCE_S", 0.5)
    write_excerpt(video, timeline, 2.0, 2.3, tmp_path / "cut.mp4")
    assert read(tmp_path / "cut.mp4")[1] == list(range(50, 58))
    for is_patient, failures in ((True, {}), (False, {0: "decoding took longer than the time limit"})):
        decoder = PyAVDecoder(CLIP, torch.device("cpu"), 1, time_limit_s=0.5, is_patient=is_patient)
        assert decoder.decode([SnippetRequest(video, 50, 0.5, 0.5, flip=False)]).failures == failures
        decoder.close()
