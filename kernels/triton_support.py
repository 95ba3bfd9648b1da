"""Whether a device runs this package's Triton kernels. Does not import Triton itself."""

import importlib.util
from functools import cache

import torch

_LEAST_CAPABILITY = (8, 0)  # Ampere; Triton itself supports nothing older, so V100 and T4 take the PyTorch paths


@cache
def can_use_triton(device: torch.device) -> bool:
    """True for an NVIDIA GPU of compute capability 8.0 or later where Triton is installed (Linux wheels of torch)."""
    if device.type != "cuda" or torch.version.cuda is None or importlib.util.find_spec("triton") is None:
        return False
    return torch.cuda.get_device_capability(device) >= _LEAST_CAPABILITY
