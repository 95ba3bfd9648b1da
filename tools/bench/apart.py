"""A contestant in a process of its own: what it breaks, a CUDA error or the whole process, costs only itself."""

import math
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from engine.errors import InputError
from engine.processes.parts import end_with_parent

_GRACE_S = 10.0  # to end by itself


class ContestantError(Exception):
    """The contestant, or its process, failed; the text says how. It takes no further part."""


def check_limit(limit_s: float) -> None:
    """Refuse a --limit that is no time to wait.

    Raises:
        InputError: it is.
    """
    if not 0 < limit_s < math.inf:
        raise InputError(f"--limit is {limit_s:g}: it must be above 0, and finite")


class Apart:
    """An object that is built and called in a fresh process, which ends when this one does, however that goes.

    Args:
        build: a function of a module (it is sent by name); called there with `arguments`.
        limit_s: seconds that building it or a call may take.

    Raises:
        ContestantError: it could not be built.
    """

    def __init__(self, build: Callable[..., Any], *arguments: Any, limit_s: float) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._limit_s = limit_s
        # No daemon, since those may have no children: its DataLoader has. It ends when this pipe does.
        self._process = context.Process(target=_serve, args=(theirs, build, arguments), daemon=False)
        self._process.start()
        theirs.close()
        try:
            self._answer()
        except ContestantError:
            self.close()
            raise

    def call(self, method: str, *arguments: Any, **keywords: Any) -> Any:
        """Its method's result, which is sent as a pickle. What torch keeps for itself on the GPU is given back after.

        Raises:
            ContestantError: the method raised, took too long, or its process died.
        """
        try:
            self._pipe.send((method, arguments, keywords))
        except OSError:
            raise ContestantError(self._death()) from None
        return self._answer()

    def close(self, grace_s: float = _GRACE_S) -> None:
        """End its process, which may do so by itself for `grace_s` seconds, and those that it started."""
        self._pipe.close()
        self._process.join(grace_s)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.join()

    def _answer(self) -> Any:
        if not self._pipe.poll(self._limit_s):
            self.close(grace_s=0)
            raise ContestantError(f"no result in {self._limit_s:g} s")
        try:
            is_well, content = self._pipe.recv()
        except (EOFError, OSError):
            raise ContestantError(self._death()) from None
        if not is_well:
            raise ContestantError(content)
        return content

    def _death(self) -> str:
        self._process.join(_GRACE_S)
        code = self._process.exitcode
        how = f"was killed by {signal.Signals(-code).name}" if code is not None and code < 0 else f"ended with {code}"
        return f"its process {how}"


def _serve(pipe: Connection, build: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """Build the object, then do as asked until the pipe closes."""
    with suppress(OSError):
        os.setsid()  # so that it can be ended with all that it starts
    end_with_parent()
    contestant = None
    with suppress(EOFError, OSError):
        contestant = _try(pipe, lambda: build(*arguments), tell=False)
        while True:
            method, values, keywords = pipe.recv()
            _try(pipe, lambda: getattr(contestant, method)(*values, **keywords))  # noqa: B023 (called at once)
            if (torch := sys.modules.get("torch")) is not None and torch.cuda.is_initialized():
                torch.cuda.empty_cache()  # the others need the memory


def _try(pipe: Connection, function: Callable[[], Any], *, tell: bool = True) -> Any:
    """Send what a function returns (with `tell`), or how it failed."""
    try:
        result = function()
    except Exception as error:  # whatever it is, it is told
        line = (str(error).strip().splitlines() or ["no message"])[0]
        pipe.send((False, f"{type(error).__name__}: {line}"))
        return None
    pipe.send((True, result if tell else None))
    return result
