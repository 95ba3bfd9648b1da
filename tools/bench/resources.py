"""What a process and its children hold as time goes by, and whether that grows.

Read from /proc (Linux), GPU memory from nvidia-smi. A trend is a Theil-Sen line, the median of the slopes between
all pairs of samples: a peak now and then (an evaluation, a checkpoint) does not bend it.
"""

import os
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from engine.errors import InputError
from engine.machine import resident_bytes

UNITS = {"memory": "MB", "open files": "files", "threads": "threads", "GPU memory": "MB"}
# How much the fitted line may rise from the end of the warm-up to the end of the run, and still be called flat.
SHARE_LIMIT, MEMORY_LIMIT_MB, COUNT_LIMIT = 0.02, 4.0, 0.5
LEAST = 8  # samples that a line is fitted to
_MOST_POINTS = 1500  # of a fit, which looks at all pairs


@dataclass(frozen=True, slots=True)
class Sample:
    """What was held after `seconds`, when `done` snippets were done; by the names of `UNITS`."""

    seconds: float
    done: int
    held: dict[str, float]


@dataclass(frozen=True, slots=True)
class Trend:
    """A quantity over the run without its warm-up.

    since_s: where the warm-up ends. first, last: of the fitted line.
    halves: its slope per hour in each half of the run, which tells growth that ends.
    """

    since_s: float
    first: float
    last: float
    per_hour: float
    per_1000_snippets: float
    halves: tuple[float, float]
    limit: float

    @property
    def is_flat(self) -> bool:
        return bool(self.last - self.first <= self.limit)  # readings are of numpy, whose bool is not JSON


def process_tree(pid: int) -> list[int]:
    """A process and all that descend from it, as far as they are alive."""
    found, waiting = [], [pid]
    while waiting:
        found.append(waiting.pop())
        for task in Path(f"/proc/{found[-1]}/task").glob("*/children"):
            waiting += map(int, _read(task).split())
    return found


def computing_s(pids: Iterable[int]) -> float:
    """Seconds that processes have computed, and with them their children that have ended; of one that is gone none."""
    ticks = 0
    for pid in pids:
        after_name = _read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
        ticks += sum(map(int, after_name[11:15]))  # utime, stime, cutime, cstime of proc(5)
    return ticks / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Ended:
    """A program that has ended: its exit status, seconds by the clock and of computing, and the most resident memory that it and
    its processes had together at a time, files that they map among it."""

    status: int
    clock_s: float
    computing_s: float
    peak_bytes: int


def run_to_end(
    command: Sequence[str], stdout: int | IO[Any], stderr: IO[Any] | None = None, every_s: float = 0.1
) -> Ended:
    """Run a program to its end, and look at its memory every so many seconds. What stops this one kills it."""
    begun, peak = time.perf_counter(), 0
    process = subprocess.Popen(command, stdout=stdout, stderr=stderr)
    try:
        while not (ended := os.wait4(process.pid, os.WNOHANG))[0]:
            peak = max(peak, sum(resident_bytes("VmHWM", pid) for pid in process_tree(process.pid)))
            time.sleep(every_s)
    except KeyboardInterrupt:
        process.kill()
        raise
    process.returncode = os.waitstatus_to_exitcode(ended[1])
    computing_s = ended[2].ru_utime + ended[2].ru_stime
    return Ended(process.returncode, time.perf_counter() - begun, computing_s, peak)


def held_by(pids: Sequence[int]) -> dict[str, float]:
    """The resident memory, open files and threads of processes together; the memory of all GPUs, if there are any.

    Memory is what processes asked for. Pages of mapped files (torch's libraries: half a gigabyte) are left out: the kernel
    drops them under pressure and brings them back on use, which looks like growth. Memory that processes share counts
    for each. A process that ends meanwhile counts nothing.
    """
    held = dict.fromkeys(("memory", "open files", "threads"), 0.0)
    for pid in pids:
        status = dict(line.split(":", 1) for line in _read(Path(f"/proc/{pid}/status")).splitlines())
        if "RssAnon" not in status:  # it has ended
            continue
        held["memory"] += sum(resident_bytes(field, pid) for field in ("RssAnon", "RssShmem")) / 1e6
        held["threads"] += int(status["Threads"])
        try:
            held["open files"] += sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
        except OSError:
            continue
    gpu = _gpu_memory_mb()
    return held if gpu is None else {**held, "GPU memory": gpu}


def watch(pid: int, done: Callable[[], int], is_over: Callable[[Sample], bool], every_s: float) -> list[Sample]:
    """Samples of a process and its children until `is_over` says so or it ends.

    Raises:
        InputError: there is no /proc here.
    """
    if not Path("/proc/self/status").is_file():
        raise InputError("a soak reads /proc, which only Linux has: run it there")
    samples, start = [], time.monotonic()
    while True:
        held = held_by(process_tree(pid))
        if not held["threads"]:  # it has ended
            return samples
        samples.append(Sample(time.monotonic() - start, done(), held))
        if is_over(samples[-1]):
            return samples
        time.sleep(every_s)


def trends(samples: Sequence[Sample], warm_up: float) -> dict[str, Trend]:
    """The trend of each quantity over the samples after the warm-up: a share of the time since the first snippet.

    Raises:
        InputError: fewer than `LEAST` samples are left, or no snippet was done in them.
    """
    begun = [sample for sample in samples if sample.done]
    kept = begun and [
        s for s in begun if s.seconds >= begun[0].seconds + warm_up * (begun[-1].seconds - begun[0].seconds)
    ]
    if len(kept) < LEAST:
        seconds = samples[-1].seconds if samples else 0.0
        before = begun[0].seconds if begun else seconds
        longer = before + least_s(seconds / max(1, len(samples) - 1), warm_up)
        raise InputError(
            f"{len(kept)} samples after the warm-up, and {LEAST} are needed: {before:.0f} s went by before any work was done; "
            f"run it for {longer:.0f} s or more, or take samples more often (--every)"
        )
    if kept[-1].done == kept[0].done:
        raise InputError(f"{len(kept)} samples with no work in them: run it longer")
    kept = kept[:: -(-len(kept) // _MOST_POINTS)]
    hours = np.array([sample.seconds for sample in kept]) / 3600
    rate = (kept[-1].done - kept[0].done) / 1000 / (hours[-1] - hours[0])  # thousands of snippets an hour
    found = {}
    for name in kept[0].held:
        values = np.array([sample.held[name] for sample in kept])
        slope, start = theil_sen(hours - hours[0], values)
        middle = len(kept) // 2
        halves = tuple(theil_sen(hours[part], values[part])[0] for part in (slice(middle), slice(middle, None)))
        limit = max(SHARE_LIMIT * start, MEMORY_LIMIT_MB) if UNITS[name] == "MB" else COUNT_LIMIT
        last = start + slope * (hours[-1] - hours[0])
        found[name] = Trend(kept[0].seconds, start, last, slope, slope / rate, halves, limit)
    return found


def least_s(every_s: float, warm_up: float) -> float:
    """The seconds of work within which `LEAST` samples are taken after the warm-up."""
    return LEAST * every_s / (1 - warm_up)


def theil_sen(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """(slope, value at x = 0) of the line through points [N]: the median slope of all pairs, the median intercept."""
    one, other = np.triu_indices(len(x), k=1)
    slope = float(np.median((y[other] - y[one]) / (x[other] - x[one])))
    return slope, float(np.median(y - slope * x))


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # it has ended
        return ""


def _gpu_memory_mb() -> float | None:
    command = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return None
    return sum(map(float, done.stdout.split())) * 2**20 / 1e6
