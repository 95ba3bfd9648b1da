"""Files that are there whole or not at all: written beside their place under a hidden name, then renamed into it."""

import glob
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile

from engine.errors import InputError, writing

LEFTOVERS = ".*.partial*"  # a pattern of what a kill leaves behind, for a folder that nobody else writes to
_ABANDONED_S = 3600.0  # a leftover of this age has no writer any more


@contextmanager
def atomic_write(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """Gives a path beside `path` to write a file (or a folder) to, and renames it to `path` at the end.

    If the writing fails, what was at `path` before is untouched and nothing else stays. What earlier writers of the same
    path left behind when they were killed is removed.

    Args:
        durable: contents and name are on the disk when this returns, so that a power cut leaves the old file or the new.

    Raises:
        InputError: it is a device or a pipe.
    """
    check_replaceable(path)
    name, suffix = f".{path.stem}.partial-", path.suffix
    for old in path.parent.glob(f"{glob.escape(name)}*{glob.escape(suffix)}"):
        with suppress(OSError):
            if _time_in(path.parent) - old.stat().st_mtime > _ABANDONED_S:
                _remove(old)
    beside = path.with_name(f"{name}{secrets.token_hex(4)}{suffix}")
    try:
        with writing(path):
            yield beside
        if durable:
            _sync(beside)
        beside.replace(path)
        if durable:
            _sync(path.parent)
    except BaseException:
        with suppress(OSError):
            _remove(beside)
        raise


def check_replaceable(path: Path) -> None:
    """Refuse what a file would take the place of though it is none: to root /dev/null is a name like any other.

    Raises:
        InputError: it is a device, a pipe or a socket.
    """
    if path.parent == Path("/dev") or (path.exists() and not path.is_file() and not path.is_dir()):
        raise InputError(f"'{path}' is a device or a pipe, and a file would take its place: name a file")


def _time_in(folder: Path) -> float:
    """The time that a file gets which is made there now: a file server goes by a clock of its own."""
    with TemporaryFile(dir=folder) as made_now:
        return os.fstat(made_now.fileno()).st_mtime


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
