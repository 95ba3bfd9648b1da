"""Runs cells as processes of their own, several at a time, each once.

Nothing is kept but the run folders: a runner that is killed is started again with the same command, finished cells are
not run again, begun ones go on from their checkpoint. A running cell holds a lock on its folder, which outlives a killed
runner: another runner waits for that cell and takes its result.
"""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from engine.config import save_config
from engine.experiments.cells import Cell, is_finished
from engine.experiments.results import Point, results_path
from engine.locks import try_lock
from engine.machine import usable_cores

_POLL_S = 0.2
_LOG_LINES = 8  # of a failed cell's log
JobKey = tuple[str, int | None]  # digest of a cell, number of snippets where it is not the config's
_ROOT = Path(__file__).resolve().parents[2]
TRAIN, EVALUATE = _ROOT / "engine" / "train.py", _ROOT / "tools" / "evaluate.py"


@dataclass(eq=False)
class Job:
    """A process to run: a cell's training, or its evaluation with another number of snippets.

    folder: where it works, holds its lock and writes its log. needs: jobs that must be finished first.
    """

    name: str
    folder: Path
    command: list[str]
    is_done: Callable[[], bool]
    prepare: Callable[[], None]
    needs: list["Job"] = field(default_factory=list)


@dataclass(eq=False)
class _Running:
    job: Job
    process: subprocess.Popen[bytes]
    slot: int
    started: float


def plan_jobs(points: Sequence[Point], out: Path, workers: int) -> dict[JobKey, Job]:
    """The jobs behind some points, each once, what is needed before what needs it."""
    jobs: dict[JobKey, Job] = {}

    def train(cell: Cell) -> Job:
        key = (cell.digest, None)
        if key not in jobs:
            folder = cell.folder(out)
            needs = [train(cell.start)] if cell.start and not is_finished(cell, folder) else []
            config = folder / "cell.yaml"
            jobs[key] = Job(
                cell.name, folder, [sys.executable, str(TRAIN), str(config)],
                lambda: is_finished(cell, folder), lambda: _write_config(cell, folder, out, workers), needs,
            )  # fmt: skip
        return jobs[key]

    for point in points:
        job = train(point.cell)
        if point.snippets is None or point_key(point) in jobs:
            continue
        result = results_path(job.folder, point.snippets)
        command = [
            sys.executable, str(EVALUATE), str(job.folder), "--snippets", str(point.snippets),
            "--device", point.cell.config.run.device, "--out", str(result.parent),
        ]  # fmt: skip
        name = f"{job.name}, {point.snippets} snippet(s)"
        jobs[point_key(point)] = Job(name, job.folder, command, result.is_file, lambda: None, [job])
    return jobs


def point_key(point: Point) -> JobKey:
    """The job that measures a point."""
    return (point.cell.digest, point.snippets)


def _write_config(cell: Cell, folder: Path, out: Path, workers: int) -> None:
    config = cell.located(out)
    threads = max(1, usable_cores() // workers)
    data = dataclasses.replace(config.data, decode_threads=threads)
    run = config.run if gpus() else dataclasses.replace(config.run, cpu_threads=threads)
    config = dataclasses.replace(config, run=run, data=data)
    save_config(config, folder / "cell.yaml")


def gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    return visible.split(",")[:count] if visible else [str(index) for index in range(count)]


class Runner:
    """Runs jobs on a number of workers; on a machine with GPUs worker i has GPU i (modulo their number).

    Failed jobs are named with the end of their log, those that need them are left out, the others go on.
    """

    def __init__(self, jobs: Sequence[Job], workers: int, say: Callable[[str], None]) -> None:
        self.failed: list[Job] = []
        self._workers = workers
        self._say = say
        self._gpus = gpus()
        self._waiting = [job for job in jobs if not job.is_done()]
        self._running: list[_Running] = []
        self._told: list[Job] = []
        self._total, self._begun = len(self._waiting), time.monotonic()
        if len(jobs) > self._total:
            say(f"{len(jobs) - self._total} of {len(jobs)} cells are finished already")

    def run(self) -> None:
        """Run what is not finished. An interrupt stops the running ones, which save their state first."""
        try:
            while self._waiting or self._running:
                self._collect()
                for job in list(self._waiting):
                    self._consider(job)
                time.sleep(_POLL_S)
        finally:
            for running in self._running:
                running.process.send_signal(signal.SIGTERM)
            for running in self._running:
                running.process.wait()

    def _consider(self, job: Job) -> None:
        """Start a job if it can be started now."""
        if any(need in self.failed for need in job.needs):
            self._fail(job, f"{job.name} is left out: what it needs failed")
            return
        unfinished = [*self._waiting, *(running.job for running in self._running)]
        if len(self._running) >= self._workers or any(need in unfinished for need in job.needs):
            return
        lock = _lock(job.folder)
        if lock is None:  # another runner's, or one that was killed left it running
            if job not in self._told:
                self._told.append(job)
                self._say(f"{job.name}: another process is at work on it; waiting for its end")
            return
        try:
            self._waiting.remove(job)
            if job.is_done():
                self._tell(f"{job.name}: finished by another process")
            else:
                self._start(job, lock)
        finally:
            os.close(lock)  # the process has its own

    def _start(self, job: Job, lock: int) -> None:
        job.prepare()
        slot = min(set(range(self._workers)) - {running.slot for running in self._running})
        environment = dict(os.environ)
        if self._gpus:
            environment["CUDA_VISIBLE_DEVICES"] = self._gpus[slot % len(self._gpus)]
        with _log(job).open("ab") as log:
            process = subprocess.Popen(
                job.command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                env=environment, pass_fds=[lock], start_new_session=True,
            )  # fmt: skip
        self._running.append(_Running(job, process, slot, time.monotonic()))

    def _collect(self) -> None:
        for running in list(self._running):
            status = running.process.poll()
            if status is None:
                continue
            self._running.remove(running)
            if status == 0 and running.job.is_done():
                self._tell(f"{running.job.name}: {time.monotonic() - running.started:.0f} s")
            else:
                log = _log(running.job)
                lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_LINES:]
                text = "".join(f"\n    {line}" for line in lines)
                self._fail(running.job, f"{running.job.name} FAILED with status {status}, the end of {log}:{text}\n")

    def _fail(self, job: Job, text: str) -> None:
        if job in self._waiting:
            self._waiting.remove(job)
        self.failed.append(job)
        self._tell(text)

    def _tell(self, text: str) -> None:
        left = len(self._waiting) + len(self._running)
        done = self._total - left
        seconds = (time.monotonic() - self._begun) / done * left
        self._say(f"[{done}/{self._total}] {text}; about {tqdm.format_interval(seconds)} left")


def _log(job: Job) -> Path:
    return job.folder / "cell.log"


def _lock(folder: Path) -> int | None:
    """An open file that holds the folder's lock, inherited by the process that works there; None if it is taken."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder / "lock", os.O_CREAT | os.O_RDWR)
    if not try_lock(handle):
        os.close(handle)
        return None
    return handle
