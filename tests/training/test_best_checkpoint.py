"""Which checkpoint a run ends with: the best of the course that led to its end, by the step that its record names."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from engine.config import Config
from engine.errors import InputError, SourceGone
from engine.processes.distributed import Ranks
from engine.processes.preemption import Preempted, StopVote
from engine.schema.parser import parse
from engine.tasks import catalogue
from engine.tasks.task import Measured
from engine.train import train
from engine.training import report
from engine.training.build import build_run
from engine.training.checkpoint import list_checkpoints, read_checkpoint
from engine.training.run import save_best, save_newest
from tests.tasks.mock_task import Line
from tests.training.test_step import StopAfter

CPU = Ranks(torch.device("cpu"))
EARLY = "checkpoints/step_00000048.pt"


class Valued(Line):
    """A line that is worth what `values` says of a step, and nothing otherwise."""

    values: dict[int, float] = {}  # noqa: RUF012

    def measure(self, run):
        return Measured({}, "", self.values.get(run.step, 0.1), "value")


@pytest.fixture(autouse=True)
def values(monkeypatch) -> dict[int, float]:
    monkeypatch.setitem(catalogue.TASKS, "line", Valued)
    monkeypatch.setattr(Valued, "values", {12: 0.2, 60: 0.9})
    return Valued.values


def config(folder: Path, resume: object = "auto", **train: object) -> Config:
    """Of 120 steps, measured after every twelfth."""
    tree = {
        "task": "line",
        "run": {"folder": str(folder), "device": "cpu", "resume": str(resume)},
        "train": {"epochs": 20, "batch_size": 4, "lr": 0.05, "schedule": "constant", **train},
        "evaluate": {"every_epochs": 2},
        "checkpoint": {"keep": 100},
    }
    return parse(Config, tree)


def evaluated(folder: Path) -> str:
    """The last line of the log that says which weights were evaluated."""
    return [line for line in (folder / "log.txt").read_text().splitlines() if "evaluating" in line][-1]


def best_of(folder: Path) -> dict:
    return read_checkpoint(folder / "checkpoints" / "best.pt")


def test_the_best_of_a_course_that_was_given_up_is_not_taken_for_this_ones(tmp_path, values):
    run = tmp_path / "run"
    train(config(run), CPU, StopVote())
    assert "evaluating best.pt (step 60, chosen by value)" in evaluated(run)
    values.clear()
    values[72] = 0.5
    train(config(run, run / EARLY, lr=0.1), CPU, StopVote())
    assert "evaluating best.pt (step 72, chosen by value)" in evaluated(run)
    assert (best_of(run)["step"], best_of(run)["config"]["train"]["lr"]) == (72, 0.1)
    aside = torch.load(run / "checkpoints" / "best.pt.aside", weights_only=True)
    assert aside["step"] == 60  # nothing is lost
    assert (run / "line.txt").read_text() == f"{best_of(run)['model']['weight'].item()}"


def test_a_run_that_begins_in_another_folder_has_a_best_of_its_own(tmp_path, values):
    train(config(tmp_path / "first"), CPU, StopVote())
    values[84] = 0.3  # less than what was reached elsewhere
    train(config(tmp_path / "run", tmp_path / "first" / "checkpoints" / "step_00000066.pt"), CPU, StopVote())
    assert "evaluating best.pt (step 84, chosen by value)" in evaluated(tmp_path / "run")
    assert best_of(tmp_path / "first")["step"] == 60
    with pytest.raises(InputError, match="so nothing is left to train"):  # though there are checkpoints of its own
        train(config(tmp_path / "run", list_checkpoints(tmp_path / "first")[0], lr=0.1), CPU, StopVote())


def test_a_best_that_no_disk_took_is_not_the_best(tmp_path, monkeypatch):
    def full_once(run):
        if run.step == 60:
            raise InputError("the disk is full")
        save_best(run)

    monkeypatch.setattr("engine.train.save_best", full_once)
    train(config(tmp_path), CPU, StopVote())
    assert "step 60: the disk is full; training goes on" in (tmp_path / "log.txt").read_text()
    assert "evaluating best.pt (step 12, chosen by value)" in evaluated(tmp_path)
    assert best_of(tmp_path)["step"] == 12


def test_a_last_checkpoint_that_no_disk_takes_ends_the_run_with_that(tmp_path, monkeypatch):
    """One before it costs no more than itself."""
    refused = []

    def full(run):
        if run.step in (60, 120):
            refused.append(run.step)
            raise InputError("the disk is full")
        save_newest(run)

    monkeypatch.setattr("engine.train.save_newest", full)
    with pytest.raises(InputError, match="the disk is full"):
        train(config(tmp_path), CPU, StopVote())
    assert set(refused) == {60, 120} and list_checkpoints(tmp_path)[0].name == "step_00000114.pt"


def test_videos_that_are_gone_leave_the_steps_that_were_done(tmp_path, monkeypatch):
    def gone(run, batches):
        if run.step == 8:
            raise SourceGone("the store does not answer")
        return next(batches)

    monkeypatch.setattr("engine.train.next_batch", gone)
    with pytest.raises(SourceGone):
        train(config(tmp_path), CPU, StopVote())
    assert list_checkpoints(tmp_path)[0].name == "step_00000008.pt"
    assert "the videos are gone after step 8, which is saved" in (tmp_path / "log.txt").read_text()


def test_the_best_is_taken_up_where_a_run_was_stopped(tmp_path):
    for stop in (StopAfter(80), StopVote()):
        try:
            train(config(tmp_path), CPU, stop)
        except Preempted:
            assert best_of(tmp_path)["step"] == 60
    assert "evaluating best.pt (step 60, chosen by value)" in evaluated(tmp_path)


def test_a_run_ends_with_the_averaged_weights_of_its_best(tmp_path):
    train(config(tmp_path, ema_decay=0.9), CPU, StopVote())
    best = best_of(tmp_path)
    assert best["step"] == 60 and not torch.equal(best["average"]["weight"], best["model"]["weight"])
    assert (tmp_path / "line.txt").read_text() == f"{best['average']['weight'].item()}"


def test_steps_that_were_skipped_are_counted_on_where_a_run_is_gone_on_with(tmp_path, monkeypatch):
    loss = Line.loss
    monkeypatch.setattr(
        Valued,
        "loss",
        lambda self, network, batch: loss(self, network, batch) * (torch.nan if 12 in batch.video else 1),
    )
    with pytest.raises(Preempted):
        train(config(tmp_path), CPU, StopAfter(20))
    train(config(tmp_path), CPU, StopVote())
    assert read_checkpoint(list_checkpoints(tmp_path)[0])["skipped_steps"] == 1


def test_what_is_no_number_is_never_the_best(tmp_path, values):
    values.update({12: math.nan, 24: 0.3, 36: math.nan, 60: 0.2})
    train(config(tmp_path), CPU, StopVote())
    assert "evaluating best.pt (step 24, chosen by value)" in evaluated(tmp_path)
    assert json.loads(json.dumps(best_of(tmp_path)["best"])) == {"value": 0.3, "step": 24, "metric": "value"}


def test_a_command_that_names_a_checkpoint_goes_on_when_it_is_given_again(tmp_path):
    train(config(tmp_path / "first"), CPU, StopVote())
    run, named = tmp_path / "run", tmp_path / "first" / EARLY
    with pytest.raises(Preempted):
        train(config(run, named), CPU, StopAfter(32))
    assert list_checkpoints(run)[0].name == "step_00000080.pt"
    train(config(run, named), CPU, StopVote())
    assert "resumed at step 80 " in (run / "log.txt").read_text()
    assert not list((run / "checkpoints").glob("*.aside"))
    assert "resumed at step 48 " in build_run(config(run, named, lr=0.1), CPU, StopVote()).notes[-1]  # another command


def test_looking_at_a_run_changes_nothing_in_its_folder(tmp_path):
    train(config(tmp_path), CPU, StopVote())
    before = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert build_run(config(tmp_path, tmp_path / EARLY), CPU, StopVote()).step == 48
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == before


def test_of_two_equal_ones_the_later_is_the_best():
    measured = Measured({}, "", 0.5, "value")
    run = SimpleNamespace(task=SimpleNamespace(measure=lambda _: measured), step=8, measured=0,
                          best={"value": 0.5, "step": 4, "metric": "value"})  # fmt: skip
    silent = SimpleNamespace(scalars=lambda *_: None, message=lambda _: None)
    assert report.measure(run, silent, 2) == {"value": 0.5, "step": 8, "metric": "value"}
