"""The optimiser and the learning rate's course (paper Sec. 4.4: Adam at 1e-3, ten times less at epochs 60 and 120)."""

import math
from typing import Any

import torch
from torch import nn

from engine.config import TrainConfig

_WARMUP_START = 0.01  # share of the learning rate at which a warm-up begins


def build_optimizer(model: nn.Module, config: TrainConfig, device: torch.device) -> torch.optim.Optimizer:
    """Adam, AdamW or SGD with momentum over the trainable parameters, fused (one pass over the memory).

    Weight decay is for the weights of convolutions and linear layers; biases, the scale and shift of batch-norm (every
    parameter of one axis) and a transformer's `position` are spared. For `adam` it is added to the gradient, for `adamw` it
    is decoupled.
    """
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    trainable = [parameter for _, parameter in named]
    spared = [p.ndim <= 1 or name.rpartition(".")[2] == "position" for name, p in named]
    groups = [
        {
            "params": [p for p, is_spared in zip(trainable, spared, strict=True) if is_spared == other],
            "weight_decay": decay,
        }
        for other, decay in ((False, config.weight_decay), (True, 0.0))
    ]
    fused, betas = device.type in ("cpu", "cuda"), (0.9, config.beta2)
    match config.optimizer:
        case "adam":
            return torch.optim.Adam(groups, lr=config.lr, betas=betas, fused=fused)
        case "adamw":
            return torch.optim.AdamW(groups, lr=config.lr, betas=betas, fused=fused)
        case "sgd":
            optimizer = torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, fused=fused)
            # PyTorch's fused kernel leaves the momentum unset if the very first step is skipped (engine/finite.py).
            optimizer.state.update({p: {"momentum_buffer": torch.zeros_like(p)} for p in trainable if config.momentum})
            return optimizer
    raise ValueError(f"no optimizer is called '{config.optimizer}'")


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Take over a saved state, each moment in the memory order of its parameter. Options (weight decay, betas, ...) stay those
    that it was built with.

    The run that saved it may have had another `train.channels_last`, and fused kernels go through the memory of
    parameters and moments side by side: of other orders a CPU makes nonsense, and a GPU an error.
    """
    options = [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]
    at_first = dict(optimizer.state)
    optimizer.load_state_dict(state)
    for group, own in zip(optimizer.param_groups, options, strict=True):
        group.update(own)
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
