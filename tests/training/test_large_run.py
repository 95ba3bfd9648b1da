"""Runs over a large manifest: joined by the tool, trained as from a small one, stopped and gone on with."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.config import Config
from engine.data.indexing.dataset import index_folder
from engine.data.manifests.manifest import Manifest
from engine.data.sets.footage import Footage
from engine.errors import InputError
from engine.processes.distributed import Ranks
from engine.processes.preemption import StopVote
from engine.schema.parser import parse
from engine.train import train
from engine.training.build import build_run
from engine.training.checkpoint import read_checkpoint
from engine.training.run import save_newest
from tests.encoded import fade, write_colors
from tests.jobs import losses
from tests.small_run import call_tool

RANKS = Ranks(torch.device("cpu"))
CLASSES = ("archery", "cooking", "fishing", "running", "swimming")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Path:
    here = tmp_path_factory.mktemp("sets")
    for number, name in enumerate(CLASSES):
        for clip in range(4):
            colors = fade((50 * number, 0, 40 * clip), (50 * number, 250, 0), 8)
            write_colors(here / name / f"{clip}.mp4", colors)
    index_folder(here, here / "manifest.parquet")
    return here / "manifest.parquet"


@pytest.fixture
def large(manifest, tmp_path, monkeypatch) -> Path:
    """The same rows as a large manifest of four files."""
    monkeypatch.setattr("engine.data.manifests.large_manifest.FEW_ROWS", 5)
    monkeypatch.setattr("engine.data.manifests.joining.PART_ROWS", 6)
    assert call_tool("join_manifests.py", manifest, "--out", tmp_path / "large", monkeypatch=monkeypatch) == 0
    return tmp_path / "large"


def config(
    folder: Path, train_on: Path, test: Path, share: float = 0.0, task: str = "zero_shot", **data: object
) -> Config:
    sources = {"train": [{"manifest": str(train_on), "classes": list(CLASSES[2:]), "name": "all"}]}
    tests = (
        {"tests": [{"manifest": str(test), "classes": list(CLASSES[:2]), "name": "test"}]}
        if task == "zero_shot"
        else {}
    )
    tree = {
        "task": task,
        "run": {"folder": str(folder), "device": "cpu"},
        "data": {
            **sources,
            **tests,
            "validation": {"video_share": share},
            "decode_threads": 1,
            "plan": "computed",
            **data,
        },
        "clip": {"num_frames": 4, "short_side": 32, "crop": 32},
        "masked": {"mask": "smm", "decoder_depth": 1},
        "model": {"backbone": "r3d_18", "width": 4} if task == "zero_shot" else {"backbone": "vit_tiny"},
        "train": {"epochs": 2, "batch_size": 4},
        "evaluate": {"num_snippets": 1},
        "log": {"every_steps": 1, "report": False},
    }
    return parse(Config, tree)


def test_it_trains_as_from_a_small_manifest_and_goes_on_bit_by_bit(manifest, large, tmp_path):
    train(config(tmp_path / "small", manifest, manifest), RANKS, StopVote())
    train(config(tmp_path / "run", large, manifest), RANKS, StopVote())
    found = losses(tmp_path / "run")
    assert found == losses(tmp_path / "small") and len(found) == 6
    (tmp_path / "run" / "checkpoints" / "step_00000006.pt").unlink()
    (tmp_path / "run" / "log.jsonl").unlink()
    train(config(tmp_path / "run", large, manifest), RANKS, StopVote())
    assert losses(tmp_path / "run") == {step: loss for step, loss in found.items() if step > 3}
    state = read_checkpoint(tmp_path / "run" / "checkpoints" / "step_00000006.pt")
    assert state["plan"] == 2 and Footage.from_state(state).is_large
    test = json.loads((tmp_path / "run" / "results.json").read_text())["tests"]["test"]
    assert test["trained_videos"] is None  # of so many it is not known


@pytest.mark.parametrize("task", ["zero_shot", "masked"])
def test_what_is_held_out_is_held_out_again_and_other_rows_are_refused(manifest, large, tmp_path, monkeypatch, task):
    share = 0.4
    run = build_run(config(tmp_path / "run", large, manifest, share, task), RANKS, StopVote())
    run.step = 1
    save_newest(run)
    again = build_run(config(tmp_path / "run", large, manifest, share, task), RANKS, StopVote())
    sets = [each.task.data if task == "masked" else each.task.sets for each in (run, again)]
    paths = [[each.train.manifest.path(row) for row in range(len(each.train.manifest))] for each in sets]
    assert again.step == 1 and paths[0] == paths[1] and 0 < len(paths[0]) < 12
    other = Manifest.load(manifest)
    other.select(np.arange(len(other))[::-1]).save(tmp_path / "turned.parquet", root=str(manifest.parent))
    call_tool("join_manifests.py", tmp_path / "turned.parquet", "--out", tmp_path / "turned", monkeypatch=monkeypatch)
    with pytest.raises(InputError, match=r"another set of videos \(3 of its"):
        build_run(config(tmp_path / "run", tmp_path / "turned", manifest, share, task), RANKS, StopVote())


def test_a_tool_that_joins_says_what_it_wrote_and_overwrites_nothing(manifest, large, tmp_path, monkeypatch, capsys):
    assert call_tool("join_manifests.py", manifest, large, "--out", tmp_path / "two", monkeypatch=monkeypatch) == 0
    assert "two: 40 rows" in capsys.readouterr().out
    assert call_tool("join_manifests.py", manifest, "--out", tmp_path / "two", monkeypatch=monkeypatch) == 2
    assert "is there already" in capsys.readouterr().err
    assert (
        call_tool("join_manifests.py", tmp_path / "no.parquet", "--out", tmp_path / "x", monkeypatch=monkeypatch) == 2
    )
    assert "no manifest at" in capsys.readouterr().err and not (tmp_path / "x").exists()
    (tmp_path / "file").touch()
    assert call_tool("join_manifests.py", manifest, "--out", tmp_path / "file" / "x", monkeypatch=monkeypatch) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"error: --out: cannot write into '{tmp_path / 'file'}' (") and told.count("\n") == 1
