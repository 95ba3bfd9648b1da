"""Speed as it is told: warm-up and pauses are no part of it."""

import torch

from engine.data.batch import ClipBatch
from engine.distributed import Ranks
from engine.telemetry import Telemetry
from tests.jobs import events


def test_warm_up_and_pauses_are_left_out_of_clips_per_second(tmp_path, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr("engine.telemetry.time.perf_counter", lambda: clock[0])
    ranks = Ranks(0, 1, 0, 1, torch.device("cpu"))
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
