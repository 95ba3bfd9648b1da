"""What `kernels` measures: an operation at a size, made in the process that measures it."""

from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Case:
    """One operation at one size: the public calls, the same written in plain PyTorch, and what it must move and do."""

    inputs: tuple[torch.Tensor, ...]
    ours: dict[str, Callable[..., object]]  # variant -> call
    unfused: Callable[..., object] | None
    bytes: int
    flop: int
    dtype: str  # of its floating-point tensors
    precision: str  # of its arithmetic


@dataclass(frozen=True, slots=True)
class Problem:
    """A case before it is made, which is sent to the process that makes it."""

    name: str
    make: Callable[[], Case]
