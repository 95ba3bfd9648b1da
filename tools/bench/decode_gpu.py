"""Random snippets per second on a GPU's video engines: the store, raw files, the CPU's cores, NVIDIA's PyNvVideoCodec.

    python tools/bench_throughput.py decode_gpu --manifest kinetics700.parquet

Nothing but decoding: no network runs. The same snippets (drawn once, random video and start) are decoded by every
contestant, in turns, into uint8 clips on the GPU; before the clock runs their pixels are held against each other.

  DALI store        the engine: the groups of pictures that a snippet needs, through DALI on NVDEC
  DALI store, 2     two such decoders with half the threads and half of each batch, so that one fills the other's gaps
  DALI mp4          DALI on MP4 files of the very same coded frames, fed whole
  DALI raw          DALI on the videos as they are, fed whole
  PyAV store        the engine on the CPU's cores, copied to the GPU
  PyNvVideoCodec    NVIDIA's other library on the very same bytes of the store
  hybrid S          a share S of each batch by PyAV store, the rest by DALI store, at the same time

NVDEC and GPU busy are what nvidia-smi says while a contestant runs, sampled five times a second, all engines together.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from bench.busy import BusyMeter
from bench.material import Material, add_material_arguments, check_counts, prepare
from bench.nvcodec import NvCodecDecoder
from engine.data.batch import SnippetRequest, VideoDecoder
from engine.data.decoders import choose_decoder, default_threads
from engine.data.manifest import Manifest
from engine.data.nvdec import unfit_videos
from engine.data.pyav.decode import PyAVDecoder
from engine.errors import InputError
from engine.records import append_record, summarise
from engine.tables import format_table

SHARES = (0.125, 0.25, 0.5)  # of the CPU in a hybrid
REFERENCE, OURS, PEER = "PyAV store", "DALI store", "PyNvVideoCodec"
_WORTH_OFFERING = 1.3  # a peer that is so many times as fast as DALI deserves to be a decoder of the engine
_MOST_DIFFERENCE = 16.0  # mean of 256 levels, of the same frames by other colour matrices; other frames differ more

Decode = Callable[[Sequence[SnippetRequest]], torch.Tensor]
Contestant = Callable[[Sequence[tuple[int, int]]], torch.Tensor]  # (row, start) -> clips


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a contestant: clips per second by the clock and of CPU time, mean share of time (%) engines were busy."""

    by_clock: float
    by_computing: float
    decoder_busy: float
    gpu_busy: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `bench_throughput.py decode_gpu`."""
    add_material_arguments(parser, num_videos=200, snippets=2048)
    parser.add_argument("--batch", type=int, default=64, help="snippets of one call (default: 64)")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each contestant (default: 5)")
    parser.add_argument("--threads", type=int, help="of each contestant (default: this process's cores)")
    parser.add_argument("--needed", type=float, help="clips/s that the network eats on this GPU (see `compute`)")


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
        report(arguments, material, device)


def report(arguments: argparse.Namespace, material: Material, device: torch.device) -> None:
    """All of `run` but the preparations; on any device."""
    runners, skipped = contestants(material, device, arguments.threads, arguments.batch)
    differences, failed = compare(runners, material, arguments.batch)
    runners = {name: runner for name, runner in runners.items() if name not in failed}
    samples = measure(runners, material, device, arguments.batch, arguments.repeats)
    results = {name: summarise([run.by_clock for run in runs]) for name, runs in samples.items()}
    show(results, samples, differences, material, arguments)
    skipped |= failed
    for name, reason in skipped.items():
        print(f"{name} does not take part: {reason}")
    for line in conclusions({name: values["p50"] for name, values in results.items()}, arguments.needed):
        print(line)
    if not arguments.no_record:
        fields = {name: getattr(arguments, name) for name in ("snippets", "batch", "threads", "short_side", "crop")}
        fields |= {"videos": len(material.raw), "drawn": arguments.manifest is None, "needed": arguments.needed}
        busy = {name: _means(runs) for name, runs in samples.items()}
        path = append_record(
            "decode_gpu",
            n=arguments.repeats,
            results=results,
            busy=busy,
            differences=differences,
            skipped=skipped,
            **fields,
        )
        print(f"recorded in {Path(os.path.relpath(path))}")
    if failed:
        raise InputError("; ".join(f"'{name}' {reason}" for name, reason in failed.items()))


def contestants(
    material: Material, device: torch.device, threads: int, batch: int
) -> tuple[dict[str, Contestant], dict[str, str]]:
    """Name -> a function from requests to clips on the device, and name -> reason of those that cannot take part."""
    clip = material.clip
    cpu = _checked(PyAVDecoder(clip, device, threads))
    runners: dict[str, Contestant] = {REFERENCE: on(material.store, cpu)}
    skipped: dict[str, str] = {}

    def dali(num_threads: int) -> Decode:
        from engine.data.dali.decode import DaliDecoder

        return _checked(DaliDecoder(clip, device, num_threads, batch))

    for name, manifest in ((OURS, material.store), ("DALI mp4", material.mp4), ("DALI raw", material.raw)):
        if reason := dali_problem_of(manifest, device):
            skipped[name] = reason
        else:
            runners[name] = on(manifest, dali(threads))
    if OURS in runners:
        one, other = dali(max(1, threads // 2)), dali(max(1, threads // 2))
        runners[f"{OURS}, 2"] = on(material.store, split_between(one, other, 0.5))
        whole = dali(threads)
        for share in SHARES:
            runners[f"hybrid {share:g}"] = on(material.store, split_between(cpu, whole, share))
    try:
        runners[PEER] = on(material.store, NvCodecDecoder(clip, device, threads).decode)
    except InputError as error:
        skipped[PEER] = str(error)
    return runners, skipped


def dali_problem_of(manifest: Manifest, device: torch.device) -> str | None:
    """Why DALI does not decode these videos on this device; None where it does."""
    try:
        choose_decoder("dali", device, [manifest])
    except InputError as error:
        return str(error)
    if device.type == "cuda":
        unfit = int(unfit_videos(manifest).sum())
        return f"{unfit} of {len(manifest)} videos are not for NVDEC (codec, container or odd size)" if unfit else None
    from engine.data.dali.decode import CPU_CODECS

    others = set(manifest.strings("codec")) - set(CPU_CODECS)
    return f"DALI does not decode {', '.join(sorted(others))} on the CPU" if others else None


def on(manifest: Manifest, decode: Decode) -> Contestant:
    """The videos of a manifest decoded in a certain way, from the middle of the picture."""
    return lambda snippets: decode(
        [SnippetRequest(manifest.video(row), start, 0.5, 0.5, False) for row, start in snippets]
    )


def _checked(decoder: VideoDecoder) -> Decode:
    def decode(requests: Sequence[SnippetRequest]) -> torch.Tensor:
        decoded = decoder.decode(requests)
        if decoded.failures:
            raise InputError(f"snippets that do not decode: {decoded.failures}")
        return decoded.frames

    return decode


def split_between(one: Decode, other: Decode, share: float) -> Decode:
    """The first `share` of each batch by one, the rest by the other, at the same time."""
    pool = ThreadPoolExecutor(1)

    def decode(requests: Sequence[SnippetRequest]) -> torch.Tensor:
        border = round(share * len(requests))
        if border in (0, len(requests)):
            return (one if border else other)(requests)
        begun = pool.submit(one, requests[:border])
        rest = other(requests[border:])
        return torch.cat([begun.result(), rest])

    return decode


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
    runners: dict[str, Contestant], material: Material, device: torch.device, batch: int, repeats: int
) -> dict[str, list[Run]]:
    """Each contestant's runs over all snippets, in turns."""
    samples: dict[str, list[Run]] = {name: [] for name in runners}
    order, snippets = list(runners), material.snippets
    for _ in range(repeats):
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
        f" {arguments.repeats} runs in turns, {arguments.threads} threads"
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
    """What follows for the engine: a third decoder, a hybrid, enough for the network."""
    lines, ours = [], medians.get(OURS)
    if ours is None:
        return lines
    if PEER in medians:
        ratio = medians[PEER] / ours
        verdict = "worth offering as a decoder" if ratio > _WORTH_OFFERING else f"below {_WORTH_OFFERING}: stays a peer"
        lines.append(f"{PEER} is {ratio:.2f} times as fast as {OURS}, {verdict}")
    hybrids = {name: value for name, value in medians.items() if name.startswith("hybrid")}
    if hybrids:
        best = max(hybrids, key=hybrids.__getitem__)
        lines.append(f"the best hybrid, {best}, is {hybrids[best] / ours:.2f} times as fast as {OURS} alone")
    if needed:
        lines.append(f"{OURS} decodes {ours / needed:.2f} times what the network eats ({needed:g} clips/s)")
    return lines
