"""Speed as it is told: warm-up and pauses are no part of it."""

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from engine.data.batch import ClipBatch
from engine.processes.distributed import Ranks
from engine.training.telemetry import Telemetry, duration
from tests.jobs import events


def test_warm_up_and_pauses_are_left_out_of_clips_per_second(tmp_path, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr("engine.training.telemetry.time.perf_counter", lambda: clock[0])
    ranks = Ranks(torch.device("cpu"))
    told = Telemetry(tmp_path, ranks, every_steps=2, batch_size=8, total_steps=6, first_step=0, warmup_steps=3)
    nothing = torch.zeros(0)
    batch = ClipBatch(nothing, nothing, nothing, nothing)
    for step, seconds in enumerate((50.0, 5.0, 4.0, 1.0, 2.0, 2.0), start=1):
        clock[0] += seconds
        told.step(step, torch.tensor(1.0 * step), 0.1, 0.25, batch)
        if step in (1, 4):
            clock[0] += 30.0  # an evaluation
            told.pause(30.0)
    told.close()
    assert [event["seconds"] for event in events(tmp_path, "warm_up")] == [59.0]
    shown = events(tmp_path, "scalars")
    assert [event["train/loss"] for event in shown] == [1.5, 3.5, 5.5]
    assert "speed/clips_per_second" not in shown[0]
    assert [event["speed/clips_per_second"] for event in shown[1:]] == [8.0, 4.0] == told.clips_per_second
    assert [event["speed/data_wait_share"] for event in shown[1:]] == [0.25, 0.125]


def test_the_control_is_announced_once_and_its_time_is_in_the_time_left(tmp_path, monkeypatch, capsys):
    clock = [100.0]
    monkeypatch.setattr("engine.training.telemetry.time.perf_counter", lambda: clock[0])
    ranks = Ranks(torch.device("cpu"))
    told = Telemetry(
        tmp_path, ranks, every_steps=2, batch_size=8, total_steps=6, first_step=0, steps_of_control=60, warmup_steps=1
    )
    nothing = torch.zeros(0)
    for step in range(1, 7):
        clock[0] += 2.0
        told.step(step, torch.tensor(1.0), 0.1, 0.0, ClipBatch(nothing, nothing, nothing, nothing))
    told.close()
    lines = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("warm-up")]
    assert lines[0] == "then the control: about 2 min more, which is in the time left"
    assert [line.split("  ")[-1] for line in lines[1:]] == ["02:08 left", "02:04 left", "02:00 left"]


def test_a_resumed_run_is_shown_whole_though_the_clock_went_back(tmp_path, monkeypatch):
    ranks = Ranks(torch.device("cpu"))
    for start, (clock, first) in enumerate(((50_000.0, 0), (40_000.0, 3), (39_000.0, 5))):
        monkeypatch.setattr("time.time", lambda clock=clock: clock)
        told = Telemetry(tmp_path, ranks, every_steps=1, batch_size=8, total_steps=8, first_step=first)
        for step in range(first + 1, first + 5):
            told.scalars(step, {"train/loss": float(start)})
        told.close()
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    shown = [(point.step, point.value) for point in board.Scalars("train/loss")]
    assert shown == [(1, 0), (2, 0), (3, 0), (4, 1), (5, 1), (6, 2), (7, 2), (8, 2), (9, 2)]


def test_a_line_that_a_kill_tore_costs_no_event_of_the_run_that_goes_on(tmp_path):
    (tmp_path / "log.jsonl").write_text('{"event": "start", "step": 0}\n{"event": "scalars", "st')
    ranks = Ranks(torch.device("cpu"))
    told = Telemetry(tmp_path, ranks, every_steps=1, batch_size=8, total_steps=6, first_step=2)
    told.event("start", step=2, loss=float("nan"))
    told.close()
    assert [event["step"] for event in events(tmp_path, "start")] == [0, 2] and events(tmp_path, "scalars") == []


@pytest.mark.parametrize(
    ("seconds", "told"), [(0.4, "0 s"), (89, "89 s"), (150, "2 min"), (5399, "90 min"), (9000, "2.5 h")]
)
def test_a_length_of_time_as_people_say_it(seconds, told):
    assert duration(seconds) == told
