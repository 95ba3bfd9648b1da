"""Training on the same batch again and again: clips/s, TFLOP/s and MFU with no data to wait for.

The trainers, each in a fresh process with torch's compile cache off, so that warm-up is what a first start costs:

    engine             engine/train.py's own step with its defaults for the device
    engine flat        the same with model.form=flat (R(2+1)D and MC3: 2-D convolutions, aligned channels)
    engine compiled    in bf16 or fp16 with train.compile=true; also flat
    torchvision        as a careful user writes it: autocast, channels_last_3d, fused Adam, torch.compile
    paper recipe       fp32, contiguous memory, eager, Adam: Brattoli et al., Sec. 4.4

All start from uint8 frames on the device. FLOP are those of the network's convolutions and linear layers, forward
times three, counted from the network itself (2 per multiply-add); MFU is FLOP/s over the peak of the precision that
is computed in: the data sheet's for a known GPU, else a matrix product's measured in the same run.
"""

import argparse
import dataclasses
import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from bench.charts import PICTURES, save_bars
from bench.peaks import Peak, find_peak
from bench.trainers import TRAINERS, Setting, flop_per_clip, reduced_precision
from engine.config import ModelConfig
from engine.distributed import choose_device
from engine.errors import InputError
from engine.records import append_record, summarise
from engine.tables import format_table

_TOOLS = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class Row:
    """One trainer's result; `clips_per_s` and the rest are of the median step."""

    trainer: str
    precision: str
    step_s: dict[str, float | int]
    clips_per_s: float
    tflops: float
    mfu: float
    peak_mb: float  # of the device's memory on a GPU, of the process on a CPU
    warmup_s: float
    is_finite: bool  # whether the losses were numbers to the end


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `bench_throughput.py compute`."""
    backbones = dataclasses.fields(ModelConfig)[0].metadata["choices"]
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: a GPU if any")
    parser.add_argument("--backbone", choices=backbones, default="r2plus1d_18", help="default: r2plus1d_18")
    parser.add_argument("--width", type=int, default=64, help="its channels (default: 64, the published network)")
    parser.add_argument("--frames", type=int, default=None, help="of a clip (default: 16 on a GPU, 8 on a CPU)")
    parser.add_argument("--crop", type=int, default=None, help="its side (default: 112 on a GPU, 56 on a CPU)")
    parser.add_argument("--batch", type=int, default=None, help="clips of a step (default: 64 on a GPU, 4 on a CPU)")
    parser.add_argument("--steps", type=int, default=None, help="timed steps (default: 50 on a GPU, 5 on a CPU)")
    parser.add_argument("--only", choices=TRAINERS, action="append", help="only this trainer; may be repeated")
    parser.add_argument("--trace", type=Path, help="write a profiler trace of three steps of 'engine' to this file")
    parser.add_argument("--no-record", action="store_true", help="print only, write no record and no picture")


def run(arguments: argparse.Namespace) -> None:
    """Measure, print a table, append a record, draw a picture.

    Raises:
        InputError: an option out of range, no such device, or a trainer that failed.
    """
    device = choose_device(arguments.device)
    base = _setting(arguments, device)
    trainers = arguments.only or TRAINERS
    precisions = {"fp32", reduced_precision(device)}
    peak = find_peak(device, sorted(precisions))
    flop = flop_per_clip(base)
    rows = [_measure(dataclasses.replace(base, trainer=name), peak, flop) for name in trainers]
    size = f"{base.frames}x{base.crop}x{base.crop}"
    print(f"{base.backbone} of width {base.width}, {base.batch} clips of {size} a step, {flop / 1e9:.1f} GFLOP a clip")
    rates = ", ".join(f"{name} {rate:.3g} TFLOP/s" for name, rate in peak.tflops.items())
    print(f"peak ({peak.source}): {rates}")
    print(_table(rows))
    if not arguments.no_record:
        fields = {"flop_per_clip": flop, "peak": asdict(peak), "results": [asdict(row) for row in rows]}
        setting = {name: value for name, value in asdict(base).items() if name not in ("trainer", "trace", "steps")}
        path = append_record("compute", n=base.steps, **setting, **fields)
        _save_picture(rows, f"{base.backbone}, width {base.width}, {size}", PICTURES / f"compute_{device.type}.png")
        print(f"recorded in {Path(os.path.relpath(path))}, picture beside it in benchmarks/pictures")


def _setting(arguments: argparse.Namespace, device: torch.device) -> Setting:
    on_gpu = device.type == "cuda"
    chosen = {
        "frames": arguments.frames or (16 if on_gpu else 8),
        "crop": arguments.crop or (112 if on_gpu else 56),
        "batch": arguments.batch or (64 if on_gpu else 4),
        "steps": arguments.steps or (50 if on_gpu else 5),
        "width": arguments.width,
    }
    least = {"frames": 1, "crop": 16, "batch": 1, "steps": 1, "width": 4}
    for name, value in chosen.items():
        if value < least[name]:
            raise InputError(f"--{name} is {value}: it must be at least {least[name]}")
    if arguments.trace is not None and not arguments.trace.parent.is_dir():
        raise InputError(f"--trace: there is no folder '{arguments.trace.parent}'")
    trace = None if arguments.trace is None else str(arguments.trace.resolve())
    return Setting(trainer="engine", device=device.type, backbone=arguments.backbone, trace=trace, **chosen)


def _measure(setting: Setting, peak: Peak, flop: float) -> Row:
    """One trainer in a fresh process."""
    if setting.trainer != "engine":
        setting = dataclasses.replace(setting, trace=None)
    paths = os.pathsep.join([str(_TOOLS), str(_TOOLS.parent), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    environment = {**os.environ, "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1", "PYTHONPATH": paths}
    command = [sys.executable, "-m", "bench.trainers", json.dumps(asdict(setting))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise InputError(f"trainer '{setting.trainer}' failed: {last}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    steps = summarise(result["step_s"])
    clips_per_s = setting.batch / steps["p50"]
    tflops = clips_per_s * flop / 1e12
    mfu = tflops / peak.tflops[result["precision"]]
    rest = {name: result[name] for name in ("precision", "peak_mb", "warmup_s", "is_finite")}
    return Row(setting.trainer, step_s=steps, clips_per_s=clips_per_s, tflops=tflops, mfu=mfu, **rest)


def _table(rows: list[Row]) -> str:
    headers = [
        "trainer",
        "",
        "clips/s",
        "p20 ms",
        "p50 ms",
        "p80 ms",
        "TFLOP/s",
        "MFU %",
        "memory MB",
        "warm-up s",
        "loss",
    ]
    lines = [
        [
            row.trainer, row.precision, row.clips_per_s, *(1e3 * row.step_s[p] for p in ("p20", "p50", "p80")),
            row.tflops, 100 * row.mfu, row.peak_mb, row.warmup_s, "finite" if row.is_finite else "NaN",
        ]
        for row in rows
    ]  # fmt: skip
    ratios = [
        f"{ours.trainer} is {ours.clips_per_s / other.clips_per_s:.2f} times as fast as {other.trainer}"
        for ours in rows
        for other in rows
        if ours.trainer.startswith("engine") and not other.trainer.startswith("engine")
    ]
    return "\n".join([format_table(headers, lines), *ratios])


def _save_picture(rows: list[Row], title: str, path: Path) -> None:
    labels = [f"{row.trainer} ({row.precision})" for row in rows]
    values = [row.clips_per_s for row in rows]
    notes = [f"{row.clips_per_s:.3g} clips/s, MFU {row.mfu:.1%}" for row in rows]
    save_bars(path, f"Training steps without data loading: {title}", "clips/s", labels, values, notes, ours="engine")
