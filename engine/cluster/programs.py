"""Programs that run for long, some at a time: as children of this one, or on a cluster's nodes (`ray_programs`)."""

import contextlib
import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from engine.files.locks import lock_file
from engine.machine import usable_cores


class Program(Protocol):
    """What there is of `subprocess.Popen`: SIGTERM tells the program to save its state and end."""

    def poll(self) -> int | None:
        """Its exit status; None while it runs."""
        ...

    def terminate(self) -> None:
        """Tell it to stop."""
        ...

    def wait(self) -> object:
        """Return once it has ended."""
        ...


class Programs(Protocol):
    """Where programs run.

    slots: how many at a time. cpus: cores that each has. has_gpus: each has a GPU to itself.
    """

    slots: int
    cpus: int
    has_gpus: bool

    def start(self, command: Sequence[str], log: Path, lock: Path) -> Program | None:
        """Start a program, with a slot free; None if another one holds its lock on this machine.

        Args:
            log: a file that what it prints is added to.
            lock: a file that it keeps locked as long as it lives, also where who started it is killed.
        """
        ...


class LocalPrograms:
    """Children of this process; on a machine with GPUs the i-th slot has GPU i (modulo their number).

    Args:
        slots: 0: one for each GPU, else for each core.
    """

    def __init__(self, slots: int) -> None:
        self._gpus = gpus()
        self.has_gpus = bool(self._gpus)
        self.slots = slots or len(self._gpus) or usable_cores()
        self.cpus = max(1, usable_cores() // self.slots)
        self._running: dict[int, subprocess.Popen[bytes]] = {}

    def start(self, command: Sequence[str], log: Path, lock: Path) -> Program | None:
        """See `Programs`."""
        held = lock_file(lock)
        if held is None:
            return None
        slot = min(slot for slot in range(self.slots) if slot not in self._running or self._has_ended(slot))
        environment = dict(os.environ)
        if self._gpus:
            environment["CUDA_VISIBLE_DEVICES"] = self._gpus[slot % len(self._gpus)]
        try:
            with log.open("ab") as output:
                self._running[slot] = subprocess.Popen(
                    command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                    env=environment, pass_fds=[held], start_new_session=True,
                )  # fmt: skip
        finally:
            os.close(held)  # the program has its own
        return self._running[slot]

    def _has_ended(self, slot: int) -> bool:
        return self._running[slot].poll() is not None


def gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    return visible.split(",")[:count] if visible else [str(index) for index in range(count)]


@contextlib.contextmanager
def open_programs(cluster: str | None, slots: int, paths: Sequence[Path], device: str) -> Iterator[Programs]:
    """This machine, or the cluster that `--cluster` names, as `engine.cluster.pool.open_pool`.

    Args:
        slots: most programs at a time; 0: as many as there is room for.
    """
    if cluster is None:
        yield LocalPrograms(slots)
        return
    from engine.cluster.nodes import joined  # here, because it imports Ray
    from engine.cluster.ray_programs import RayPrograms

    with joined(cluster, paths, device) as nodes:
        yield RayPrograms(nodes, slots)
