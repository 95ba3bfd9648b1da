"""What an index was asked for and does not have yet: one process at a time adds to it, and an interrupted start is gone on with."""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from engine.errors import InputError
from engine.files.atomic_file import atomic_write
from engine.files.locks import lock_file

NAME = "wanted.json"


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """While inside no other process adds to the index.

    Raises:
        InputError: one does.
    """
    lock = lock_file(folder / "lock")
    if lock is None:
        raise InputError(f"another process adds videos to the index '{folder}': wait for it or stop it")
    try:
        yield
    finally:
        os.close(lock)


def remember(folder: Path, paths: Sequence[str]) -> None:
    """Leave word in the folder that these videos are asked for, for whoever comes after a kill; of none, that nothing is."""
    if not paths:
        (folder / NAME).unlink(missing_ok=True)
        return
    with atomic_write(folder / NAME, durable=True) as partial:
        partial.write_text(json.dumps(list(paths), indent=0) + "\n", encoding="ascii")


def interrupted(folder: Path) -> list[str]:
    """The videos that a start was asked for which is over and was not finished; none while it goes on, or where their list
    cannot be read (who adds to the index is told)."""
    if (folder / NAME).is_file():
        with suppress(InputError), alone(folder):
            return read_wanted(folder)
    return []


def read_wanted(folder: Path) -> list[str]:
    """The videos that whoever adds to the index, or was interrupted at it, was asked for.

    Raises:
        InputError: their list cannot be read.
    """
    try:
        wanted = json.loads((folder / NAME).read_text(encoding="ascii"))
        if not isinstance(wanted, list) or not all(isinstance(path, str) for path in wanted):
            raise ValueError("it is no list of paths")
        return wanted
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise InputError(f"'{folder / NAME}' cannot be read ({error}): remove it and name the videos again") from error
