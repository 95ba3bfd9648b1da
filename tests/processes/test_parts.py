"""A command's parts: their status is the program's, and none goes on without the command."""

import math
import signal
import subprocess
import sys

import pytest

from engine.processes import parts
from tests.environment import ROOT, environment, is_alive, wait_until

DEAF = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(os.getpid(), flush=True)
while True:
    time.sleep(0.1)  # one long sleep could begin between a signal and its handler
"""
WILLING = DEAF.replace("signal.SIG_IGN", "lambda *_: os._exit(7)")


def python(text: str) -> list[str]:
    return [sys.executable, "-S", "-c", text]


@pytest.mark.parametrize(
    ("text", "status"),
    [("raise SystemExit(3)", 3), *((f"import os; os.kill(os.getpid(), {n})", -n) for n in (6, 9, 11, 15))],
)
def test_a_part_ends_as_its_program_does(text, status, tmp_path):
    with parts.running(python(text), cwd=tmp_path) as part:
        assert part.wait(60) == status


def test_a_part_has_time_to_end_and_is_killed_where_it_does_not(monkeypatch):
    with parts.running(python(WILLING), stdout=subprocess.PIPE) as part:
        part.stdout.readline()
    assert part.returncode == 7
    monkeypatch.setattr(parts, "_TO_SAVE_S", 0.5)
    with parts.running(python(DEAF), stdout=subprocess.PIPE) as part:
        program = int(part.stdout.readline())
    wait_until(lambda: not is_alive(program), 10)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_a_part_ends_where_its_command_is_stopped(number):
    lines = ["import sys", "from engine.processes import parts", "parts.stop_on_sigterm()"]
    lines += [f"with parts.running({python(WILLING)!r}) as part:", "    part.wait()"]
    command = [sys.executable, "-c", "\n".join(lines)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(), cwd=ROOT) as tool:
        program = int(tool.stdout.readline())
        tool.send_signal(number)
        tool.communicate(timeout=60)
    assert tool.returncode < 0 or tool.returncode == 1
    wait_until(lambda: not is_alive(program), 10)


def test_a_sigterm_that_was_lost_is_not_the_last(monkeypatch):
    """Compiled code that calls Python may pass by the error that one is."""
    clock = [100.0]
    monkeypatch.setattr(parts, "_heard", [-math.inf])
    monkeypatch.setattr(parts.time, "monotonic", lambda: clock[0])
    with pytest.raises(KeyboardInterrupt):
        parts._stop(signal.SIGTERM, None)
    for clock[0] in (101.0, 105.0, 109.0):
        parts._stop(signal.SIGTERM, None)  # what the first one ends comes to its end
    clock[0] = 111.0
    with pytest.raises(KeyboardInterrupt):
        parts._stop(signal.SIGTERM, None)
