"""Contestants of `train` that take turns, each in a process of its own."""

import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.apart import Apart, ContestantError
from bench.contestants import BaselineContestant, Contestant, EngineContestant, Window
from bench.options import BASELINES
from bench.rows import Row, line, with_ratios
from engine.config import Config
from engine.records import GrowingRecord, summarise

_WARMUP_STEPS = 3


@dataclass(frozen=True, slots=True)
class Entry:
    """A contestant before it is built: its name and the videos it reads."""

    name: str
    source: str  # "store" or "files"
    manifest: Path | None  # None: as the config says
    weight: float = 1.0  # how often each video comes in an epoch


def build(entry: Entry, config: Config, device: torch.device, workers: int, is_compiled: bool) -> Contestant:
    """A contestant, in the process that is to be its own."""
    if entry.name in BASELINES:
        return BaselineContestant(entry.name, config, device, workers=workers, is_compiled=is_compiled)
    return EngineContestant(config, device)


@dataclass
class _Runner:
    """Who takes part, and what was measured of it."""

    entry: Entry
    process: Apart
    precision: str
    warmup_s: float
    pairs: list[tuple[Window, Window]] = field(default_factory=list)  # fed by the loader, by the same batch


class Race:
    """Contestants, each in a process of its own, that take turns. What is known is printed and recorded after every turn."""

    def __init__(self, batch_size: int, steps: int, record: GrowingRecord | None, fields: dict[str, Any]) -> None:
        self._batch_size, self._steps, self._record, self._fields = batch_size, steps, record, fields
        self._runners: list[_Runner] = []
        self.failures: dict[str, str] = {}

    def enter(
        self, entry: Entry, config: Config, device: torch.device, workers: int, *, is_compiled: bool, limit_s: float
    ) -> None:
        """Start a contestant and let it warm up."""
        name = _name(entry)
        try:
            process = Apart(build, entry, config, device, workers, is_compiled, limit_s=limit_s)
        except ContestantError as error:
            self._failed(name, error)
            return
        started = time.perf_counter()
        try:
            precision = process.call("warm_up", _WARMUP_STEPS)
        except ContestantError as error:
            process.close()
            self._failed(name, error)
            return
        self._runners.append(_Runner(entry, process, precision, time.perf_counter() - started))
        print(f"{name}: warm after {self._runners[-1].warmup_s:.0f} s", flush=True)

    def round(self, turn: int) -> None:
        """A turn of each; nobody is always after the same one."""
        for place in np.roll(range(len(self._runners)), -turn) if self._runners else ():
            runner = self._runners[place]
            if _name(runner.entry) in self.failures:
                continue
            try:
                pair = tuple(runner.process.call("window", self._steps, same_batch=same) for same in (False, True))
            except ContestantError as error:
                self._failed(_name(runner.entry), error)
                continue
            runner.pairs.append(pair)
            print(line(self._row(runner)), flush=True)
            if self._record is not None:
                fields = self._fields | {"n": max(len(each.pairs) for each in self._runners)}
                self._record.write(results=[asdict(row) for row in self.rows()], **fields)

    def rows(self) -> list[Row]:
        """A row for each that has had a turn."""
        rows = [self._row(runner) for runner in self._runners if runner.pairs]
        for rival in BASELINES:
            rows = with_ratios(rows, rival, f"over_{rival.replace(' ', '_')}")
        return rows

    def trace(self, path: Path) -> None:
        """Profile three steps of the first contestant."""
        if self._runners:
            self._runners[0].process.call("trace", str(path.resolve()))

    def close(self) -> None:
        """End all processes."""
        for runner in self._runners:
            runner.process.close()

    def _failed(self, name: str, error: ContestantError) -> None:
        self.failures[name] = str(error)
        print(f"{name}: {error}", flush=True)

    def _row(self, runner: _Runner) -> Row:
        seconds = summarise([fed.seconds / self._steps for fed, _ in runner.pairs])
        same_s = float(np.median([same.seconds for _, same in runner.pairs]))
        values = {
            "clips_per_s": self._batch_size / seconds["p50"],
            "compute_clips_per_s": self._batch_size * self._steps / same_s,
            "saturation": float(np.median([same.seconds / fed.seconds for fed, same in runner.pairs])),
            "wait_share": float(np.median([fed.waited_s / fed.seconds for fed, _ in runner.pairs])),
            "warmup_s": runner.warmup_s,
        }
        return Row(runner.entry.source, runner.entry.name, runner.precision, seconds, values)


def _name(entry: Entry) -> str:
    return f"{entry.name}, {entry.source}"
