"""Random snippets per second on a GPU's video engines: DALI and PyNvVideoCodec, the CPU's cores, others' libraries.

    python tools/bench_throughput.py decode_gpu --manifest kinetics700.parquet

Nothing but decoding: no network runs. The same snippets (drawn once, random video and start) are decoded by every
contestant, in turns, into uint8 clips on the GPU; before timing starts their pixels are compared.

  DALI store            the engine: the GOPs that a snippet needs, through DALI on NVDEC
  DALI mp4              DALI on MP4 files of the very same coded frames, fed whole
  DALI raw              DALI on the videos as they are, fed whole
  PyAV store            the engine on the CPU's cores, copied to the GPU
  PyNvVideoCodec        the engine: the same groups as DALI's, through PyNvVideoCodec on NVDEC
  hybrid S              a share S of each batch by PyAV store, the rest by DALI store, at the same time
  hybrid nv S           the same, the rest by PyNvVideoCodec
  torchcodec mp4        torchcodec's CUDA decoder on the MP4 files, one opened for each snippet
  ACCV-Lab mp4          NVIDIA's on-demand decoder (`accvlab.on_demand_video_decoder`) on the MP4 files
  ... hevc              with --hevc: PyAV, DALI and PyNvVideoCodec on a store of HEVC of the same videos

NVDEC and GPU busy are what nvidia-smi says while a contestant runs, sampled five times a second, all engines together. Where it
tells, a run goes over the snippets again and again for three seconds.
"""

import argparse
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.apart import Apart
from bench.gpu_contestants import HEVC, OTHERS, OURS, PEER, REFERENCE, Contender, Run, names
from bench.material import Material, add_hevc, check_counts, prepare
from bench.turns import Turns
from engine.errors import InputError
from engine.machine import rank_cores
from engine.records import GrowingRecord
from engine.results.table import Table

_LIMIT_S = 180.0  # seconds a contestant may take to be built, or for one run
_MOST_DIFFERENCE = 16.0  # mean of 256 levels, of the same frames by other colour matrices; other frames differ more


def run(arguments: argparse.Namespace) -> None:
    """Measure, print a table, append a record.

    Raises:
        InputError: there is no GPU, an option is out of range, or a contestant failed or showed other frames (the others
            are recorded).
    """
    arguments.threads = rank_cores() if arguments.threads is None else arguments.threads
    check_counts(arguments, "num_videos", "snippets", "batch", "repeats", "threads")
    if not torch.cuda.is_available():
        raise InputError("decode_gpu needs an NVIDIA GPU, and torch sees none: `decode` measures CPU cores")
    device = torch.device("cuda", torch.cuda.current_device())
    with tempfile.TemporaryDirectory() as folder:
        material = prepare(arguments, Path(folder))
        if arguments.hevc is not None:
            material = add_hevc(material, Path(folder), arguments.hevc, arguments.threads)
        report(arguments, material, device)


def report(arguments: argparse.Namespace, material: Material, device: torch.device) -> None:
    """All of `run` but the preparations; on any device."""
    record = None if arguments.no_record else GrowingRecord("decode_gpu")
    taking, skipped = names(material, device)
    with Turns[Apart, Run](close=Apart.close) as turns:
        differences = enter(turns, taking, material, device, arguments)
        for name, found in turns.take(arguments.repeats, lambda each: each.call("run"), arguments.limit):
            print(f"run {len(turns.samples[name])}: {name} {found.by_clock:.0f} clips/s", flush=True)
            if record is not None:
                record.write(**_fields(arguments, material, device, turns, differences, skipped))
    show(turns, differences, material, arguments)
    for name, reason in (skipped | turns.failures).items():
        print(f"{name} does not take part: {reason}")
    medians = {name: values["p50"] for name, values in turns.summaries(lambda run: run.by_clock).items()}
    for line in conclusions(medians, arguments.needed):
        print(line)
    if failed := {name: reason for name, reason in turns.failures.items() if name not in OTHERS}:
        raise InputError("; ".join(f"'{name}' {reason}" for name, reason in failed.items()))


def enter(
    turns: Turns[Apart, Run],
    taking: Sequence[str],
    material: Material,
    device: torch.device,
    arguments: argparse.Namespace,
) -> dict[str, float]:
    """Build everybody and hold their first batch against the reference's, which also warms them up.

    Raw files were coded once less than the store, so they may differ by what that cost.

    Returns:
        The mean difference from the reference, of 256 levels, of all that take part.

    Raises:
        InputError: there is no reference.
    """
    differences, expected = {}, None
    for name in taking:
        build = partial(Apart, Contender, name, material, device, arguments.threads, arguments.batch, limit_s=_LIMIT_S)
        clips = turns.enter(name, build, lambda contestant: contestant.call("first").astype(np.float32))
        if clips is None:
            if name == REFERENCE:
                raise InputError(f"'{name}', which all are held against, {turns.failures[name]}")
            continue
        expected = clips if expected is None else expected
        difference = float(np.abs(clips - expected).mean())
        if difference > _MOST_DIFFERENCE:
            turns.drop(name, f"does not show the frames of '{REFERENCE}': they differ by {difference:.1f}")
        else:
            differences[name] = difference
    return differences


def _fields(
    arguments: argparse.Namespace,
    material: Material,
    device: torch.device,
    turns: Turns[Apart, Run],
    differences: dict[str, float],
    skipped: dict[str, str],
) -> dict[str, Any]:
    """Of the record."""
    chosen = ("snippets", "batch", "threads", "short_side", "crop", "hevc", "needed")
    known = {name: runs for name, runs in turns.samples.items() if runs}
    return {name: getattr(arguments, name) for name in chosen} | {
        "device_type": device.type,
        "videos": len(material.raw),
        "drawn": arguments.manifest is None,
        "n": max(map(len, known.values())),
        "results": turns.summaries(lambda run: run.by_clock),
        "busy": {name: _means(runs) for name, runs in known.items()},
        "differences": differences,
        "skipped": skipped | turns.failures,
    }


def _means(runs: Sequence[Run]) -> dict[str, float | None]:
    """Mean busy shares, %; None where they are not known."""
    shares = {"decoder": [run.decoder_busy for run in runs], "gpu": [run.gpu_busy for run in runs]}
    return {name: None if np.isnan(values).any() else float(np.mean(values)) for name, values in shares.items()}


def show(
    turns: Turns[Apart, Run], differences: dict[str, float], material: Material, arguments: argparse.Namespace
) -> None:
    """Print the table."""
    frames, rows = material.clip.num_frames, []
    for name, values in turns.summaries(lambda run: run.by_clock).items():
        runs = turns.samples[name]
        busy = ["-" if share is None else share for share in _means(runs).values()]
        computing = float(np.median([run.by_computing for run in runs]))
        quantiles = [values[p] for p in ("p20", "p50", "p80")]
        rows.append([name, *quantiles, values["p50"] * frames, *busy, computing, differences[name]])
    form = f"{frames}x{arguments.crop}x{arguments.crop} from short side {arguments.short_side}"
    print(
        f"{len(material.raw)} videos, {arguments.snippets} snippets {form} in batches of {arguments.batch},"
        f" {len(turns.samples[REFERENCE])} runs in turns, {arguments.threads} threads"
    )
    heads = [
        "clips/s",
        "p20",
        "p50",
        "p80",
        "frames/s",
        "NVDEC busy %",
        "GPU busy %",
        "clips per s of CPU",
        "differs by",
    ]
    print(Table(heads, rows).text())


def conclusions(medians: dict[str, float], needed: float | None) -> list[str]:
    """What follows for the engine: which decoder, which codec, a hybrid, enough for the network."""
    lines, ours = [], medians.get(OURS)
    for name, other in HEVC.items():
        if name in medians and other in medians:
            lines.append(f"{other} is {medians[other] / medians[name]:.2f} times as fast as {name}")
    if ours is None:
        return lines
    if PEER in medians:
        lines.append(f"{PEER} is {medians[PEER] / ours:.2f} times as fast as {OURS}")
    hybrids = {name: value for name, value in medians.items() if name.startswith("hybrid")}
    if hybrids:
        best = max(hybrids, key=hybrids.__getitem__)
        lines.append(f"the best hybrid, {best}, is {hybrids[best] / ours:.2f} times as fast as {OURS} alone")
    if needed:
        lines.append(f"{OURS} decodes {ours / needed:.2f} times what the network eats ({needed:g} clips/s)")
    return lines
