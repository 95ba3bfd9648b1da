"""The optimiser and the learning rate's course (paper Sec. 4.4: Adam at 1e-3, ten times less at epochs 60 and 120)."""

import itertools
import math
from typing import Any

import torch
from torch import nn

from engine.config import TrainConfig

_WARMUP_START = 0.01  # share of the learning rate at which a warm-up begins


def build_optimizer(model: nn.Module, config: TrainConfig, device: torch.device) -> torch.optim.Optimizer:
    """Adam, AdamW or SGD with momentum over the trainable parameters, fused (one pass over the memory).

    Weight decay is for the weights of layers: convolutions, linear, recurrent, attention. Biases, the scale and shift of norms
    (every parameter of one axis), embeddings and whatever else is learnt by itself (a transformer's positions and tokens, a
    loss's class centres) are spared. For `adam` it is added to the gradient, for `adamw` it is decoupled.
    """
    groups = _groups(model, config.weight_decay)
    fused, betas = device.type in ("cpu", "cuda"), (0.9, config.beta2)
    match config.optimizer:
        case "adam":
            return torch.optim.Adam(groups, lr=config.lr, betas=betas, fused=fused)
        case "adamw":
            return torch.optim.AdamW(groups, lr=config.lr, betas=betas, fused=fused)
        case "sgd":
            optimizer = torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, fused=fused)
            # PyTorch's fused kernel leaves the momentum unset if the very first step is skipped (engine/training/finite.py).
            held = [parameter for group in groups for parameter in group["params"] if config.momentum]
            optimizer.state.update({p: {"momentum_buffer": torch.zeros_like(p)} for p in held})
            return optimizer
    raise ValueError(f"no optimizer is called '{config.optimizer}'")


def _groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """The trainable parameters, those side by side that are decayed alike in one group.

    Checkpoints number parameters over all groups, so their order is one and the same whatever is decayed: those of several
    axes but `position`, then the others.
    """
    embeddings = {module.weight for module in model.modules() if isinstance(module, nn.Embedding)}
    found = []  # (comes last, is decayed, parameter)
    for name, parameter in model.named_parameters():
        last = name.rpartition(".")[2]
        is_weight = "weight" in last and parameter.ndim > 1 and parameter not in embeddings
        if parameter.requires_grad:
            found.append((parameter.ndim <= 1 or last == "position", is_weight, parameter))
    found.sort(key=lambda each: each[0])
    return [
        {"params": [parameter for *_, parameter in alike], "weight_decay": weight_decay if is_weight else 0.0}
        for is_weight, alike in itertools.groupby(found, key=lambda each: each[1])
    ]


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Take over a saved state, each moment in the memory order of its parameter. Options (weight decay, betas, ...) and groups
    stay those that it was built with.

    The run that saved it may have had another `train.channels_last`, and fused kernels go through the memory of
    parameters and moments side by side: of other orders a CPU makes nonsense, and a GPU an error.
    """
    at_first, own = dict(optimizer.state), optimizer.state_dict()["param_groups"]
    there, here = (sum(len(group["params"]) for group in groups) for groups in (state["param_groups"], own))
    if there != here:
        raise ValueError(f"the saved optimizer has {there} parameters, this one {here}")
    optimizer.load_state_dict({"state": state["state"], "param_groups": own})
    for parameter, kept in at_first.items():  # momentum that the saved run had none of
        optimizer.state[parameter] = {**kept, **optimizer.state[parameter]}
    for parameter, kept in optimizer.state.items():
        for name, value in kept.items():
            if value.shape == parameter.shape and value.stride() != parameter.stride():
                kept[name] = torch.empty_like(parameter, requires_grad=False).copy_(value)


def learning_rate(config: TrainConfig, epoch_progress: float) -> float:
    """The learning rate at a point of the run, a pure function.

    Args:
        epoch_progress: epochs done, with their fraction: 0 at the first step, `config.epochs` at the end.

    A warm-up rises linearly from 1 % over `warmup_epochs` and multiplies the schedule. `milestones` multiplies by
    `gamma` at each of them; `cosine` falls to zero at `epochs`, counted from the end of the warm-up.
    """
    rate = config.lr
    if epoch_progress < config.warmup_epochs:
        rate *= _WARMUP_START + (1 - _WARMUP_START) * epoch_progress / config.warmup_epochs
    if config.schedule == "milestones":
        rate *= config.gamma ** sum(epoch_progress >= milestone for milestone in config.milestones)
    elif config.schedule == "cosine" and epoch_progress > config.warmup_epochs:
        share = (epoch_progress - config.warmup_epochs) / max(config.epochs - config.warmup_epochs, 1e-9)
        rate *= 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))
    return rate


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Use `rate` from the next step on."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def clip_gradients(model: nn.Module, max_norm: float) -> torch.Tensor:
    """Scale all gradients together so that their norm is at most `max_norm`.

    Returns the norm before, a scalar on the device (not read here: reading it would make the host wait).
    """
    return nn.utils.clip_grad_norm_(model.parameters(), max_norm)
