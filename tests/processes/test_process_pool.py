"""Processes that die or hang cost their own item and nothing else. `eval` is the work: it can be anything."""

import math
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from engine.errors import SourceGone
from engine.processes import process_pool
from engine.processes.process_pool import Lost, run_isolated
from tests.environment import ROOT, environment, wait_until


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
from engine.processes.process_pool import Worker
if __name__ == "__main__":
    worker = Worker(eval)
    worker.give("6 * 7")
    print(worker.take_within(60), flush=True)
    worker.give("__import__('time').sleep(600)")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "42\n"


PROGRAM = """
import functools, os, sys
from collections import deque
from pathlib import Path

print("the program's file runs", flush=True)
from engine.processes.process_pool import Worker


def here(item):
    return item + 1


def private_mb(pid):
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private")) // 1024


if __name__ == "__main__":
"""


def run_program(tmp_path, lines, **variables):
    """What a program prints that has no server of the tests' own."""
    done = start_program(tmp_path, lines, **variables)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def start_program(tmp_path, lines, **variables):
    """Run it, and all that it starts, to the end."""
    file = tmp_path / "program.py"
    file.write_text(PROGRAM + textwrap.indent(textwrap.dedent(lines), "    "))
    return subprocess.run(
        [sys.executable, file], capture_output=True, text=True, timeout=120, check=False, env=environment(**variables)
    )


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere each process imports for itself")
def test_workers_share_what_is_imported_and_do_not_run_the_program_again(tmp_path):
    lines = """
        from engine.data.pyav import processes  # and with it torch

        workers = [Worker(functools.partial(processes.take_share, num_parts=1)) for _ in range(2)]
        for worker in workers:
            worker.give(deque([{7: None}]))
            assert worker.take_within(60) == [{7: None}]
        print(max(private_mb(worker.process.pid) for worker in workers), private_mb(os.getpid()))
    """
    first, numbers = run_program(tmp_path, lines)
    worker, program = map(int, numbers.split())
    assert first == "the program's file runs" and worker < 40 < 150 < program


def test_a_function_of_the_program_itself_and_its_environment_reach_the_workers(tmp_path):
    lines = """
        first = Worker(here)
        first.give(1)
        os.environ["SET_LATER"] = "yes"
        later = Worker(eval)
        later.give("__import__('os').environ['SET_LATER']")
        print(first.take_within(60), later.take_within(60))
    """
    assert run_program(tmp_path, lines)[-1] == "2 yes"


def test_workers_of_a_program_that_was_killed_say_nothing(tmp_path):
    lines = """
        workers = [Worker(abs) for _ in range(8)]
        for worker in workers:
            worker.give(-1)
        while not all(worker.connection.poll(1) for worker in workers):
            pass
        os.kill(os.getpid(), 9)  # with answers that it has not read
    """
    done = start_program(tmp_path, lines)
    assert done.returncode == -9 and done.stderr == ""


def test_without_a_place_for_the_servers_socket_workers_start_too(tmp_path):
    long = tmp_path / ("a" * 100)
    long.mkdir()
    lines = """
        worker = Worker(eval)
        worker.give("6 * 7")
        print(worker.take_within(60), worker.process._start_method)
    """
    way = "spawn" if sys.version_info < (3, 14) else "forkserver"  # Python 3.14 looks for another place itself
    assert run_program(tmp_path, lines, TMPDIR=str(long))[-1] == f"42 {way}"


def test_a_busy_worker_ends_with_its_program_however_that_ends(tmp_path):
    lines = """
        worker = Worker(eval)
        worker.give("1")
        worker.take_within(60)
        worker.give("__import__('time').sleep(600)")
        Path(sys.argv[0] + ".pid").write_text(str(worker.process.pid))
        os.kill(os.getpid(), 9)
    """
    with pytest.raises(AssertionError):
        run_program(tmp_path, lines)
    process = Path("/proc") / (tmp_path / "program.py.pid").read_text()
    wait_until(lambda: not process.exists(), 20)


def test_a_server_that_could_not_fork_is_told_as_the_limit_that_it_met(monkeypatch):
    def start(process):
        raise EOFError("unexpected EOF")

    monkeypatch.setattr("multiprocessing.process.BaseProcess.start", start)
    with pytest.raises(BlockingIOError, match="no process can be started"):
        list(run_isolated(abs, [-1], 1, 10))


def test_a_limit_may_have_no_end(monkeypatch):
    monkeypatch.setattr(process_pool, "_POLL_LIMIT_S", 0.05)
    items = ["__import__('time').sleep(0.3)", "1"]
    assert dict(run_isolated(eval, items, 1, math.inf)) == {items[0]: None, "1": 1}


def test_workers_import_what_the_program_does_and_not_what_lies_in_the_current_folder(tmp_path):
    here, other = tmp_path / "here", tmp_path / "other"
    for folder in (here, other):
        folder.mkdir()
        (folder / "found.py").write_text("def where(_):\n    return __file__\n")
    (here / "av.py").write_text("raise SystemExit('a file beside the videos runs')")
    lines = """
        import found
        worker = Worker(found.where)
        worker.give(0)
        print(worker.take_within(60), os.environ.get("PYTHONSAFEPATH"))
    """
    path = os.pathsep.join([str(other), str(ROOT)])
    program = tmp_path / "program.py"
    program.write_text(PROGRAM + textwrap.indent(textwrap.dedent(lines), "    "))
    done = subprocess.run(
        [sys.executable, program], capture_output=True, text=True, timeout=120, cwd=here, check=True,
        env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == f"{other / 'found.py'} None"


def test_the_server_does_not_hear_what_workers_do_not_hear(tmp_path):
    """A signal to a group of processes reaches it; without it no crash could be told from another, and no worker be stopped."""
    lines = """
        import multiprocessing.forkserver, signal
        from engine.processes.process_pool import Lost
        worker = Worker(eval)
        worker.give("1")
        worker.take_within(60)
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
            os.kill(multiprocessing.forkserver._forkserver._forkserver_pid, number)
        worker.give("__import__('time').sleep(600)")
        found = worker.take_within(0.5)
        other = Worker(eval)
        other.give("__import__('os').kill(__import__('os').getpid(), 11)")
        print(found.is_timeout, os.path.exists(f"/proc/{worker.process.pid}"), other.take_within(60).text)
    """
    said = run_program(tmp_path, lines)[-1]
    assert said == "True False the process that read it died (signal SIGSEGV)"
