"""The seam between a run and what it trains: the loop of `engine/train.py` calls a `Task` and knows nothing else of it.

    config ──▶ Task.build ──▶ build_model ──▶ begin ──▶ batches ──▶ loss, loss, loss ... ──▶ measure ──▶ conclude ──▶ show
               data, words                    checkpoint              every step            some epochs   best checkpoint

A task holds what is the same all through a run (data, class vectors, criterion); what changes with each step (weights,
optimiser, step) is the `Run`'s, which saves and restores it.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import torch
from torch import nn

from engine.config import Config
from engine.processes.distributed import Ranks
from engine.training.precision import Precision
from engine.training.run import Run
from engine.training.telemetry import Telemetry


class Batches(Iterator[Any], Protocol):
    """An endless stream of the batches of one rank; closing it frees what reads ahead."""

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Measured:
    """What a model is worth after an epoch.

    scalars: points on TensorBoard's curves. told: a line for the log.
    value: the higher the better; the best checkpoint is the one with the highest, of equal ones the latest.
    metric: what `value` is.
    """

    scalars: Mapping[str, float]
    told: str
    value: float
    metric: str


class Task(ABC):
    """One kind of training. What is abstract every task must say; the rest has a default that does nothing.

    sections: of the config, that a run must have in common with the checkpoint it resumes from.
    fields: of a checkpoint, that this task cannot do without (it adds them in `state`).
    output: what the model's output is, where weights with another length of it are refused.
    notes: what to tell the user when logging starts.
    plan: the version of what `batches` streams, which a checkpoint keeps (`engine/data/sampling/plans.py`).
    is_remote: whether `batches` come from object storage, which may go away: the ranks then agree before each step.
    """

    sections: tuple[str, ...] = ("model", "clip")
    fields: tuple[str, ...] = ()
    output: str = "outputs"
    notes: Sequence[str] = ()
    plan: int = 1
    is_remote: bool = False

    def __init__(self, config: Config, ranks: Ranks, precision: Precision) -> None:
        self.config, self.ranks, self.precision = config, ranks, precision

    @classmethod
    def build(cls, config: Config, ranks: Ranks, precision: Precision) -> Self:
        """Read all that is needed (data, words), so that what is wrong is told before days of training."""
        return cls(config, ranks, precision)

    @property
    @abstractmethod
    def epoch_size(self) -> int:
        """Samples of an epoch over all ranks, the same in every epoch."""

    @abstractmethod
    def build_model(self) -> nn.Module:
        """The model on the CPU, with random weights (torch's generator is seeded) or those that the config names.

        A part of it by the name `loss` is trained with it and left out wherever the model is used.
        """

    @abstractmethod
    def batches(self, run: Run, part: tuple[int, int] | None = None) -> Batches:
        """The batches from where the run stands (`run.stream_position`), of this rank.

        They are a function of (seed, epoch, position) alone, so that a resumed run sees those it would have seen.

        Args:
            part: (rank, world size) of another rank, to see again what it saw.
        """

    @abstractmethod
    def loss(self, network: nn.Module, batch: Any) -> torch.Tensor:
        """The mean loss of a batch or micro-batch: a scalar on the device, to call `backward` on.

        Args:
            network: the model as it is called: distributed, compiled.
        """

    def rehearse(self) -> list[str]:
        """Called before the first step of a start; lines for the log.

        Raises:
            InputError: nothing of what the run is for could be measured, and the config does not say that this is meant.
        """
        return []

    @abstractmethod
    def measure(self, run: Run) -> Measured:
        """What `run.evaluated` is worth. Collective: all ranks call it and get the same."""

    @abstractmethod
    def conclude(self, run: Run, telemetry: Telemetry) -> Any:
        """Evaluate the finished run, whose `evaluated` has the weights of the best checkpoint, and write its results.

        Collective. Returns what the run reached, for `control` and `show`.
        """

    def recorded(self, run: Run) -> Any | None:
        """What `conclude` has returned in an earlier start of the finished run, if all that it wrote is there: then nothing is
        written again. Collective."""
        return None

    @staticmethod
    def before(config: Config) -> Config | None:
        """The config of a run that is trained first, because this one needs its model; None: there is none."""
        return None

    @staticmethod
    def control(config: Config, reached: Any) -> Config | None:
        """The config of a second run to hold the first against; None: there is none."""
        return None

    @property
    def has_control(self) -> bool:
        """Whether `control` will name a second run, as long as the first."""
        return False

    @staticmethod  # noqa: B027
    def show_before_control(reached: Any) -> None:
        """Write and tell (rank 0) what the run reached, before its control starts: a control that is broken off costs nothing."""

    @staticmethod  # noqa: B027
    def show(reached: Any, control: Any | None) -> None:
        """The last words in the terminal (rank 0): what the run reached, beside its control if there is one."""

    def introduce(self, run: Run) -> list[str]:
        """Lines for the log when training begins: what is trained, on what."""
        return [f"{run.total_steps} steps of {run.config.train.batch_size} samples, {run.config.train.epochs} epochs"]

    def show_first(self, run: Run, batch: Any, telemetry: Telemetry) -> None:  # noqa: B027
        """Pictures for TensorBoard before the first step: of the batch, of what the model is trained towards."""

    def news(self, *, sums: bool) -> list[str]:
        """Lines for the log on what has turned up since the last call; with `sums`, at an epoch's end, totals too."""
        return []

    def beside_loss(self) -> dict[str, float]:
        """Points for the curves beside the loss, of the steps since the last call. Collective: all ranks call it."""
        return {}

    def loss_of_each(self, network: nn.Module, batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """`loss`, and from the same forward pass the loss of each sample alone [N], to find a sample at fault."""
        loss = self.loss(network, batch)
        return loss, loss.detach().expand(len(batch))

    def sample_name(self, video: int, start: int) -> str:
        """A sample for people, from what its batch has in `video` and `start`."""
        return f"row {video} from frame {start}"

    def state(self) -> dict[str, Any]:
        """What a checkpoint remembers of the task, with at least `fields`: tensors, numbers, text, lists of them."""
        return {}

    def changes(self, state: Mapping[str, Any]) -> list[str]:
        """What makes this task another one than that of a checkpoint, by name: then the run is not resumed."""
        return []

    def recall(self, state: Mapping[str, Any], folder: Path) -> list[str]:
        """Put back what a checkpoint remembers and a new start might draw otherwise; returns lines for the log.

        Args:
            folder: of the run that the checkpoint is of.

        Raises:
            InputError: it cannot be put back.
        """
        return []

    def begin(self, resumed: Mapping[str, Any] | None, source: Mapping[str, Any] | None) -> list[str]:
        """Called once the weights are there; returns lines for the log.

        Args:
            resumed: the checkpoint that the run goes on from. source: the one its weights were taken from
                (`train.init_from`). At most one of them.
        """
        return []
