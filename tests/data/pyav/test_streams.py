"""Which of a file's video streams is read, and that a decoder which would take another, or other sizes, is not given the file."""

import av
import numpy as np
import pytest
import torch
from av.stream import Disposition

from engine.data.batch import ClipFormat, SnippetRequest
from engine.data.indexing.dataset import index_folder
from engine.data.manifests.manifest import Manifest
from engine.data.nvdec import NvdecRule, unfit_videos
from engine.data.pyav import packets
from engine.data.pyav.opening import open_video, video_stream
from engine.data.pyav.probe import probe
from engine.data.store.ingest import WorkSettings, ingest
from tests.data.odd_files import draw, draw_several
from tests.data.test_raw_and_store import SETTINGS, differences, plain_loop, shown
from tests.data.videos import write_numbered

NONE, DEFAULT, COVER = Disposition(0), Disposition.default, Disposition.attached_pic
SMALL, LARGE = ("libx264", 12, 0), ("libx264", 20, 100)
STILL = ("mjpeg", 1, 50)
# name -> streams, the place of the one that is shown
SEVERAL = {
    "two.mp4": (((*SMALL, None), (*LARGE, None)), 0),
    "two.mkv": (((*SMALL, NONE), (*LARGE, NONE)), 0),
    "two.ts": (((*SMALL, None), (*LARGE, None)), 0),
    "two.avi": ((("mpeg4", 12, 0, None), ("mpeg4", 20, 100, None)), 0),
    "second_is_default.mp4": (((*SMALL, NONE), (*LARGE, DEFAULT)), 1),
    "second_is_default.mkv": (((*SMALL, NONE), (*LARGE, DEFAULT)), 1),
    "second_is_default.webm": ((("libvpx-vp9", 12, 0, NONE), ("libvpx-vp9", 20, 100, DEFAULT)), 1),
    "both_are_default.mkv": (((*SMALL, DEFAULT), (*LARGE, DEFAULT)), 0),
    "thumbnail_first.mp4": (((*STILL, None), (*LARGE, None)), 1),
    "thumbnail_first.mkv": (((*STILL, NONE), (*LARGE, NONE)), 1),
    "thumbnail_last.mkv": (((*LARGE, DEFAULT), (*STILL, NONE)), 0),
    "cover.mp4": (((*LARGE, None), (*STILL, COVER)), 0),
}


@pytest.mark.parametrize("name", SEVERAL)
def test_the_stream_that_players_show_is_read_by_all(tmp_path, name):
    streams, place = SEVERAL[name]
    (tmp_path / "raw" / "all").mkdir(parents=True)
    path = draw_several(tmp_path / "raw" / "all" / name, streams)
    with open_video(path, time_limit_s=9) as container:
        assert container.streams.video.index(video_stream(container)) == place
    index_folder(tmp_path / "raw", tmp_path / "m.parquet")
    raw = Manifest.load(tmp_path / "m.parquet")
    assert ingest(raw, tmp_path / "s", SETTINGS, WorkSettings()).files == []
    stored = Manifest.load(tmp_path / "s" / "manifest.parquet").video(0)
    video = raw.video(0)
    assert video.num_frames == stored.num_frames == streams[place][1]
    plain = plain_loop(path, video, place)
    assert np.array_equal(shown(video), plain)
    assert differences(shown(stored), plain).max() < 6
    assert NvdecRule()(video) == video.oddity == "several video streams"
    assert unfit_videos(raw).tolist() == [True]
    assert stored.oddity == ""


def test_dali_is_given_one_stream_of_one_size_alone(dali, tmp_path):
    (tmp_path / "all").mkdir()
    draw_several(tmp_path / "all" / "several.webm", SEVERAL["second_is_default.webm"][0])
    draw(tmp_path / "all" / "cut.webm", [place / 25 for place in range(20)], "libvpx-vp9")
    draw(tmp_path / "all" / "sound.webm", [place / 25 for place in range(20)], "libvpx-vp9")
    cut = tmp_path / "all" / "cut.webm"
    cut.write_bytes(cut.read_bytes()[:-200])
    index_folder(tmp_path, tmp_path / "m.parquet")
    videos = {video.path.stem: video for video in map(Manifest.load(tmp_path / "m.parquet").video, range(3))}
    decoder = dali.DaliDecoder(ClipFormat(2, 1, 64, 56), torch.device("cpu"), 1, 4)
    requests = [SnippetRequest(videos[name], 0, 0.5, 0.5, False) for name in ("several", "sound", "cut")]
    failures = decoder.decode(requests).failures
    decoder.close()
    assert {place: reason.partition(")")[0] for place, reason in failures.items()} == {
        0: "DALI is not given it (several video streams",
        2: "DALI is not given it (damaged end",
    }


@pytest.mark.parametrize("budget", [packets.DECODE_BUDGET, 0])
def test_a_size_that_changes_is_found_and_told(tmp_path, monkeypatch, budget):
    """Two transport streams one after the other, copied to Matroska with the header of the first."""
    parts = [
        write_numbered(tmp_path / f"{width}.ts", "libx264", num_frames=12, size=(width, 120)) for width in (160, 240)
    ]
    (tmp_path / "both.ts").write_bytes(b"".join(part.read_bytes() for part in parts))
    with av.open(str(tmp_path / "both.ts")) as old, av.open(str(tmp_path / "both.mkv"), "w") as new:
        copy = new.add_stream_from_template(old.streams.video[0])
        for place, packet in enumerate(packet for packet in old.demux(video=0) if packet.size):
            packet.pts = packet.dts = 3600 * place
            packet.stream = copy
            new.mux(packet)
    monkeypatch.setattr(packets, "DECODE_BUDGET", budget)
    for name in ("both.ts", "both.mkv"):
        found = probe(tmp_path / name)
        assert (found.num_frames, found.width, found.oddity) == (24, 160, "size that changes"), name
