"""Numbers that go wrong: the step is skipped, counted and, if it goes on, the batch is kept and can be replayed."""

import json
import re

import numpy as np
import pytest
import torch
from torch import nn

from engine.config import TrainConfig
from engine.data.batch import ClipBatch
from engine.training.checkpoint import read_checkpoint
from engine.training.finite import FiniteGuard, copy_buffers, gradient_norm, restore_buffers, statistics_norm
from engine.training.optim import build_optimizer
from tests import jobs
from tests.forked import Forked
from tests.small_run import call_tool, run_tool

CPU = torch.device("cpu")
NO_SCALER = torch.amp.GradScaler("cpu", enabled=False)


def step(model, optimizer, guard, scaler, inputs):
    """One guarded step of the mean output's square."""
    optimizer.zero_grad(set_to_none=True)
    before = copy_buffers(model)
    loss = model(inputs).square().mean()
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    is_bad = guard.step(optimizer, scaler, loss, gradient_norm(model), statistics_norm(model))
    restore_buffers(model, before, is_bad)
    return bool(is_bad)


def state_of(model, optimizer):
    moments = [v.clone() for state in optimizer.state.values() for v in state.values() if torch.is_tensor(v)]
    return [t.clone() for t in model.state_dict().values()] + moments


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
@pytest.mark.parametrize("poison", [float("nan"), float("inf"), 1e30])  # 1e30: finite loss, infinite running variance
def test_a_bad_step_leaves_weights_moments_and_statistics_as_they_were(name, poison):
    torch.manual_seed(0)
    inputs = torch.randn(6, 3, 8)
    results = []
    for bad_steps in ((), (0, 2)):  # also the very first step, before the optimiser has any state
        torch.manual_seed(1)
        model = nn.Sequential(nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4), nn.Flatten(), nn.Linear(24, 2))
        optimizer = build_optimizer(model, TrainConfig(optimizer=name, lr=0.01, weight_decay=0.1), CPU)
        guard = FiniteGuard(5, 1, CPU)
        for number in range(5):
            if number in bad_steps:
                held = state_of(model, optimizer)
                poisoned = inputs.clone()
                poisoned[2, 1, 4] = poison
                assert step(model, optimizer, guard, NO_SCALER, poisoned)
                for before, after in zip(held, state_of(model, optimizer), strict=False):
                    assert torch.equal(before, after)
            else:
                assert not step(model, optimizer, guard, NO_SCALER, inputs)
        results.append(guard.read(NO_SCALER).total)
        assert all(t.isfinite().all() for t in model.state_dict().values())
    assert results == [0, 2]


@pytest.mark.parametrize("layers", [[], [nn.BatchNorm1d(1)]])
def test_the_norms_are_where_the_model_is(layers):
    """`meta` stands for a GPU here; C3D has no statistics at all."""
    model = nn.Sequential(nn.Linear(2, 1), *layers).to("meta")
    assert statistics_norm(model).device.type == "meta"


def test_after_the_limit_nothing_changes_until_the_host_looks():
    model, inputs = nn.Linear(2, 1), torch.ones(4, 2)
    optimizer = build_optimizer(model, TrainConfig(lr=0.1), CPU)
    guard = FiniteGuard(2, 3, CPU)
    assert [step(model, optimizer, guard, NO_SCALER, x) for x in (inputs, inputs * torch.nan)] == [False, True]
    assert not step(model, optimizer, guard, NO_SCALER, inputs)  # one is not two in a row
    held = state_of(model, optimizer)
    for x in (inputs * torch.nan, inputs * torch.nan, inputs, inputs):
        assert step(model, optimizer, guard, NO_SCALER, x)
    assert all(torch.equal(a, b) for a, b in zip(held, state_of(model, optimizer), strict=True))
    skipped = guard.read(NO_SCALER)
    assert (skipped.total, skipped.new, skipped.in_a_row) == (5, 5, 4)
    assert guard.read(NO_SCALER).new == 0


def test_origins_are_those_of_the_bad_steps():
    guard = FiniteGuard(2, 2, CPU)
    for number in range(9):
        guard.remember(number, ClipBatch(torch.empty(0), torch.empty(0), torch.tensor([number]), torch.tensor([7])))
    assert [(o.step, o.video, o.start) for o in guard.origins(5)] == [(5, [5], [7]), (6, [6], [7])]


def test_fp16_overflow_lowers_the_scale_and_counts_only_once_it_has_collapsed():
    torch.manual_seed(0)
    model = nn.Linear(2, 1)
    optimizer = build_optimizer(model, TrainConfig(lr=0.1), CPU)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    guard = FiniteGuard(10, 1, CPU)
    rows = []
    for _ in range(6):  # the loss is finite, its gradient overflows at every scale
        optimizer.zero_grad(set_to_none=True)
        loss = (model.weight * 1e-20).sum() + model.bias.sum() * 0
        scaler.scale(loss).backward()
        model.weight.grad.fill_(torch.inf)
        scaler.unscale_(optimizer)
        guard.step(optimizer, scaler, loss, gradient_norm(model), statistics_norm(model))
        skipped = guard.read(scaler)
        rows.append((skipped.total, skipped.in_a_row, skipped.scale))
    assert rows == [(1, 0, 2.0), (2, 0, 1.0), (3, 1, 0.5), (4, 2, 0.25), (5, 3, 0.125), (6, 4, 0.0625)]


@pytest.mark.parametrize(
    ("bad", "is_counted"), [("loss", True), ("statistics", True), ("gradient", False), ("none", False)]
)
def test_at_a_scale_above_one_only_an_overflowing_gradient_is_forgiven(bad, is_counted):
    """What overflows in the forward pass does so at every scale: lowering it mends nothing."""
    model = nn.Linear(2, 1)
    optimizer, scaler, guard = (
        build_optimizer(model, TrainConfig(lr=0.1), CPU),
        torch.amp.GradScaler("cpu"),
        FiniteGuard(9, 1, CPU),
    )
    scaler.scale(model(torch.ones(1, 2)).sum()).backward()
    scaler.unscale_(optimizer)
    values = [torch.tensor(torch.inf if name == bad else 1.0) for name in ("loss", "gradient", "statistics")]
    assert guard.step(optimizer, scaler, *values) == (bad != "none")
    skipped = guard.read(scaler)
    assert (skipped.total, skipped.in_a_row) == (int(bad != "none"), int(is_counted))


# A run whose loss is made infinite on one rank after some numbers of steps: what a burst of bad numbers looks like.
POISONED = """
import sys
from engine import train
from engine.errors import run_command
from engine.training import options
build = train.build_run
def poisoned(*arguments):
    run = build(*arguments)
    loss = run.task.loss
    hit = lambda: run.step in (0, 3, 4) and run.ranks.rank == run.ranks.world_size - 1
    run.task.loss = lambda *parts: loss(*parts) * (float("inf") if hit() else 1.0)
    return run
train.build_run = poisoned
run_command(lambda: train.main(options.read("")))
"""


@pytest.fixture(scope="module")
def survivor(videos, tmp_path_factory):
    """(config, folder) of a run that met three bad batches and went on."""
    here = tmp_path_factory.mktemp("survivor")
    source = {"manifest": str(videos), "splits": ["train"]}
    config = jobs.write_config(
        here / "config.yaml", videos, here / "run",
        data={"train": [source], "tests": [], "validation": {"video_share": 0.0}, "decode_threads": 1},
        train={"epochs": 2, "batch_size": 4, "max_skipped_steps": 3}, log={"every_steps": 2},
    )  # fmt: skip
    script = here / "poisoned.py"
    script.write_text(POISONED)
    done = Forked(script, config, variables=jobs.environment(), merged=False).completed(120)
    assert done.returncode == 0, done.stderr
    return config, here / "run"


def test_a_run_skips_bad_batches_and_goes_on(survivor):
    folder = survivor[1]
    counted = [e["train/skipped_steps"] for e in jobs.events(folder, "scalars") if "train/skipped_steps" in e]
    assert counted == [1.0, 2.0, 3.0]
    assert "step 4: 1 step(s) skipped, loss or gradient was not finite (2 so far)" in (folder / "log.txt").read_text()
    assert all(np.isfinite(loss) for loss in jobs.losses(folder).values())
    assert all(tensor.isfinite().all() for tensor in jobs.final_weights(folder).values())
    assert read_checkpoint(max((folder / "checkpoints").glob("step_*.pt")))["skipped_steps"] == 3


def test_a_run_stops_after_n_in_a_row_and_the_batch_can_be_replayed(survivor, tmp_path):
    config, before = survivor
    sick = read_checkpoint(max((before / "checkpoints").glob("step_*.pt")))
    sick["model"]["linear.weight"].fill_(3e38)
    torch.save(sick, tmp_path / "sick.pt")
    folder = tmp_path / "run"
    done = jobs.run(config, f"run.folder={folder}", f"train.init_from={tmp_path / 'sick.pt'}", check=False)
    assert done.returncode == 2, done.stderr
    assert "not finite in 4 steps in a row, from step 1 on" in done.stderr  # the host looks every second step
    kept = folder / "not_finite"
    saved = json.loads((kept / "batches.json").read_text())
    assert [origin["step"] for origin in saved["ranks"][0]] == [0, 1, 2]
    assert torch.equal(
        read_checkpoint(kept / "checkpoint.pt")["model"]["linear.weight"], sick["model"]["linear.weight"]
    )
    replayed = run_tool("replay_batch.py", kept, "--step", 1)
    assert replayed.returncode == 1, replayed.stderr
    assert re.search(r"^ *0\s+(inf|nan)\s.*\slinear\s+4$", replayed.stdout, re.MULTILINE), replayed.stdout
    for snippet in saved["ranks"][0][1]["snippets"]:
        assert f"rank 0: {snippet}" in replayed.stdout
    assert run_tool("replay_batch.py", kept, "--step", 9).stderr.startswith("error: --step 9 was not kept")


@pytest.mark.parametrize(
    ("saved", "why"),
    [
        ({}, "it lacks 'ranks'"),
        ({"ranks": [[]]}, "it lacks 'world_size'"),
        ({"ranks": [[]], "world_size": 2}, "it is of 2 ranks and has 1"),
        ({"ranks": [[{"step": 1, "video": []}]], "world_size": 1}, "a batch in it lacks snippets, start"),
        ({"ranks": [[3]], "world_size": 1}, "'int' object"),
        ([], "list indices must be integers"),
    ],
)
def test_a_file_of_something_else_is_no_batch_to_replay(saved, why, tmp_path, monkeypatch, capsys):
    (tmp_path / "batches.json").write_text(json.dumps(saved))
    assert call_tool("replay_batch.py", tmp_path, monkeypatch=monkeypatch) == 2
    told = capsys.readouterr().err
    assert (
        told.startswith(f"error: no batches to replay in '{tmp_path / 'batches.json'}' ({why}")
        and told.count("\n") == 1
    )


def test_a_batch_that_spoils_only_the_statistics_is_not_well_when_replayed(survivor, tmp_path):
    config, before = survivor
    sick = read_checkpoint(max((before / "checkpoints").glob("step_*.pt")))
    sick["model"]["backbone.stem.0.weight"].mul_(1e21)  # squares of what it gives are more than fp32 holds
    torch.save(sick, tmp_path / "sick.pt")
    folder = tmp_path / "run"
    done = jobs.run(config, f"run.folder={folder}", f"train.init_from={tmp_path / 'sick.pt'}", check=False)
    assert done.returncode == 2, done.stderr
    replayed = run_tool("replay_batch.py", folder / "not_finite")
    assert replayed.returncode == 1, replayed.stderr
    row = r"^ *0\s+[\d.e-]+\s+[\d.e-]+\s+backbone\.stem\.1\.running_mean\s+-\s+0$"  # all else is finite
    assert re.search(row, replayed.stdout, re.MULTILINE), replayed.stdout
