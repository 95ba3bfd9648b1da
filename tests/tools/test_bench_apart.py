"""A contestant in a process of its own: what it says, how it fails, that it ends.

The processes import this file: nothing here imports torch.
"""

import os
import signal
import subprocess
import sys
import time

import pytest
from bench import apart

from tests.environment import ROOT, environment, is_alive, wait_until


class Counter:
    """A contestant that can be asked for anything."""

    def __init__(self, start: int) -> None:
        if start < 0:
            raise ValueError("below zero\nand more")
        self.value = start

    def add(self, number: int, *, twice: bool = False) -> tuple[int, int]:
        self.value += number * (2 if twice else 1)
        return self.value, os.getpid()

    def die(self) -> None:
        os.kill(os.getpid(), signal.SIGSEGV)

    def sleep(self) -> None:
        time.sleep(60)


def test_it_keeps_its_state_in_another_process_and_goes_on_after_an_exception():
    counter = apart.Apart(Counter, 1, limit_s=120)
    assert counter.call("add", 2)[0] == 3
    with pytest.raises(apart.ContestantError, match=r"^TypeError: "):
        counter.call("add", "a")
    value, process = counter.call("add", 1, twice=True)
    assert value == 5 and process != os.getpid()
    counter.close()
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def test_what_cannot_be_built_says_why_in_one_line():
    with pytest.raises(apart.ContestantError, match=r"^ValueError: below zero$"):
        apart.Apart(Counter, -1, limit_s=120)


def test_a_death_and_a_sleep_are_told():
    counter = apart.Apart(Counter, 1, limit_s=120)
    with pytest.raises(apart.ContestantError, match="killed by SIGSEGV"):
        counter.call("die")
    with pytest.raises(apart.ContestantError, match="killed by SIGSEGV"):
        counter.call("add", 1)
    counter.close()
    counter = apart.Apart(Counter, 1, limit_s=120)
    counter._limit_s = 0.5
    with pytest.raises(apart.ContestantError, match=r"no result in 0\.5 s"):
        counter.call("sleep")
    counter.close()


def test_it_ends_with_whoever_started_it_however_that_ends():
    code = """
from bench.apart import Apart
from tests.tools.test_bench_apart import Counter
counter = Apart(Counter, 0, limit_s=120)
print(counter.call("add", 0)[1], flush=True)
counter.call("sleep")
"""
    variables = environment()
    variables["PYTHONPATH"] += f"{os.pathsep}{ROOT / 'tools'}"
    starter = subprocess.Popen([sys.executable, "-c", code], env=variables, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    contestant = int(starter.stdout.readline())
    time.sleep(1)  # until it sleeps, and hears no pipe
    starter.kill()
    starter.wait()
    wait_until(lambda: not is_alive(contestant), 20)
