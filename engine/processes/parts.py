"""A command's parts that run as processes of their own: none goes on when the command is stopped, or killed."""

import math
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from engine.errors import is_interrupted

_TO_END_S = 10.0  # in which no other SIGTERM is listened to
_TO_SAVE_S = 60.0  # that a program may take to end when told to
_heard = [-math.inf]  # when a SIGTERM was listened to, on the monotonic clock


def stop_on_sigterm() -> None:
    """From now on SIGTERM (kill, timeout, Slurm, a container's stop) is Ctrl-C, which lets all that was begun be ended."""
    signal.signal(signal.SIGTERM, _stop)


def _stop(*_: object) -> None:
    """SIGTERM is Ctrl-C, but where one of them came just before: what they end must come to its end. A later one counts again: code
    that passes all errors by may have had the first."""
    now = time.monotonic()
    if now - _heard[0] > _TO_END_S and not is_interrupted():
        _heard[0] = now
        raise KeyboardInterrupt


def tied(command: Sequence[str]) -> list[str]:
    """A command line that runs this one, and tells it to stop (SIGTERM) when told so itself, or when whoever started it is gone."""
    return [sys.executable, "-S", str(Path(__file__).with_name("tied.py")), *command]


@contextmanager
def running(command: Sequence[str], **options: Any) -> Iterator["subprocess.Popen[bytes]"]:
    """A program that runs while inside, `tied`; when left it is told to stop, and with all that it started it is ended if it takes
    too long.

    Args:
        options: of `subprocess.Popen`.
    """
    process = subprocess.Popen(tied(command), start_new_session=True, **options)
    try:
        yield process
    finally:
        try:
            process.terminate()
            process.wait(_TO_SAVE_S)
        except subprocess.TimeoutExpired:
            pass
        finally:
            if process.poll() is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def end_with_parent() -> None:
    """Called first in a process of `multiprocessing`: it ends when its parent does, whatever it is at, and with all that it started
    if it leads a group of processes: nobody waits for it any more."""
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(1)
