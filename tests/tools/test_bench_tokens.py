"""The benchmark of steps at shares of the tokens, at a small size."""

import json

import pytest
import torch
from bench import apart, tokens

from engine.errors import InputError
from engine.records import recording_into
from tests.small_run import benchmark_options


def test_steps_at_each_share_are_timed_and_recorded(tmp_path, capsys):
    words = (
        "--shares",
        "1",
        "0.25",
        "--device",
        "cpu",
        "--frames",
        "4",
        "--crop",
        "64",
        "--batch",
        "4",
        "--repeats",
        "3",
    )
    with recording_into(tmp_path):
        tokens.run(benchmark_options("tokens", *words))
    record = json.loads((tmp_path / "tokens.jsonl").read_text())
    whole, quarter = record["results"]
    assert (whole["case"], quarter["case"], record["n"]) == ("1 of the tokens", "0.25 of the tokens", 3)
    assert quarter["seconds"]["p50"] < whole["seconds"]["p50"]
    assert quarter["values"]["clips_per_s"] == pytest.approx(4 / quarter["seconds"]["p50"])
    assert "0.25 of the tokens" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"--shares has 1\.5: each must be above 0"):
        tokens.run(benchmark_options("tokens", "--shares", "1.5"))


def test_each_share_has_a_process_of_its_own_and_one_that_fails_is_named(tmp_path, monkeypatch):
    """Else torch.compile would make graphs of any number of tokens."""
    entered = []

    class Process(apart.Apart):
        def __init__(self, build, setting, share, *, limit_s):
            entered.append((build, setting.trainer, share))
            if share == 0.5:
                raise apart.ContestantError("MemoryError: no message")

        def call(self, method):
            return 2.0

        def close(self):
            pass

    monkeypatch.setattr(tokens, "Apart", Process)
    words = ("--shares", "1", "0.5", "0.25", "--device", "cpu", "--batch", "4", "--compile")
    with recording_into(tmp_path), pytest.raises(InputError, match=r"^--shares 0\.5: MemoryError: no message$"):
        tokens.run(benchmark_options("tokens", *words))
    assert entered == [(tokens.Share, "engine compiled", share) for share in (1, 0.5, 0.25)]
    results = json.loads((tmp_path / "tokens.jsonl").read_text())["results"]
    assert [row["case"] for row in results] == ["1 of the tokens", "0.25 of the tokens"]


def test_on_a_gpu_a_turn_has_several_steps_behind_an_untimed_one(monkeypatch):
    asked = []

    def time_calls(call, device, *, warmup, repeats):
        asked.append((warmup, repeats))
        return [2.0] * (repeats - 1) + [4.0]

    monkeypatch.setattr(tokens, "time_calls", time_calls)
    found = tokens._timed(lambda: None, torch.device("cuda", 0))
    ((warmup, repeats),) = asked
    assert warmup >= 1 and repeats >= 5
    assert found == pytest.approx(2 + 2 / repeats)
