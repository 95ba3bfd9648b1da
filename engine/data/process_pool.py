"""Work on many files by processes that may crash or hang without stopping the rest.

`concurrent.futures` gives up the whole pool when one process dies. Here every worker holds one item at a
time, so it is known whose fault a crash is; the worker is replaced and the work goes on.
"""

import atexit
import multiprocessing
import signal
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

from engine.errors import SourceGone

T = TypeVar("T")
R = TypeVar("R")

POLL_S = 0.5  # how often the time of busy workers is looked at
START_LIMIT_S = 300.0  # for the imports of a fresh worker, on a busy machine


@dataclass(frozen=True, slots=True)
class Lost:
    """An item whose worker died or was stopped."""

    is_timeout: bool
    text: str


def run_isolated(
    function: Callable[[T], R], items: Iterable[T], num_workers: int, time_limit_s: float
) -> Iterator[tuple[T, R | Lost]]:
    """Apply `function` to every item; yields (item, result) in the order in which they are done.

    Args:
        function: importable by name (it is sent to fresh processes), and silent about its failures:
            an exception that escapes it counts as a crash, but for `SourceGone`, which is raised here.
        num_workers: processes; 0 works in this very process, without any protection.
        time_limit_s: a worker that takes longer for an item is killed.
    """
    if num_workers == 0:
        yield from ((item, function(item)) for item in items)
        return
    queue = iter(items)
    workers: list[Worker] = []
    try:
        for item in queue:
            workers.append(Worker(function))
            workers[-1].give(item)
            if len(workers) == num_workers:
                break
        while workers:
            ready = wait([worker.connection for worker in workers], POLL_S)
            for index, worker in enumerate(workers):
                left_s = worker.since + time_limit_s - time.monotonic()
                if worker.connection not in ready and left_s > 0:
                    continue
                result = worker.take_within(time_limit_s)
                done = worker.item
                if isinstance(result, Lost):
                    workers[index] = worker = Worker(function)
                worker.item = None
                for item in queue:
                    worker.give(item)
                    break
                yield done, result
            for worker in [worker for worker in workers if worker.item is None]:
                worker.stop()
                workers.remove(worker)
    finally:
        for worker in workers:
            worker.stop()


class Worker:
    """A process that applies `function` to one item after another; the item it works on, since when, and if it ever answered."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        # Fresh processes: a fork of a process with threads (torch, Arrow) may deadlock.
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(function, theirs), daemon=True)
        self.process.start()
        theirs.close()  # so that the death of the process ends the pipe
        _LIVING.add(self)
        self.item: Any = None
        self.since = 0.0
        self.has_answered = False

    def give(self, item: Any) -> None:
        """Send the next item; `take_within` has its result."""
        self.item, self.since = item, time.monotonic()
        try:
            self.connection.send(item)
        except BrokenPipeError:  # it died meanwhile: `take_within` says how
            return

    def take_within(self, time_limit_s: float) -> Any:
        """The result of the item, or why there is none; waits until `time_limit_s` after it was given.

        Raises:
            SourceGone: the function could not read its source. Nothing is wrong with the item or the process.
        """
        if not self.connection.poll(max(0.0, self.since + time_limit_s - time.monotonic())):
            self.stop()
            return Lost(True, f"stopped after {time_limit_s:g} s")
        try:
            answer = self.connection.recv()
            self.has_answered = True
            if isinstance(answer, SourceGone):
                raise answer
            return answer
        except (EOFError, ConnectionResetError):
            self.process.join()
            code = self.process.exitcode or 0
            why = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
            return Lost(False, f"the process that read it died ({why})")

    def stop(self) -> None:
        """End the process, whatever it does."""
        self.connection.close()
        self.process.kill()
        self.process.join()


_LIVING: weakref.WeakSet[Worker] = weakref.WeakSet()


@atexit.register  # after multiprocessing's own, and so before it: that one would ask with SIGTERM, and wait for ever
def _stop_all() -> None:
    for worker in list(_LIVING):
        worker.stop()


def _serve(function: Callable[[Any], Any], connection: Connection) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):  # the parent decides what they mean
        signal.signal(number, signal.SIG_IGN)
    while True:
        try:
            item = connection.recv()
        except EOFError:  # the parent is gone, however it went
            return
        try:
            answer = function(item)
        except SourceGone as error:
            answer = error
        connection.send(answer)
