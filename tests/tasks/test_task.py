"""The seam: another task trains through the loop of `engine/train.py`, resumes, is measured and shown, and nothing
else of the engine knows of it."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from engine.config import Config
from engine.data.batch import ClipBatch
from engine.errors import InputError
from engine.processes.distributed import Ranks
from engine.processes.preemption import Preempted, StopVote
from engine.schema.parser import parse
from engine.tasks import catalogue
from engine.tasks.catalogue import find_task
from engine.tasks.zero_shot.task import ZeroShot
from engine.tasks.zero_shot.trained import load_for_inference
from engine.train import train
from engine.training.build import build_run
from engine.training.checkpoint import list_checkpoints, read_checkpoint, save_checkpoint
from engine.training.resume import restore
from engine.training.run import save_newest
from tests.jobs import events, losses, same_weights
from tests.tasks.mock_task import Line
from tests.training.test_step import StopAfter

CPU = Ranks(torch.device("cpu"))


@pytest.fixture(autouse=True)
def known(monkeypatch):
    """All that a new task needs: one entry in the table."""
    monkeypatch.setitem(catalogue.TASKS, "line", Line)


def config(folder: Path, **train: object) -> Config:
    tree = {
        "task": "line",
        "run": {"folder": str(folder), "device": "cpu"},
        "train": {"epochs": 20, "batch_size": 4, "lr": 0.05, "schedule": "constant", "ema_decay": 0.5, **train},
        "evaluate": {"every_epochs": 2},
        "log": {"every_steps": 1},
    }
    return parse(Config, tree)


def test_a_mock_task_trains_is_measured_and_concludes(tmp_path):
    slope = train(config(tmp_path), CPU, StopVote())
    assert slope == pytest.approx(3.0, abs=0.2)
    assert (tmp_path / "line.txt").read_text() == f"{slope}"
    curve = losses(tmp_path)
    assert list(curve) == list(range(1, 121))
    assert curve[120] < 0.2 * curve[1]
    log = (tmp_path / "log.txt").read_text()
    assert "120 steps of 4 samples, 20 epochs\na line is fitted\n" in log
    assert "epoch 20: slope off by 0." in log
    assert "chosen by slope)" in log
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    errors = [point.value for point in board.Scalars("line/error")]
    assert len(errors) == 10 and errors[-1] < errors[0]
    best = read_checkpoint(tmp_path / "checkpoints" / "best.pt")
    assert best["best"] == {"value": pytest.approx(-min(errors)), "step": best["step"], "metric": "slope"}
    assert best["slope"] == 3.0 and "train_classes" not in best


def test_a_stopped_mock_task_resumes_bit_for_bit(tmp_path):
    train(config(tmp_path / "whole", accumulate=2), CPU, StopVote())
    with pytest.raises(Preempted):
        train(config(tmp_path / "cut", accumulate=2), CPU, StopAfter(50))  # in the middle of an epoch
    train(config(tmp_path / "cut", accumulate=2), CPU, StopVote())
    assert "resumed at step 50 (epoch 8, position 8)" in (tmp_path / "cut" / "log.txt").read_text()
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    board = EventAccumulator(str(tmp_path / "cut" / "tensorboard")).Reload()
    assert [point.step for point in board.Scalars("train/loss")] == list(range(1, 121))
    assert same_weights(tmp_path / "cut", tmp_path / "whole")
    assert len(events(tmp_path / "cut", "start")) == 2


@pytest.mark.parametrize(
    ("batch_size", "ends", "measured"), [(6, [4, 8, 12], [8, 12]), (5, [5, 10, 15], [10, 15]), (30, [1, 2, 3], [2, 3])]
)
def test_every_sample_of_every_epoch_is_seen_and_each_epoch_ends_once(tmp_path, batch_size, ends, measured):
    """Three epochs of 24 samples, measured after every second one and at the end, whether batches divide them or not."""
    run = build_run(config(tmp_path, batch_size=batch_size, epochs=3), CPU, StopVote())
    found: tuple[list[int], list[int]] = [], []
    for step in range(run.total_steps + 1):
        run.step = step
        for steps, is_now in zip(found, (run.ends_epoch, run.measures_now), strict=True):
            steps += [step] * is_now
    assert found == (ends, measured) and run.total_steps == ends[-1]


@pytest.mark.parametrize(("ema_decay", "weights"), [(0.0, "auto"), (0.5, "auto"), (0.5, "average"), (0.5, "trained")])
def test_what_is_measured_are_averaged_weights_where_there_are_some_and_none_others_are_asked_for(
    tmp_path, ema_decay, weights
):
    asked = config(tmp_path, ema_decay=ema_decay)
    asked = dataclasses.replace(asked, evaluate=dataclasses.replace(asked.evaluate, weights=weights))
    run = build_run(asked, CPU, StopVote())
    assert run.evaluated is (run.average.model if ema_decay and weights != "trained" else run.model)


def test_weights_of_another_run_are_begun_from_as_it_was_measured(tmp_path):
    """With its average, where it kept one; the new run's average begins there too."""
    train(config(tmp_path / "first"), CPU, StopVote())
    newest = list_checkpoints(tmp_path / "first")[0]
    run = build_run(config(tmp_path / "second", init_from=str(newest)), CPU, StopVote())
    kept = read_checkpoint(newest)
    assert not torch.equal(kept["average"]["weight"], kept["model"]["weight"])
    for model in (run.model, run.average.model):
        assert torch.equal(model.weight, kept["average"]["weight"])


@pytest.mark.parametrize("place", [2, 10])
def test_a_measurement_that_was_broken_off_is_made_again_and_no_step_is(tmp_path, monkeypatch, place):
    """Of ten; what was measured before is not measured again, and steps after it are training as ever."""
    measured, steps, measure, loss = [], [], Line.measure, Line.loss

    def once_broken_off(self, run):
        run.network.eval()
        measured.append(run.step)
        if len(measured) == place:
            raise Preempted("asked to stop while the model was measured")
        return measure(self, run)

    def counted(self, network, batch):
        assert network.training
        steps.append(int(batch.video[0]) // 4 + 1)
        return loss(self, network, batch)

    monkeypatch.setattr(Line, "measure", once_broken_off)
    monkeypatch.setattr(Line, "loss", counted)
    with pytest.raises(Preempted):
        train(config(tmp_path), CPU, StopVote())
    assert list_checkpoints(tmp_path)[0].name == f"step_{12 * place:08d}.pt"
    for _ in range(2):
        train(config(tmp_path), CPU, StopVote())
    assert measured == sorted([12 * place, *range(12, 121, 12)]) and steps == list(range(1, 121))


def test_a_loss_scale_is_gone_on_with(tmp_path):
    """Where the precision has one; without one there is nothing to take up, and nothing is lost by that."""
    run, again = (build_run(config(tmp_path), CPU, StopVote()) for _ in range(2))
    for each, scale in ((run, 8.0), (again, 2.0)):
        each.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    save_newest(run)
    restore(again)
    assert again.scaler.get_scale() == 8.0
    run.scaler = torch.amp.GradScaler("cpu", enabled=False)
    save_newest(run)
    restore(again)
    assert again.scaler.get_scale() == 8.0


def test_a_run_is_saved_as_often_as_its_config_says(tmp_path):
    """After every fourth step, every second epoch of six, and the last one, which is the end of an odd epoch."""
    asked = config(tmp_path, epochs=3)
    often = dataclasses.replace(asked.checkpoint, every_steps=4, every_epochs=2, keep=9)
    train(dataclasses.replace(asked, checkpoint=often), CPU, StopVote())
    assert [int(path.stem[5:]) for path in list_checkpoints(tmp_path)] == [18, 16, 12, 8, 4]


def test_micro_batches_count_by_their_length(tmp_path):
    """Five samples in parts of three and two: the step is that of the five together."""
    for parts in (1, 2):
        train(config(tmp_path / str(parts), batch_size=5, epochs=4, accumulate=parts), CPU, StopVote())
    assert losses(tmp_path / "2") == pytest.approx(losses(tmp_path / "1"), rel=1e-4)


def test_a_checkpoint_is_held_against_its_own_task_alone(tmp_path, monkeypatch):
    train(config(tmp_path), CPU, StopVote())
    newest = list_checkpoints(tmp_path)[0]
    with pytest.raises(InputError, match="is of the task 'line': only a model of zero_shot"):
        load_for_inference(newest, CPU.device)
    monkeypatch.setattr(Line, "slope", 2.0)
    with pytest.raises(InputError, match="holds a run with another slope:"):
        build_run(config(tmp_path), CPU, StopVote())
    monkeypatch.undo()
    monkeypatch.setitem(catalogue.TASKS, "line", Line)
    monkeypatch.setitem(catalogue.TASKS, "curve", type("Curve", (Line,), {"fields": ("bend",)}))
    tree = {"task": "curve", "run": {"folder": str(tmp_path), "device": "cpu"}, "train": {"batch_size": 4}}
    with pytest.raises(InputError, match=r"holds a run with another task \(line there\):"):
        build_run(parse(Config, tree), CPU, StopVote())
    state = read_checkpoint(newest)
    del state["slope"]
    save_checkpoint(newest, state)
    with pytest.raises(InputError, match="it has no slope"):
        build_run(config(tmp_path), CPU, StopVote())


def test_a_bad_sample_of_a_mock_task_is_kept_by_name(tmp_path, monkeypatch):
    loss = Line.loss
    monkeypatch.setattr(Line, "loss", lambda self, network, batch: loss(self, network, batch) * float("nan"))
    with pytest.raises(InputError, match="not finite in 2 steps in a row"):
        train(config(tmp_path, max_skipped_steps=2), CPU, StopVote())
    saved = json.loads((tmp_path / "not_finite" / "batches.json").read_text())
    assert saved["ranks"][0][1]["snippets"][0] == "row 4 from frame 4"


def test_the_batches_that_are_kept_are_the_bad_ones_and_none_before_them(tmp_path, monkeypatch):
    loss = Line.loss
    spoilt = lambda self, network, batch: loss(self, network, batch) * (torch.nan if batch.video[0] >= 12 else 1)  # noqa: E731
    monkeypatch.setattr(Line, "loss", spoilt)
    with pytest.raises(InputError, match="not finite in 2 steps in a row"):
        train(config(tmp_path, max_skipped_steps=2), CPU, StopVote())
    kept = json.loads((tmp_path / "not_finite" / "batches.json").read_text())["ranks"][0]
    assert [(each["step"], each["snippets"][0]) for each in kept] == [
        (3, "row 12 from frame 5"),
        (4, "row 16 from frame 2"),
    ]


def test_tasks_are_found_by_name():
    assert find_task(Config().task) is ZeroShot
    with pytest.raises(InputError, match="'task' is 'zero-shot': did you mean 'zero_shot'"):
        find_task("zero-shot")


def test_micro_batches_are_the_batch_in_order():
    frames = torch.arange(6).reshape(6, 1, 1, 1, 1).to(torch.uint8)
    batch = ClipBatch(frames, torch.arange(6), torch.arange(6) * 2, torch.arange(6) * 3)
    parts = batch.chunk(2)
    assert [len(part) for part in parts] == [3, 3]
    assert torch.equal(torch.cat([part.frames for part in parts]), frames)
    assert parts[1].class_index.tolist() == [3, 4, 5] and parts[1].start.tolist() == [9, 12, 15]
    assert parts[1].frames.data_ptr() == frames[3:].data_ptr()  # views: no copy
