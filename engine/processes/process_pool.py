"""Work on many files by processes that may crash or hang without stopping the rest.

`concurrent.futures` gives up the whole pool when one process dies. Here every worker holds one item at a
time, so it is known whose fault a crash is; the worker is replaced and the work goes on.

Workers are forked by a server, Python's own (`multiprocessing.forkserver`), which has imported what they need: they start
at once, and what was imported lies in memory once. A fork of this process, which has threads (torch, Arrow), may deadlock.
"""

import atexit
import errno
import gc
import multiprocessing
import os
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

from engine.errors import SourceGone
from engine.processes.parts import end_with_parent
from engine.terminal.wording import signal_name

T = TypeVar("T")
R = TypeVar("R")

POLL_S = 0.5  # how often the time of busy workers is looked at
START_LIMIT_S = 300.0  # for the imports of a fresh worker, on a busy machine
_POLL_LIMIT_S = 86400.0  # what the system's poll takes at a time
_UNHEARD = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)  # by workers: the parent decides what they mean
_STARTING = threading.Lock()  # one at a time: the environment is changed meanwhile


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


def _start(process: BaseProcess) -> None:
    try:
        process.start()
    except EOFError as error:  # their server could not fork, and has ended
        raise BlockingIOError(errno.EAGAIN, f"no process can be started: {os.strerror(errno.EAGAIN)}") from error


class Worker:
    """A process that applies `function` to one item after another; the item it works on, since when, and if it ever answered."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        module = getattr(function, "func", function).__module__  # of a partial its function's
        with _STARTING:
            context = _context(module)
            self.connection, theirs = context.Pipe()
            self.process = context.Process(target=_serve, args=(function, theirs, dict(os.environ)), daemon=True)
            with _left_out(is_needed=module == "__main__"):
                _start(self.process)
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
        if not self._has_answer_within(time_limit_s):
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
            why = f"signal {signal_name(-code)}" if code < 0 else f"exit code {code}"
            return Lost(False, f"the process that read it died ({why})")

    def _has_answer_within(self, time_limit_s: float) -> bool:
        while True:
            left_s = max(0.0, self.since + time_limit_s - time.monotonic())
            if self.connection.poll(min(left_s, _POLL_LIMIT_S)):
                return True
            if left_s <= _POLL_LIMIT_S:
                return False

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


def _context(module: str) -> BaseContext:
    """How a worker is started: where a server can be, by one that runs, and has imported the module that it was started for."""
    if sys.platform == "linux":
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([module])
        try:
            _ensure_server()
            return context
        except OSError:  # no place for its socket: a TMPDIR that is very long, or cannot be written
            pass
    return multiprocessing.get_context("spawn")


def _ensure_server() -> None:
    """Start a server where there is none, or it has died.

    It looks for modules where this program does (Python would begin in the current folder, which may be one of videos), and does
    not hear the signals that workers do not hear, such as those to a whole group of processes.
    """
    paths = os.pathsep.join(path for path in sys.path if path and os.pathsep not in path)
    changed = {"PYTHONSAFEPATH": "1", "PYTHONPATH": paths}
    before = {name: os.environ.get(name) for name in changed}
    resource_tracker.ensure_running()  # the server's start would do it, and let signals through again
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _UNHEARD)
    os.environ.update(changed)
    try:
        forkserver.ensure_running()
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@contextmanager
def _left_out(is_needed: bool) -> Iterator[None]:
    """While inside, fresh processes do not run the program's own file again, with all that it imports, unless it is needed."""
    program = sys.modules["__main__"]
    before = program.__spec__
    if not is_needed:
        program.__spec__ = ModuleSpec("__main__", None)  # as of a package that is run: it is never run again
    try:
        yield
    finally:
        program.__spec__ = before


def _serve(function: Callable[[Any], Any], connection: Connection, environment: Mapping[str, str]) -> None:
    for number in _UNHEARD:
        signal.signal(number, signal.SIG_IGN)
    end_with_parent()
    os.environ.clear()
    os.environ.update(environment)  # the server's may be older
    gc.freeze()  # what it shares with the others is not looked through, and so not copied
    while True:
        try:
            item = connection.recv()
        except (EOFError, ConnectionError):  # the parent is gone, however it went
            return
        try:
            answer = function(item)
        except SourceGone as error:
            answer = error
        with suppress(ConnectionError):  # else its end is met above
            connection.send(answer)
