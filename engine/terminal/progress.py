"""What a long piece of work tells: how far it is, how long it will take, and at its end what came of it."""

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from engine.files.atomic_file import atomic_write
from engine.files.json_lines import JsonLines

_LINE_EVERY_S = 10.0  # seconds between lines of progress where there is no terminal, and in the structured log


class Progress:
    """A bar in a terminal; in a file a line now and then. A context manager.

    Args:
        total, unit: how much there is to do, and what it is counted in.
        label: what is done.
        log: a file of JSON lines that the same is appended to for programs: start, progress, end.
        is_shown: False for ranks that keep silent.
    """

    def __init__(
        self, total: int, unit: str, *, label: str = "", log: Path | None = None, is_shown: bool = True
    ) -> None:
        self._total, self._unit, self._label, self._is_shown = total, unit, label, is_shown
        self._done = self._num_bad = 0
        self._start = time.monotonic()
        self._next_line = self._start + _LINE_EVERY_S
        self._log = JsonLines(log) if log is not None else None
        self._tell("start")
        has_bar = total and is_shown and sys.stderr.isatty()
        self._bar = (
            tqdm(total=total, unit=unit, desc=label or None, unit_scale=total > 100_000, smoothing=0.05)
            if has_bar
            else None
        )

    def advance(self, num_bad: int, amount: int = 1) -> None:
        """`amount` more is done; `num_bad` files have failed so far."""
        self._done += amount
        self._num_bad = num_bad
        if self._bar is not None:
            self._bar.update(amount)
            self._bar.set_postfix_str(f"{num_bad} bad", refresh=False)
        if time.monotonic() <= self._next_line or not self._done:
            return
        rate = self._done / (time.monotonic() - self._start)
        left_s = (self._total - self._done) / rate
        self._tell("progress", per_second=round(rate, 3), left_s=round(left_s, 1))
        if self._bar is None and self._is_shown:
            say(
                f"{self._label}{': ' if self._label else ''}{self._done}/{self._total} {self._unit}s, "
                f"{rate:.1f} {self._unit}s/s, {tqdm.format_interval(left_s)} left, {num_bad} bad"
            )
        self._next_line = time.monotonic() + _LINE_EVERY_S

    def _tell(self, event: str, **values: float) -> None:
        if self._log is None:
            return
        line = {"time": round(time.time(), 3), "event": event, "unit": self._unit, "done": self._done}
        self._log.append({**line, "total": self._total, "bad": self._num_bad, **values})

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
        self._tell("end" if kind is None else "stopped", seconds=round(time.monotonic() - self._start, 3))
        if self._log is not None:
            self._log.close()


def say(text: str) -> None:
    """A line on stderr, at once."""
    print(text, file=sys.stderr, flush=True)


def tally(bad: Mapping[str, int]) -> str:
    """How many files failed in which way, as a user reads it: "2 empty, 1 no-video"."""
    return ", ".join(f"{count} {kind}" for kind, count in bad.items())


def write_report(report: Any, path: Path) -> None:
    """Write a report (a dataclass) as JSON, at once or not at all."""
    with atomic_write(path) as partial:
        partial.write_text(json.dumps(asdict(report), indent=1, ensure_ascii=True) + "\n", encoding="ascii")
