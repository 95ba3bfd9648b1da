"""A run folder tells how to repeat the run, and repeating it gives the same bits."""

import hashlib
import json
import sys

import pytest
import torch
import yaml

from engine.provenance import installed
from tests import jobs


def short_run(here, videos, *overrides, **run):
    folder = here / "run"
    jobs.run(jobs.write_config(
        here / "config.yaml", videos, folder, train={"epochs": 1, "batch_size": 4},
        run={"folder": str(folder), "device": "cpu", "cpu_threads": 1, "deterministic": True, "seed": 3, **run},
    ), "data.tests=[]", *overrides)  # fmt: skip
    return folder


def test_a_deterministic_run_is_repeated_bit_for_bit_and_its_folder_tells_how(videos, tmp_path):
    one, other = (short_run(tmp_path / name, videos) for name in ("one", "other"))
    assert jobs.same_weights(one, other)
    assert jobs.losses(one) == jobs.losses(other)
    (line,) = (json.loads(text) for text in (one / "provenance.jsonl").read_text().splitlines())
    assert "engine/train.py" in line["command"]
    assert "'data.tests=[]'" in line["command"]
    assert line["manifests"] == {str(videos): hashlib.sha256(videos.read_bytes()).hexdigest()}
    assert line["seeds"]["run.seed"] == 3
    assert (line["deterministic"], line["world_size"], line["step"]) == (True, 1, 0)
    assert (line["torch"], line["python"]) == (torch.__version__, sys.version)
    assert torch.__version__.startswith(line["packages"]["torch"])
    assert line["device"]["cores"] >= 1
    assert {"commit", "dirty"} <= line.keys()
    assert yaml.safe_load((one / "config.yaml").read_text())["train"]["weight_decay"] == 0.0  # a default


def test_of_packages_whats_left_of_one_is_passed_over_and_of_two_the_imported_one_is_told(tmp_path, monkeypatch):
    """pip leaves folders without a name where it was stopped; of a package in two places Python imports the first."""
    for folder, version in (("imported", "2.0"), ("shadowed", "1.0")):
        here = tmp_path / folder / f"cello-{version}.dist-info"
        here.mkdir(parents=True)
        (here / "METADATA").write_text(f"Metadata-Version: 2.1\nName: cello\nVersion: {version}\n")
    monkeypatch.syspath_prepend(tmp_path / "shadowed")
    (tmp_path / "imported" / "~ello-1.5.dist-info").mkdir()
    monkeypatch.syspath_prepend(tmp_path / "imported")
    found = installed()
    assert found["cello"] == "2.0"
    assert found["torch"] == torch.__version__.partition("+")[0]


@pytest.mark.parametrize(
    "device", [pytest.param("cpu", marks=pytest.mark.slow), pytest.param("cuda", marks=pytest.mark.gpu)]
)
def test_two_deterministic_epochs_end_alike_in_one_go_and_resumed_after_the_first(videos, tmp_path, device):
    """With dropout, an averaged model and an evaluation in between."""
    options = ("model.backbone=r2plus1d_18", "model.dropout=0.2", "train.ema_decay=0.9", "evaluate.every_epochs=1")
    one = short_run(tmp_path / "one", videos, *options, "train.epochs=2", device=device)
    short_run(tmp_path / "other", videos, *options, "train.epochs=1", device=device)
    other = short_run(tmp_path / "other", videos, *options, "train.epochs=2", device=device)
    assert "resumed at step" in (other / "log.txt").read_text()
    assert jobs.same_weights(one, other)
    assert jobs.losses(one) == jobs.losses(other)
