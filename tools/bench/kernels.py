"""Each kernel against unfused PyTorch and torch.compile of the same expression: time, GB/s, share of its roofline.

The roofline is the larger of bytes / memory speed and FLOP / peak, with the least bytes that the operation can move:
inputs read once, results written once. Peaks come from the data sheet of a known GPU, else they are measured in the
same run. On a GPU the cache is overwritten between calls. `cosine_nn` at a million classes has no rival: the
unfused scores would fill 131 GB.
"""

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from torch.nn import functional

from bench.peaks import DTYPES, Peak, copy_gb_per_s, find_peak, time_calls
from bench.rows import Row, table, with_ratios
from engine.distributed import choose_device
from engine.errors import InputError
from engine.records import append_record, summarise
from engine.tables import format_table
from kernels.clip_normalize import KINETICS_MEAN, KINETICS_STD, clip_normalize
from kernels.cosine_nn import cosine_topk

_LARGEST_SCORES = 1 << 34  # bytes of N x C scores up to which the unfused expression is tried


@dataclass(frozen=True, slots=True)
class Case:
    """One operation at one size: the public call, the same written in plain PyTorch, and what it must move and do."""

    name: str
    inputs: tuple[torch.Tensor, ...]
    ours: Callable[..., object]
    unfused: Callable[..., object] | None
    bytes: int
    flop: int
    dtype: str  # of its floating-point tensors
    precision: str  # of its arithmetic


def run(arguments: argparse.Namespace) -> None:
    """Measure, print a table, append a record.

    Raises:
        InputError: an option out of range, or no such device.
    """
    if not 0 < arguments.scale <= 1:
        raise InputError(f"--scale is {arguments.scale}: it must be above 0 and at most 1")
    if arguments.repeats is not None and arguments.repeats < 1:
        raise InputError(f"--repeats is {arguments.repeats}: it must be at least 1")
    device = choose_device(arguments.device)
    repeats = arguments.repeats or (50 if device.type == "cuda" else 7)
    half = "fp16" if device.type == "cuda" else "bf16"
    peak, copy = find_peak(device, ["fp32", half]), copy_gb_per_s(device)
    rows = []
    for case in build_cases(device, arguments.scale, half):
        rows += measure(case, device, peak, repeats, with_compile=not arguments.no_compile)
    rates = ", ".join(f"{name} {rate:.3g} TFLOP/s" for name, rate in peak.tflops.items())
    print(f"peak ({peak.source}): {rates}, memory {peak.gb_per_s:.0f} GB/s; a copy reaches {copy:.0f} GB/s here")
    rows = with_ratios(rows, "unfused", "over_unfused", within_case=True)
    print(format_table(*table(rows)))
    if not arguments.no_record:
        fields = {"peak": asdict(peak), "copy_gb_per_s": copy, "results": [asdict(row) for row in rows]}
        path = append_record("kernels", n=repeats, device_type=device.type, scale=arguments.scale, **fields)
        print(f"recorded in {Path(os.path.relpath(path))}")


def build_cases(device: torch.device, scale: float, half: str) -> list[Case]:
    """The sizes of the reference table on a GPU, a tenth of them and less on a CPU."""
    on_gpu = device.type == "cuda"
    sizes = [(1024, 101, 1, half), (4096, 700, 5, "fp32")]
    if on_gpu:
        sizes = [(1024, 101, 1, half), (65_536, 51, 1, half), (65_536, 700, 5, half), (65_536, 700, 5, "fp32")]
        sizes += [(65_536, 10_000, 5, half), (65_536, 1_000_000, 5, half)]
    cases = [_cosine_case(max(1, int(n * scale)), c, k, precision, device) for n, c, k, precision in sizes]
    clips = max(1, int((64 if on_gpu else 8) * scale))
    return cases + [_clip_case(clips, precision, device) for precision in dict.fromkeys((half, "fp32"))]


def _cosine_case(n: int, c: int, k: int, precision: str, device: torch.device, d: int = 300) -> Case:
    dtype = DTYPES[precision]
    generator = torch.Generator(device).manual_seed(0)
    queries, classes = (torch.randn(m, d, generator=generator, device=device).to(dtype) for m in (n, c))

    def unfused(queries: torch.Tensor, classes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        scores = functional.normalize(queries, dim=1) @ functional.normalize(classes, dim=1).T
        return scores.topk(k, dim=1)

    return Case(
        f"cosine_nn {n} x {c}, k {k}",
        (queries, classes),
        partial(cosine_topk, k=k),
        unfused if n * c * dtype.itemsize <= _LARGEST_SCORES else None,
        bytes=(n + c) * d * dtype.itemsize + n * k * 12,
        flop=2 * n * c * d,
        dtype=precision,
        precision=precision,
    )


def _clip_case(clips: int, precision: str, device: torch.device) -> Case:
    dtype = DTYPES[precision]
    frames = torch.randint(0, 256, (clips, 16, 112, 112, 3), dtype=torch.uint8, device=device)
    mean, std = (torch.tensor(values, device=device) for values in (KINETICS_MEAN, KINETICS_STD))

    def unfused(frames: torch.Tensor) -> torch.Tensor:
        return ((frames.float() / 255 - mean) / std).to(dtype).permute(0, 4, 1, 2, 3)

    return Case(
        f"clip_normalize {clips} clips",
        (frames,),
        partial(clip_normalize, dtype=dtype),
        unfused,
        bytes=frames.numel() * (1 + dtype.itemsize),
        flop=2 * frames.numel(),
        dtype=precision,
        precision="fp32",
    )


def measure(case: Case, device: torch.device, peak: Peak, repeats: int, *, with_compile: bool = True) -> list[Row]:
    """One row for the kernel, one for each rival that can be run."""
    calls = {"kernel": case.ours}
    if case.unfused is not None:
        calls["unfused"] = case.unfused
        if with_compile:
            torch.compiler.reset()  # else it compiles one program for all sizes met so far
            calls["torch.compile"] = torch.compile(case.unfused, dynamic=False)
    rows = []
    for variant, function in calls.items():
        call = partial(function, *case.inputs)
        start = time.perf_counter()
        call()  # compiles, or tries configurations: not timed, and its memory is not counted
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        values = {"warmup_s": time.perf_counter() - start, "moved_mb": case.bytes / 1e6}
        values |= _extra_memory(call, device)
        seconds = summarise(time_calls(call, device, warmup=3, repeats=repeats, cold=True))
        ideal = max(case.bytes / peak.gb_per_s / 1e9, case.flop / peak.tflops[case.precision] / 1e12)
        values |= {"gb_per_s": case.bytes / seconds["p50"] / 1e9, "tflops": case.flop / seconds["p50"] / 1e12}
        values["roofline_share"] = ideal / seconds["p50"]
        rows.append(Row(case.name, variant, case.dtype, seconds, values))
    return rows


def _extra_memory(call: Callable[[], object], device: torch.device) -> dict[str, float]:
    """Memory beyond the inputs at the peak, the result included; nothing on a CPU."""
    if device.type != "cuda":
        return {}
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    call()
    torch.cuda.synchronize(device)
    return {"extra_mb": (torch.cuda.max_memory_allocated(device) - before) / 1e6}
