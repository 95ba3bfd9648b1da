"""Where independent pieces of work are done: one interface, and what `--cluster` means.

    items ──▶ Pool.run ──▶ (item, result or Lost), as they are done ──▶ the caller alone writes: journal, shards, arrays

So a piece may be begun twice (its node died) but never counts twice, and what stands in the journal is not begun again.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from engine.files.addresses import url_of
from engine.processes.process_pool import Lost, run_isolated

T = TypeVar("T")
R = TypeVar("R")

LONG_PIECE_S = 6 * 3600.0  # for some videos and a network, of which one may be very long


class Pool(Protocol):
    """Applies a function to items. It is importable by name, and silent about its failures: an exception counts as a crash.

    cpus: cores that a piece has.
    """

    cpus: int

    def run(self, function: Callable[[T], R], items: Iterable[T], time_limit_s: float) -> Iterator[tuple[T, R | Lost]]:
        """Yields (item, result) in the order in which they are done.

        Args:
            time_limit_s: what takes longer for an item is stopped, and the item is `Lost`.
        """
        ...


@dataclass(frozen=True, slots=True)
class LocalPool:
    """Processes of this machine.

    num_workers: how many; 0 works in this very process, without any protection.
    """

    num_workers: int
    cpus: int = 1

    def run(self, function: Callable[[T], R], items: Iterable[T], time_limit_s: float) -> Iterator[tuple[T, R | Lost]]:
        """See `Pool`."""
        return run_isolated(function, items, self.num_workers, time_limit_s)


@contextlib.contextmanager
def open_pool(cluster: str | None, paths: Sequence[Path], *, device: str = "cpu") -> Iterator[Pool | None]:
    """The pool that `--cluster` names, while it is open; None where it names none: the work is done on this machine.

    Args:
        cluster: `auto` or the address of a Ray cluster.
        paths: what every node must see under the same names. Addresses are not tried.
        device: auto, cpu or cuda: a piece takes a GPU where the cluster has any, none, or always.

    Raises:
        InputError: Ray is not installed, no cluster answers, a node lacks a path or this version of the code, or none has a GPU.
    """
    if cluster is None:
        yield None
        return
    from engine.cluster.nodes import joined  # here, because it imports Ray
    from engine.cluster.ray_pool import RayPool

    with joined(cluster, [path for path in paths if not url_of(path)], device) as nodes:
        yield RayPool(nodes)
