"""Random snippets per second on a GPU's video engines: DALI and PyNvVideoCodec, the CPU's cores, others' libraries.

    python tools/bench_throughput.py decode_gpu --manifest kinetics700.parquet

Nothing but decoding: no network runs. The same snippets (drawn once, random video and start) are decoded by every
contestant, in turns, into uint8 clips on the GPU; before the clock runs their pixels are held against each other.

  DALI store            the engine: the groups of pictures that a snippet needs, through DALI on NVDEC
  DALI store, 2         two such decoders with half the threads and half of each batch: one fills the other's gaps
  DALI mp4              DALI on MP4 files of the very same coded frames, fed whole
  DALI raw              DALI on the videos as they are, fed whole
  PyAV store            the engine on the CPU's cores, copied to the GPU
  PyNvVideoCodec        the engine: the same groups as DALI's, through PyNvVideoCodec on NVDEC
  hybrid S              a share S of each batch by PyAV store, the rest by DALI store, at the same time
  hybrid nv S           the same, the rest by PyNvVideoCodec
  torchcodec mp4        torchcodec's CUDA decoder on the MP4 files, one opened for each snippet
  ACCV-Lab mp4          NVIDIA's on-demand decoder (`accvlab.on_demand_video_decoder`) on the MP4 files
  ... hevc              with --hevc: PyAV, DALI and PyNvVideoCodec on a store of HEVC of the same videos

NVDEC and GPU busy are what nvidia-smi says while a contestant runs, sampled five times a second, all engines together.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from bench.busy import BusyMeter
from bench.gpu_contestants import HEVC, OURS, PEER, REFERENCE, Contestant, contestants
from bench.material import Material, add_hevc, check_counts, prepare
from engine.data.decoders import default_threads
from engine.errors import InputError
from engine.records import append_record, summarise
from engine.tables import format_table

_MOST_DIFFERENCE = 16.0  # mean of 256 levels, of the same frames by other colour matrices; other frames differ more


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a contestant: clips per second by the clock and of CPU time, mean share of time (%) engines were busy."""

    by_clock: float
    by_computing: float
    decoder_busy: float
    gpu_busy: float


def run(arguments: argparse.Namespace) -> None:
    """Measure, print a table, append a record.

    Raises:
        InputError: there is no GPU, an option is out of range, or a contestant failed or showed other pictures (the others
            are recorded).
    """
    arguments.threads = default_threads() if arguments.threads is None else arguments.threads
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
    runners, skipped = contestants(material, device, arguments.threads, arguments.batch)
    differences, failed = compare(runners, material, arguments.batch)
    runners = {name: runner for name, runner in runners.items() if name not in failed}
    samples = measure(runners, material, device, arguments.batch, arguments.repeats, arguments.limit)
    results = {name: summarise([run.by_clock for run in runs]) for name, runs in samples.items()}
    show(results, samples, differences, material, arguments)
    skipped |= failed
    for name, reason in skipped.items():
        print(f"{name} does not take part: {reason}")
    for line in conclusions({name: values["p50"] for name, values in results.items()}, arguments.needed):
        print(line)
    if not arguments.no_record:
        names = ("snippets", "batch", "threads", "short_side", "crop", "hevc")
        fields = {name: getattr(arguments, name) for name in names}
        fields |= {"videos": len(material.raw), "drawn": arguments.manifest is None, "needed": arguments.needed}
        busy = {name: _means(runs) for name, runs in samples.items()}
        path = append_record(
            "decode_gpu",
            n=len(samples[REFERENCE]),
            results=results,
            busy=busy,
            differences=differences,
            skipped=skipped,
            **fields,
        )
        print(f"recorded in {Path(os.path.relpath(path))}")
    if failed:
        raise InputError("; ".join(f"'{name}' {reason}" for name, reason in failed.items()))


def compare(runners: dict[str, Contestant], material: Material, batch: int) -> tuple[dict[str, float], dict[str, str]]:
    """Mean difference of each contestant's first batch from the reference, of 256 levels; also warms them up.

    Raw files were coded once less than the store, so they may differ by what that cost.

    Returns:
        Name -> difference, and name -> reason of those that fail or show other pictures. They cost only themselves.
    """
    places = material.snippets[:batch]
    expected = runners[REFERENCE](places).float()
    differences, failed = {}, {}
    for name, runner in runners.items():
        try:
            difference = float((runner(places).float() - expected).abs().mean())
        except Exception as error:  # whatever another library raises
            failed[name] = f"fails: {type(error).__name__}: {error}"
            continue
        if difference > _MOST_DIFFERENCE:
            failed[name] = f"does not show the pictures of '{REFERENCE}': they differ by {difference:.1f}"
        else:
            differences[name] = difference
    return differences, failed


def measure(
    runners: dict[str, Contestant], material: Material, device: torch.device, batch: int, repeats: int, limit_s: float
) -> dict[str, list[Run]]:
    """Each contestant's runs over all snippets, in turns, said as they come; no round begins after the limit."""
    samples: dict[str, list[Run]] = {name: [] for name in runners}
    order, snippets, begun = list(runners), material.snippets, time.perf_counter()
    for number in range(repeats):
        if number and time.perf_counter() - begun > limit_s:
            print(f"{number} of {repeats} runs of each are done, and --limit {limit_s:g} s is over", flush=True)
            break
        order.append(order.pop(0))  # nobody is always after the same one
        for name in order:
            with BusyMeter(device) as busy:
                clock, computing = time.perf_counter(), time.process_time()
                for first in range(0, len(snippets), batch):
                    runners[name](snippets[first : first + batch])
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                clock, computing = time.perf_counter() - clock, time.process_time() - computing
            count = len(snippets)
            samples[name].append(Run(count / clock, count / computing, busy.decoder, busy.gpu))
            print(f"run {number + 1}: {name} {count / clock:.0f} clips/s", flush=True)
    return samples


def _means(runs: Sequence[Run]) -> dict[str, float | None]:
    """Mean busy shares, %; None where they are not known."""
    shares = {"decoder": [run.decoder_busy for run in runs], "gpu": [run.gpu_busy for run in runs]}
    return {name: None if np.isnan(values).any() else float(np.mean(values)) for name, values in shares.items()}


def show(
    results: dict[str, dict[str, float]],
    samples: dict[str, list[Run]],
    differences: dict[str, float],
    material: Material,
    arguments: argparse.Namespace,
) -> None:
    """Print the table."""
    frames, rows = material.clip.num_frames, []
    for name, values in results.items():
        busy = ["-" if share is None else share for share in _means(samples[name]).values()]
        computing = float(np.median([run.by_computing for run in samples[name]]))
        quantiles = [values[p] for p in ("p20", "p50", "p80")]
        rows.append([name, *quantiles, values["p50"] * frames, *busy, computing, differences[name]])
    form = f"{frames}x{arguments.crop}x{arguments.crop} from short side {arguments.short_side}"
    print(
        f"{len(material.raw)} videos, {arguments.snippets} snippets {form} in batches of {arguments.batch},"
        f" {len(samples[REFERENCE])} runs in turns, {arguments.threads} threads"
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
    print(format_table(heads, rows))


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
