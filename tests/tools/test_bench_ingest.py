"""The ingest benchmark at a small size: a plain transcode that is comparable, a table."""

import json

import av
import pytest
from bench import ingest, material

from engine.data.store.index import StoreSettings
from engine.errors import InputError
from engine.records import recording_into
from tests.small_run import benchmark_options


@pytest.fixture(autouse=True)
def few_videos(monkeypatch):
    monkeypatch.setattr(material, "_DRAWN", (2, 40, (160, 120)))


def options(*words):
    return benchmark_options("ingest", "--short-side", "64", "--crop", "56", *words)


def test_settings_and_speed_are_measured(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(ingest, "VARIANTS", ({}, {"crf": 40, "b_frames": 2}, {"codec": "hevc", "crf": 40}))
    with recording_into(tmp_path):
        ingest.run(options("--snippets", "4", "--repeats", "1", "--variants", "3"))
    recorded = json.loads((tmp_path / "ingest.jsonl").read_text())
    assert 0.2 < recorded["ratio"] < 5
    fine, coarse, hevc = recorded["settings"]
    assert (fine["settings"], coarse["settings"]) == ("default", "crf 40, b_frames 2")
    assert fine["bytes/frame"] > 1.5 * coarse["bytes/frame"]
    assert fine["bytes/frame in MP4"] > fine["bytes/frame"]
    assert coarse["MP4 clips/s"] is None
    assert 60 > fine["PSNR dB"] > coarse["PSNR dB"] + 5
    assert 1 > fine["SSIM"] > coarse["SSIM"]
    assert hevc["settings"] == "codec hevc, crf 40"
    assert fine["bytes/frame"] > 1.5 * hevc["bytes/frame"]
    assert fine["PSNR dB"] - 5 > hevc["PSNR dB"] > 20
    assert hevc["MP4 clips/s"] > 0
    assert "ingest / plain transcode" in capsys.readouterr().out
    with pytest.raises(InputError, match="--repeats is 0"):
        ingest.run(options("--repeats", "0"))


def test_the_plain_transcode_codes_the_same_frames_with_the_same_settings(tmp_path):
    raw = material.prepare(options("--snippets", "1"), tmp_path).raw
    settings, source = StoreSettings(short_side=64), ingest.source_videos(raw)[0]
    ours = ingest._normalise(source, settings)
    assert ingest.transcode_plainly(source, settings, tmp_path / "plain.mp4") == ours.num_frames
    with av.open(str(tmp_path / "plain.mp4")) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    assert [number for number, packet in enumerate(packets) if packet.is_keyframe] == [0, 16, 32]
    assert abs(sum(packet.size for packet in packets) / len(ours.data) - 1) < 0.1
