"""The recovery benchmark: how a log is read, and one real kill of each kind."""

from pathlib import Path

import pytest

from engine.errors import InputError
from tests.small_run import ROOT, benchmark_options


@pytest.fixture
def recovery(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    from bench import recovery

    return recovery


def options(*words):
    return benchmark_options("recovery", *words)


def test_a_log_tells_how_far_a_run_has_come(recovery, tmp_path):
    log = tmp_path / "log.jsonl"
    assert recovery.progress(log) == recovery.Progress(0, 0, 0)
    log.write_text('{"event": "start", "step": 0}\n{"event": "scalars", "step": 14}\n{"event": "start", "step": 10}\n')
    assert recovery.progress(log) == recovery.Progress(2, 10, 10)
    with log.open("a") as file:
        file.write('{"event": "scalars", "step": 11}\n{"event": "scal')  # a line that a kill cut short
    assert recovery.progress(log) == recovery.Progress(2, 10, 11)
    with pytest.raises(InputError, match="--repeats is 0"):
        recovery.run(options("--repeats", "0"))


@pytest.mark.slow
@pytest.mark.distributed
def test_real_kills_are_timed(recovery, monkeypatch, capsys):
    recorded = {}
    monkeypatch.setattr(recovery, "append_record", lambda name, **fields: recorded.update(fields) or Path(name))
    recovery.run(options("--repeats", "1"))
    for name in ("started again", "torchrun"):
        assert 1 < recorded["results"][f"{name}, s"]["p50"] < recovery._LIMIT_S
        assert 0 <= recorded["results"][f"{name}, steps done again"]["p50"] <= recovery._EVERY_STEPS + 3
    assert "torchrun, s" in capsys.readouterr().out
