"""One optimiser step. All of it is queued on the device: the host waits for nothing and can prepare the next one."""

import torch

from engine.config import Config
from engine.data.batch import Batch
from engine.errors import InputError
from engine.processes.preemption import Preempted
from engine.training.finite import copy_buffers, gradient_norm, restore_buffers, statistics_norm
from engine.training.network import CUDA_GRAPH_MODES, is_compiled
from engine.training.optim import clip_gradients
from engine.training.run import Run

# What batch-norm says of one small snippet: torch's, and `engine.models.norm.move_statistics`.
_ONE_VALUE = ("Expected more than 1 value per channel", "batch-norm needs more than one value for each channel")


def train_step(run: Run, batch: Batch) -> torch.Tensor:
    """Forward, backward and update from one batch. Returns the mean loss, still on the device.

    If the loss or the gradient is not finite the model stays as it was.

    Dropout is seeded by (seed, step, rank), so a resumed run draws what the uninterrupted one would.

    Raises:
        InputError: a micro-batch is too small for batch-norm.
        Preempted: an error came out of it while the run was asked to stop: a signal to all processes of a job ends those that
            compile, too. The model is as it was before the step. Not collective: the other ranks lose this one, and raise it too.
    """
    grad_clip = run.config.train.grad_clip
    torch.manual_seed(step_seed(run.config.run.seed, run.step, run.ranks.rank, run.ranks.world_size))
    _clear_gradients(run)
    buffers = copy_buffers(run.model)
    try:
        total = _accumulate(run, batch)
    except Exception as error:
        if not run.stop.requested():
            raise
        restore_buffers(run.model, buffers, where=torch.tensor(True, device=run.ranks.device))
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise Preempted(f"step {run.step + 1} was broken off while the run was asked to stop ({reason})") from error
    run.scaler.unscale_(run.optimizer)
    norm = clip_gradients(run.model, grad_clip) if grad_clip else gradient_norm(run.model)
    is_bad = run.guard.step(run.optimizer, run.scaler, total, norm, statistics_norm(run.model))
    restore_buffers(run.model, buffers, where=is_bad)
    return total


def _accumulate(run: Run, batch: Batch) -> torch.Tensor:
    """The mean loss, with the gradients of all micro-batches added up."""
    device = run.ranks.device
    compiled = is_compiled(run.config, device)
    parts = batch.chunk(run.config.train.accumulate)
    total = torch.zeros((), dtype=run.precision.weights, device=device)
    for index, part in enumerate(parts):
        is_last = index == len(parts) - 1
        run.network.require_backward_grad_sync = is_last  # gradients meet once a step; ignored without DDP
        if compiled:
            torch.compiler.cudagraph_mark_step_begin()  # what an earlier call returned may be overwritten now
        loss = _loss(run, part) * (len(part) / len(batch))
        run.scaler.scale(loss).backward()
        total += loss.detach()
    return total


def _loss(run: Run, part: Batch) -> torch.Tensor:
    try:
        return run.task.loss(run.network, part)
    except ValueError as error:
        if not any(text in str(error) for text in _ONE_VALUE):
            raise
        raise InputError(
            f"train.batch_size: {len(part)} snippet at a time gives batch-norm a single value for each channel, of which there is "
            "no variance: raise it, lower train.accumulate or the number of ranks, or take larger clips"
        ) from error


def _clear_gradients(run: Run) -> None:
    """No gradient is left from the step before.

    Those that a CUDA graph computes lie in its own memory, which the next micro-batch writes over; they are added up in
    memory that is not the graph's.
    """
    config = run.config.train
    records_graphs = config.compile_mode in CUDA_GRAPH_MODES and is_compiled(run.config, run.ranks.device)
    if config.accumulate == 1 or not records_graphs:
        run.optimizer.zero_grad(set_to_none=True)
        return
    for parameter in run.model.parameters():
        if parameter.requires_grad and parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    run.optimizer.zero_grad(set_to_none=False)


def warmup_steps(config: Config, device: torch.device) -> int:
    """The first steps of a process that are not timed: memory is found, kernels are chosen, the network is compiled.

    CUDA graphs are recorded in the second and third.
    """
    return 3 if is_compiled(config, device) else 1


def step_seed(seed: int, step: int, rank: int, world_size: int) -> int:
    """The seed of a step's dropout on one rank."""
    return seed + 1_000_003 * (step * world_size + rank)
