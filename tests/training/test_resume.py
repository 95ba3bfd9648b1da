"""Where a run begins, and what is said where it cannot begin there."""

from pathlib import Path

import pytest
import torch

from engine.config import Config
from engine.data.manifests.manifest import Manifest
from engine.errors import InputError
from engine.processes.distributed import Ranks
from engine.processes.preemption import StopVote
from engine.schema.parser import parse
from engine.tasks.zero_shot.trained import load_for_inference
from engine.training.build import build_run
from engine.training.checkpoint import UnreachableCheckpoint, read_checkpoint, save_checkpoint
from engine.training.run import Run, save_newest, save_run
from tests.rows import row


def build(here: Path, folder: str = "run", width: int = 4, dim: int = 8, **sections: dict) -> Run:
    """A run of three steps over rows that name no real videos."""
    manifest = here / "m.parquet"
    Manifest.from_rows([row(f"{name}{i}.mp4", name) for name in "ab" for i in range(6)], here).save(manifest)
    tree = {
        "run": {"folder": str(here / folder), "device": "cpu", **sections.pop("run", {})},
        "data": {
            "train": [{"manifest": str(manifest)}],
            "validation": {"video_share": 0},
            **sections.pop("data", {}),
        },
        "clip": {"num_frames": 2, "short_side": 16, "crop": 16},
        "model": {"backbone": "r3d_18", "width": width},
        "words": {"source": "random", "dim": dim},
        "train": {"epochs": 1, "batch_size": 4, **sections.pop("train", {})},
    }
    return build_run(parse(Config, tree), Ranks(torch.device("cpu")), StopVote())


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
    assert state.pop("videos")["rows"].shape == (12,)  # since then
    assert state.pop("plan") == 1  # since then
    assert set(state) == {
        "format", "model", "optimizer", "scaler", "config", "train_classes", "prior_classes", "embed_dim", "num_videos",
        "epoch_size", "step", "epoch", "position", "best", "measured", "skipped_steps",
    }  # fmt: skip
    assert state["config"].pop("task") == "zero_shot"
    state["config"]["loss"]["scale"] = 5.0  # nobody refused it, where it cannot matter
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
    with pytest.raises(
        InputError,
        match=r"another words.source \(glove there, .*\), training classes \(with 'b'\), number of training",
    ):
        del state["config"]["words"]
        save_checkpoint(old, state | {"train_classes": ["a"], "num_videos": 3})
        build(tmp_path)


@pytest.mark.parametrize(
    ("choice", "kind", "which"),
    [
        ("auto", "average", "moving average"),
        ("average", "average", "moving average"),
        ("trained", "model", "as trained"),
    ],
)
def test_a_run_starts_from_the_weights_that_the_other_evaluates(tmp_path, choice, kind, which):
    first, path = build(tmp_path, train={"ema_decay": 0.5}), tmp_path / "first.pt"
    torch.nn.init.ones_(first.model.linear.weight)
    save_run(first, path)
    state = read_checkpoint(path)
    state["config"]["evaluate"]["weights"] = choice
    save_checkpoint(path, state)
    second = build(tmp_path, "second", train={"init_from": str(path)})
    assert torch.equal(second.model.linear.weight, state[kind]["linear.weight"])
    assert not torch.equal(state["average"]["linear.weight"], state["model"]["linear.weight"])
    assert f"weights from {path} ({which})" in second.notes


def test_a_run_keeps_the_plan_that_it_began_with(tmp_path, monkeypatch):
    """Though the same config would begin another one with so many videos; from before there were two it has the first."""
    assert build(tmp_path).task.plan == 1
    assert build(tmp_path, data={"plan": "computed"}).task.plan == 2
    first = build(tmp_path)
    first.step = 2
    path = tmp_path / "run" / "checkpoints" / "step_00000002.pt"
    save_run(first, path)
    monkeypatch.setattr("engine.data.sampling.plans.MANY_ROWS", 5)
    assert build(tmp_path, "other").task.plan == 2
    assert build(tmp_path).task.plan == 1
    state = read_checkpoint(path)
    for kept, plan in ((2, 2), (None, 1)):
        save_checkpoint(
            path, {name: value for name, value in state.items() if name != "plan"} | ({"plan": kept} if kept else {})
        )
        assert build(tmp_path).task.plan == plan
    with pytest.raises(InputError, match=r"data.plan \(auto there, drawn here\)"):
        build(tmp_path, data={"plan": "drawn"})


def test_what_may_change_in_a_resumed_run_is_told(tmp_path):
    first = build(tmp_path)
    first.step = 2
    save_run(first, tmp_path / "run" / "checkpoints" / "step_00000002.pt")
    plain = build(tmp_path, train={"gc_every_steps": 9, "channels_last": False})  # speed alone
    assert plain.notes[-1].startswith("resumed at step 2") and not any("another" in note for note in plain.notes)
    changed = build(tmp_path, train={"lr": 0.5, "epochs": 3, "schedule": "cosine"})
    assert [note for note in changed.notes if "another" in note] == [
        "resumed with another train.epochs: 1 -> 3",
        "resumed with another train.lr: 0.001 -> 0.5",
        "resumed with another train.schedule: milestones -> cosine",
    ]
    assert (changed.step, changed.total_steps) == (2, 9)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"run": {"seed": 1}}, r"with another run.seed \(0 there, 1 here\): choose another run.folder"),
        ({"width": 8}, r"with another model.width \(4 there, 8 here\): "),
        ({"train": {"batch_size": 2, "lr": 0.5}}, r"with another train.batch_size \(4 there, 2 here\): "),
        ({"train": {"optimizer": "sgd"}}, r"with another train.optimizer \(adam there, sgd here\): "),
        ({"dim": 9}, r"with another words.dim \(8 there, 9 here\): "),
    ],
)
def test_what_makes_another_run_is_refused_by_name(tmp_path, change, says):
    first = build(tmp_path)
    save_run(first, tmp_path / "run" / "checkpoints" / "step_00000000.pt")
    with pytest.raises(InputError, match=says) as caught:
        build(tmp_path, **change)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_of_a_later_version_is_not_blamed_on_the_config(tmp_path):
    first = build(tmp_path)
    save_newest(first)
    file = tmp_path / "run" / "checkpoints" / "step_00000000.pt"
    state = read_checkpoint(file)
    state["config"]["train"]["future"] = 3
    save_checkpoint(file, state)
    says = rf"checkpoint '{file}' is of another version, its config is not understood: unknown key 'train.future'"
    with pytest.raises(InputError, match=says):
        build(tmp_path)


def test_a_checkpoint_without_an_optimizer_is_no_start_but_for_its_weights(tmp_path):
    save_run(build(tmp_path), tmp_path / "whole.pt")
    state = read_checkpoint(tmp_path / "whole.pt")
    save_checkpoint(tmp_path / "bare.pt", {key: state[key] for key in state if key not in ("optimizer", "scaler")})
    with pytest.raises(InputError, match=r"bare.pt' has no optimizer, scaler .*: take its weights .* train.init_from"):
        build(tmp_path, run={"resume": str(tmp_path / "bare.pt")})
    build(tmp_path, train={"init_from": str(tmp_path / "bare.pt")})


@pytest.mark.parametrize(
    ("name", "resume"), [("step_00000001.pt", "auto"), ("best.pt", "auto"), ("step_00000001.pt", "other.pt")]
)
def test_a_disk_that_fails_ends_the_start_and_renames_nothing(tmp_path, name, resume):
    first = build(tmp_path)
    save_newest(first)
    save_run(first, tmp_path / "other.pt")
    folder = tmp_path / "run" / "checkpoints"
    (folder / name).symlink_to("/proc/self/mem")  # its bytes are an EIO
    before = sorted(path.name for path in folder.iterdir())
    with pytest.raises(UnreachableCheckpoint, match=name):
        build(tmp_path, run={"resume": resume if resume == "auto" else str(tmp_path / resume)})
    assert sorted(path.name for path in folder.iterdir()) == before


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
