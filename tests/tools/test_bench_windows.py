"""The benchmark of windows at a small size: that all contestants decode the same windows, and that the limit is held."""

import json
from argparse import Namespace

import pytest
from bench import windows as bench
from PIL import Image

from engine.data.batch import ClipFormat
from engine.data.manifests.manifest import Manifest
from engine.errors import InputError
from engine.features.reading import timed_videos
from engine.features.windows import WindowGrid
from engine.records import recording_into
from tests.features.small_set import write_set
from tests.rows import row


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("videos"), {"a.mp4": 9, "b.mp4": 16, "c.mp4": 41})


def run(manifest, **changes):
    values = {"manifest": manifest, "num_videos": 3, "repeats": 2, "hop": 4, "short_side": 32, "crop": 32, "seed": 0}
    bench.run(Namespace(**values | changes, no_record=False))


def test_all_decode_the_same_windows_and_what_was_measured_is_recorded(manifest, tmp_path, capsys):
    with recording_into(tmp_path):
        run(manifest)
    record = json.loads((tmp_path / "windows.jsonl").read_text())
    assert (record["windows"], record["frames"], record["videos"]) == (1 + 1 + 8, 66, 3)
    assert record["ratio"] == record["results"]["in order"]["p50"] / record["results"]["a seek a window"]["p50"]
    assert "times a seek a window; 3 videos of 22 frames" in capsys.readouterr().out


def test_the_limit_is_held(manifest, tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "LEAST_RATIO", 1e6)
    with recording_into(tmp_path), pytest.raises(InputError, match=r"at least 1e\+06 is demanded"):
        run(manifest, hop=8)


def test_a_video_that_does_not_decode_is_told_with_the_reason_alone(tmp_path):
    Image.new("RGB", (64, 48)).save(tmp_path / "a.jpg")
    Manifest.from_rows([row("a.jpg", "a", codec="still:jpeg", num_frames=1, file_frames=1)], tmp_path).save(
        tmp_path / "m.parquet"
    )
    with pytest.raises(InputError, match=r"^'.*a\.jpg' does not decode: [^{}]*: name another --manifest$"):
        run(tmp_path / "m.parquet", num_videos=1)


@pytest.mark.parametrize("hop", [1, 3, 8, 20, 50])
def test_windows_by_seeks_are_those_in_order(manifest, hop):
    videos = timed_videos(Manifest.load(manifest), range(3))
    clip, grid = ClipFormat(short_side=32, crop=32), WindowGrid(16, hop)
    assert bench.in_order(videos, clip, grid) == bench.by_seeks(videos, clip, grid, 5) > 2
