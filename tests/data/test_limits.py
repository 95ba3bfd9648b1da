"""Files that claim to be huge or endless, through the probe, the indexer and the decoder."""

import struct

import pytest
import torch

from engine.data.batch import ClipFormat, SnippetRequest
from engine.data.indexing.dataset import IndexSettings, index_dataset
from engine.data.indexing.journal import Failure
from engine.data.layouts import read_layout
from engine.data.manifests.manifest import Manifest
from engine.data.pyav import decode, opening
from engine.data.pyav.normalise import SourceVideo, normalise_file
from engine.data.pyav.probe import ProbeError, probe
from engine.data.store.index import StoreSettings
from engine.errors import InputError
from engine.machine import resident_bytes
from tests.data.videos import describe, write_numbered


def claim(path, width, height):
    """Write another frame size into every JPEG header (SOF0) of a file."""
    head = bytes.fromhex("ffc0001108")
    start, *frames = path.read_bytes().split(head)
    assert frames
    path.write_bytes(start + b"".join(head + struct.pack(">HH", height, width) + rest[4:] for rest in frames))
    return path


def test_a_frame_that_claims_to_be_huge_is_refused_at_once(tmp_path):
    path = write_numbered(tmp_path / "huge.avi", "mjpeg", num_frames=3, size=(64, 48), pixel_format="yuvj420p")
    for side in (16_000, 65_500):  # of the latter FFmpeg itself thinks that it cannot be
        claim(path, side, side)
        before = resident_bytes("VmHWM")
        with pytest.raises(ProbeError) as caught:
            probe(path)
        assert resident_bytes("VmHWM") - before < 50e6  # one such frame has 384 MB
        print(caught.value)


def test_limits_are_the_users_and_are_asked_again_when_they_change(tmp_path):
    folder = tmp_path / "videos" / "walk"
    folder.mkdir(parents=True)
    write_numbered(folder / "small.mp4", "mpeg4", num_frames=3, size=(64, 48))
    write_numbered(folder / "large.mp4", "mpeg4", num_frames=3, size=(160, 120))
    write_numbered(folder / "long.mkv", "mpeg4", num_frames=3, size=(64, 48), pts_ms=[0, 40, 36_000_000])
    listing, out = read_layout("folder", tmp_path / "videos"), tmp_path / "m.parquet"
    strict = IndexSettings(max_pixels=64 * 48)
    report = index_dataset(listing, tmp_path / "videos", out, strict)
    assert report.bad == {"too-large": 1, "too-long": 1}
    assert {problem.path: problem.text for problem in report.files} == {
        "walk/large.mp4": "it claims frames of 160x120, the limit is 3072 pixels",
        "walk/long.mkv": "its time stamps reach over 10.0 hours, the limit is 8",
    }
    assert index_dataset(listing, tmp_path / "videos", out, IndexSettings(max_hours=11)).num_videos == 3
    assert index_dataset(listing, tmp_path / "videos", out, strict).num_videos == 1
    assert len(Manifest.load(out)) == 1
    with pytest.raises(InputError, match="none of the 3 listed videos can be used"):
        index_dataset(listing, tmp_path / "videos", out, IndexSettings(max_pixels=1))


def test_decoder_and_normaliser_allocate_no_larger_frame_either(tmp_path, monkeypatch):
    path = write_numbered(tmp_path / "x.webm", num_frames=6, size=(320, 240))
    request = SnippetRequest(describe(path), 0, 0.5, 0.5, False)
    for limit, fails in ((320 * 240, False), (1000, True)):
        monkeypatch.setitem(opening.open_video.__kwdefaults__, "max_pixels", limit)
        decoder = decode.PyAVDecoder(ClipFormat(2, 1, 32, 32), torch.device("cpu"), 1)
        assert bool(decoder.decode([request]).failures) == fails
        decoder.close()
        made = normalise_file(SourceVideo("x.webm", 25.0, 0, path.stat().st_size, 6), tmp_path, StoreSettings(32), 60.0)
        assert isinstance(made, Failure) == fails
