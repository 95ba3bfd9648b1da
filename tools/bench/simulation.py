"""A cluster that reads and trains, clip by clip: a discrete-event simulation, small and seeded.

What it follows is the engine: a thread of a rank reads a snippet, decodes it, and takes the next of at most two begun batches
(`engine/data/loading/ahead.py`; `begun`); `prefetch` whole batches wait ahead of the step; a step begins when every rank has
its batch. A read takes a latency (log-normal), then its bytes pass the store's line, which
all share, and that of its node, in turn.
"""

import heapq
from dataclasses import dataclass
from math import exp, inf, log
from random import Random
from statistics import NormalDist

_P99 = NormalDist().inv_cdf(0.99)


@dataclass(frozen=True, slots=True)
class Latency:
    """Of a read until its first byte. median_s: seconds; tail: its 99th percentile over its median (1: always the same)."""

    median_s: float
    tail: float = 1.0

    @property
    def mean_s(self) -> float:
        """Seconds."""
        return self.median_s * exp(self._sigma**2 / 2)

    def draw(self, random: Random) -> float:
        """Of one read, seconds."""
        return self.median_s * exp(random.gauss(0.0, self._sigma)) if self._sigma else self.median_s

    def slowest_s(self, reads: int) -> float:
        """Of so many reads, the median of the slowest, seconds."""
        return self.median_s * exp(self._sigma * NormalDist().inv_cdf(0.5 ** (1 / reads)))

    @property
    def _sigma(self) -> float:
        return log(self.tail) / _P99


@dataclass(frozen=True, slots=True)
class Cluster:
    """What is simulated.

    batch: clips of a rank and step. step_s: of the GPUs for a step. in_flight: threads of a rank, which read and decode.
    cores: of a rank; decode_s: of one of them for a clip. snippet_bytes: of a read; node_rate, store_rate: bytes/s of a
    node's line, and of the store's, which all nodes share. prefetch: whole batches that wait for the step.
    begun: batches that are decoded at a time.
    """

    nodes: int
    ranks_per_node: int
    batch: int
    step_s: float
    in_flight: int
    latency: Latency
    cores: int
    decode_s: float
    snippet_bytes: float = 0.0
    node_rate: float = inf
    store_rate: float = inf
    prefetch: int = 2
    begun: int = 2


def simulate(cluster: Cluster, steps: int, seed: int = 0) -> float:
    """Clips/s of all ranks together, over the last of so many steps: a third of them, and what is read ahead, come before."""
    return _Simulation(cluster, seed).run(steps)


class _Rank:
    """Of one rank: what its threads have begun and finished."""

    def __init__(self, cluster: Cluster) -> None:
        self.idle = cluster.in_flight
        self.cores = [0.0] * cluster.cores  # a heap: when each is free
        self.begun = 0  # clips that a thread has taken, of all batches
        self.left: dict[int, int] = {}  # batch -> clips that are not decoded yet, of those begun
        self.ready = 0  # batches that are whole, in order


class _Simulation:
    """Two events for each clip: its first byte is there (-1 - its batch), and it is decoded; and one for each step's end."""

    def __init__(self, cluster: Cluster, seed: int) -> None:
        self._of, self._random = cluster, Random(seed)
        self._ranks = [_Rank(cluster) for _ in range(cluster.nodes * cluster.ranks_per_node)]
        self._node_free, self._store_free = [0.0] * cluster.nodes, 0.0
        self._events: list[tuple[float, int, int, int]] = []  # when, number, rank (-1: the step's end), batch
        self._number = 0  # of events, so that equal times stay in order
        self._taken, self._running = 0, False  # steps begun; whether one runs
        self._waiting_for = len(self._ranks)  # ranks without their next batch

    def run(self, steps: int) -> float:
        warm = steps // 3 + self._of.prefetch + self._of.begun
        since, now = 0.0, 0.0
        for rank in range(len(self._ranks)):
            self._feed(rank, 0.0)
        while True:
            now, _, rank, batch = heapq.heappop(self._events)
            if rank < 0:
                self._running = False
                if self._taken == warm:
                    since = now
                if self._taken == warm + steps:
                    return len(self._ranks) * self._of.batch * steps / (now - since)
                self._step(now)
            elif batch >= 0:
                self._decoded(rank, batch, now)
            else:
                self._push(self._decode(rank, now), rank, -batch - 1)

    def _push(self, when: float, rank: int, batch: int) -> None:
        self._number += 1
        heapq.heappush(self._events, (when, self._number, rank, batch))

    def _feed(self, number: int, now: float) -> None:
        """Idle threads take clips of the batches that may be begun: the last but one is done, and has a place to wait."""
        of, rank = self._of, self._ranks[number]
        open_batches = min(rank.ready, self._taken + of.prefetch) + of.begun
        while rank.idle and rank.begun < open_batches * of.batch:
            batch = rank.begun // of.batch
            rank.left.setdefault(batch, of.batch)
            rank.begun += 1
            rank.idle -= 1
            self._push(now + of.latency.draw(self._random), number, -batch - 1)

    def _decode(self, number: int, now: float) -> float:
        """The first byte is there: when the clip is decoded. Lines and cores serve in order, so that this is known now."""
        of, node = self._of, number // self._of.ranks_per_node
        self._store_free = max(now, self._store_free) + of.snippet_bytes / of.store_rate
        self._node_free[node] = max(self._store_free, self._node_free[node]) + of.snippet_bytes / of.node_rate
        cores = self._ranks[number].cores
        done = max(self._node_free[node], cores[0]) + of.decode_s
        heapq.heapreplace(cores, done)
        return done

    def _decoded(self, number: int, batch: int, now: float) -> None:
        rank = self._ranks[number]
        rank.idle += 1
        rank.left[batch] -= 1
        before = rank.ready
        while rank.left.get(rank.ready) == 0:
            del rank.left[rank.ready]
            rank.ready += 1
        if before == self._taken < rank.ready:
            self._waiting_for -= 1
            self._step(now)
        self._feed(number, now)

    def _step(self, now: float) -> None:
        """Begin the next step, if no other runs and every rank has its batch."""
        if self._running or self._waiting_for:
            return
        self._running = True
        self._taken += 1
        self._waiting_for = sum(rank.ready == self._taken for rank in self._ranks)
        self._push(now + self._of.step_s, -1, 0)
        for number in range(len(self._ranks)):
            self._feed(number, now)
