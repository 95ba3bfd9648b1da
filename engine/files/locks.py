"""One process at a time writes a folder."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO


def try_lock(file: int | IO) -> bool:
    """Lock an open file or folder for this process, and those that inherit it, until it is closed; False if another has it.

    A disk without locks (some NFS) keeps nobody out: there it is True.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def lock_file(path: Path) -> int | None:
    """The file, made if need be, open and locked, for a process that inherits it; None if another has the lock. `os.close` it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_CREAT | os.O_RDWR)
    if try_lock(handle):
        return handle
    os.close(handle)
    return None


@contextmanager
def alone_at(folder: Path) -> Iterator[None]:
    """While inside, others that ask for this folder wait. A disk without locks (some NFS) keeps nobody out."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
