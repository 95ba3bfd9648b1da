"""Pretraining on stills, then joint training of videos and stills from its weights, through the whole engine."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from engine.config import Config, load_config
from engine.data.indexing.dataset import IndexSettings, index_dataset, index_folder
from engine.data.layouts import read_layout
from engine.data.manifests.manifest import Manifest
from engine.errors import InputError
from engine.processes.distributed import Ranks
from engine.processes.preemption import StopVote
from engine.schema.parser import parse
from engine.train import train
from engine.training.build import build_run
from engine.training.checkpoint import read_checkpoint
from tests.encoded import fade, write_colors
from tests.environment import ROOT

RANKS = Ranks(torch.device("cpu"))


@pytest.fixture(scope="module")
def sets(tmp_path_factory) -> dict[str, str]:
    """Manifests of videos and of stills; one class of the stills is a test class under another spelling."""
    here = tmp_path_factory.mktemp("sets")
    for number, name in enumerate(("running", "cooking", "archery", "swimming")):
        for clip in range(4):
            write_colors(
                here / "videos" / name / f"{clip}.mp4", fade((60 * number, 0, 40 * clip), (60 * number, 250, 0), 8)
            )
    generator = np.random.default_rng(0)
    for name in ("Archery", "fishing", "reading"):
        for picture in range(4):
            path = here / "stills" / name / f"{picture}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(generator.integers(0, 255, (40, 50, 3), dtype=np.uint8)).save(path)
    index_folder(here / "videos", here / "videos" / "manifest.parquet")
    listing = read_layout("auto", here / "stills")
    index_dataset(listing, here / "stills", here / "stills" / "manifest.parquet", IndexSettings())
    return {name: str(here / name / "manifest.parquet") for name in ("videos", "stills")}


def config(folder: Path, sets: dict[str, str], train_sets: list[dict], **train_section: object) -> Config:
    test = {"manifest": sets["videos"], "classes": ["archery", "swimming"], "name": "test"}
    tree = {
        "run": {"folder": str(folder), "device": "cpu"},
        "data": {"train": train_sets, "tests": [test], "validation": {"video_share": 0.25}, "decode_threads": 1},
        "clip": {"num_frames": 4, "short_side": 32, "crop": 24},
        "model": {"backbone": "r3d_18", "width": 4},
        "train": {"epochs": 1, "batch_size": 4, "exclude_overlap": {"training": "remove"}} | train_section,
        "evaluate": {"num_snippets": 2},
        "log": {"every_steps": 1, "report": False},
    }
    return parse(Config, tree)


def test_pretrain_on_stills_then_train_jointly(sets, tmp_path):
    stills = {"manifest": sets["stills"], "name": "stills"}
    outcome = train(config(tmp_path / "stills", sets, [stills]), RANKS, StopVote())
    assert outcome.results.seen.all_classes.num_videos == 2  # held-out stills are embedded as moving crops too
    state = read_checkpoint(next((tmp_path / "stills" / "checkpoints").glob("step_*.pt")))
    assert state["train_classes"] == ["fishing", "reading"]  # Archery is the test class
    videos = {"manifest": sets["videos"], "classes": ["cooking", "running"], "name": "videos", "weight": 2}
    joint = config(tmp_path / "joint", sets, [videos, stills], init_from=str(tmp_path / "stills"))
    run = build_run(joint, RANKS, StopVote())
    assert run.task.sets.train.classes == ("cooking", "fishing", "reading", "running")
    assert run.epoch_size == 2 * 6 + 6  # 3 of 4 of each class, videos twice
    best = read_checkpoint(tmp_path / "stills" / "checkpoints" / "best.pt")["model"]
    assert all(torch.equal(weight, best[name]) for name, weight in run.model.state_dict().items())
    train(joint, RANKS, StopVote())
    results = json.loads((tmp_path / "joint" / "results.json").read_text())
    assert results["tests"]["test"]["all_classes"]["num_videos"] == 8
    log = (tmp_path / "joint" / "log.txt").read_text()
    assert "(2 x videos + stills)" in log
    assert "left out 1 classes within 0.05 of a test class: 'Archery' is test 'archery' (0.000)" in log
    heavier = dataclasses.replace(joint.data.train[0], weight=3.0)
    changed = dataclasses.replace(joint, data=dataclasses.replace(joint.data, train=[heavier, joint.data.train[1]]))
    with pytest.raises(InputError, match=r"length of an epoch \(data.train.N.weight"):
        build_run(changed, RANKS, StopVote())


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_configs_are_valid(path):
    assert load_config(path, []).train.epochs >= 1


def test_real_pictures_become_a_manifest(shared_data, tmp_path):
    root = shared_data / "images" / "stanford40"
    report = index_dataset(read_layout("auto", root), root, tmp_path / "manifest.parquet", IndexSettings())
    assert (report.num_videos, report.num_classes, report.bad) == (2400, 40, {})
    assert Manifest.load(tmp_path / "manifest.parquet").is_still.all()
