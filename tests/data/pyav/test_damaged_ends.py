"""Files that were cut off, or end in garbage: indexed with the frames that decode, told, trained on, ingested."""

import json
import shutil

import av
import numpy as np
import pytest
import torch

from engine.data.batch import ClipFormat, SnippetRequest
from engine.data.indexing.dataset import index_folder
from engine.data.manifests.manifest import Manifest
from engine.data.nvdec import NvdecRule
from engine.data.pyav import packets
from engine.data.pyav.cut_off import missing_bytes
from engine.data.pyav.decode import PyAVDecoder
from engine.data.pyav.probe import ProbeError, probe
from engine.data.store.ingest import WorkSettings, ingest
from tests.data.odd_files import B_FRAMES, draw
from tests.data.test_raw_and_store import SETTINGS, check_row
from tests.data.videos import numbers

COUNT = 40
FAST_START = {"movflags": "faststart"}  # the header before the pictures: what is cut off is pictures
KINDS = {
    "h264.mp4": {"options": B_FRAMES, "container_options": FAST_START},
    "mpeg4.mp4": {"codec": "mpeg4", "container_options": FAST_START},
    "fragments.mp4": {"container_options": {"movflags": "frag_keyframe+empty_moov"}},
    "h264.avi": {"options": B_FRAMES},
    "h264.flv": {"options": B_FRAMES},
    "h264.mkv": {"options": B_FRAMES},
    "h264.ts": {"options": B_FRAMES},
    "vp9.webm": {"codec": "libvpx-vp9"},
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    for name, how in KINDS.items():
        draw(folder / name, [place / 25 for place in range(COUNT)], **how)
    return folder


def what_ffmpeg_gives(path):
    """Numbers of the frames that come out when packets that fail are passed over."""
    frames = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        for packet in container.demux(stream):
            try:
                frames += [frame.to_ndarray(format="rgb24") for frame in packet.decode()]
            except av.FFmpegError:
                continue
    return numbers(np.stack(frames))


def within_a_packet(path, share):
    """Where to cut a file after so much of it: in the middle of a packet, for a cut between two leaves a whole file."""
    aim = int(share * path.stat().st_size)
    with av.open(str(path)) as container:
        places = sorted((p.pos, p.size) for p in container.demux(video=0) if p.pos is not None and p.size)
    pos, size = max(place for place in places if place[0] <= aim)
    return (pos + size // 2) | 1  # odd: within a packet of a transport stream too


@pytest.mark.parametrize("name", KINDS)
def test_what_is_cut_off_is_indexed_as_far_as_it_decodes_and_told(whole, tmp_path, name):
    data = (whole / name).read_bytes()
    assert probe(whole / name).damage == probe(whole / name).oddity == ""
    for share in (0.6, 0.8, 0.97):
        path = tmp_path / name
        path.write_bytes(data[: within_a_packet(whole / name, share)])
        found, expected = probe(path), what_ffmpeg_gives(path)
        assert found.num_frames == len(expected) < COUNT + (share == 0.97)
        assert set(expected) <= set(range(COUNT))
        assert found.damage, (name, share)
        assert found.oddity == "damaged end"


def test_it_is_in_the_report_and_no_sample_of_it_fails(whole, tmp_path, capsys):
    root = tmp_path / "raw"
    (root / "all").mkdir(parents=True)
    for name in ("h264.mp4", "h264.avi", "h264.flv", "vp9.webm"):
        data = (whole / name).read_bytes()
        (root / "all" / f"cut_{name}").write_bytes(data[: int(0.9 * len(data))])
    shutil.copy(whole / "h264.mkv", root / "all" / "sound.mkv")
    report = index_folder(root, tmp_path / "m.parquet")
    assert report.num_videos == 5
    assert report.files == []
    assert {each.path for each in report.damaged} == {
        f"all/cut_{name}" for name in ("h264.mp4", "h264.avi", "h264.flv", "vp9.webm")
    }
    assert "warning: 4 files damaged or cut off at the end" in capsys.readouterr().err
    written = json.loads((tmp_path / "m.parquet.report.json").read_text())["damaged"]
    assert [each["text"] for each in written] == [each.text for each in report.damaged]
    raw = Manifest.load(tmp_path / "m.parquet")
    assert ingest(raw, tmp_path / "s", SETTINGS, WorkSettings()).files == []
    store = Manifest.load(tmp_path / "s" / "manifest.parquet")
    decoder = PyAVDecoder(ClipFormat(4, 1, 64, 56), torch.device("cpu"), 1)
    for row in range(len(raw)):
        video = raw.video(row)
        check_row(video, store.video(row))
        starts = range(video.num_frames - 3)
        assert not decoder.decode([SnippetRequest(video, start, 0.5, 0.5, False) for start in starts]).failures
        assert bool(NvdecRule()(video)) == video.path.name.startswith("cut_")
    decoder.close()


def test_garbage_at_the_end_is_passed_over_and_within_the_file_refused(whole, tmp_path):
    """A download that left zeros; with the index before it, so that all packets are there."""
    data = (whole / "h264.mp4").read_bytes()
    (tmp_path / "end.mp4").write_bytes(data[: int(0.7 * len(data))].ljust(len(data), b"\0"))
    found = probe(tmp_path / "end.mp4")
    assert found.num_frames == len(what_ffmpeg_gives(tmp_path / "end.mp4")) < COUNT
    assert f"{found.num_frames} of " in found.damage
    with av.open(str(whole / "h264.mp4")) as container:
        sizes = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    first, size = sizes[COUNT // 2]
    (tmp_path / "middle.mp4").write_bytes(data[:first] + b"\xff" * size + data[first + size :])
    with pytest.raises(ProbeError, match="frames of 40 packets"):
        probe(tmp_path / "middle.mp4")


def test_an_end_of_zeros_is_found_where_packets_are_counted(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(packets, "DECODE_BUDGET", 0)
    data = (whole / "h264.mp4").read_bytes()
    (tmp_path / "end.mp4").write_bytes(data[: int(0.9 * len(data))].ljust(len(data), b"\0"))
    assert probe(whole / "h264.mp4").counted_by == "packets"
    found = probe(tmp_path / "end.mp4")
    assert (found.counted_by, found.num_frames) == ("decoding", len(what_ffmpeg_gives(tmp_path / "end.mp4")))


def test_missing_bytes(whole, tmp_path):
    for name in ("h264.mp4", "h264.avi", "h264.mkv", "vp9.webm"):
        data = (whole / name).read_bytes()
        assert missing_bytes(whole / name) == 0
        (tmp_path / name).write_bytes(data[:-100])
        assert missing_bytes(tmp_path / name) > 0
        (tmp_path / name).write_bytes(data + bytes(100))  # padding
        assert missing_bytes(tmp_path / name) == 0
    (tmp_path / "head.mkv").write_bytes(bytes(4092) + b"\x18\x53\x80\x67")  # all that is looked at ends before the size
    assert missing_bytes(tmp_path / "head.mkv") == 0
