"""What a device can do at most: the denominators of MFU and roofline shares."""

import math
import re
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

import torch

from bench.options import PRECISIONS

DTYPES = dict(zip(PRECISIONS, (torch.float32, torch.bfloat16, torch.float16), strict=True))

# Vendors' data sheets: dense TFLOP/s of the tensor cores for fp16 and bf16 (accumulating in fp32), TFLOP/s of fp32
# without TF32, memory GB/s. The first pattern found in the device's name counts. V100 and T4 have no bf16.
_DATA_SHEETS: list[tuple[str, float, float, float]] = [
    (r"\bB200", 2250, 75, 7700),
    (r"\bH200", 989.4, 66.9, 4800),
    ("H100 PCIe", 756, 51.2, 2039),
    ("H100 NVL", 835, 60, 3938),
    ("H100", 989.4, 66.9, 3352),
    ("A100.*80GB", 312, 19.5, 2039),
    ("A100", 312, 19.5, 1555),
    ("L40S", 362, 91.6, 864),
    ("RTX 4090", 165.2, 82.6, 1008),
    ("RTX 3090", 71, 35.6, 936),
    ("V100", 125, 15.7, 900),
    (r"\bL4\b", 121, 30.3, 300),
    (r"\bT4\b", 65, 8.1, 320),
]
_ERASED_BYTES, _ERASE_S = 1 << 28, 30e-6  # of each erasure; seconds that it takes on the fastest memory above
_WITHOUT_BF16 = ("V100", r"\bT4\b")  # and TF32, for which all others have half the rate of fp16


@dataclass(frozen=True, slots=True)
class Peak:
    """TFLOP/s by precision (1e12), GB/s of memory (1e9), and where the figures come from."""

    tflops: dict[str, float]
    gb_per_s: float
    source: str


def find_peak(device: torch.device, precisions: list[str]) -> Peak:
    """The data sheet's peak of a known GPU; else the fastest large matrix product and copy measured here and now.

    A measured peak is a lower bound of the true one, so shares of it are upper bounds.
    """
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        for pattern, half, single, gb_per_s in _DATA_SHEETS:
            if re.search(pattern, name):
                tflops = {"fp16": half, "bf16": half, "tf32": half / 2, "fp32": single}
                if pattern in _WITHOUT_BF16:
                    del tflops["bf16"], tflops["tf32"]
                return Peak(tflops, gb_per_s, f"data sheet of {name}")
    tflops = {precision: _measure_tflops(device, DTYPES[precision]) for precision in precisions}
    return Peak(tflops, copy_gb_per_s(device), "measured in this run: matrix product, copy")


def copy_gb_per_s(device: torch.device) -> float:
    """Bytes read and written a second by a copy far larger than the caches, best of the repetitions' median."""
    source = torch.empty((1 << 30) if device.type == "cuda" else (1 << 28), dtype=torch.uint8, device=device).fill_(1)
    target = torch.empty_like(source)
    seconds = time_calls(lambda: target.copy_(source), device, warmup=2, repeats=7)
    return 2 * source.numel() / statistics.median(seconds) / 1e9


def _measure_tflops(device: torch.device, dtype: torch.dtype) -> float:
    size = 8192 if device.type == "cuda" else 1536
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    seconds = time_calls(lambda: torch.mm(a, b, out=out), device, warmup=2, repeats=7)
    return 2 * size**3 / min(seconds) / 1e12


def time_calls(
    call: Callable[[], object], device: torch.device, *, warmup: int, repeats: int, cold: bool = False
) -> list[float]:
    """Seconds of each of `repeats` calls after `warmup` untimed ones.

    On a GPU by CUDA events, so that launches overlap as in use. `cold` overwrites 256 MB between calls there, more
    than any L2 cache holds, so that inputs come from memory, and so often that a call's launches wait behind it.
    """
    for _ in range(warmup):
        call()
    if device.type != "cuda":
        seconds = []
        for _ in range(repeats):
            start = perf_counter()
            call()
            seconds.append(perf_counter() - start)
        return seconds
    eraser = torch.empty(_ERASED_BYTES if cold else 0, dtype=torch.uint8, device=device)
    erasures = _erasures(call, device) if cold else 0
    starts, ends = ([torch.cuda.Event(enable_timing=True) for _ in range(repeats)] for _ in range(2))
    for start, end in zip(starts, ends, strict=True):
        for _ in range(erasures):
            eraser.zero_()
        start.record()
        call()
        end.record()
    torch.cuda.synchronize(device)
    return [start.elapsed_time(end) / 1e3 for start, end in zip(starts, ends, strict=True)]


def _erasures(call: Callable[[], object], device: torch.device) -> int:
    """So many that they outlast the host's launches of a call, whose time would else lie between the events."""
    launches_s = []
    for _ in range(3):
        torch.cuda.synchronize(device)
        start = perf_counter()
        call()
        launches_s.append(perf_counter() - start)
    return 1 + math.ceil(2 * statistics.median(launches_s) / _ERASE_S)
