"""Manifests, stores and checkpoints of an earlier commit are read as they were written (tests/old_files/README.md)."""

import csv
import json
import shutil
from pathlib import Path

import pytest

from engine.data.manifests.manifest import Manifest
from engine.training.checkpoint import list_checkpoints, read_checkpoint, save_checkpoint
from tests import jobs
from tests.environment import ROOT
from tests.small_run import call_tool

OLD = ROOT / "tests" / "old_files"


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A copy to write in, which is the working folder: the config's paths are relative."""
    monkeypatch.chdir(shutil.copytree(OLD, tmp_path / "files"))
    return tmp_path / "files"


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def top1(results: dict) -> dict[str, float]:
    """Of each test set, over all of its classes."""
    return {name: test["all_classes"]["top1"] for name, test in results["tests"].items()}


def test_a_manifest_and_a_store(files, monkeypatch, capsys):
    videos, store = (Manifest.load(files / name / "manifest.parquet") for name in ("videos", "store"))
    assert len(videos) == len(store) == 30
    assert videos.classes == store.classes and len(videos.classes) == 9
    assert list(store.strings("split")) == list(videos.strings("split"))
    assert call_tool("ingest.py", "--verify", "store", monkeypatch=monkeypatch) == 0
    assert "checksums and frames of 30 videos" in capsys.readouterr().out
    # From before times were noted: ingested as ever, but to no other rate.
    arguments = ("videos/manifest.parquet", "--short-side", 32, "--workers", 1, "--out")
    assert call_tool("ingest.py", *arguments, "again", monkeypatch=monkeypatch) == 0
    again = Manifest.load(files / "again" / "manifest.parquet")
    assert again.num_frames.tolist() == store.num_frames.tolist() == videos.num_frames.tolist()
    assert call_tool("ingest.py", *arguments, "other", "--fps", 12, monkeypatch=monkeypatch) == 2
    assert "index the data set again, or ingest without --fps" in capsys.readouterr().err


def test_a_checkpoint_says_of_the_same_videos_what_it_said(files, monkeypatch):
    status = call_tool("evaluate.py", "run/checkpoints/step_00000009.pt", "--out", "again", monkeypatch=monkeypatch)
    assert status == 0
    expected, found = (rows(files / name / "predictions_combinations.csv") for name in ("evaluation", "again"))
    assert len(expected) == 6
    for was, now in zip(expected, found, strict=True):
        assert all(now[key] == was[key] for key in was if not key.startswith("cosine"))
        for key in ("cosine_1", "cosine_2", "cosine_3"):
            assert float(now[key]) == pytest.approx(float(was[key]), abs=1e-3)
    was, now = (json.loads((files / name / "results.json").read_text()) for name in ("evaluation", "again"))
    assert top1(now) == top1(was)


def test_a_run_goes_on_as_it_went_on_then(files):
    expected = jobs.losses(files / "run")
    (files / "run" / "log.jsonl").unlink()
    done = jobs.run(files / "config.yaml", cwd=files)
    assert "resumed at step 9" in done.stdout
    found = jobs.losses(files / "run")
    assert list(found) == list(range(10, 19))
    assert found == {step: pytest.approx(expected[step], rel=2e-3) for step in found}
    was, now = (json.loads((folder / "run" / "results.json").read_text()) for folder in (OLD, files))
    assert top1(now) == top1(was)


def test_the_loss_would_tell_of_a_lost_optimiser(files):
    expected = jobs.losses(files / "run")
    (files / "run" / "log.jsonl").unlink()
    path = list_checkpoints(files / "run")[0]
    state = read_checkpoint(path)
    for entry in state["optimizer"]["state"].values():
        entry["exp_avg"].zero_()
    save_checkpoint(path, state)
    jobs.run(files / "config.yaml", cwd=files)
    assert any(abs(loss / expected[step] - 1) > 2e-3 for step, loss in jobs.losses(files / "run").items())
