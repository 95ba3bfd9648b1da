"""A Ray cluster as a `Pool`: Ray places the pieces and gives those of dead workers and nodes to others."""

import itertools
import os
import pickle
import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import ray

from engine.cluster.nodes import Nodes
from engine.cluster.remote import do_piece
from engine.errors import InputError
from engine.processes.process_pool import Lost

T = TypeVar("T")
R = TypeVar("R")

RETRIES = 3  # of a piece whose worker or node died
_POLL_S = 1.0


class RayPool:
    """The nodes' cores (or GPUs), each busy with a piece, and some pieces more that wait for them.

    As many are under way at most, done ones whose result was not taken among them: so the results that wait in Ray's object store
    are bounded, however many pieces there are.
    """

    def __init__(self, nodes: Nodes) -> None:
        self.nodes, self.cpus = nodes, nodes.share.cpus

    def run(self, function: Callable[[T], R], items: Iterable[T], time_limit_s: float) -> Iterator[tuple[T, R | Lost]]:
        """See `Pool`. A piece that ends its process is told as on one machine; one whose worker or node died too often is lost."""
        do = ray.remote(do_piece).options(max_retries=RETRIES, **self.nodes.share.options)
        job, work, folder = uuid.uuid4().hex, ray.put(pickle.dumps(function)), os.getcwd()  # noqa: PTH109
        under_way: dict[ray.ObjectRef, Any] = {}
        left = iter(items)
        try:
            while True:
                room = self._most() - len(under_way)
                for item in itertools.islice(left, max(0, room)):
                    under_way[do.remote(job, work, pickle.dumps(item), time_limit_s, folder)] = item
                if not under_way:
                    break
                self.nodes.tell_news()
                for ref in _done(list(under_way)):
                    result = _result(ref)
                    yield under_way.pop(ref), result
                    del ref, result  # the object store may forget it
            self.nodes.tell_news(now=True)
        finally:
            for ref in under_way:
                ray.cancel(ref, force=True)

    def _most(self) -> int:
        slots = self.nodes.slots
        return max(2, slots + (slots + 1) // 2)


def _done(refs: list["ray.ObjectRef"]) -> list["ray.ObjectRef"]:
    """Those that are done, as soon as one is; none after a while without."""
    ready, waiting = ray.wait(refs, num_returns=1, timeout=_POLL_S)
    if ready and waiting:
        more, _ = ray.wait(waiting, num_returns=len(waiting), timeout=0)
        ready += more
    return ready


def _result(ref: "ray.ObjectRef") -> Any:
    try:
        result = ray.get(ref)
        return pickle.loads(result) if isinstance(result, bytes) else result
    except ray.exceptions.RayTaskError as error:  # not of the piece: it is done by a process apart
        reason = str(error).strip().splitlines()[-1]
        raise InputError(f"--cluster: a node cannot do its work: {reason}") from error
    except ray.exceptions.RayError as error:
        reason = str(error).strip().splitlines()[0]
        return Lost(False, f"the worker or the node that had it died, {RETRIES + 1} times ({reason})")
