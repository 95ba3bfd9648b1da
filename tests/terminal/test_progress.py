"""What long work tells of itself, for people and for programs."""

import json

import pytest

from engine.files.json_lines import read_json_lines
from engine.terminal import progress
from engine.terminal.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets."""
    now = {"s": 1000.0}
    monkeypatch.setattr(progress.time, "monotonic", lambda: now["s"])
    return now


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_lines_tell_how_far_how_fast_and_how_long(clock, tmp_path, capsys):
    log = tmp_path / "log.jsonl"
    with Progress(100, "file", label="index", log=log) as shown:
        for _ in range(10):
            clock["s"] += 3
            shown.advance(num_bad=1, amount=5)
    assert capsys.readouterr().err.splitlines() == [
        "index: 20/100 files, 1.7 files/s, 00:48 left, 1 bad",
        "index: 40/100 files, 1.7 files/s, 00:36 left, 1 bad",
    ]
    events = lines(log)
    assert [event["event"] for event in events] == ["start", "progress", "progress", "end"]
    assert all({"time", "unit", "done", "total", "bad"} <= event.keys() for event in events)
    assert (events[1]["done"], events[1]["per_second"], events[1]["left_s"]) == (20, 1.667, 48.0)
    assert (events[-1]["done"], events[-1]["bad"], events[-1]["seconds"]) == (50, 1, 30.0)


def test_work_that_breaks_off_is_told_and_added_to(clock, tmp_path, capsys):
    log = tmp_path / "log.jsonl"
    with pytest.raises(RuntimeError), Progress(10, "frame", log=log, is_shown=False) as shown:
        clock["s"] += 60
        shown.advance(0)
        raise RuntimeError
    log.write_bytes(log.read_bytes() + b'{"time": 1')  # torn by a kill
    with Progress(9, "frame", log=log):
        pass
    assert capsys.readouterr().err == ""
    events = ["start", "progress", "stopped", "start", "end"]
    assert [event["event"] for event in read_json_lines(log)] == events
