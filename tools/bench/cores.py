"""Keeping a measurement to some of the machine's cores."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from engine.errors import InputError
from engine.machine import core_mask


@contextmanager
def on_cores(cores: Sequence[int]) -> Iterator[None]:
    """Keep this process, its threads and the processes that it starts meanwhile on these cores."""
    before = core_mask()
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def first_cores(count: int) -> list[int]:
    """So many of the cores that this process may use, so that "one core" is one.

    Raises:
        InputError: it has fewer.
    """
    usable = usable_numbers()
    if count > len(usable):
        raise InputError(f"--threads is {count}, but this process may use {len(usable)} cores")
    return usable[:count]


def usable_numbers() -> list[int]:
    """The numbers of the cores that this process may use.

    Raises:
        InputError: this system keeps no process to some of its cores (macOS).
    """
    if not hasattr(os, "sched_getaffinity"):
        raise InputError("this measurement keeps processes to some cores, which this system cannot: run it on Linux")
    return sorted(core_mask())
