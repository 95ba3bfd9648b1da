"""The state of a training run, and how it is kept in checkpoints. What is trained is its task's (`engine/tasks/task.py`)."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from engine.config import Config
from engine.processes.distributed import Ranks, barrier
from engine.processes.preemption import StopVote
from engine.processes.watchdog import Watchdog
from engine.schema.parser import to_tree
from engine.training.checkpoint import (
    best_checkpoint,
    checkpoint_file,
    drop_old_checkpoints,
    read_checkpoint,
    save_checkpoint,
    step_checkpoint,
)
from engine.training.ema import KEY as AVERAGE
from engine.training.ema import WeightAverage, evaluated_weights
from engine.training.finite import FiniteGuard
from engine.training.precision import Precision

if TYPE_CHECKING:
    from engine.tasks.task import Task  # whose methods take a run


@dataclass
class Run:
    """The state of a run; `step` counts optimiser steps done, and so places the data stream. What is trained: `task`."""

    config: Config
    ranks: Ranks
    stop: StopVote
    watchdog: Watchdog
    folder: Path
    task: "Task"
    model: nn.Module
    network: nn.Module  # the model as it is called: distributed, compiled
    average: WeightAverage | None  # of the model's weights, if train.ema_decay asks for it
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    guard: FiniteGuard
    precision: Precision
    step: int = 0
    measured: int = 0  # the last step after which the task measured
    best: dict[str, Any] = field(default_factory=lambda: {"value": -1.0, "step": 0, "metric": ""})
    notes: list[str] = field(default_factory=list)  # what to tell the user when logging starts

    @property
    def evaluated(self) -> nn.Module:
        """The model that is measured: with averaged weights, or as it is trained."""
        is_average = self.average is not None and self.config.evaluate.weights != "trained"
        return self.average.model if is_average else self.model

    @property
    def epoch_size(self) -> int:
        """Samples of an epoch over all ranks."""
        return self.task.epoch_size

    @property
    def total_steps(self) -> int:
        """Steps after which every sample of every epoch has been seen (the last batch may reach past it)."""
        return -(-self.config.train.epochs * self.epoch_size // self.config.train.batch_size)

    @property
    def stream_position(self) -> tuple[int, int]:
        """(epoch, position) of the next sample: the two integers the data resume from."""
        return divmod(self.step * self.config.train.batch_size, self.epoch_size)

    @property
    def ends_epoch(self) -> bool:
        """Whether the last step done was the last of an epoch, or of the run."""
        epoch_before = (self.step - 1) * self.config.train.batch_size // self.epoch_size
        return self.step > 0 and (self.stream_position[0] > epoch_before or self.step == self.total_steps)

    @property
    def measures_now(self) -> bool:
        """Whether the task measures after the last step done."""
        is_due = self.stream_position[0] % self.config.evaluate.every_epochs == 0 or self.step == self.total_steps
        return self.ends_epoch and is_due


def save_run(run: Run, path: Path) -> None:
    """Write a checkpoint of the run (rank 0 only; the others need not call it)."""
    epoch, position = run.stream_position
    save_checkpoint(
        path,
        {
            "model": run.model.state_dict(),
            "optimizer": run.optimizer.state_dict(),
            "scaler": run.scaler.state_dict(),
            "config": to_tree(run.config),
            **run.task.state(),
            "epoch_size": run.epoch_size,
            "step": run.step,
            "epoch": epoch,
            "plan": run.task.plan,
            "position": position,
            "best": run.best,
            "measured": run.measured,
            "skipped_steps": run.guard.total,
            **({AVERAGE: run.average.model.state_dict()} if run.average else {}),
        },
    )


def save_newest(run: Run) -> None:
    """Keep the run's present state to resume from, and drop the oldest kept one."""
    save_run(run, step_checkpoint(run.folder, run.step))
    drop_old_checkpoints(run.folder, run.config.checkpoint.keep)


def save_best(run: Run) -> None:
    """Keep the run's present state as the best one so far."""
    save_run(run, best_checkpoint(run.folder))


def load_best(run: Run) -> Path:
    """Give `run.evaluated` the weights of the best checkpoint; returns its file. Collective."""
    barrier()
    best = checkpoint_file(run.folder)
    run.evaluated.load_state_dict(evaluated_weights(read_checkpoint(best), run.config.evaluate.weights, best))
    return best
