"""A rank that hangs fails the job within a set time, by its name.

Ranks wait for each other in every step, so when one hangs all stand still, and a collective's own timeout
says only that nobody came. Here every rank says in the process group's store where it is, from a thread
that runs on while the main thread waits. The rank that is behind all others, or fell silent first, is the
one that the others wait for. A rank that has done its share of an evaluation is silent with reason, as long as
others get on with theirs. The store itself is kept by torchrun or, without it, by rank 0: when it falls
silent, rank 0 is to blame.
"""

import json
import os
import sys
import threading
import time
from dataclasses import dataclass
from datetime import timedelta

import torch.distributed as dist

WAITING = "waiting for other ranks"
PHASES = ("waiting for data", "computing", "evaluating", WAITING)
EXIT_STATUS = 3


@dataclass(frozen=True, slots=True)
class Beat:
    """Where a rank is. count: beats so far, the only thing that must move."""

    count: int
    step: int
    phase: int  # of PHASES


class Watchdog:
    """Watches all ranks from one; without a store (one rank) it does nothing.

    Args:
        store: shared by all ranks.
        timeout_s: a rank that makes no progress for so long ends the job, with exit status 3.
    """

    def __init__(self, store: dist.Store | None, rank: int, world_size: int, timeout_s: float) -> None:
        self._rank, self._world_size, self._timeout_s = rank, world_size, timeout_s
        self._beat = Beat(0, 0, 0)
        self._seen: dict[int, tuple[Beat, float]] = {}  # rank -> its last beat, and when it was first seen
        self._stop = threading.Event()
        self._heard = time.monotonic()  # when the store answered last
        self._threads: list[threading.Thread] = []
        if store is not None:
            own = dist.PrefixStore("watchdog", store.clone())  # a connection of its own: a wait blocks it for others
            own.set_timeout(timedelta(seconds=timeout_s))
            self._threads = [
                threading.Thread(target=self._watch, args=(own,), name="watchdog", daemon=True),
                threading.Thread(target=self._watch_store, name="watchdog-store", daemon=True),
            ]
            for thread in self._threads:
                thread.start()

    def beat(self, step: int, phase: str) -> None:
        """Say that this rank is at `phase` of the step after `step`."""
        self._beat = Beat(self._beat.count + 1, step, PHASES.index(phase))

    def close(self) -> None:
        """Stop watching: this rank is done."""
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=self._timeout_s)

    @property
    def _interval_s(self) -> float:
        return min(2.0, self._timeout_s / 8)

    def _watch(self, store: dist.Store) -> None:
        try:
            while not self._stop.wait(self._interval_s):
                store.set(str(self._rank), json.dumps([self._beat.count, self._beat.step, self._beat.phase]))
                for rank in range(self._world_size):
                    found = Beat(*json.loads(store.get(str(rank)))) if store.check([str(rank)]) else Beat(0, 0, 0)
                    self._see(rank, found, time.monotonic())
                self._heard = time.monotonic()
                late = self.late(time.monotonic())
                if late is not None and not self._stop.is_set():
                    self._end_job(late)
            store.set(str(self._rank), json.dumps([-1, 0, 0]))  # done: nobody waits for it
        except (RuntimeError, dist.DistError) as error:
            if not self._stop.is_set():
                print(
                    f"rank {self._rank}: the ranks' store does not answer any more ({error})",
                    file=sys.stderr,
                    flush=True,
                )

    def _watch_store(self) -> None:
        """The other thread cannot tell: a store whose keeper stands still leaves it waiting for an answer."""
        while not self._stop.wait(self._interval_s):
            silent_s = time.monotonic() - self._heard
            if silent_s > self._timeout_s:
                self._exit(
                    f"the ranks' store has not answered for {silent_s:.0f} s (run.timeout_s is {self._timeout_s:g}): "
                    "rank 0, which keeps it (or torchrun, where that started the ranks), has died or hangs"
                )

    def _see(self, rank: int, beat: Beat, now: float) -> None:
        if rank not in self._seen or self._seen[rank][0].count != beat.count:
            self._seen[rank] = (beat, now)

    def late(self, now: float) -> int | None:
        """The rank that all wait for, once one has been silent for too long."""
        running = {rank: seen for rank, seen in self._seen.items() if seen[0].count >= 0}
        silent = {rank: now - since for rank, (_, since) in running.items()}
        busy = [rank for rank, (beat, _) in running.items() if PHASES[beat.phase] != WAITING]
        # Where all wait, the last to come has its time for what they do together.
        longest = max((silent[rank] for rank in busy), default=min(silent.values(), default=0.0))
        if longest <= self._timeout_s:
            return None
        return min(running, key=lambda rank: (running[rank][0].step, running[rank][0].phase, running[rank][1]))

    def _end_job(self, late: int) -> None:
        beat, since = self._seen[late]
        silent_s = time.monotonic() - since
        self._exit(
            f"rank {late} has made no progress for {silent_s:.0f} s (run.timeout_s is {self._timeout_s:g}): "
            f"{PHASES[beat.phase]}, step {beat.step + 1}"
        )

    def _exit(self, why: str) -> None:
        print(
            f"error: {why}; rank {self._rank} ends the job, which goes on from its last checkpoint when it is started "
            "again",
            file=sys.stderr,
            flush=True,
        )
        os._exit(EXIT_STATUS)  # the main thread waits in a collective that nothing can interrupt
