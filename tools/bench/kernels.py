"""Each kernel against unfused PyTorch and torch.compile of the same expression: time, GB/s, share of its roofline.

The roofline is the larger of bytes / memory speed and FLOP / peak, with the least bytes that the operation can move:
inputs read once, results written once. Peaks come from the data sheet of a known GPU, else they are measured in the
same run. On a GPU the cache is overwritten between calls, for longer than the host takes to launch one. `kernel` starts
from the same tensors as its rivals; `prepared classes` had the classes prepared before. `cosine_topk` at a million classes
has no rival: the unfused scores would fill 131 GB. Each case has a process of its own, so that one that fails costs only itself.

--compiled shows instead what the compiler makes of the kernels for a GPU, which need not be there.
"""

import argparse
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch
from torch.nn import functional

from bench.apart import Apart, ContestantError
from bench.cases import Case, Problem
from bench.compiled import HEADINGS, compiled_rows
from bench.material import check_counts
from bench.peaks import DTYPES, Peak, copy_gb_per_s, find_peak, time_calls
from bench.rows import Row, line, print_as_they_come, table, with_ratios
from bench.step_kernels import build_step_problems
from engine.errors import InputError
from engine.processes.distributed import choose_device
from engine.records import GrowingRecord, summarise
from kernels.clip_normalize import KINETICS_MEAN, KINETICS_STD, clip_normalize
from kernels.cosine_topk import cosine_topk, prepare_classes

_LARGEST_SCORES = 1 << 34  # bytes of N x C scores up to which the unfused expression is tried
_LIMIT_S = 300.0  # that building a case or measuring one of its variants may take


def run(arguments: argparse.Namespace) -> None:
    """Measure; print and record each row as it comes; print a table.

    Raises:
        InputError: an option out of range, no such device, or a case that failed (the others are recorded).
    """
    if not 0 < arguments.scale <= 1:
        raise InputError(f"--scale is {arguments.scale}: it must be above 0 and at most 1")
    check_counts(arguments, "repeats")
    if arguments.compiled is not None:
        print_as_they_come(HEADINGS, compiled_rows(arguments.compiled))
        return
    device = choose_device(arguments.device)
    repeats = arguments.repeats or (50 if device.type == "cuda" else 7)
    half = "fp16" if device.type == "cuda" else "bf16"
    peak, copy = find_peak(device, ["fp32", half]), copy_gb_per_s(device)
    rates = ", ".join(f"{name} {rate:.3g} TFLOP/s" for name, rate in peak.tflops.items())
    print(f"peak ({peak.source}): {rates}, memory {peak.gb_per_s:.0f} GB/s; a copy reaches {copy:.0f} GB/s here")
    record = None if arguments.no_record else GrowingRecord("kernels")
    fields = {"n": repeats, "device_type": device.type, "scale": arguments.scale}
    fields |= {"peak": asdict(peak), "copy_gb_per_s": copy}
    rows: list[Row] = []
    failures: list[str] = []
    problems = build_problems(device, arguments.scale, half)
    chosen = [problem for problem in problems if (arguments.only or "") in problem.name]
    if not chosen:
        raise InputError(f"--only '{arguments.only}' is in no name: {', '.join(problem.name for problem in problems)}")
    for problem in chosen:
        for result in measure_apart(problem, device, peak, repeats, with_compile=not arguments.no_compile):
            if isinstance(result, str):
                print(result, flush=True)
                failures.append(result)
                continue
            rows = with_ratios([*rows, result], "unfused", "over_unfused", within_case=True)
            print(line(rows[-1]), flush=True)
            if record is not None:
                path = record.write(results=[asdict(row) for row in rows], **fields)
    print(table(rows).text())
    if record is not None and rows:
        print(f"recorded in {Path(os.path.relpath(path))}")
    if failures:
        raise InputError("; ".join(failures))


def build_problems(device: torch.device, scale: float, half: str) -> list[Problem]:
    """The sizes of the reference table on a GPU, a tenth of them and less on a CPU."""
    on_gpu = device.type == "cuda"
    sizes = [(1024, 101, 1, half), (4096, 700, 5, "fp32")]
    if on_gpu:
        sizes = [(1024, 101, 1, half), (65_536, 51, 1, half), (65_536, 700, 5, half), (65_536, 700, 5, "fp32")]
        sizes += [(65_536, 10_000, 5, half), (65_536, 1_000_000, 5, half)]
    problems = []
    for full, c, k, precision in sizes:
        n = max(1, int(full * scale))
        problems.append(Problem(f"cosine_topk {n} x {c}, k {k}", partial(_cosine_case, n, c, k, precision, device)))
    clips = max(1, int((64 if on_gpu else 8) * scale))
    for precision in dict.fromkeys((half, "fp32")):
        problems.append(Problem(f"clip_normalize {clips} clips", partial(_clip_case, clips, precision, device)))
    return problems + build_step_problems(device, clips, half)


def _cosine_case(n: int, c: int, k: int, precision: str, device: torch.device) -> Case:
    dtype, d = DTYPES[precision], 300  # as wide as class vectors
    generator = torch.Generator(device).manual_seed(0)
    queries, classes = (torch.randn(m, d, generator=generator, device=device).to(dtype) for m in (n, c))

    def unfused(queries: torch.Tensor, classes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        scores = functional.normalize(queries, dim=1) @ functional.normalize(classes, dim=1).T
        return scores.topk(k, dim=1)

    prepared = prepare_classes(classes)
    return Case(
        (queries, classes),
        {
            "kernel": partial(cosine_topk, k=k),
            "prepared classes": lambda queries, _: cosine_topk(queries, prepared, k),
        },
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
        (frames,),
        {"kernel": partial(clip_normalize, dtype=dtype)},
        unfused,
        bytes=frames.numel() * (1 + dtype.itemsize),
        flop=2 * frames.numel(),
        dtype=precision,
        precision="fp32",
    )


def measure_apart(
    problem: Problem, device: torch.device, peak: Peak, repeats: int, *, with_compile: bool
) -> Iterator[Row | str]:
    """One row for each of our calls, one for each rival that can be run; in place of it, how it failed."""
    try:
        process = Apart(CaseTimer, problem, device, peak, repeats, with_compile, limit_s=_LIMIT_S)
    except ContestantError as error:
        yield f"{problem.name}: {error}"
        return
    try:
        for variant in process.call("variants"):
            try:
                yield process.call("measure", variant)
            except ContestantError as error:
                yield f"{problem.name}, {variant}: {error}"
    except ContestantError as error:
        yield f"{problem.name}: {error}"
    finally:
        process.close()


class CaseTimer:
    """A case and how it is measured, in the process that is its own."""

    def __init__(self, problem: Problem, device: torch.device, peak: Peak, repeats: int, with_compile: bool) -> None:
        self._name, self._device, self._peak, self._repeats = problem.name, device, peak, repeats
        self._case = problem.make()
        self._calls = dict(self._case.ours)
        if self._case.unfused is not None:
            self._calls["unfused"] = self._case.unfused
            if with_compile:
                self._calls["torch.compile"] = torch.compile(self._case.unfused, dynamic=False)

    def variants(self) -> list[str]:
        """What can be measured."""
        return list(self._calls)

    def measure(self, variant: str) -> Row:
        """Time one of them."""
        case, device = self._case, self._device
        call = partial(self._calls[variant], *case.inputs)
        start = time.perf_counter()
        call()  # compiles: not timed, and its memory is not counted
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        values = {"warmup_s": time.perf_counter() - start, "moved_mb": case.bytes / 1e6}
        values |= _extra_memory(call, device)
        seconds = summarise(time_calls(call, device, warmup=3, repeats=self._repeats, cold=True))
        ideal = max(case.bytes / self._peak.gb_per_s / 1e9, case.flop / self._peak.tflops[case.precision] / 1e12)
        values |= {"gb_per_s": case.bytes / seconds["p50"] / 1e9, "tflops": case.flop / seconds["p50"] / 1e12}
        values["roofline_share"] = ideal / seconds["p50"]
        return Row(self._name, variant, case.dtype, seconds, values)


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
