"""What runs on a cluster's nodes, in Ray's workers. Nothing here imports Ray.

A piece is done by a process of the worker's own, as on one machine: a file that crashes or hangs FFmpeg costs that process, and
the worker tells how it ended. Ray hears only of workers and nodes that die, and gives their pieces to others.
"""

import hashlib
import os
import pickle
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import engine
from engine.files.locks import lock_file
from engine.processes.parts import tied
from engine.processes.process_pool import Lost, Worker

_ROOT = Path(engine.__file__).resolve().parents[1]
_POLL_S = 0.5
_LOCK_LIMIT_S = 600.0


@dataclass(frozen=True, slots=True)
class Look:
    """What a node is like: the digest of its code, and which of the paths it does not have."""

    code: str
    missing: tuple[str, ...]


def look_around(paths: Sequence[str]) -> Look:
    """What this node is like."""
    return Look(code_digest(), tuple(path for path in paths if not os.access(path, os.R_OK)))


def code_digest() -> str:
    """Of this package's modules, wherever they are installed."""
    digest = hashlib.blake2b(digest_size=8)
    for folder in ("engine", "kernels"):
        for path in sorted((_ROOT / folder).rglob("*.py")):
            digest.update(str(path.relative_to(_ROOT)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


class Pickled:
    """The function, whose items and results are pickled like itself: who hands them on imports nothing that they are of."""

    def __init__(self, function: bytes) -> None:
        self._pickled = function
        self._function: Callable[[Any], Any] | None = None

    def __call__(self, item: bytes) -> bytes:
        if self._function is None:
            self._function = pickle.loads(self._pickled)
        return pickle.dumps(self._function(pickle.loads(item)))


_working: tuple[object, Worker] | None = None  # the process of this worker, and what it was started for


def do_piece(job: str, function: bytes, item: bytes, time_limit_s: float, folder: str) -> bytes | Lost:
    """Apply the function to an item in this worker's own process, all three pickled; `Lost` if that dies or takes too long.

    Args:
        job: the process stays for all items of one job, and with it what the function keeps (a model).
        folder: that relative paths are relative to.
    """
    global _working
    key = (job, os.environ.get("CUDA_VISIBLE_DEVICES"))
    if _working is None or _working[0] != key:
        if _working is not None:
            _working[1].stop()
        os.chdir(folder)
        _working = (key, Worker(Pickled(function)))
    worker = _working[1]
    worker.give(item)
    result = worker.take_within(time_limit_s)
    if isinstance(result, Lost):
        worker.stop()
        _working = None
    return result


def run_program(command: Sequence[str], log: str, lock: str, variables: Mapping[str, str], folder: str) -> int:
    """Run a program to its end and return its exit status; SIGTERM for it when this worker is told to stop, or dies.

    Args:
        log: the file that what it prints is added to.
        lock: a file that it keeps locked. Where its node died another program may still be saving its state under it.
        variables: of the environment, beside the node's own.
        folder: where it is started.
    """
    until = time.monotonic() + _LOCK_LIMIT_S
    while (file := lock_file(Path(lock))) is None:
        if time.monotonic() > until:
            raise TimeoutError(f"another process has held '{lock}' for {_LOCK_LIMIT_S:g} s: stop it")
        time.sleep(_POLL_S)
    try:
        with Path(log).open("ab") as output:
            process = subprocess.Popen(
                tied(command),
                stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, pass_fds=[file],
                env={**os.environ, **variables}, cwd=folder, start_new_session=True,
            )  # fmt: skip
    finally:
        os.close(file)
    try:
        while process.poll() is None:
            time.sleep(_POLL_S)
    except BaseException:  # Ray's way to cancel is KeyboardInterrupt
        process.terminate()
        process.wait()
        raise
    return process.returncode
