"""Training on the same batch again and again: clips/s, TFLOP/s and MFU with no data to wait for.

The trainers, each in a fresh process with torch's compile cache off, so that warm-up is what a first start costs:

    engine             engine/train.py's own step, published form, not compiled
    engine flat        the same with model.form=flat (R(2+1)D and MC3: 2-D convolutions, aligned channels)
    engine flat bf16   on a CPU, where the default is fp32
    engine fp16        on a GPU, where the default is bf16 if it has that
    engine compiled    in bf16 or fp16 with train.compile=yes; also flat, fused, and flat in fp16
    torchvision        as a careful user writes it: autocast, channels_last_3d, fused Adam, torch.compile
    paper recipe       fp32, contiguous memory, eager, Adam: Brattoli et al., Sec. 4.4

All start from uint8 frames on the device. FLOP are those of the network's convolutions and linear layers, forward
times three, counted from the network itself (2 per multiply-add); MFU is FLOP/s over the peak of the precision that
is used: the data sheet's for a known GPU, else that of a matrix product measured in the same run. Convolutions in fp32
are TF32 on GPUs that have it (torch's default), and are named so; matrix products, and so transformers, are fp32. Where
torchvision has no such network (C3D, transformers) the baselines train the engine's. A trainer that takes longer than
--limit is stopped, and its line says so.

--roofline looks into one step of `engine` and one of `engine flat` instead: each operation with its time (profiler),
its FLOP and the bytes that it must move, as a table and as points under the device's roof.

--compiled lets torch.compile write the step (forward and backward) for an H100 that need not be there, in each form, and counts the
bytes that its launches read and write: of convolutions, of this package's kernels, and of those that the compiler makes.
"""

import argparse
import contextlib
import dataclasses
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from bench.absent_gpu import compiled_steps, table_of
from bench.apart import Apart, ContestantError, check_limit
from bench.peaks import Peak, find_peak
from bench.roofline import measure_roofline
from bench.rows import Row, line, table, with_ratios
from bench.suites import CPU_TRAINERS, GPU_TRAINERS
from bench.trainers import Setting, Trainer, flop_per_clip, reduced_precision, setting_config
from engine.errors import InputError
from engine.processes.distributed import choose_device
from engine.records import GrowingRecord, summarise

_TOO_LONG = "no result in"


def run(arguments: argparse.Namespace) -> None:
    """Measure, print a table, append a record.

    Raises:
        InputError: an option out of range, no such device, or a trainer that failed (the others are recorded).
    """
    if arguments.compiled:
        _count_compiled(arguments)
        return
    device = choose_device(arguments.device)
    base = _setting(arguments, device)
    peak = find_peak(device, sorted({"fp32", reduced_precision(device)}))
    title = f"{base.backbone}, width {base.width}, {base.batch} clips of {base.frames}x{base.crop}x{base.crop}"
    rates = ", ".join(f"{name} {rate:.3g} TFLOP/s" for name, rate in peak.tflops.items())
    print(f"{title}\npeak ({peak.source}): {rates}, memory {peak.gb_per_s:.3g} GB/s")
    setting = {name: value for name, value in asdict(base).items() if name not in ("trainer", "trace", "device")}
    fields = {"title": title, "device_type": base.device, "peak": asdict(peak), **setting}
    record = None if arguments.no_record else GrowingRecord("roofline" if arguments.roofline else "compute")
    fields |= {"n": base.steps}
    if arguments.roofline:
        measure_roofline(base, peak, record, fields)
        return
    trainers = arguments.only or (CPU_TRAINERS if device.type == "cpu" else GPU_TRAINERS)
    _run_trainers(base, peak, trainers, _limit(arguments), record, fields)


def _run_trainers(
    base: Setting,
    peak: Peak,
    trainers: Sequence[str],
    limit_s: float,
    record: GrowingRecord | None,
    fields: dict[str, Any],
) -> None:
    """Measure one after the other. Each row is printed and recorded as it comes."""
    with tempfile.TemporaryDirectory() as folder:
        fields["flop_per_clip"] = flop_per_clip(setting_config(base, Path(folder)))
    rows: list[Row] = []
    failures: list[str] = []
    for row, failure in measure(base, peak, fields["flop_per_clip"], trainers, limit_s):
        failures += [failure] if failure else []
        rows.append(row)
        for rival in ("torchvision", "paper recipe"):
            rows = with_ratios(rows, rival, f"over_{rival.replace(' ', '_')}")
        print(line(row), flush=True)
        if record is not None and any(each.seconds or each.note.startswith(_TOO_LONG) for each in rows):
            record.write(results=[asdict(each) for each in rows], **fields)
    print(table(rows).text())
    if failures:
        raise InputError("; ".join(failures))


def _count_compiled(arguments: argparse.Namespace) -> None:
    for name in ("width", "frames", "crop", "steps", "only", "limit", "trace", "roofline"):
        if getattr(arguments, name):
            raise InputError(
                f"--compiled takes --backbone and --batch, not --{name}: it is of 16x112x112, as published"
            )
    batch = 64 if arguments.batch is None else arguments.batch
    if batch < 1:
        raise InputError(f"--batch is {batch}: it must be at least 1")
    title = f"{arguments.backbone}, {batch} clips of 16x112x112, bf16"
    print(f"{title}, as torch {torch.__version__} compiles it for an H100")
    record = None if arguments.no_record else GrowingRecord("compiled")
    steps: dict[str, Any] = {}
    for name, step in compiled_steps(arguments.backbone, batch):
        print(name, flush=True)
        steps[name] = asdict(step)
        if record is not None:
            record.write(title=title, backbone=arguments.backbone, batch=batch, steps=steps)
    print(table_of(steps).text())


def _limit(arguments: argparse.Namespace) -> float:
    default = 100.0 if choose_device(arguments.device).type == "cpu" else 600.0
    limit = default if arguments.limit is None else arguments.limit
    check_limit(limit)
    return limit


def _setting(arguments: argparse.Namespace, device: torch.device) -> Setting:
    on_gpu = device.type == "cuda"
    usual = {"frames": 8, "crop": 56, "batch": 4, "steps": 7, "width": 16}
    if on_gpu:
        usual = {"frames": 16, "crop": 112, "batch": 64, "steps": 50, "width": 64}
    given = {name: getattr(arguments, name) for name in usual}
    chosen = {name: usual[name] if value is None else value for name, value in given.items()}
    least = {"frames": 1, "crop": 16, "batch": 1, "steps": 1, "width": 4}
    for name, value in chosen.items():
        if value < least[name]:
            raise InputError(f"--{name} is {value}: it must be at least {least[name]}")
    if arguments.trace is not None and not arguments.trace.parent.is_dir():
        raise InputError(f"--trace: there is no folder '{arguments.trace.parent}'")
    trace = None if arguments.trace is None else str(arguments.trace.resolve())
    return Setting(trainer="engine", device=device.type, backbone=arguments.backbone, trace=trace, **chosen)


def measure(
    base: Setting, peak: Peak, flop: float, trainers: Sequence[str], limit_s: float
) -> Iterator[tuple[Row, str | None]]:
    """A row for each trainer, one after the other in fresh processes, and how it failed (not: what took too long)."""
    for name in trainers:
        setting = dataclasses.replace(base, trainer=name, trace=base.trace if name == trainers[0] else None)
        result = _in_fresh_process(setting, limit_s)
        if isinstance(result, str):
            took_too_long = result.startswith(_TOO_LONG)
            yield Row("", name, "", None, note=result), None if took_too_long else f"trainer '{name}': {result}"
            continue
        steps = summarise(result["step_s"])
        clips_per_s = setting.batch / steps["p50"]
        tflops = clips_per_s * flop / 1e12
        values = {"clips_per_s": clips_per_s, "tflops": tflops}
        if result["precision"] in peak.tflops:  # TF32's is not measured
            values["mfu"] = tflops / peak.tflops[result["precision"]]
        values |= {name: result[name] for name in ("peak_mb", "warmup_s")}
        note = "" if result["is_finite"] else "the loss became NaN"
        yield Row("", name, result["precision"], steps, values, note), None


def _in_fresh_process(setting: Setting, limit_s: float) -> dict[str, Any] | str:
    """What `Trainer.measure` found, or why there is nothing."""
    os.environ["TORCHINDUCTOR_FORCE_DISABLE_CACHES"] = "1"  # which the process inherits
    try:
        with contextlib.closing(Apart(Trainer, setting, limit_s=limit_s)) as trainer:
            return trainer.call("measure")
    except ContestantError as error:
        return str(error)
