"""The manifest benchmark at a small size: that it measures what it says, and records it."""

import json
from argparse import Namespace

import numpy as np
import pytest
from bench import manifest as bench

from engine.data.manifest import Manifest
from engine.errors import InputError
from engine.records import recording_into
from tests.small_run import call_tool


def test_the_synthetic_manifest_is_a_manifest(tmp_path):
    bench.synthetic_manifest(3000).save(tmp_path / "m.parquet")
    manifest = Manifest.load(tmp_path / "m.parquet")
    assert len(manifest) == 3000
    assert 650 < len(manifest.classes) <= 700
    assert np.median(manifest.num_frames) == 300
    assert len(set(manifest.strings("path"))) == 3000
    videos = [manifest.video(row) for row in range(0, 3000, 30)]
    assert all(video.key_frames[0] == 0 and video.key_frames[-1] < video.num_frames for video in videos)
    assert all(tuple(512 * frame for frame in video.key_frames) == video.key_pts for video in videos)
    assert 2 < np.mean([len(video.key_frames) for video in videos]) < 5


def test_results_are_printed_and_recorded(tmp_path, capsys):
    with recording_into(tmp_path):
        bench.run(Namespace(rows=2000, repeats=2, ranks=8, distinct=1, no_record=False))
    recorded = json.loads((tmp_path / "manifest.jsonl").read_text())
    text = capsys.readouterr().out
    assert "2,000 rows" in text
    assert (recorded["n"], recorded["rows"], recorded["ranks"]) == (2, 2000, 8)
    for name, quantiles in recorded["results"].items():
        assert quantiles["n"] == 2, name
        assert 0 < quantiles["p50"] <= quantiles["p80"], name
    assert recorded["results"]["load_s"]["p50"] < 1
    assert recorded["results"]["peak_mb"]["p50"] >= recorded["results"]["resident_mb"]["p50"]
    with pytest.raises(InputError, match="--rows is 0"):
        bench.run(Namespace(rows=0, repeats=1, ranks=8, distinct=1, no_record=True))


def test_the_program_wants_one_benchmark_or_a_suite(monkeypatch, capsys):
    assert call_tool("bench_throughput.py", monkeypatch=monkeypatch) == 2
    assert capsys.readouterr().err.startswith("error: name one benchmark")
    assert call_tool("bench_throughput.py", "--help", monkeypatch=monkeypatch) == 0
    assert "manifest" in capsys.readouterr().out
