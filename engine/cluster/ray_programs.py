"""Long programs on the nodes of a Ray cluster: one whose node died is started again elsewhere, and goes on by itself."""

import os
from collections.abc import Sequence
from pathlib import Path

import ray

from engine.cluster.nodes import Nodes
from engine.cluster.ray_pool import RETRIES
from engine.cluster.remote import run_program

_STOP_LIMIT_S = 120.0  # for programs to save their state


class RayProgram:
    """A `Program` on some node."""

    def __init__(self, ended: "ray.ObjectRef", log: Path) -> None:
        self._ended, self._log = ended, log

    def poll(self) -> int | None:
        """See `Program`; why there is no status of its own is added to its log."""
        ready, _ = ray.wait([self._ended], timeout=0)
        if not ready:
            return None
        try:
            return ray.get(self._ended)
        except ray.exceptions.RayError as error:
            lines = str(error).strip().splitlines()
            with self._log.open("a", encoding="utf-8") as log:
                log.write(f"cluster: {lines[-1] if isinstance(error, ray.exceptions.RayTaskError) else lines[0]}\n")
            return 1

    def terminate(self) -> None:
        """See `Program`."""
        ray.cancel(self._ended)

    def wait(self) -> object:
        """See `Program`."""
        return ray.wait([self._ended], timeout=_STOP_LIMIT_S)


class RayPrograms:
    """The nodes of a cluster as `Programs`.

    Args:
        slots: most programs at a time; 0: as many as the nodes have room for.
    """

    def __init__(self, nodes: Nodes, slots: int) -> None:
        self._nodes, self._most = nodes, slots
        self.cpus, self.has_gpus = nodes.share.cpus, bool(nodes.share.gpus)

    @property
    def slots(self) -> int:
        """As the nodes are now; who came or went is said."""
        self._nodes.tell_news()
        return min(self._most or self._nodes.slots, self._nodes.slots)

    def start(self, command: Sequence[str], log: Path, lock: Path) -> RayProgram:
        """See `Programs`. The lock is waited for on the node."""
        variables = {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
        run = ray.remote(run_program).options(max_retries=RETRIES, **self._nodes.share.options)
        folder = Path.cwd()
        ended = run.remote(list(command), str(folder / log), str(folder / lock), variables, str(folder))
        return RayProgram(ended, log)
