"""Repeat a batch whose loss or gradient was not finite, and say where it goes wrong.

    python tools/replay_batch.py runs/k664/not_finite
    python tools/replay_batch.py runs/k664/not_finite --precision fp32

A run that meets train.max_skipped_steps bad steps in a row stops and leaves in its folder not_finite/ the
state that the first of them met and where the snippets of each came from. This decodes the same snippets,
with the same crops, on the weights of that moment and with the same dropout, and prints for each rank the
loss, the norm of its gradient, the first statistics of batch-norm and the first layer's output that are not
finite, and the snippets at fault.

The first bad batch by default; --step takes another. Exit status 1 if something is not finite here too, 0
if all is well (if that is so only with another --precision, train with that one).
"""

import options

from engine.errors import read_command, run_command

if __name__ == "__main__":  # before the imports below, which take seconds
    ARGUMENTS = read_command(options.replay_batch, __doc__)

import argparse
import itertools
import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from engine.config import Config
from engine.data.batch import Batch
from engine.errors import InputError, misfit
from engine.processes.distributed import Ranks, choose_device
from engine.processes.preemption import StopVote
from engine.results.table import Table
from engine.schema.parser import parse
from engine.terminal.command_line import check_shown
from engine.training.build import build_run
from engine.training.checkpoint import read_checkpoint
from engine.training.finite import FOLDER, copy_buffers, gradient_norm, restore_buffers
from engine.training.run import Run
from engine.training.step import step_seed


@dataclass(frozen=True)
class Finding:
    """What one rank's batch does. statistics: the first buffer that it spoils; layer: the first whose output is not finite; bad:
    places of the snippets at fault."""

    loss: float
    gradient_norm: float
    statistics: str | None
    layer: str | None
    bad: list[int]

    @property
    def is_well(self) -> bool:
        return math.isfinite(self.loss) and math.isfinite(self.gradient_norm) and self.statistics is None


def main(arguments: argparse.Namespace) -> None:
    """Replay, print."""
    saved = _read_origins(arguments.folder)
    run = _restore(arguments)
    step = run.step if arguments.step is None else arguments.step
    known = sorted({origin["step"] for of_rank in saved["ranks"] for origin in of_rank})
    if step not in known:
        raise InputError(f"--step {step} was not kept: there are {', '.join(map(str, known))}")
    rows, culprits, all_well, run.step = [], [], True, step
    for rank in range(saved["world_size"]):
        origin = next(origin for origin in saved["ranks"][rank] if origin["step"] == step)
        finding = replay(run, _batch(run, rank, saved["world_size"], origin), rank, saved["world_size"])
        names = [finding.statistics or "-", finding.layer or "-"]
        rows.append([rank, finding.loss, finding.gradient_norm, *names, len(finding.bad)])
        all_well &= finding.is_well
        culprits += [f"rank {rank}: {origin['snippets'][index]}" for index in finding.bad]
    print(f"the batch of step {step + 1}, {run.precision.name}, {run.ranks.device}")
    first = [f"first {what} not finite" for what in ("statistics", "layer")]
    print(Table(["rank", "loss", "gradient norm", *first, "snippets at fault"], rows).text())
    print("\n".join(culprits))
    check_shown()
    sys.exit(0 if all_well else 1)


def _read_origins(folder: Path) -> dict[str, Any]:
    path = folder / "batches.json"
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        if len(saved["ranks"]) != saved["world_size"]:
            raise ValueError(f"it is of {saved['world_size']} ranks and has {len(saved['ranks'])}")
        for origin in itertools.chain.from_iterable(saved["ranks"]):
            if lacking := {"step", "video", "start", "snippets"} - origin.keys():
                raise ValueError(f"a batch in it lacks {', '.join(sorted(lacking))}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"no batches to replay in '{path}' ({misfit(error)}): name a run's {FOLDER} folder") from error
    return saved


def _restore(arguments: argparse.Namespace) -> Run:
    path = arguments.folder / "checkpoint.pt"
    tree = read_checkpoint(path)["config"]
    tree["run"] |= {"folder": str(arguments.folder), "resume": str(path), "device": arguments.device}
    if arguments.precision:
        tree["train"]["precision"] = arguments.precision
    device = choose_device(arguments.device)
    return build_run(parse(Config, tree), Ranks(device), StopVote())


def _batch(run: Run, rank: int, world_size: int, origin: dict[str, Any]) -> Batch:
    """One rank's batch, decoded again."""
    batches = run.task.batches(run, (rank, world_size))
    try:
        batch = next(batches)
    finally:
        batches.close()
    if (batch.video.tolist(), batch.start.tolist()) != (origin["video"], origin["start"]):
        raise InputError(
            f"step {origin['step']} now draws other snippets on rank {rank} than it did: files were changed or lost"
        )
    return batch


def replay(run: Run, batch: Batch, rank: int, world_size: int) -> Finding:
    """Forward and backward as in training; the weights and statistics stay as they are."""
    config, before = run.config.train, copy_buffers(run.model)
    torch.manual_seed(step_seed(run.config.run.seed, run.step, rank, world_size))
    run.model.zero_grad(set_to_none=True)
    run.model.train()
    losses, layers = [], []
    hooks = _watch(run.model, layers)
    for part in batch.chunk(config.accumulate):
        loss, alone = run.task.loss_of_each(run.model, part)
        losses += alone.tolist()
        (loss * (len(part) / len(batch))).backward()
    for hook in hooks:
        hook.remove()
    bad = [index for index, loss in enumerate(losses) if not math.isfinite(loss)]
    statistics = _spoiled_statistics(run.model)
    restore_buffers(run.model, before, torch.ones((), dtype=torch.bool, device=run.ranks.device))
    norm = gradient_norm(run.model).item()
    return Finding(sum(losses) / len(losses), norm, statistics, next(iter(layers), None), bad)


def _spoiled_statistics(model: nn.Module) -> str | None:
    """The first buffer whose norm is not finite: training takes no step then."""
    kept = {name: buffer for name, buffer in model.named_buffers() if buffer.is_floating_point()}
    return next((name for name, buffer in kept.items() if not buffer.norm().isfinite()), None)


def _watch(model: nn.Module, layers: list[str]) -> list[torch.utils.hooks.RemovableHandle]:
    """Note in `layers` each layer whose output is not finite, in the order of the computation."""

    def hook(name: str) -> Any:
        def look(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if isinstance(output, torch.Tensor) and not output.isfinite().all():
                layers.append(name)

        return look

    leaves = [(name, module) for name, module in model.named_modules() if not list(module.children())]
    return [module.register_forward_hook(hook(name)) for name, module in leaves]


if __name__ == "__main__":
    run_command(main, ARGUMENTS)
