"""In which floating types a network computes."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from engine.errors import InputError


@dataclass(frozen=True)
class Precision:
    """How the network computes: the autocast type (None: fp32) and whether gradients need loss scaling."""

    name: str
    dtype: torch.dtype | None

    @property
    def compute(self) -> torch.dtype:
        """The type of the clips that go into the network."""
        return self.dtype or (torch.float64 if self.name == "fp64" else torch.float32)

    @property
    def weights(self) -> torch.dtype:
        """The type of the weights, and of what the output is compared with."""
        return torch.float64 if self.name == "fp64" else torch.float32

    def autocast(self, device: torch.device) -> AbstractContextManager[Any]:
        return nullcontext() if self.dtype is None else torch.autocast(device.type, self.dtype)


def choose_precision(name: str, device: torch.device) -> Precision:
    """`auto`: bf16 where the GPU computes it natively, fp16 with loss scaling on older GPUs, fp32 on a CPU."""
    if name == "auto" and device.type == "cpu":
        name = "fp32"
    elif name == "auto":
        name = "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp16"
    if name == "fp16" and device.type == "cpu":
        raise InputError("train.precision fp16 needs a GPU: use fp32 or bf16 on a CPU")
    return Precision(name, {"fp32": None, "fp64": None, "bf16": torch.bfloat16, "fp16": torch.float16}[name])


def precision_notes(precision: Precision, device: torch.device, form: str) -> list[str]:
    """Lines for the log: what is known to go wrong with this precision here."""
    if precision.name != "bf16" or device.type != "cpu":
        return []
    notes = []
    if form != "flat":
        # torch 2.15 on CPUs with AVX-512 bf16, convolutions over exactly two frames: docs/lab_notes.md.
        notes.append(
            "train.precision bf16 on a CPU: torch's bf16 conv3d can give wrong gradients here; use fp32, or model.form=flat"
        )
    if torch.backends.cpu.get_cpu_capability() == "AVX2":
        notes.append(
            "train.precision bf16 on a CPU that does not compute in it (no AVX-512): fp32 was four to six times as fast on one"
        )
    return notes


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Nothing within is computed in a lower precision than its inputs have.

    Where autocast is off there is nothing to leave: an exported program would hold the region as a program of its own.
    """
    return torch.autocast(device.type, enabled=False) if torch.is_autocast_enabled(device.type) else nullcontext()
