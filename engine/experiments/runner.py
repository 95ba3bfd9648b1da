"""Runs cells as processes of their own, several at a time, each once.

Nothing is kept but the run folders: a runner that is killed is started again with the same command, finished cells are
not run again, begun ones go on from their checkpoint. A running cell holds a lock on its folder: where it outlives a killed
runner, the next one waits for it and takes its result.
"""

import dataclasses
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from engine.cluster.programs import Program, Programs
from engine.config import save_config
from engine.errors import InputError
from engine.experiments.cells import Cell, is_finished
from engine.experiments.results import Point, results_path

_POLL_S = 0.2
_LOG_LINES = 8  # of a failed cell's log
JobKey = tuple[str, int | None]  # digest of a cell, number of snippets where it is not the config's
ROOT = Path(__file__).resolve().parents[2]
TRAIN, EVALUATE = ROOT / "engine" / "train.py", ROOT / "tools" / "evaluate.py"


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
    program: Program
    started: float


def plan_jobs(points: Sequence[Point], out: Path, programs: Programs) -> dict[JobKey, Job]:
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
                lambda: is_finished(cell, folder), lambda: _write_config(cell, folder, out, programs), needs,
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


def _write_config(cell: Cell, folder: Path, out: Path, programs: Programs) -> None:
    config = cell.located(out)
    data = dataclasses.replace(config.data, decode_threads=programs.cpus)
    run = config.run if programs.has_gpus else dataclasses.replace(config.run, cpu_threads=programs.cpus)
    config = dataclasses.replace(config, run=run, data=data)
    save_config(config, folder / "cell.yaml")


class Runner:
    """Runs jobs, as many at a time as there are slots.

    Failed jobs are named with the end of their log, those that need them are left out, the others go on.
    """

    def __init__(self, jobs: Sequence[Job], programs: Programs, say: Callable[[str], None]) -> None:
        self.failed: list[Job] = []
        self._programs = programs
        self._say = say
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
                slots = self._programs.slots  # of a cluster: as it is now
                for job in list(self._waiting):
                    self._consider(job, slots)
                time.sleep(_POLL_S)
        finally:
            for running in self._running:
                running.program.terminate()
            for running in self._running:
                running.program.wait()

    def _consider(self, job: Job, slots: int) -> None:
        """Start a job if it can be started now."""
        if any(need in self.failed for need in job.needs):
            self._fail(job, f"{job.name} is left out: what it needs failed")
            return
        unfinished = [*self._waiting, *(running.job for running in self._running)]
        if len(self._running) >= slots or any(need in unfinished for need in job.needs):
            return
        if job in self._told and self._is_done(job):
            self._waiting.remove(job)
            self._tell(f"{job.name}: finished by another process")
        if job not in self._waiting:
            return
        if job not in self._told:
            job.folder.mkdir(parents=True, exist_ok=True)
            job.prepare()
        program = self._programs.start(job.command, _log(job), job.folder / "lock")
        if program is not None:
            self._waiting.remove(job)
            self._running.append(_Running(job, program, time.monotonic()))
        elif job not in self._told:  # of a runner that was killed
            self._told.append(job)
            self._say(f"{job.name}: another process is at work on it; waiting for its end")

    def _collect(self) -> None:
        for running in list(self._running):
            status = running.program.poll()
            if status is None:
                continue
            self._running.remove(running)
            if status == 0 and self._is_done(running.job):
                self._tell(f"{running.job.name}: {time.monotonic() - running.started:.0f} s")
            elif running.job not in self.failed:
                log = _log(running.job)
                lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_LINES:]
                text = "".join(f"\n    {line}" for line in lines)
                self._fail(running.job, f"{running.job.name} FAILED with status {status}, the end of {log}:{text}\n")

    def _is_done(self, job: Job) -> bool:
        """Whether its result is there. Where it cannot be told, or is of something else by now, the job has failed."""
        try:
            return job.is_done()
        except InputError as error:
            self._fail(job, f"{job.name} FAILED: {error}")
            return False

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
