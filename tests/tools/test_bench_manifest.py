"""The manifest benchmark at a small size: that it measures what it says, and records it."""

import json
from argparse import Namespace

import numpy as np
import pytest
from bench import manifest as bench
from bench import many_rows

from engine.data.manifests.large_manifest import open_large
from engine.data.manifests.manifest import Manifest
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


def test_many_rows_go_the_way_of_a_training(tmp_path, monkeypatch):
    for name, count in (
        ("manifests.large_manifest.FEW_ROWS", 300),
        ("sampling.plans.MANY_ROWS", 300),
        ("manifests.joining.PART_ROWS", 500),
    ):
        monkeypatch.setattr(f"engine.data.{name}", count)
    folder = tmp_path / "large"
    size = many_rows.write_synthetic(bench.synthetic_manifest(500), 3300, 2, folder)
    files = sorted(folder.iterdir())
    assert len(files) == 7 and size == sum(file.stat().st_size for file in files)
    assert len({file.stat().st_ino for file in files}) == 3  # two that were drawn, and a shorter one
    manifest = open_large(folder)
    assert len(manifest) == 3300 and len(set(map(manifest.path, range(3300)))) == 500 * 2 + 300
    assert many_rows.PART_ROWS == 2**20
    monkeypatch.setattr(many_rows, "POSITIONS", 64)
    for share in many_rows.HELD_OUT:
        found = many_rows.measure(folder, share)
        assert set(found) == set(many_rows.MEANING) and 0 < found["load_s"] < found["ready_s"] < 5
        assert 0 < found["own_mb"] <= found["peak_mb"] and found["plan_ms"] > 0


@pytest.mark.slow
def test_a_hundred_million_rows(tmp_path):
    """A manifest of real size; all of its 96 files but two are links."""
    options = Namespace(rows=100_000_000, repeats=1, ranks=8, distinct=2, folder=tmp_path, no_record=False)
    with recording_into(tmp_path):
        bench.run(options)
    results = json.loads((tmp_path / "many_rows.jsonl").read_text())["results"]
    assert len(results) == 2 * 2 * len(many_rows.MEANING)
    for share, own_mb in zip(many_rows.HELD_OUT, (450, 650), strict=True):
        for way in (
            f"held out {share:g}, cold",
            f"held out {share:g}, warm",
        ):  # what others on this machine do not change
            assert 0 < results[f"{way}: cpu_s"]["p50"] < 5
            assert results[f"{way}: own_mb"]["p50"] < own_mb and results[f"{way}: peak_mb"]["p50"] < 1500
            assert 0 < results[f"{way}: first_cpu_ms"]["p50"] < 10 and 0 < results[f"{way}: plan_cpu_ms"]["p50"] < 10
