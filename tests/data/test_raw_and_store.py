"""A raw file, the store of it and PyAV's plain loop show the same frames: of files from the wild, and of odd ones drawn here."""

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from engine.data.batch import ClipFormat, SnippetRequest, Video
from engine.data.geometry import crop_window
from engine.data.indexing.dataset import IndexReport, IndexSettings, index_dataset
from engine.data.layouts import read_layout
from engine.data.manifests.manifest import Manifest
from engine.data.pyav.convert import FrameConverter
from engine.data.pyav.decode import PyAVDecoder
from engine.data.pyav.snippets import cut
from engine.data.pyav.times import Timeline
from engine.data.store.index import StoreSettings
from engine.data.store.ingest import WorkSettings, ingest
from tests.data.odd_files import B_FRAMES, change_packets, draw
from tests.data.videos import numbers

SIDE, CROP = 64, 56
SETTINGS = StoreSettings(short_side=SIDE, gop=8, preset="ultrafast", crf=4, tune="none")


def index(folder: Path, out: Path, annotations: Path | None = None) -> tuple[Manifest, IndexReport]:
    listing = read_layout("csv" if annotations else "folder", folder, annotations=annotations)
    report = index_dataset(listing, folder, out, IndexSettings())
    return Manifest.load(out), report


def plain_loop(path: Path, video: Video, place: int = 0) -> np.ndarray:
    """uint8 [N, crop, crop, 3]: what one uninterrupted pass of PyAV gives, brought to the crop of the centre."""
    clip = ClipFormat(1, 1, SIDE, CROP)
    window, convert, frames = crop_window(SnippetRequest(video, 0, 0.5, 0.5, False), clip), FrameConverter(), []
    with av.open(str(path)) as container:
        stream = container.streams.video[place]
        stream.codec_context.thread_count = 1  # with several, FFmpeg loses other frames of a damaged end
        for packet in container.demux(stream):
            try:
                decoded = packet.decode()
            except av.FFmpegError:
                continue
            for frame in decoded:
                frames.append(np.empty((CROP, CROP, 3), np.uint8))
                cut(convert(frame, window.width, window.height), window, frames[-1])
    return np.stack(frames)


def shown(video: Video) -> np.ndarray:
    """uint8 [N, crop, crop, 3]: all frames of a row, by the decoder that trains on them."""
    decoder = PyAVDecoder(ClipFormat(video.num_frames, 1, SIDE, CROP), torch.device("cpu"), 1)
    found = decoder.decode([SnippetRequest(video, 0, 0.5, 0.5, False)])
    decoder.close()
    assert not found.failures, (video.path, found.failures)
    return found.frames[0].numpy()


def differences(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Mean absolute difference of the brightness of each frame: float64 [N]. A store has half of the colours' pixels."""
    return np.abs(brightness(ours) - brightness(theirs)).mean(axis=(1, 2), dtype=np.float64)


def brightness(frames: np.ndarray) -> np.ndarray:
    return frames.astype(np.float32) @ np.array((0.299, 0.587, 0.114), np.float32)


def check_row(raw: Video, stored: Video) -> None:
    """All three agree on number, order and pixels."""
    name = raw.path.name
    assert (stored.num_frames, stored.first_frame, stored.file_frames) == (
        raw.num_frames,
        raw.first_frame,
        raw.file_frames,
    ), name
    ours, theirs = shown(raw), shown(stored)
    plain = plain_loop(raw.path, raw)
    assert len(plain) == raw.file_frames, name
    assert np.array_equal(ours, plain[raw.first_frame : raw.first_frame + raw.num_frames]), name
    assert differences(theirs, ours).max() < 10, (name, differences(theirs, ours).max())
    if len(ours) > 1:  # and no frame is its neighbour
        still = differences(ours[1:], ours[:-1])
        later, earlier = differences(theirs[:-1], ours[1:]), differences(theirs[1:], ours[:-1])
        assert (later + earlier + 0.5 >= still).all(), name


def even(rate: float = 25, start: float = 0.0) -> list[float]:
    return [start + place / rate for place in range(COUNT)]


COUNT = 30
TWO_RATES = [0.1 * place for place in range(10)] + [1 + 0.025 * place for place in range(20)]
PAUSE = [place / 25 + 3 * (place > 14) for place in range(COUNT)]
WRAP = 2**33 - 90_000 - 126_000  # half a second or so before an MPEG clock begins again
MILLISECONDS, MP4 = Fraction(1, 1000), Fraction(1, 16_000)


def shift(ticks: int, behind: int | None = None) -> Callable[[av.Packet], None]:
    def change(packet: av.Packet) -> None:
        if behind is None or packet.dts > behind:
            packet.pts, packet.dts = packet.pts + ticks, packet.dts + ticks

    return change


def decoding_order(packet: av.Packet) -> None:
    packet.pts = packet.dts


# name -> the seconds at which its frames are shown, after the container's start; how it is drawn
ODD = {
    "b_frames.avi": (even(), {"options": B_FRAMES}),
    "b_frames_ntsc.avi": (even(30_000 / 1001), {"options": B_FRAMES, "rate": 30_000 / 1001}),
    "b_frames_sound.avi": (even(), {"options": B_FRAMES, "sound": "libmp3lame"}),
    "mpeg4_b_frames.avi": (even(15), {"codec": "mpeg4", "options": {"bf": "2"}, "rate": 15}),
    "two_rates.avi": (TWO_RATES, {"codec": "mpeg4", "rate": 40}),
    "two_rates_b_frames.avi": (TWO_RATES, {"options": B_FRAMES, "rate": 40}),
    "pause_b_frames.avi": (PAUSE, {"options": B_FRAMES}),
    "b_frames.264": (even(30), {"options": B_FRAMES, "rate": 30, "form": "h264"}),
    "b_frames.m4v": (even(15), {"codec": "mpeg4", "options": {"bf": "2"}, "rate": 15, "form": "m4v"}),
    "b_frames.m2v": (even(30), {"codec": "mpeg2video", "options": {"bf": "2"}, "rate": 30, "form": "mpeg2video"}),
    "b_frames.mpg": (even(), {"codec": "mpeg2video", "options": {"bf": "2"}}),
    "b_frames.asf": (even(), {"options": B_FRAMES}),
    "late.mp4": (even(start=2), {"sound": "aac", "options": B_FRAMES}),
    "late.mkv": (even(start=2), {"sound": "aac", "options": B_FRAMES}),
    "late.webm": (even(start=2), {"codec": "libvpx-vp9", "sound": "libopus"}),
    "late_alone.mp4": (even(), {"times": even(start=2)}),
    "late_alone.mkv": (even(), {"times": even(start=2)}),
    "two_rates.mp4": (TWO_RATES, {"options": B_FRAMES, "tick": MP4}),
    "two_rates.mkv": (TWO_RATES, {"options": B_FRAMES, "tick": MILLISECONDS}),
    "two_rates.ts": (TWO_RATES, {"options": B_FRAMES, "tick": MILLISECONDS}),
    "two_rates.flv": (TWO_RATES, {"options": B_FRAMES, "tick": MILLISECONDS}),
    "pause.webm": (PAUSE, {"codec": "libvpx-vp9", "tick": MILLISECONDS}),
    "rounded.mkv": (even(30), {"rate": 30, "tick": MILLISECONDS}),
    "without_edit_list.mp4": (even(), {"options": B_FRAMES, "container_options": {"use_editlist": "0"}}),
    "decoding_order.mkv": (even(), decoding_order),
    "decoding_order.flv": (even(), decoding_order),
    "negative.mkv": (even(), shift(-6000)),
    "wrapped.ts": (even(), shift(WRAP)),
    "set_anew.ts": (even(), shift(90_000 * 50_000, behind=180_000)),
    "twice.ts": ([*even(), *even(start=COUNT / 25)], None),
}


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """The manifests of all of them, raw and stored."""
    root = tmp_path_factory.mktemp("odd")
    (root / "files").mkdir()
    plain = {suffix: draw(root / f"plain{suffix}", even(), options=B_FRAMES) for suffix in (".mp4", ".ts")}
    for name, (times, how) in ODD.items():
        path = root / "files" / name
        if isinstance(how, dict):
            draw(path, **{"times": times, **how})
        elif how is None:
            path.write_bytes(2 * plain[".ts"].read_bytes())
        else:
            keep = {"mpegts_copyts": "1"} if path.suffix == ".ts" else {"avoid_negative_ts": "disabled"}
            change_packets(plain[".ts" if path.suffix == ".ts" else ".mp4"], path, how, keep)
    raw, _ = index(root, root / "m.parquet")
    report = ingest(raw, root / "store", SETTINGS, WorkSettings())
    assert report.files == []
    store = Manifest.load(root / "store" / "manifest.parquet")
    return {row.path.name: (row, store.video(place)) for place, row in enumerate(map(raw.video, range(len(raw))))}, raw


@pytest.mark.parametrize("name", ODD)
def test_an_odd_file_shows_each_frame_once_in_its_order(odd, name):
    raw, stored = odd[0][name]
    check_row(raw, stored)
    with av.open(str(raw.path)) as container:
        drawn = numbers(np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]))
    assert drawn == [number % COUNT for number in range(len(ODD[name][0]))]


@pytest.mark.parametrize("name", ODD)
def test_an_odd_file_is_shown_when_it_was_drawn(odd, name):
    rows = odd[1].table.to_pylist()
    row = next(row for row in rows if row["path"].endswith("/" + name))
    times = Timeline(tuple(row["timed_frames"]), tuple(row["frame_times"])).times()
    expected = np.array(ODD[name][0])
    assert np.abs(times[:-1] - expected).max() < 2e-3
    assert row["fps"] == pytest.approx((len(expected) - 1) / (expected[-1] - expected[0]), rel=2e-3)


SEGMENTS = "path,label,start,end\nlate2s.mp4,running,3,4\nvfr_half.mp4,running,1,3\nvfr_half.mp4,running,6,8\n"


def test_segments_are_what_is_on_the_screen_raw_and_stored(tmp_path):
    root = tmp_path / "segments"
    root.mkdir()
    half = [0.1 * place for place in range(50)] + [5 + 0.025 * place for place in range(200)]
    draw(root / "late2s.mp4", [2 + place / 25 for place in range(100)], sound="aac", options=B_FRAMES)
    draw(root / "vfr_half.mp4", half, tick=MP4, options=B_FRAMES)
    draw(root / "vfr_half.avi", half, options=B_FRAMES, rate=40)
    (root / "l.csv").write_text(SEGMENTS + "vfr_half.avi,running,1,3\nvfr_half.avi,running,6,8\n")
    raw, _ = index(root, tmp_path / "m.parquet", root / "l.csv")
    for settings in (SETTINGS, replace(SETTINGS, fps=50.0)):
        out = tmp_path / f"store{settings.fps:g}"
        assert ingest(raw, out, settings, WorkSettings()).files == []
        store = Manifest.load(out / "manifest.parquet")
        expected = [(25, 50), (10, 30), (90, 170), (10, 30), (90, 170)]
        for place, (first, behind) in enumerate(expected):
            row, stored = raw.video(place), store.video(place)
            assert (row.first_frame, row.num_frames) == (first, behind - first)
            plain = brightness(plain_loop(row.path, row))
            found = [int(np.abs(frame - plain).mean(axis=(1, 2)).argmin()) for frame in brightness(shown(stored))]
            if settings.fps:
                assert len(found) == pytest.approx(50 * (1 if place == 0 else 2), abs=1)
                found = sorted(set(found))
            assert found == list(range(first, behind))


def test_avi_with_b_frames_as_ucf101_has_it(shared_data, tmp_path):
    """H.264, and XviD with two pictures in a packet (a packed bitstream), which PyAV's wheel cannot write."""
    raw, _ = index(shared_data / "cases" / "avi_bframes", tmp_path / "m.parquet")
    assert ingest(raw, tmp_path / "s", SETTINGS, WorkSettings()).files == []
    store = Manifest.load(tmp_path / "s" / "manifest.parquet")
    for place, count in enumerate((100, 58)):
        for row in (raw.table.to_pylist()[place], store.table.to_pylist()[place]):
            assert (row["num_frames"], row["fps"], row["frame_times"][0]) == (count, 25, 0)
            assert row["duration"] == pytest.approx(count / 25)
        check_row(raw.video(place), store.video(place))


@pytest.mark.slow
def test_every_accepted_file_of_the_pack_and_the_cases_agrees(shared_data, tmp_path):
    """Without two of six minutes each; the pack's two GIFs of one frame are pictures, and not among its 73."""
    root = tmp_path / "all"
    for source in ("decode_pack", "cases/avi_bframes/clips", "cases/segments", "cases/broken_tail/clips"):
        (root / source.replace("/", "_")).mkdir(parents=True)
        for path in sorted((shared_data / source).iterdir()):
            if path.suffix != ".csv" and "__long_" not in path.name:
                (root / source.replace("/", "_") / path.name).symlink_to(path)
    raw, _ = index(root, tmp_path / "m.parquet")
    assert ingest(raw, tmp_path / "s", SETTINGS, WorkSettings()).files == []
    store = Manifest.load(tmp_path / "s" / "manifest.parquet")
    assert len(raw) == len(store) == 73 + 2 + 2 + 3
    for column in ("fps", "duration"):
        assert store.table.column(column).to_pylist() == pytest.approx(raw.table.column(column).to_pylist())
    for column in ("timed_frames", "frame_times"):
        assert store.table.column(column).to_pylist() == raw.table.column(column).to_pylist()
    for row in range(len(raw)):
        check_row(raw.video(row), store.video(row))
