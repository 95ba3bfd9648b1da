"""The ranks of a run: who am I, on which device, and the few collectives the engine needs.

Under `torchrun` every rank is one process; without it there is one rank. A process group exists only
when there are several.
"""

import functools
import json
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from engine.config import RunConfig
from engine.errors import InputError
from engine.gpus import unfit
from engine.machine import core_mask, rank_cores, rank_variable, share_cores

_MOMENT_S = 2.0
_BEAT_S = 0.5
_LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Connection refused", "NCCL")


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among all of the run's; by default it is the only one."""

    device: torch.device
    rank: int = 0
    world_size: int = 1
    gloo: dist.ProcessGroup | None = None  # all ranks, for small words between hosts; None for one rank
    store: dist.Store | None = None  # shared by all ranks; None for one rank

    @property
    def is_main(self) -> bool:
        """Only this rank writes files and prints."""
        return self.rank == 0


def choose_device(name: str, local_rank: int = 0) -> torch.device:
    """`auto` takes a GPU if there is one that torch computes on; `cuda` without one is an error, never a silent fallback."""
    if name == "cpu" or (name == "auto" and (not torch.cuda.is_available() or unfit(0))):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise InputError("run.device or --device is 'cuda' but torch sees no GPU: use auto or cpu, or check the driver")
    if local_rank >= torch.cuda.device_count():
        raise InputError(
            f"local rank {local_rank} has no GPU of its own ({torch.cuda.device_count()} on this machine): "
            "start fewer ranks (--nproc-per-node, --ranks)"
        )
    if why := unfit(local_rank):
        raise InputError(f"{why}; or use the CPU (run.device or --device: cpu) or other GPUs (CUDA_VISIBLE_DEVICES)")
    return torch.device("cuda", local_rank)


@contextmanager
def session(run: RunConfig) -> Iterator[Ranks]:
    """Join the process group that torchrun describes (nccl on GPUs, gloo on CPUs) and leave it at the end."""
    rank, world_size, local_rank = (
        rank_variable(name, least) for name, least in (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0))
    )
    device = choose_device(run.device, local_rank)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    gloo = store = None
    if world_size > 1:
        # Twice the time after which a watchdog names the rank at fault, so that it is the first to speak.
        timeout = timedelta(seconds=2 * run.timeout_s)
        store, rank, world_size = _joined(timeout)
        store = _own_part(store, rank, world_size, timeout)
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=world_size, timeout=timeout)
        gloo = dist.new_group(backend="gloo", timeout=timeout)
        machines: list[Any] = [None] * world_size
        dist.all_gather_object(machines, (socket.gethostname(), core_mask()), gloo)
        share_cores([mask for host, mask in machines if host == socket.gethostname()])
    if device.type == "cpu":
        torch.set_num_threads(run.cpu_threads or rank_cores())
    try:
        with _told_once(store, rank, world_size):
            yield Ranks(device, rank, world_size, gloo, store)
    finally:
        share_cores(None)
        if dist.is_initialized():
            dist.destroy_process_group()


@functools.cache
def _joined(timeout: timedelta) -> tuple[dist.Store, int, int]:
    """The store of all ranks, this rank and how many there are.

    Kept to the end of the process: where rank 0 serves the store and began a new one at the same port for each session, the others
    could still reach the one of the session before, and both sides would wait for each other.

    Raises:
        InputError: whoever started this rank did not say where the others are.
    """
    if missing := [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]:
        raise InputError(
            f"the environment variable WORLD_SIZE tells of several ranks, but {', '.join(missing)} is not set: "
            "start the ranks with torchrun, or unset WORLD_SIZE to train with one"
        )
    return next(dist.rendezvous("env://", timeout=timeout))


@contextmanager
def _told_once(store: dist.Store | None, rank: int, world_size: int) -> Iterator[None]:
    """A mistake that all ranks meet is told by rank 0, one that a single rank meets by that rank, and by nobody else.

    The others lose their connection to a rank that has ended: they end too, with the same exit status.
    """
    others = [other for other in range(world_size) if other != rank]
    try:
        yield
    except (InputError, OSError) as error:
        if store is not None:
            if rank and _failed(store, [0]):
                store.set(f"failed/{rank}", "")
                sys.exit(2)
            store.set(f"failed/{rank}", "")
            if not rank:
                _failed(store, others, all)  # it may be this process that keeps the store
            if isinstance(error, InputError):
                error.is_of_this_rank = True
        raise
    except RuntimeError as error:
        if any(text in str(error) for text in _LOST) and _failed(store, others):
            sys.exit(2)
        raise


def _failed(store: dist.Store, ranks: Sequence[int], how_many: Callable[..., bool] = any) -> bool:
    """Whether any (or all) of these ranks say within a moment that they end."""
    deadline = time.monotonic() + _MOMENT_S
    try:
        while time.monotonic() < deadline:
            if how_many(store.check([f"failed/{rank}"]) for rank in ranks):
                return True
            time.sleep(0.05)
    except RuntimeError:  # rank 0 kept the store, and has ended
        return True
    return False


def _own_part(store: dist.Store, rank: int, world_size: int, timeout: timedelta) -> dist.Store:
    """The part of the store that belongs to this start of the ranks alone.

    torchrun keeps one store over restarts, with the addresses of ranks that died still in it; whoever reads one before
    the new rank has written its own connects to nobody. So rank 0 draws a new prefix. Each rank knows it from an
    old one by its own greeting, drawn anew, which only the present rank 0 can have repeated.

    Raises:
        InputError: not all ranks came in time.
    """
    greeting, deadline = secrets.token_hex(8), time.monotonic() + timeout.total_seconds()
    store.set(f"greeting/{rank}", greeting)
    answer: dict[str, Any] = {"prefix": greeting, "greetings": []}
    missing = list(range(1, world_size)) if rank == 0 else [0]
    while missing:
        if time.monotonic() > deadline:
            raise InputError(
                f"rank {rank} waited {timeout.total_seconds():g} s for rank(s) {missing}: see why they did not start"
            )
        if rank == 0:
            keys = [f"greeting/{other}" for other in range(world_size)]
            greetings = [store.get(key).decode() if store.check([key]) else "" for key in keys]
            if greetings != answer["greetings"]:
                answer["greetings"] = greetings
                store.set("answer", json.dumps(answer))
            missing = [other for other in missing if not store.check([f"{greeting}/{other}"])]
        elif store.check(["answer"]):
            answer = json.loads(store.get("answer"))
            if answer["greetings"][rank : rank + 1] == [greeting]:
                store.set(f"{answer['prefix']}/{rank}", "here")
                missing = []
        time.sleep(0.02)
    return dist.PrefixStore(f"start_{answer['prefix']}", store)


def barrier() -> None:
    """Wait for all ranks."""
    if dist.is_initialized():
        dist.barrier()


def done_by_main(ranks: Ranks, work: Callable[[], object]) -> None:
    """Rank 0 does a work alone. The others wait for it, however long it takes, as long as rank 0 lives. Collective."""
    if ranks.gloo is None:
        work()
    elif not ranks.is_main:
        while _is_at_work(ranks.gloo):
            pass
    else:
        ended = threading.Event()
        with ThreadPoolExecutor(1) as threads:
            told = threads.submit(_tell_at_work, ranks.gloo, ended)
            try:
                work()
            finally:
                ended.set()
        told.result()
        _is_at_work(ranks.gloo, False)


def _tell_at_work(group: dist.ProcessGroup, ended: threading.Event) -> None:
    while not ended.wait(_BEAT_S):
        _is_at_work(group, True)


def _is_at_work(group: dist.ProcessGroup, told: bool = False) -> bool:
    """What rank 0 tells, on every rank."""
    flag = torch.tensor([told], dtype=torch.uint8, device="cpu")
    dist.broadcast(flag, src=0, group=group)
    return bool(flag)


def broadcast_from_main(value: Any) -> Any:
    """What rank 0 passes, on every rank (any picklable value between ranks of the same run)."""
    if not dist.is_initialized():
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def gather(value: Any) -> list[Any]:
    """The values of all ranks, in rank order, on every rank."""
    if not dist.is_initialized():
        return [value]
    boxes: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(boxes, value)
    return boxes


def broadcast_buffers(module: nn.Module) -> None:
    """Rank 0's buffers (batch-norm's statistics) on every rank."""
    if dist.is_initialized():
        for buffer in module.buffers():
            dist.broadcast(buffer, src=0)


def mean_over_ranks(value: torch.Tensor) -> torch.Tensor:
    """The mean of a tensor over the ranks."""
    if not dist.is_initialized():
        return value
    total = value.clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()
