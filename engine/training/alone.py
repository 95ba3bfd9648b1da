"""One training at a time in a run folder."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.errors import InputError
from engine.files.locks import try_lock
from engine.processes.distributed import Ranks, broadcast_from_main
from engine.terminal.command_line import output_folder

_WAIT_S = 10.0  # whoever starts a killed training again may come before the killed one has ended
_POLL_S = 0.2


@contextmanager
def alone_in(run_folder: Path, ranks: Ranks) -> Iterator[None]:
    """While inside, no other process of this machine trains in the folder, which is made if need be. Collective.

    The lock is on the folder itself and ends with the process that has it; where a disk has none, nothing is kept out.

    Raises:
        InputError: another process trains in it; or nothing can be written there.
    """
    handle = _opened(output_folder(run_folder, "run.folder")) if ranks.is_main else None
    try:
        if not broadcast_from_main(handle is None or _is_locked_in_time(handle)):
            raise InputError(
                f"run folder '{run_folder}': another process trains in it: wait for it or stop it, or name another run.folder"
            )
        yield
    finally:
        if handle is not None:
            os.close(handle)


def _opened(folder: Path) -> int | None:
    try:
        return os.open(folder, os.O_RDONLY)
    except OSError:  # no right to list it
        return None


def _is_locked_in_time(handle: int) -> bool:
    deadline = time.monotonic() + _WAIT_S
    while not try_lock(handle):
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    return True
