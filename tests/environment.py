"""The environment of the processes that tests start, and waiting for them."""

import gc
import os
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
UNFREEZE = gc.unfreeze  # the true one: while tests run, most calls of the other do nothing (conftest.py)


def environment(**more: str) -> dict[str, str]:
    """This process's own, with the checkout first on Python's path and one thread; what was on the path stays there."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", **more}


def lowest_free_file() -> int:
    """The number that the next file to be opened gets: where it grows, files are left open."""
    number = os.open(os.devnull, os.O_RDONLY)
    os.close(number)
    return number


@contextmanager
def no_more_files() -> Iterator[None]:
    """While inside, the system refuses to open a file, as it does a process that has opened too many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free_file(), hard))  # a new file must have a number below
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def wait_until(condition: Callable[[], bool], limit_s: float = 120.0) -> None:
    """Look again and again until it holds."""
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_alive(pid: int) -> bool:
    """Whether a process is there, and not only waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
