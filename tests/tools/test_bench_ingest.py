"""The ingest benchmark at a small size: a plain transcode that is comparable, a table."""

from pathlib import Path

import av
import pytest

from engine.data.store.index import StoreSettings
from engine.errors import InputError
from tests.small_run import ROOT, benchmark_options


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    from bench import ingest, material

    monkeypatch.setattr(material, "_DRAWN", (2, 40, (160, 120)))
    return ingest, material


def options(module, *words):
    return benchmark_options(module.__name__.removeprefix("bench."), "--short-side", "64", "--crop", "56", *words)


def recorder(monkeypatch, module):
    recorded = {}

    def keep(name, **fields):
        recorded.update(fields, name=name)
        return Path("records") / f"{name}.jsonl"

    monkeypatch.setattr(module, "append_record", keep)
    return recorded


def test_settings_and_speed_are_measured(bench, monkeypatch, capsys):
    recorded = recorder(monkeypatch, bench[0])
    monkeypatch.setattr(bench[0], "VARIANTS", ({}, {"crf": 40, "b_frames": 2}, {"codec": "hevc", "crf": 40}))
    bench[0].run(options(bench[0], "--snippets", "4", "--repeats", "1", "--variants", "3"))
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
        bench[0].run(options(bench[0], "--repeats", "0"))


def test_the_plain_transcode_codes_the_same_frames_with_the_same_settings(bench, tmp_path):
    ingest, material = bench
    raw = material.prepare(options(ingest, "--snippets", "1"), tmp_path).raw
    settings, source = StoreSettings(short_side=64), ingest.source_videos(raw)[0]
    ours = ingest._normalise(source, settings)
    assert ingest.transcode_plainly(source, settings, tmp_path / "plain.mp4") == ours.num_frames
    with av.open(str(tmp_path / "plain.mp4")) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    assert [number for number, packet in enumerate(packets) if packet.is_keyframe] == [0, 16, 32]
    assert abs(sum(packet.size for packet in packets) / len(ours.data) - 1) < 0.1
