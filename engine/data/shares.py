"""How much of a batch each of two decoders gets: a fixed share, or the one that turns out fastest in a run's first seconds.

    half and half ──▶ the first alone ──▶ the second alone ──▶ both, each as fast as it was ──▶ the fastest of these, for good
          └ one is ten times the other: that one, at once

Every clip that is decoded to measure is trained on. Time is counted only while something is being decoded, so a training step
that is waited for does not slow a decoder's rate. A batch counts where those before and behind it were shared out alike.
"""

import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

PROBE_S = 1.0  # of decoding that each way is measured for, and at least two batches
PATIENCE_S = 4.0  # after which one batch is enough
HOPELESS = 0.1  # of the other's rate: not worth a try
WORTHWHILE = 1.15  # times the faster one alone: below that, both at once are not worth what else they keep busy


class Share:
    """A fixed share of what both decoders take.

    Args:
        value: for the first of them, 0 to 1.

    Attributes:
        news: lines for the log, oldest first; whoever shows them takes them out.
        found: the last of them; it stays.
    """

    def __init__(self, value: float = 1.0) -> None:
        self.value = value
        self.news: deque[str] = deque()
        self.found = ""

    @property
    def is_settled(self) -> bool:
        """Whether the choice is made."""
        return True

    def claim(self) -> bool:
        """Whether the one that asks should report what it decodes, until it calls `release`."""
        return False

    def release(self) -> None:
        """Who has claimed it decodes no more."""

    def begin(self) -> "Turn | None":
        """A batch is about to be shared out; None: nothing about it need be reported."""

    def end_part(self, turn: "Turn", decoder: str, clips: int, seconds: float) -> None:
        """A part of a batch is decoded: so many clips, for which `decoder` was busy so long."""

    def settle(self, value: float, line: str) -> None:
        """From now on this share, and say so."""
        self.value, self.found = value, line
        self.news.append(line)


@dataclass(eq=False, slots=True)
class Turn:
    """A batch that is being decoded: its way of sharing, and what is known of its parts so far.

    num_left: parts that are not done; whoever began the turn sets it before the first of them begins.
    """

    way: str
    value: float
    num_left: int = 0
    parts: list[tuple[str, int, float]] = field(default_factory=list)


@dataclass(slots=True)
class _Tally:
    """What was seen of one way of sharing."""

    batches: int = 0
    clips: int = 0
    seconds: float = 0.0
    lanes: dict[str, list[float]] = field(default_factory=lambda: defaultdict(lambda: [0, 0.0]))  # clips, busy seconds

    @property
    def rate(self) -> float:
        return self.clips / max(self.seconds, 1e-9)

    def rate_of(self, decoder: str) -> float:
        clips, seconds = self.lanes[decoder]
        return clips / max(seconds, 1e-9)


class MeasuredShare(Share):
    """The share by which clips came out fastest.

    Args:
        first, second: the decoders' names.
        probe_s: seconds that each way is measured for.
        clock: tells the time, seconds.
    """

    def __init__(
        self, first: str, second: str, *, probe_s: float = PROBE_S, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        super().__init__(0.5)
        self.first, self.second = first, second
        self._probe_s, self._clock = probe_s, clock
        self._lock = threading.RLock()
        self._is_claimed = False
        self._restart()

    def _restart(self) -> None:
        self._way, self.value = "half", 0.5  # half, first, second, both; then settled
        self._tallies: dict[str, _Tally] = defaultdict(_Tally)
        self._previous = ("", 0.0)  # the last batch that was done: its way, and when on the busy clock
        self._num_open = 0
        self._busy_s, self._since = 0.0, 0.0

    @property
    def is_settled(self) -> bool:
        """See `Share`."""
        return self._way == "settled"

    def claim(self) -> bool:
        """The first that asks reports; others at the same time, as an evaluation's, would only disturb it."""
        with self._lock:
            if self._is_claimed or self.is_settled:
                return False
            self._is_claimed = True
            self._restart()
            return True

    def release(self) -> None:
        """See `Share`: if nothing is settled yet, the next one that asks begins anew."""
        with self._lock:
            self._is_claimed = False

    def begin(self) -> Turn | None:
        """See `Share`."""
        with self._lock:
            if self.is_settled:
                return None
            if self._num_open == 0:
                self._since = self._clock()
            self._num_open += 1
            return Turn(self._way, self.value)

    def end_part(self, turn: Turn, decoder: str, clips: int, seconds: float) -> None:
        """See `Share`."""
        with self._lock:
            turn.parts.append((decoder, clips, seconds))
            turn.num_left -= 1
            if turn.num_left == 0 and not self.is_settled:
                self._end(turn)

    def settle(self, value: float, line: str) -> None:
        """See `Share`."""
        with self._lock:
            self._way = "settled"
            super().settle(value, line)

    def _end(self, turn: Turn) -> None:
        now = self._clock()
        self._num_open -= 1
        self._busy_s, self._since = self._busy_s + now - self._since, now
        before, self._previous = self._previous, (turn.way, self._busy_s)
        if not before[0] == turn.way == self._way:
            return  # it shared the decoders with a batch of another way
        tally = self._tallies[turn.way]
        tally.batches += 1
        tally.seconds += self._busy_s - before[1]
        for decoder, clips, seconds in turn.parts:
            tally.clips += clips
            lane = tally.lanes[decoder]
            lane[0] += clips
            lane[1] += seconds
        if tally.seconds >= (self._probe_s if tally.batches >= 2 else self._probe_s * PATIENCE_S / PROBE_S):
            self._go_on()

    def _go_on(self) -> None:
        """One way has been seen for long enough."""
        tally = self._tallies[self._way]
        if self._way == "half" and not tally.lanes[self.first][0]:
            del self._tallies["half"]  # nothing that could be shared out has come yet
        elif self._way == "half":
            one, other = tally.rate_of(self.first), tally.rate_of(self.second)
            if min(one, other) < HOPELESS * max(one, other):
                self._choose({"first" if one > other else "second": 1.0}, {self.first: one, self.second: other})
            else:
                self._way, self.value = "first", 1.0
        elif self._way == "first":
            self._way, self.value = "second", 0.0
        elif self._way == "second":
            one = self._tallies["first"].rate_of(self.first)
            fit = self._tallies["first"].lanes[self.first][0] / max(1, self._tallies["first"].clips)
            self.value = min(1.0, one / max(one + tally.rate_of(self.second), 1e-9) / max(fit, 1e-9))
            self._way = "both"
            if self.value > 1 - HOPELESS:
                self._compare()
        else:
            self._compare()

    def _compare(self) -> None:
        rates = {way: tally.rate for way, tally in self._tallies.items() if way != "half" and tally.batches}
        shown = {self.first: rates["first"], self.second: rates["second"]}
        if "both" in rates:
            shown[f"both ({self.value:.0%} to {self.first})"] = rates["both"]
        self._choose(rates, shown)

    def _choose(self, rates: dict[str, float], shown: dict[str, float]) -> None:
        alone = max((way for way in rates if way != "both"), key=rates.__getitem__)
        way = "both" if rates.get("both", 0.0) > WORTHWHILE * rates[alone] else alone
        value = {"first": 1.0, "second": 0.0, "both": self.value}[way]
        name = {"first": self.first, "second": self.second, "both": "both go on"}[way]
        told = ", ".join(f"{which} {rate:,.0f}" for which, rate in shown.items())
        self.settle(value, f"decoder: measured over {self._busy_s:.1f} s of decoding, clips/s: {told}; chosen: {name}")
