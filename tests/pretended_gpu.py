"""A GPU that is only pretended: its tensors say that they are on cuda:0, and are computed on the CPU.

So what every GPU would refuse or wait for is seen without one: an operation on tensors of two devices raises
`DevicesMixed`, as does reading a GPU's memory from the host; each place where the host waits for the device is noted. Not
seen: Triton's kernels (it is of a capability that takes PyTorch's ways), streams, memory, speed.

    with pretended_gpu() as waits:
        ...                # torch.cuda.is_available() is true here, in threads that begin here too
    assert not waits
"""

import contextlib
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from typing import Any
from unittest import mock

import pytest
import torch

from engine.config import Config
from engine.data.batch import Batch
from engine.processes.distributed import Ranks
from engine.processes.preemption import StopVote
from engine.train import train
from engine.training.run import Run
from engine.training.step import train_step
from tests.pretended_tensors import CPU, GPU, DevicesMixed, Functions, Generator, OnGpu, Operations

__all__ = ["CPU", "GPU", "DevicesMixed", "only_without_gpu", "pretended_gpu", "trained_there"]
only_without_gpu = pytest.mark.skipif(
    torch.cuda.is_available(), reason="there is a GPU: tests/training/test_step_gpu.py asks it"
)
_CAPABILITY = (7, 5)  # of a T4: fp16, no Triton kernels of this package


class _Stream:
    device, cuda_stream = GPU, 0

    def __init__(self, *_: Any, **__: Any) -> None:
        self._at = 0.0

    def record(self, *_: Any) -> None:
        self._at = time.perf_counter()

    def elapsed_time(self, other: "_Stream") -> float:
        return (other._at - self._at) * 1e3

    def synchronize(self) -> None: ...
    def wait_stream(self, stream: Any) -> None: ...
    def wait_event(self, event: Any) -> None: ...


class _Autocast(torch.autocast):
    def __init__(self, device_type: str, *args: Any, **kwargs: Any) -> None:
        super().__init__("cpu", *args, **kwargs)


def _driver() -> dict[str, Any]:
    """What torch.cuda says of the pretended GPU."""
    nothing = {name: lambda *_, **__: None for name in (
        "_lazy_init", "set_device", "synchronize", "manual_seed_all", "reset_peak_memory_stats", "empty_cache")}  # fmt: skip
    sizes = {name: lambda *_: 2**30 for name in ("max_memory_allocated", "memory_allocated", "max_memory_reserved")}
    return {
        **nothing, **sizes, "_initialized": True, "is_available": lambda: True, "device_count": lambda: 1,
        "current_device": lambda: 0, "get_device_capability": lambda *_: _CAPABILITY, "get_arch_list": lambda: ["sm_75"],
        "get_device_name": lambda *_: "pretended GPU", "Stream": _Stream, "Event": _Stream,
        "current_stream": lambda *_: _Stream(), "stream": lambda *_: contextlib.nullcontext(),
        "device": lambda *_: contextlib.nullcontext(),
        "get_rng_state": lambda *_: torch.get_rng_state(), "set_rng_state": lambda *_: None,
    }  # fmt: skip


@contextlib.contextmanager
def pretended_gpu() -> Iterator[list[str]]:
    """Torch has a GPU within. Gives the list of the waits of the host: the operation, and the lines that led to it."""
    waits: list[str] = []

    def note(what: str) -> None:
        waits.append(what + "\n" + "".join(traceback.format_stack(limit=12)[:-3]))

    begin, group = threading.Thread.run, torch._C._group_tensors_by_device_and_dtype

    @contextlib.contextmanager
    def believed() -> Iterator[None]:
        operations = Operations(note)
        with Functions(note, operations), operations:
            yield

    def begin_within(thread: threading.Thread) -> None:
        with believed():
            begin(thread)

    def grouped(lists: Sequence[Sequence[torch.Tensor]], *args: Any) -> dict[Any, Any]:
        """Torch asks for the device below Python, where it is the CPU."""
        place = GPU if any(isinstance(each, OnGpu) for each in lists[0]) else CPU
        return {(place, kind): value for (_, kind), value in group(lists, *args).items()}

    checks = [name for name in vars(torch.optim.Optimizer) if name.endswith("_graph_capture_health_check")]
    overwrites = torch.__future__.get_overwrite_module_params_on_conversion()
    with contextlib.ExitStack() as stack:
        for name, value in _driver().items():
            stack.enter_context(mock.patch.object(torch.cuda, name, value))
        for name in checks:
            stack.enter_context(mock.patch.object(torch.optim.Optimizer, name, lambda self: None))
        stack.enter_context(mock.patch.object(torch, "Generator", Generator))
        is_enabled = torch.is_autocast_enabled
        stack.enter_context(mock.patch.object(torch, "is_autocast_enabled", lambda device="cuda": is_enabled("cpu")))
        for place in (torch, torch.amp):
            stack.enter_context(mock.patch.object(place, "autocast", _Autocast))
        stack.enter_context(mock.patch.object(threading.Thread, "run", begin_within))
        stack.enter_context(mock.patch.object(torch._C, "_group_tensors_by_device_and_dtype", grouped))
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        stack.callback(torch.__future__.set_overwrite_module_params_on_conversion, overwrites)
        stack.enter_context(believed())
        yield waits


def trained_there(config: Config, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Train on the pretended GPU to the evaluation at the end. The host may wait in the first step alone.

    Returns:
        What the task concludes.
    """
    with pretended_gpu() as waits:
        steps = []

        def watched(run: Run, batch: Batch) -> torch.Tensor:
            before = len(waits)
            loss = train_step(run, batch)
            steps.append(waits[before:])
            return loss

        monkeypatch.setattr("engine.train.train_step", watched)
        reached = train(config, Ranks(GPU), StopVote())
    assert len(steps) > 1 and not any(steps[1:]), steps
    return reached
