"""Processes that die or hang cost their own item and nothing else. `eval` is the work: it can be anything."""

import os
import subprocess
import sys
import time

import pytest

from engine.data.process_pool import Lost, run_isolated
from engine.errors import SourceGone


def test_every_item_gives_its_own_result():
    items = [f"{number} ** 2" for number in range(50)]
    assert dict(run_isolated(eval, items, 2, 60)) == {f"{number} ** 2": number**2 for number in range(50)}
    assert dict(run_isolated(eval, items[:3], 0, 60)) == {"0 ** 2": 0, "1 ** 2": 1, "2 ** 2": 4}
    assert list(run_isolated(eval, [], 2, 60)) == []


def test_work_is_done_by_other_processes():
    (_, first), (_, second) = run_isolated(eval, ["__import__('os').getpid()", "__import__('os').getpid() "], 2, 60)
    assert len({first, second, os.getpid()}) == 3


def test_a_crash_costs_one_item():
    crash, fault = "__import__('os')._exit(3)", "__import__('os').kill(__import__('os').getpid(), 11)"
    found = dict(run_isolated(eval, ["1", crash, "2", fault, "1 / 0", "3"], 2, 60))
    assert (found["1"], found["2"], found["3"]) == (1, 2, 3)
    assert found[crash] == Lost(False, "the process that read it died (exit code 3)")
    assert "SIGSEGV" in found[fault].text
    assert isinstance(found["1 / 0"], Lost)


def test_a_source_that_is_gone_is_no_fault_of_an_item():
    gone = "(_ for _ in ()).throw(__import__('engine.errors').errors.SourceGone('the store is away'))"
    with pytest.raises(SourceGone, match="the store is away"):
        list(run_isolated(eval, ["1", gone], 1, 60))


def test_a_hang_is_stopped():
    start = time.monotonic()
    found = dict(run_isolated(eval, ["__import__('time').sleep(120)", "1", "2"], 1, 3.0))
    assert (found["1"], found["2"]) == (1, 2)
    assert found["__import__('time').sleep(120)"].is_timeout
    assert time.monotonic() - start < 60


def test_a_program_that_forgets_its_workers_ends():
    """Workers do not hear SIGTERM, by which multiprocessing would end them, and waits."""
    code = """
from engine.data.process_pool import Worker
if __name__ == "__main__":
    worker = Worker(eval)
    worker.give("6 * 7")
    print(worker.take_within(60), flush=True)
    worker.give("__import__('time').sleep(600)")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "42\n"
