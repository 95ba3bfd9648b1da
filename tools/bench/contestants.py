"""Who takes part in `train`: the engine's own training loop, and baselines with theirs, all timed at the same place.

Every loop asks an iterator for its next batch. That iterator is what is timed: from one request to the one `steps`
later, with the device done at both ends; and, within that, how long the requests themselves took.
"""

import contextlib
import io
import itertools
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import torch

from bench.loading import RandomSnippets, endless_batches
from bench.settling import decoder_line, until_settled
from bench.suites import BASELINES
from bench.trainers import bench_run, build_baseline
from engine.config import Config
from engine.data.batch import ClipBatch
from engine.data.sets.sources import load_source
from engine.semantics.classes import build_class_embeddings
from engine.train import train_steps
from engine.training.garbage import collected_by_hand
from engine.training.step import warmup_steps
from engine.training.telemetry import Telemetry

T = TypeVar("T")
_SETTLE_SAME_BATCH = 2  # untimed steps before a window, where nothing is read ahead


@dataclass(frozen=True, slots=True)
class Window:
    """A timed stretch of training. waited_s: of its seconds, those in which the loop waited for data. computed_s: of all
    threads of this process."""

    seconds: float
    waited_s: float
    steps: int
    computed_s: float


Pair = tuple[Window, Window]  # of one turn: fed by the loader, by the same batch


class Warm(NamedTuple):
    """What a warm-up found: the precision of the arithmetic, and a line on who decodes, if there was a choice."""

    precision: str
    decoder: str = ""


class Contestant(ABC):
    """Someone who trains. `window` goes on from where it stopped; with `same_batch` it reads nothing."""

    precision: str

    @abstractmethod
    def window(self, steps: int, *, same_batch: bool) -> Window: ...

    @abstractmethod
    def close(self) -> None: ...

    def warm_up(self, steps: int) -> Warm:
        """Untimed steps, compilation among them."""
        self.window(steps, same_batch=False)
        return Warm(self.precision)

    def turn(self, steps: int) -> Pair:
        """Timed steps fed by the loader, and as many by the same batch again and again."""
        return self.window(steps, same_batch=False), self.window(steps, same_batch=True)

    def trace(self, path: str) -> None:
        """Write a profiler trace of three steps."""
        with torch.profiler.profile() as profile:
            self.window(3, same_batch=False)
        profile.export_chrome_trace(path)


@dataclass(frozen=True, slots=True)
class Entry:
    """A contestant before it is built: its name and the videos it reads."""

    name: str
    source: str  # "store" or "files"
    manifest: Path | None  # None: as the config says
    weight: float = 1.0  # how often each video comes in an epoch

    def __str__(self) -> str:
        return f"{self.name}, {self.source}"


def build(entry: Entry, config: Config, device: torch.device, workers: int, is_compiled: bool) -> Contestant:
    """A contestant, in the process that is to be its own."""
    if entry.name in BASELINES:
        return BaselineContestant(entry.name, config, device, workers=workers, is_compiled=is_compiled)
    return EngineContestant(config, device)


class _Enough(Exception):
    """The timed steps are done: leaves a loop that has no end of its own."""


class _Metered(Generic[T]):
    """The batches of `source`, timed from after `settle` of them on, for `steps` steps."""

    def __init__(self, source: Iterator[T], settle: int, steps: int, device: torch.device) -> None:
        self.source, self.settle, self.steps, self.device = source, settle, steps, device
        self.last: T | None = None
        self._count, self._begun, self._waited_s, self._computed_s = 0, 0.0, 0.0, 0.0
        self.result: Window | None = None

    def __iter__(self) -> "_Metered[T]":
        return self

    def __next__(self) -> T:
        if self._count == self.settle:
            self._synchronise()
            self._begun, self._waited_s, self._computed_s = time.perf_counter(), 0.0, time.process_time()
        elif self._count == self.settle + self.steps:
            self._synchronise()
            seconds, computed_s = time.perf_counter() - self._begun, time.process_time() - self._computed_s
            self.result = Window(seconds, self._waited_s, self.steps, computed_s)
            raise _Enough
        self._count += 1
        asked = time.perf_counter()
        self.last = next(self.source)
        self._waited_s += time.perf_counter() - asked
        return self.last

    def _synchronise(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def run(self, loop: Callable[["_Metered[T]"], None]) -> Window:
        """Run a loop until enough is timed."""
        with contextlib.suppress(_Enough):
            loop(self)
        assert self.result is not None, "the loop ended by itself"
        return self.result


class EngineContestant(Contestant):
    """`engine.train`'s loop over the engine's loader, or over one batch again and again."""

    def __init__(self, config: Config, device: torch.device) -> None:
        self.engine_run, self.device = bench_run(config, device), device
        self.precision = self.engine_run.precision.name
        self._batch: ClipBatch | None = None
        with _quiet():
            self._telemetry = Telemetry(
                Path(config.run.folder), self.engine_run.ranks, every_steps=config.log.every_steps,
                batch_size=config.train.batch_size, total_steps=self.engine_run.total_steps, first_step=0,
                warmup_steps=warmup_steps(config, device),
            )  # fmt: skip

    def window(self, steps: int, *, same_batch: bool) -> Window:
        if same_batch and self._batch is not None:
            return self._time(itertools.repeat(self._batch), _SETTLE_SAME_BATCH, steps)
        batches = self.engine_run.task.batches(self.engine_run)
        try:
            return self._time(batches, self.engine_run.config.data.prefetch_batches + 2, steps)
        finally:
            batches.close()

    def warm_up(self, steps: int) -> Warm:
        """See `Contestant`; then steps in one stretch until it is settled who decodes: each new one would begin anew."""
        warm = super().warm_up(steps)
        decoding, batches = self.engine_run.task.decoding, self.engine_run.task.batches(self.engine_run)

        def fed() -> Iterator[ClipBatch]:
            for _ in until_settled(decoding):
                yield next(batches)
            raise _Enough

        try:
            with contextlib.suppress(_Enough):
                self._train(fed())
        finally:
            batches.close()
        return warm._replace(decoder=decoder_line(decoding))

    def _train(self, batches: Iterator[ClipBatch]) -> None:
        with _quiet(), collected_by_hand(self.engine_run.config.train.gc_every_steps > 0):
            train_steps(self.engine_run, batches, self._telemetry)

    def _time(self, source: Iterator[ClipBatch], settle: int, steps: int) -> Window:
        metered = _Metered(source, settle, steps, self.device)
        window = metered.run(self._train)
        self._batch = metered.last
        return window

    def close(self) -> None:
        self._telemetry.close()


class BaselineContestant(Contestant):
    """A trainer of `bench.trainers` over a DataLoader of `bench.loading`."""

    def __init__(self, name: str, config: Config, device: torch.device, *, workers: int, is_compiled: bool) -> None:
        manifest = load_source(config.data.train[0]).manifest
        vectors = build_class_embeddings(manifest.classes, config.words).vectors
        self._targets = torch.as_tensor(vectors, dtype=torch.float32, device=device)
        torch.manual_seed(config.run.seed)
        self._step, self.precision = build_baseline(
            name, config, self._targets.shape[1], device, is_compiled=is_compiled
        )
        snippets = RandomSnippets(manifest, config.clip, "pyav" if name == "torchvision" else "opencv")
        self._load = partial(endless_batches, snippets, config.train.batch_size, workers, device)
        self._settle, self.device = 2 * workers + 1, device  # a DataLoader holds two batches a worker
        self._batch: tuple[torch.Tensor, torch.Tensor] | None = None

    def window(self, steps: int, *, same_batch: bool) -> Window:
        if same_batch and self._batch is not None:
            return self._time(itertools.repeat(self._batch), _SETTLE_SAME_BATCH, steps)
        batches = self._load()
        try:
            return self._time(batches, self._settle, steps)
        finally:
            batches.close()  # else its workers go on reading beside whatever is timed next

    def _time(self, source: Iterator[Any], settle: int, steps: int) -> Window:
        metered = _Metered[Any](source, settle, steps, self.device)
        window = metered.run(self._train)
        self._batch = metered.last
        return window

    def _train(self, batches: Iterator[tuple[torch.Tensor, torch.Tensor]]) -> None:
        for frames, labels in batches:
            self._step(frames, self._targets[labels])

    def close(self) -> None:
        """Nothing is open between windows."""


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The engine's log goes to its run folder; the terminal is for the table."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
