"""Time to recover from kill -9: from the kill to the end of the first step that is done after it.

    python tools/bench_throughput.py recovery

The quickstart's network trains on its drawn videos, with a checkpoint every ten steps, and is killed again and again, each
time a few steps after it went on:
  started again   one process, and the same command at once after the kill
  torchrun        two ranks under `torchrun --max-restarts`: rank 1 is killed, torchrun notices and starts all again
Most of the time goes into starting Python and torch. Steps done again are told beside it: at most ten.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.resources import process_tree
from bench.runs import QUICKSTART, TRAIN, endless
from engine.errors import InputError
from engine.records import append_record, summarise
from engine.results.table import Table

_EVERY_STEPS, _LIMIT_S = 10, 300.0
_TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts")


@dataclass(frozen=True, slots=True)
class Progress:
    """What a run's log.jsonl tells: how often it began, the step it began at last, the last step done since."""

    starts: int
    begun_at: int
    step: int


def run(arguments: argparse.Namespace) -> None:
    """Measure, print a table, append a record.

    Raises:
        InputError: an option out of range, or a run that does not go on.
    """
    if arguments.repeats < 1:
        raise InputError(f"--repeats is {arguments.repeats}: it must be at least 1")
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, kill in (("started again", kill_and_start_again), ("torchrun", kill_a_rank)):
            seconds, lost = zip(*kill(Path(folder) / name, arguments), strict=True)
            results[f"{name}, s"] = summarise(seconds)
            results[f"{name}, steps done again"] = summarise(lost)
    points = ("p20", "p50", "p80")
    print(Table(["", *points], [[name, *(found[p] for p in points)] for name, found in results.items()]).text())
    if not arguments.no_record:
        path = append_record("recovery", n=arguments.repeats, results=results, device_type=arguments.device,
                             checkpoint_every_steps=_EVERY_STEPS)  # fmt: skip
        print(f"recorded in {Path(os.path.relpath(path))}")


def kill_and_start_again(folder: Path, arguments: argparse.Namespace) -> list[tuple[float, int]]:
    """(seconds to the next step, steps done again) of each kill of a run of one process."""
    command, found = [sys.executable, *_job(folder, arguments.device)], []
    process = _start(command, folder)
    try:
        for number in range(arguments.repeats):
            before = _wait(folder, lambda now, n=number: now.starts == n + 1 and _has_gone_on(now), process)
            process.kill()
            killed = time.monotonic()
            process.wait()
            process = _start(command, folder)
            found.append(_next_step(folder, before, killed, process))
    finally:
        process.kill()
        process.wait()
    return found


def kill_a_rank(folder: Path, arguments: argparse.Namespace) -> list[tuple[float, int]]:
    """As `kill_and_start_again`, of one rank of two that torchrun looks after."""
    found = []
    process = _start([sys.executable, *_TORCHRUN, str(arguments.repeats), *_job(folder, arguments.device)], folder)
    try:
        for number in range(arguments.repeats):
            before = _wait(folder, lambda now, n=number: now.starts == n + 1 and _has_gone_on(now), process)
            os.kill(_rank_1(process.pid), signal.SIGKILL)
            found.append(_next_step(folder, before, time.monotonic(), process))
    finally:
        process.terminate()  # it ends its ranks
        process.wait()
    return found


def _job(folder: Path, device: str) -> list[str]:
    settings = {"log.every_steps": 1, "checkpoint.every_steps": _EVERY_STEPS, "evaluate.every_epochs": 1_000_000}
    return [str(TRAIN), str(QUICKSTART), *endless(folder, device, settings)]


def _start(command: list[str], folder: Path) -> subprocess.Popen[bytes]:
    folder.mkdir(exist_ok=True)
    with (folder / "output.txt").open("ab") as output:
        return subprocess.Popen(command, stdout=output, stderr=output)


def _has_gone_on(now: Progress) -> bool:
    return now.step >= now.begun_at + _EVERY_STEPS + 3


def _next_step(folder: Path, before: Progress, killed: float, process: subprocess.Popen[bytes]) -> tuple[float, int]:
    after = _wait(folder, lambda now: now.starts > before.starts and now.step > now.begun_at, process)
    return time.monotonic() - killed, max(0, before.step - after.begun_at)


def _wait(folder: Path, is_there: Callable[[Progress], bool], process: subprocess.Popen[bytes]) -> Progress:
    deadline = time.monotonic() + _LIMIT_S
    while time.monotonic() < deadline and process.poll() is None:
        now = progress(folder / "run" / "log.jsonl")
        if is_there(now):
            return now
        time.sleep(0.02)
    raise InputError(f"the run does not go on: {(folder / 'output.txt').read_text(errors='replace')[-500:]}")


def progress(log: Path) -> Progress:
    """How far a run has come, by the whole lines of its log."""
    starts = begun_at = step = 0
    for line in log.read_text(encoding="utf-8").split("\n")[:-1] if log.is_file() else ():
        event = json.loads(line)
        if event["event"] == "start":
            starts, begun_at, step = starts + 1, event["step"], event["step"]
        elif event["event"] == "scalars":
            step = event["step"]
    return Progress(starts, begun_at, step)


def _rank_1(torchrun: int) -> int:
    return next(pid for pid in process_tree(torchrun) if b"\0RANK=1\0" in Path(f"/proc/{pid}/environ").read_bytes())
