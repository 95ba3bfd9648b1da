"""One process at a time writes a folder."""

import fcntl
from typing import IO


def try_lock(file: int | IO) -> bool:
    """Lock an open file or folder for this process, and those that inherit it, until it is closed; False if another has it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
