"""Where a run begins, and what is said where it cannot begin there."""

from pathlib import Path

import pytest
import torch

from engine.config import Config
from engine.data.manifest import Manifest
from engine.distributed import Ranks
from engine.errors import InputError
from engine.preemption import StopVote
from engine.run import Run, build_run, save_run
from engine.schema import parse
from tests.rows import row


def build(here: Path, folder: str = "run", width: int = 4, dim: int = 8, **sections: dict) -> Run:
    """A run of three steps over rows that name no real videos."""
    manifest = here / "m.parquet"
    Manifest.from_rows([row(f"{name}{i}.mp4", name) for name in "ab" for i in range(6)], here).save(manifest)
    tree = {
        "run": {"folder": str(here / folder), "device": "cpu", **sections.pop("run", {})},
        "data": {"train": [{"manifest": str(manifest)}], "validation": {"video_share": 0}},
        "clip": {"num_frames": 2, "short_side": 16, "crop": 16},
        "model": {"backbone": "r3d_18", "width": width},
        "words": {"source": "random", "dim": dim},
        "train": {"epochs": 1, "batch_size": 4, **sections.pop("train", {})},
    }
    return build_run(parse(Config, tree), Ranks(0, 1, 0, 1, torch.device("cpu")), StopVote())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"width": 8}, r"of another model \(width 4 there, 8 here\): \d+ tensors do not fit, the first is backbone"),
        (
            {"dim": 9},
            r"of another model \(class vectors of another length\): 2 tensors do not fit, the first is linear",
        ),
    ],
)
def test_weights_of_another_model_are_refused_with_what_differs(tmp_path, change, says):
    save_run(build(tmp_path), tmp_path / "first.pt")
    with pytest.raises(InputError, match=says) as caught:
        build(tmp_path, **change, train={"init_from": str(tmp_path / "first.pt")})
    assert "\n" not in str(caught.value)


def test_a_finished_run_leaves_another_folder_nothing_to_train(tmp_path):
    done = build(tmp_path)
    done.step = done.total_steps
    save_run(done, tmp_path / "done.pt")
    with pytest.raises(InputError, match=r"is at step 3 of 3, so nothing is left to train .*: raise train.epochs"):
        build(tmp_path, "other", run={"resume": str(tmp_path / "done.pt")})
    assert build(tmp_path, "other", run={"resume": str(tmp_path / "done.pt")}, train={"epochs": 2}).step == 3


def test_a_run_folder_that_cannot_be_made_is_told_at_once(tmp_path):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(InputError, match=r"run.folder: cannot write into '.*file'"):
        build(tmp_path, "file")
