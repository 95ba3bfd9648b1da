"""Benchmark records: one JSON line per measurement, lines only ever added, in benchmarks/records/NAME.jsonl.

A record says what was measured, where, with what and at which commit, and nothing that identifies the
machine beyond its hardware: no host, no user, no absolute path.
"""

import importlib.metadata
import json
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import InputError
from engine.files.atomic_file import atomic_write
from engine.files.json_lines import append_json_line
from engine.files.locks import alone_at
from engine.machine import usable_cores

RECORDS = Path(__file__).resolve().parents[1] / "benchmarks" / "records"

_folder: ContextVar[Path] = ContextVar("records", default=RECORDS)

_PACKAGES = {
    "torch": ("torch",),
    "torchvision": ("torchvision",),
    "numpy": ("numpy",),
    "pyarrow": ("pyarrow",),
    "av": ("av",),
    "numba": ("numba",),
    "opencv": ("opencv-python-headless",),
    "dali": ("nvidia-dali-cuda130", "nvidia-dali-cuda120"),
    "triton": ("triton",),
}


@contextmanager
def recording_into(folder: Path) -> Iterator[None]:
    """While inside, `append_record` writes to this folder where no other is named."""
    token = _folder.set(folder)
    try:
        yield
    finally:
        _folder.reset(token)


class GrowingRecord:
    """A record that is written while it is measured: each `write` puts the whole of it into its line of NAME.jsonl.

    It lies in benchmarks/records, or where `recording_into` says, and has this process's command line, with absolute
    paths shown relative to the checkout where that is possible, else by their last part. What was written stays if the
    process dies. A record that is never written leaves no line.

    Args:
        name: what is measured: letters, digits, - and _.

    Raises:
        InputError: a name that is no file name.
    """

    def __init__(self, name: str) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
            raise InputError(f"'{name}' cannot name a record: use letters, digits, - and _")
        words = ["python", *sys.orig_argv[1:]]
        self._start = {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": shlex.join(public_path(word) for word in words),
            **git_state(),
            "versions": versions(),
            "device": device(),
        }
        self._path = _folder.get() / f"{name}.jsonl"
        self._line: str | None = None

    def write(self, **fields: object) -> Path:
        """The record with these fields (JSON values), in place of what was written of it before. Returns the file.

        Args:
            fields: what was measured so far; often with the fields of `summarise`. None may be called as what every
                record says by itself.
        """
        if clash := self._start.keys() & fields:
            raise ValueError(f"fields {sorted(clash)} are those of every record: call them otherwise")
        values = self._start | fields
        line = json.dumps(values, allow_nan=False) + "\n"
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with alone_at(self._path.parent):  # a line that is added between reading and writing would be lost
            if self._line is None:
                append_json_line(self._path, values)
            else:
                before, mine, after = self._path.read_text(encoding="utf-8").rpartition(self._line)
                if not mine:
                    raise InputError(
                        f"'{self._path}' was changed by another program: a record in it cannot be completed"
                    )
                with atomic_write(self._path) as partial:
                    partial.write_text(before + line + after, encoding="utf-8")
        self._line = line
        return self._path


def append_record(name: str, **fields: object) -> Path:
    """Append one whole record to NAME.jsonl: `GrowingRecord`, written once."""
    return GrowingRecord(name).write(**fields)


def summarise(samples: Sequence[float]) -> dict[str, float | int]:
    """n and the 20th, 50th and 80th percentile of repeated measurements (linear interpolation)."""
    if not len(samples):
        raise ValueError("no samples to summarise")
    p20, p50, p80 = np.percentile(np.asarray(samples, dtype=np.float64), (20, 50, 80)).tolist()
    return {"n": len(samples), "p20": p20, "p50": p50, "p80": p80}


def public_path(word: str) -> str:
    """A word of a command line without the paths of this machine; also within key=value."""
    key, equals, value = word.rpartition("=")
    path = Path(value)
    if not path.is_absolute():
        return word
    checkout = RECORDS.parents[1]
    relative = Path(os.path.relpath(path, checkout))
    # Beside the checkout is where shared data lies; anything further away is nobody's business.
    near = relative.parts[:1] != ("..",) or relative.parts[:2] == ("..", "shared")
    return f"{key}{equals}{relative.as_posix() if near else path.name}"


def file_name_alone(text: str) -> str:
    """An absolute path as the name of its file, any other text as it is."""
    return Path(text).name if Path(text).is_absolute() else text


def public(value: Any, told: Callable[[str], str] = public_path) -> Any:
    """A config, or a part of one, with each text as `told` has it: without the paths of this machine, wherever they stand."""
    if isinstance(value, dict):
        return {key: public(each, told) for key, each in value.items()}
    if isinstance(value, list):
        return [public(each, told) for each in value]
    return told(value) if isinstance(value, str) else value


def git_state() -> dict[str, str | bool | None]:
    """The commit of the checkout, and whether tracked files differ from it; None outside of a git checkout.

    Another project's repository, in which this package is only installed, is none.
    """
    is_ours = _git("ls-files", "--error-unmatch", "engine/records.py") is not None
    commit = _git("rev-parse", "HEAD") if is_ours else None
    return {
        "commit": commit,
        "dirty": None if commit is None else bool(_git("status", "--porcelain", "--untracked-files=no")),
    }


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=RECORDS.parents[1], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that matter for speed, as far as they are installed."""
    found = {"python": platform.python_version()}
    for name, distributions in _PACKAGES.items():
        for distribution in distributions:
            try:
                found[name] = importlib.metadata.version(distribution)
            except importlib.metadata.PackageNotFoundError:
                continue
    return found


def device() -> dict[str, object]:
    """The hardware: CPU model, cores this process may use, GPU names."""
    return {"cpu": _cpu_model(), "cores": usable_cores(), "gpus": _gpu_names()}


def _cpu_model() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    match = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return match.group(1).strip() if match else platform.machine()


def _gpu_names() -> list[str]:
    # The driver's own tool: importing torch for this alone would take seconds and start a CUDA context.
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()]
