"""Networks that are built for use, not for training: the same whatever the program around them has set for torch."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_ONE_AT_A_TIME = threading.RLock()  # the default of a process and its random numbers are put back by whoever took them


@contextmanager
def for_inference() -> Iterator[None]:
    """While inside, tensors are made on the CPU in float32; torch's random numbers afterwards are as before."""
    with _ONE_AT_A_TIME, torch.device("cpu"), torch.random.fork_rng(devices=[]):
        default = torch.get_default_dtype()
        torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            torch.set_default_dtype(default)


@contextmanager
def on_cpu() -> Iterator[None]:
    """While inside, tensors for which no place is named are made on the CPU, whatever `torch.set_default_device` says."""
    with torch.device("cpu"):
        yield
