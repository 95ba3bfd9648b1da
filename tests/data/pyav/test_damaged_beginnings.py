"""Recordings that begin between two key frames: used from the first one on, told, and numbered alike wherever they are read."""

import av
import numpy as np
import pytest
import torch

from engine.data.batch import ClipFormat, SnippetRequest
from engine.data.indexing.dataset import index_folder
from engine.data.manifests.manifest import Manifest
from engine.data.nvdec import NvdecRule
from engine.data.pyav import packets
from engine.data.pyav.decode import PyAVDecoder
from engine.data.pyav.encode import write_video
from engine.data.pyav.excerpt import write_excerpt
from engine.data.pyav.in_order import InOrderDecoder
from engine.data.pyav.probe import ProbeError, probe
from engine.data.store.ingest import WorkSettings, ingest
from engine.features.reading import timed_videos
from tests.data.test_raw_and_store import SETTINGS
from tests.data.videos import numbered_frame, numbers

COUNT, GOP, LOST, SIDE = 48, 12, 5, 64
SHOWN = list(range(GOP, COUNT))
CLIP = ClipFormat(num_frames=4, stride=1, short_side=SIDE, crop=SIDE)
CODECS = {"vp8.webm": "libvpx", "vp9.webm": "libvpx-vp9", "vp9.mkv": "libvpx-vp9", "av1.webm": "libsvtav1"}


def write(path, codec="libx264", **options):
    if codec not in av.codecs_available:
        pytest.skip(f"this FFmpeg lacks {codec}")
    write_video(path, (numbered_frame(k, SIDE, SIDE) for k in range(COUNT)), codec=codec, gop=GOP, **options)
    return path


def without_packets(source, target, behind=COUNT + GOP):
    """A copy without the first packets, and without those behind a place."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        stream = old.streams.video[0]
        copy = new.add_stream_from_template(stream, opaque=True)
        for place, packet in enumerate(packet for packet in old.demux(stream) if packet.size):
            if LOST <= place < behind:
                packet.stream = copy
                new.mux(packet)
    return target


def with_garbage(source, target, places):
    """A copy whose packets at these places are overwritten."""
    with av.open(str(source)) as container:
        spots = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    data = bytearray(source.read_bytes())
    for pos, size in (spots[place] for place in places):
        data[pos : pos + size] = b"\xff" * size
    target.write_bytes(data)
    return target


@pytest.fixture(params=CODECS)
def recording(request, tmp_path):
    """The file, its row of a manifest with its times, and the manifest."""
    (tmp_path / "set" / "all").mkdir(parents=True)
    whole = write(tmp_path / request.param, CODECS[request.param])
    path = without_packets(whole, tmp_path / "set" / "all" / request.param)
    report = index_folder(tmp_path / "set", tmp_path / "m.parquet")
    manifest = Manifest.load(tmp_path / "m.parquet")
    return path, timed_videos(manifest, [0])[0], manifest, report


def test_it_is_told_and_no_other_decoder_is_given_it(recording):
    path, (video, timeline), _, report = recording
    assert (report.num_videos, report.files) == (1, [])
    assert report.damaged[0].text.startswith("its beginning does not decode: ")
    assert "the beginning" in report.notes[-1]
    assert NvdecRule()(video)
    found = probe(path)
    assert (found.num_frames, found.key_frames) == (len(SHOWN), (0, GOP, 2 * GOP))
    assert np.allclose(timeline.times(), np.arange(len(SHOWN) + 1) / 25, atol=2e-3)


def test_a_frame_has_one_number_for_all_who_read_it(recording, tmp_path):
    _, (video, timeline), manifest, _ = recording
    starts = list(range(0, len(SHOWN) - 3, 3))
    decoder = PyAVDecoder(CLIP, torch.device("cpu"), 1)
    for start in starts:  # each by its own seek
        clips = decoder.decode([SnippetRequest(video, start, 0.5, 0.5, False)])
        assert not clips.failures and numbers(clips.frames[0].numpy()) == SHOWN[start : start + 4]
    clips = decoder.decode([SnippetRequest(video, start, 0.5, 0.5, False) for start in starts])  # one pass for all
    assert [numbers(clip) for clip in clips.frames.numpy()] == [SHOWN[start : start + 4] for start in starts]
    in_order = np.stack([get().pixels for _, _, get in InOrderDecoder(CLIP).frames(video, timeline)])
    assert numbers(in_order) == SHOWN
    for first, behind in ((0, 8), (17, 30)):
        write_excerpt(video, timeline, first / 25, behind / 25, tmp_path / "cut.mp4")
        with av.open(str(tmp_path / "cut.mp4")) as container:
            cut = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
        assert numbers(cut) == SHOWN[first:behind]
    assert ingest(manifest, tmp_path / "s", SETTINGS, WorkSettings()).files == []
    stored = Manifest.load(tmp_path / "s" / "manifest.parquet").video(0)
    assert (stored.num_frames, video.num_frames) == (len(SHOWN), len(SHOWN))
    clips = decoder.decode([SnippetRequest(stored, 9, 0.5, 0.5, False)])
    assert numbers(clips.frames[0].numpy()) == SHOWN[9:13]
    decoder.close()


def test_a_first_key_frame_that_is_damaged_costs_its_group(tmp_path, monkeypatch):
    path = with_garbage(write(tmp_path / "whole.mp4", options={"bf": "0"}), tmp_path / "a.mp4", [0])
    for budget in (packets.DECODE_BUDGET, 0):  # where packets would be counted too
        monkeypatch.setattr(packets, "DECODE_BUDGET", budget)
        found = probe(path)
        assert (found.num_frames, found.counted_by, found.oddity) == (len(SHOWN), "decoding", "damaged beginning")
        assert found.damage.startswith("its beginning does not decode: 1 of 48 packets skipped (Invalid data")


def test_damage_behind_the_first_key_frame_is_damage_within_the_file(tmp_path):
    """However late the decoder gives that frame out."""
    whole = write(tmp_path / "whole.mp4", options={"bf": "3", "x264-params": "b-adapt=0"})
    with pytest.raises(ProbeError, match="after 0 frames of 48 packets: Invalid data"):
        probe(with_garbage(whole, tmp_path / "a.mp4", [1]))


def test_a_file_damaged_at_both_ends_says_so(tmp_path):
    whole = write(tmp_path / "whole.webm", "libvpx")
    path = without_packets(whole, tmp_path / "a.webm")
    data = path.read_bytes()
    path.write_bytes(data[: int(0.9 * len(data))])
    first, last = probe(path).damage.split("; ")
    assert first.startswith("its beginning does not decode: ") and last.startswith("it is cut off: ")


def test_a_file_of_which_nothing_decodes_is_refused_with_the_reason(tmp_path):
    whole = write(tmp_path / "whole.webm", "libvpx")
    with pytest.raises(ProbeError, match="none of 7 packets decodes: Invalid data") as caught:
        probe(without_packets(whole, tmp_path / "a.webm", behind=GOP))
    assert caught.value.kind == "undecodable"
