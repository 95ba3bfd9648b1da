"""The next batch, on all ranks or on none: no rank begins a step that another cannot take.

A rank that waits for its videos cannot be in the collectives of the step, where the others would wait for it in vain: with
nothing that they could still save. So from object storage, which may be away for long, the ranks agree before each step.
"""

from collections.abc import Iterator

import torch
import torch.distributed as dist

from engine.data.batch import Batch
from engine.errors import SourceGone
from engine.processes.preemption import Preempted
from engine.training.run import Run

_HAS, _STOPS, _LOST = range(3)


def next_batch(run: Run, batches: Iterator[Batch]) -> Batch:
    """This rank's batch of the step after `run.step`. Collective where videos come from object storage.

    Raises:
        Preempted: a rank was asked to stop and waits for its videos no longer.
        SourceGone: a rank cannot have its videos any more. It is the same error on all ranks.
    """
    run.watchdog.beat(run.step, "waiting for data")
    batch, lost = None, ""
    try:
        batch = next(batches)
    except SourceGone as error:
        lost = str(error)
    run.watchdog.beat(run.step, "computing")
    state = _HAS if batch is not None else _STOPS if run.stop.requested() else _LOST
    group = run.ranks.gloo if run.task.is_remote else None
    if group is not None:
        state = _worst(state, group)
    if state == _STOPS:
        raise Preempted(f"stopped after step {run.step}, waiting for videos")
    if state == _LOST:
        raise SourceGone(_told(lost, group))
    return batch


def _worst(state: int, group: dist.ProcessGroup) -> int:
    flag = torch.tensor([state], dtype=torch.int32)
    dist.all_reduce(flag, dist.ReduceOp.MAX, group=group)
    return int(flag.item())


def _told(lost: str, group: dist.ProcessGroup | None) -> str:
    """What the first rank that lost its videos says, and which ones did, unless all."""
    if group is None:
        return lost
    said: list[str] = [""] * dist.get_world_size(group)
    dist.all_gather_object(said, lost, group)
    ranks = [rank for rank, text in enumerate(said) if text]
    which = "" if len(ranks) == len(said) else f" (rank {', '.join(map(str, ranks))} of {len(said)})"
    return said[ranks[0]] + which
