"""Where a run begins, and what is said where it cannot begin there."""

from pathlib import Path

import pytest
import torch

from engine.build import build_run
from engine.checkpoint import read_checkpoint, save_checkpoint
from engine.config import Config
from engine.data.manifest import Manifest
from engine.distributed import Ranks
from engine.errors import InputError
from engine.preemption import StopVote
from engine.run import Run, save_run
from engine.schema import parse
from engine.tasks.zero_shot.trained import load_for_inference
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


def test_a_checkpoint_from_before_there_were_tasks_is_read(tmp_path):
    """As every version wrote it: these fields, and no `task` in its config."""
    first = build(tmp_path)
    first.step = 2
    save_run(first, tmp_path / "new.pt")
    state = read_checkpoint(tmp_path / "new.pt")
    assert set(state) == {
        "format", "model", "optimizer", "scaler", "config", "train_classes", "prior_classes", "embed_dim", "num_videos",
        "epoch_size", "step", "epoch", "position", "best", "measured", "skipped_steps",
    }  # fmt: skip
    assert state["config"].pop("task") == "zero_shot"
    old = tmp_path / "run" / "checkpoints" / "step_00000002.pt"
    save_checkpoint(old, state)
    again = build(tmp_path)
    assert again.step == 2 and again.notes[-1] == "resumed at step 2 (epoch 0, position 8)"
    loaded = load_for_inference(old, torch.device("cpu"))
    assert (loaded.train_classes, loaded.config.task) == (("a", "b"), "zero_shot")
    for model in (again.model, loaded.model):
        assert all(torch.equal(value, model.state_dict()[name]) for name, value in first.model.state_dict().items())
    started = build(tmp_path, "other", train={"init_from": str(old)})
    assert started.task.prior_classes == ("a", "b")
    with pytest.raises(InputError, match="another words, training classes, number of training videos:"):
        del state["config"]["words"]
        save_checkpoint(old, state | {"train_classes": ["a"], "num_videos": 3})
        build(tmp_path)


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
