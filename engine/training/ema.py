"""A moving average of the weights, evaluated in their place: less noisy than the weights of any one step."""

import copy
from typing import Any

import torch
from torch import nn

from engine.config import Config
from engine.errors import InputError

KEY = "average"  # of a checkpoint's dictionary


class WeightAverage:
    """average <- d * average + (1 - d) * weights after every step, batch-norm's statistics included.

    d is `decay`, but less in the first steps, (1 + step) / (10 + step), so that the random weights at the start are soon
    forgotten. A function of the step alone: a resumed run averages as the uninterrupted one does.

    Attributes:
        model: the averaged model, in eval mode.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.model = copy.deepcopy(model).requires_grad_(False).eval()
        self._average, self._average_counts = _tensors(self.model)
        self._trained, self._trained_counts = _tensors(model)

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the model's weights after `step` steps. The host does not wait for the device."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self._average, self._trained, 1 - decay)
        if self._average_counts:
            torch._foreach_copy_(self._average_counts, self._trained_counts)


def build_average(model: nn.Module, config: Config) -> WeightAverage | None:
    """The average that `train.ema_decay` asks for."""
    return WeightAverage(model, config.train.ema_decay) if config.train.ema_decay else None


def _tensors(model: nn.Module) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """The tensors of the state that are floating, and the others (batch-norm's counters)."""
    state = [value.detach() for value in model.state_dict().values()]
    return [t for t in state if t.is_floating_point()], [t for t in state if not t.is_floating_point()]


def evaluated_weights(state: dict[str, Any], choice: str, source: object) -> dict[str, torch.Tensor]:
    """The weights of a checkpoint to evaluate.

    Args:
        state: as `engine.training.checkpoint.read_checkpoint` gives it.
        choice: as `evaluate.weights`.
        source: the checkpoint's name, for the message.

    Raises:
        InputError: the average is asked for and the run kept none.
    """
    if choice == "average" and KEY not in state:
        raise InputError(f"evaluate.weights is 'average', but '{source}' has none (train.ema_decay was 0): take 'auto'")
    return state["model"] if choice == "trained" else state.get(KEY, state["model"])


def own_weights(state: dict[str, Any], source: object) -> tuple[dict[str, torch.Tensor], str]:
    """The weights of a checkpoint that its own run evaluates, and which of two they are, for the log: "" if it has no others.

    Raises:
        InputError: see `evaluated_weights`.
    """
    choice = state["config"].get("evaluate", {}).get("weights", "auto")  # the key came later than the first checkpoints
    weights = evaluated_weights(state, choice, source)
    if KEY not in state:
        return weights, ""
    return weights, " (as trained)" if choice == "trained" else " (moving average)"
