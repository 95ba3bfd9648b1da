"""What a long piece of work tells: how far it is, how long it will take, and at its end what came of it."""

import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

_LINE_EVERY_S = 10.0  # seconds between lines of progress where there is no terminal


class Progress:
    """A bar in a terminal; in a file a line now and then. A context manager.

    Args:
        total, unit: how much there is to do, and what it is counted in.
    """

    def __init__(self, total: int, unit: str) -> None:
        self._total, self._unit, self._done, self._start = total, unit, 0, time.monotonic()
        self._next_line = self._start + _LINE_EVERY_S
        is_shown = total and sys.stderr.isatty()
        self._bar = tqdm(total=total, unit=unit, unit_scale=total > 100_000, smoothing=0.05) if is_shown else None

    def advance(self, num_bad: int, amount: int = 1) -> None:
        """`amount` more is done; `num_bad` files have failed so far."""
        self._done += amount
        if self._bar is not None:
            self._bar.update(amount)
            self._bar.set_postfix_str(f"{num_bad} bad", refresh=False)
        elif time.monotonic() > self._next_line:
            rate = self._done / (time.monotonic() - self._start)
            left = tqdm.format_interval((self._total - self._done) / rate)
            say(f"{self._done}/{self._total} {self._unit}s, {rate:.1f} {self._unit}s/s, {left} left, {num_bad} bad")
            self._next_line = time.monotonic() + _LINE_EVERY_S

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()


def say(text: str) -> None:
    """A line on stderr, at once."""
    print(text, file=sys.stderr, flush=True)


def write_report(report: Any, path: Path) -> None:
    """Write a report (a dataclass) as JSON, at once or not at all."""
    partial_path = path.with_name(path.name + f".partial-{os.getpid()}")
    partial_path.write_text(json.dumps(asdict(report), indent=1, ensure_ascii=True) + "\n", encoding="ascii")
    partial_path.replace(path)
