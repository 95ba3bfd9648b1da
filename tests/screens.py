"""Screens that cannot be written."""

import io
import os
import sys
from pathlib import Path

import pytest


def broken_pipe() -> io.TextIOWrapper:
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, "w")


def full_disk() -> io.TextIOWrapper:
    return Path("/dev/full").open("w")


def closed() -> io.TextIOWrapper:
    with Path(os.devnull).open("w") as stream:
        return stream


def ascii_only() -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), "ascii", errors="strict")


STREAMS = {"closed pipe": broken_pipe, "full disk": full_disk, "closed stream": closed}


def break_screen(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """stdout and stderr that cannot be written. Within the test: pytest puts its own there before it."""
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, (STREAMS | {"ascii": ascii_only})[kind]())
