"""A raw file, the store of it and PyAV's plain loop show the same frames: of files from the wild, and of odd ones drawn here."""

from pathlib import Path

import av
import numpy as np
import pytest
import torch

from engine.data.batch import ClipFormat, SnippetRequest, Video
from engine.data.geometry import crop_window
from engine.data.indexing import IndexReport, IndexSettings, index_dataset
from engine.data.layouts import read_layout
from engine.data.manifest import Manifest
from engine.data.pyav.convert import FrameConverter
from engine.data.pyav.decode import PyAVDecoder
from engine.data.pyav.snippets import cut
from engine.data.store.index import StoreSettings
from engine.data.store.ingest import WorkSettings, ingest

SIDE, CROP = 64, 56
SETTINGS = StoreSettings(short_side=SIDE, gop=8, preset="ultrafast", crf=4, tune="none")


def index(folder: Path, out: Path, annotations: Path | None = None) -> tuple[Manifest, IndexReport]:
    listing = read_layout("csv" if annotations else "folder", folder, annotations=annotations)
    report = index_dataset(listing, folder, out, IndexSettings())
    return Manifest.load(out), report


def plain_loop(path: Path, video: Video, codec_stream: int | None = None) -> np.ndarray:
    """uint8 [N, crop, crop, 3]: what one uninterrupted pass of PyAV gives, brought to the crop of the centre."""
    clip = ClipFormat(1, 1, SIDE, CROP)
    window, convert, frames = crop_window(SnippetRequest(video, 0, 0.5, 0.5, False), clip), FrameConverter(), []
    with av.open(str(path)) as container:
        stream = container.streams.video[codec_stream or 0]
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
    return np.abs((ours.astype(np.float64) - theirs) @ (0.299, 0.587, 0.114)).mean(axis=(1, 2))


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


@pytest.mark.slow
def test_every_accepted_file_of_the_pack_and_the_cases_agrees(shared_data, tmp_path):
    """Without two of six minutes each."""
    root = tmp_path / "all"
    for source in ("decode_pack", "cases/avi_bframes/clips", "cases/segments", "cases/broken_tail/clips"):
        (root / source.replace("/", "_")).mkdir(parents=True)
        for path in sorted((shared_data / source).iterdir()):
            if path.suffix != ".csv" and "__long_" not in path.name:
                (root / source.replace("/", "_") / path.name).symlink_to(path)
    raw, _ = index(root, tmp_path / "m.parquet")
    assert ingest(raw, tmp_path / "s", SETTINGS, WorkSettings()).files == []
    store = Manifest.load(tmp_path / "s" / "manifest.parquet")
    assert len(raw) == len(store) == 75 + 2 + 2 + 3
    for column in ("fps", "duration"):
        assert store.table.column(column).to_pylist() == pytest.approx(raw.table.column(column).to_pylist())
    for column in ("timed_frames", "frame_times"):
        assert store.table.column(column).to_pylist() == raw.table.column(column).to_pylist()
    for row in range(len(raw)):
        check_row(raw.video(row), store.video(row))
