"""Where a training step's time goes: every operation with its time, its FLOP, and the bytes that it must move.

The time is the profiler's: of the operation on a CPU, of its kernels on a GPU. FLOP of convolutions and matrix products
are PyTorch's own formulas; anything else counts one for each element it writes, which places it on the picture
without claiming anything. Bytes are those of its inputs, each read once, and of its results, each written once: the
least there can be, so caches may carry a point over the memory's slope.
"""

import contextlib
import dataclasses
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from bench.peaks import Peak
from bench.rows import Row, table
from bench.trainers import Setting, build_call
from engine.records import GrowingRecord, summarise
from kernels.triton_support import can_use_triton

_FORMS = ("engine", "engine flat")
_KEPT = 40  # points of a panel; the rest are one point for each kind
_KINDS = (  # the first pattern found in an operation's name
    ("convolution backward", "convolution_backward"),
    ("convolution", "convolution"),
    ("batch-norm", "batch_norm"),
    ("optimiser", "_fused_|_foreach_|_amp_|linalg_vector_norm"),
    ("matrix product", "mm$"),
    ("copy and cast", "copy|clone|_to_copy|cat|constant_pad"),
    ("element-wise", ""),
)


@dataclass(slots=True)
class Operation:
    """All calls in a step of one operation with the same shapes; `samples` are their seconds in each repetition."""

    name: str
    shapes: str
    kind: str
    samples: np.ndarray
    calls: int = 0
    flop: float = 0.0
    bytes: float = 0.0

    @property
    def seconds(self) -> float:
        """The median repetition."""
        return float(np.median(self.samples))

    def add(self, other: "Operation") -> None:
        """Count another one in."""
        self.samples = self.samples + other.samples
        self.calls, self.flop, self.bytes = self.calls + other.calls, self.flop + other.flop, self.bytes + other.bytes


class _Ledger(TorchDispatchMode):
    """Notes what each operation must do, and puts a numbered range around it that the profiler times."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[tuple[str, str, float, float]] = []  # name, shapes, FLOP, bytes

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.is_view:
            return func(*args, **kwargs)
        with record_function(f"bench operation {len(self.notes)}"):
            out = func(*args, **kwargs)
        formula = flop_registry.get(func.overloadpacket)
        written = sum(tensor.numel() for tensor in _tensors(out)) or sum(t.numel() for t in _tensors((args, kwargs)))
        flop = formula(*args, **kwargs, out_val=out) if formula else written
        shapes = ", ".join("x".join(map(str, tensor.shape)) or "scalar" for tensor in list(_tensors(args))[:2])
        name = func.overloadpacket.__name__
        self.notes.append((name, shapes, float(flop), float(_bytes(func, args, kwargs, out))))
        return out


def _tensors(tree: Any) -> Iterator[torch.Tensor]:
    return (leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor))


def _bytes(func: Any, args: Sequence[Any], kwargs: dict[str, Any], out: Any) -> int:
    """Inputs once, results once; what is changed in place is read and written."""
    total = sum(_size(tensor) for tensor in _tensors((args, kwargs)))
    for index, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = kwargs.get(argument.name, args[index] if index < len(args) else None)
            total += sum(_size(tensor) for tensor in _tensors(value))
    results = [out] if len(func._schema.returns) == 1 else list(out or ())
    for value, described in zip(results, func._schema.returns, strict=False):
        if described.alias_info is None:
            total += sum(_size(tensor) for tensor in _tensors(value))
    return total


def _size(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


@contextlib.contextmanager
def launches_as_operations(device: torch.device) -> Iterator[None]:
    """While inside, the kernel of `clip_normalize` is an operation like all others, which ledger and profiler see; else it is
    launched without one."""
    if not can_use_triton(device):
        yield
        return
    from kernels import clip_normalize_triton as module

    with mock.patch.object(module, "clip_normalize_triton", _clip_operation(module.clip_normalize_triton)):
        yield


@cache
def _clip_operation(launch: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    @torch.library.custom_op("bench::clip_normalize", mutates_args=())
    def clip_normalize(
        frames: torch.Tensor, dtype: torch.dtype, scales: Sequence[float], shifts: Sequence[float], channels: int
    ) -> torch.Tensor:
        return launch(frames, dtype, tuple(scales), tuple(shifts), channels)

    return clip_normalize


def measure_roofline(base: Setting, peak: Peak, record: GrowingRecord | None, fields: dict[str, Any]) -> None:
    """Profile a step of each form, print a table of the kinds of operations; each form is recorded as it comes.

    A step is profiled `base.steps` times.
    """
    panels, rows = [], []
    for form in _FORMS:
        with tempfile.TemporaryDirectory() as folder:
            call, precision = build_call(dataclasses.replace(base, trainer=form), Path(folder))
            operations = profile_call(call, torch.device(base.device), base.steps)
        step_s = sum(each.seconds for each in operations)
        points = [_point(each, step_s) for each in _largest(operations)]
        panels.append({"variant": form, "precision": precision, "step_s": step_s, "points": points})
        found = [_row(form, precision, kind, operations, peak) for kind, _ in _KINDS]
        rows += [row for row in found if row.seconds is not None]
        print(table([row for row in rows if row.case == form]).text(), flush=True)
        if record is not None:
            record.write(panels=panels, results=[asdict(row) for row in rows], **fields)


def profile_call(call: Any, device: torch.device, repeats: int) -> list[Operation]:
    """The operations of a call, longest first."""
    for _ in range(2):
        call()
    times: list[list[float]] = []
    for _ in range(repeats):
        ledger = _Ledger()
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
        with launches_as_operations(device), profile(activities=activities) as profiler, ledger:
            call()
        times.append(_times(profiler, len(ledger.notes), device))
    found: dict[tuple[str, str], Operation] = {}
    for (name, shapes, flop, moved), samples in zip(ledger.notes, np.transpose(times), strict=True):
        kind = next(kind for kind, pattern in _KINDS if re.search(pattern, name))
        empty = Operation(name, shapes, kind, np.zeros(repeats))
        found.setdefault((name, shapes), empty).add(Operation(name, shapes, kind, samples, 1, flop, moved))
    return sorted(found.values(), key=lambda operation: -operation.seconds)


def _times(profiler: Any, count: int, device: torch.device) -> list[float]:
    """Seconds of each numbered range: of its kernels on a GPU."""
    seconds = [0.0] * count
    for event in profiler.events():
        match = re.fullmatch(r"bench operation (\d+)", event.name)
        if match and event.device_type == torch.autograd.DeviceType.CPU:
            micro = event.device_time_total if device.type == "cuda" else event.cpu_time_total
            seconds[int(match[1])] = micro / 1e6
    return seconds


def _largest(operations: Sequence[Operation]) -> list[Operation]:
    """The longest as they are, the others together by kind; those without any time are left out."""
    rest: dict[str, Operation] = {}
    for each in operations[_KEPT:]:
        rest.setdefault(each.kind, Operation("others", "", each.kind, np.zeros(len(each.samples)))).add(each)
    return [each for each in [*operations[:_KEPT], *rest.values()] if each.seconds > 0]


def _point(operation: Operation, step_s: float) -> dict[str, Any]:
    names = ("name", "shapes", "kind", "calls", "seconds", "flop", "bytes")
    return {name: getattr(operation, name) for name in names} | {"time_share": operation.seconds / step_s}


def _row(form: str, precision: str, kind: str, operations: Sequence[Operation], peak: Peak) -> Row:
    """All operations of one kind together."""
    mine = [operation for operation in operations if operation.kind == kind]
    samples = np.sum([each.samples for each in mine], axis=0)
    if not mine or not np.all(samples):
        return Row(form, kind, precision, None)
    seconds = float(np.median(samples))
    ideal = sum(max(each.bytes / peak.gb_per_s / 1e9, each.flop / peak.tflops[precision] / 1e12) for each in mine)
    values = {
        "time_share": seconds / sum(each.seconds for each in operations),
        "moved_mb": sum(each.bytes for each in mine) / 1e6,
        "gb_per_s": sum(each.bytes for each in mine) / seconds / 1e9,
        "tflops": sum(each.flop for each in mine) / seconds / 1e12,
        "roofline_share": ideal / seconds,
    }
    return Row(form, kind, precision, summarise(samples), values, f"{sum(each.calls for each in mine)} calls")
