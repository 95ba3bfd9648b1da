"""Contestants that take turns, so that other load on the machine affects all alike.

One that fails costs only itself: it is named with its reason and takes no further part.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Generic, Self, TypeVar

from bench.apart import ContestantError
from engine.records import summarise

C = TypeVar("C")
S = TypeVar("S")
W = TypeVar("W")


class Turns(Generic[C, S]):
    """Who takes part, and what was measured of them so far.

    Args:
        contestants: those that are ready, by name; others `enter`.
        close: ends one of them: when it fails, and all that are left at the end of `with`.

    Attributes:
        contestants: those that still take part, by name.
        samples: what each turn gave, by name; also of those that failed later.
        warmup_s: seconds of each one's warm-up.
        failures: why those that failed take no further part.
    """

    def __init__(
        self, contestants: Mapping[str, C] | None = None, close: Callable[[C], None] = lambda contestant: None
    ) -> None:
        self._close, self._begun = close, time.perf_counter()
        self.contestants: dict[str, C] = dict(contestants or {})
        self.samples: dict[str, list[S]] = {name: [] for name in self.contestants}
        self.warmup_s: dict[str, float] = {}
        self.failures: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        for contestant in self.contestants.values():
            self._close(contestant)

    def enter(self, name: str, build: Callable[[], C], warm_up: Callable[[C], W]) -> W | None:
        """Build somebody and let it warm up; returns what the warm-up gave, None where it failed."""
        try:
            contestant = self.contestants[name] = build()
            started = time.perf_counter()
            found = warm_up(contestant)
        except ContestantError as error:
            self.drop(name, str(error))
            return None
        self.warmup_s[name], self.samples[name] = time.perf_counter() - started, []
        return found

    def take(self, rounds: int, turn: Callable[[C], S], limit_s: float = math.inf) -> Iterator[tuple[str, S]]:
        """In each round a turn of each, with nobody always after the same one; name and sample, as they come.

        Args:
            limit_s: since this object was made, after which no further round begins; the first one always does.
        """
        for number in range(rounds):
            if number and time.perf_counter() - self._begun > limit_s:
                print(f"{number} of {rounds} rounds are done, and --limit {limit_s:g} s is over")
                return
            order = list(self.contestants)
            first = number % max(1, len(order))
            for name in order[first:] + order[:first]:
                try:
                    sample = turn(self.contestants[name])
                except ContestantError as error:
                    self.drop(name, str(error))
                    continue
                self.samples[name].append(sample)
                yield name, sample

    def drop(self, name: str, reason: str) -> None:
        """Somebody takes no further part."""
        self.failures[name] = reason
        if name in self.contestants:
            self._close(self.contestants.pop(name))
        print(f"{name}: {reason}", flush=True)

    def summaries(self, of: Callable[[S], float]) -> dict[str, dict[str, float | int]]:
        """Percentiles of a value of the samples, by the names of those that had a turn."""
        return {name: summarise([of(sample) for sample in each]) for name, each in self.samples.items() if each}
