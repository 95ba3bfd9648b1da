"""A run folder tells how to repeat the run, and repeating it gives the same bits."""

import hashlib
import json
import sys

import pytest
import torch
import yaml

from tests import jobs


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    return jobs.write_videos(tmp_path_factory.mktemp("videos"))


def short_run(here, videos, **run):
    folder = here / "run"
    jobs.run(jobs.write_config(
        here / "config.yaml", videos, folder, train={"epochs": 1, "batch_size": 4},
        run={"folder": str(folder), "device": "cpu", "cpu_threads": 1, "deterministic": True, "seed": 3, **run},
    ), "data.tests=[]")  # fmt: skip
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


@pytest.mark.gpu
def test_deterministic_runs_on_a_gpu_are_bit_equal(videos, tmp_path):
    one, other = (short_run(tmp_path / name, videos, device="cuda") for name in ("one", "other"))
    assert jobs.same_weights(one, other)
