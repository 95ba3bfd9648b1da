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
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.apart import Apart, ContestantError
from bench.gpu_contestants import HEVC, OTHERS, OURS, PEER, REFERENCE, Contender, Run, names
from bench.material import Material, add_hevc, check_counts, prepare
from engine.data.decoders import default_threads
from engine.errors import InputError
from engine.records import GrowingRecord, summarise
from engine.results.table import Table

_LIMIT_S = 180.0  # seconds a contestant may take to be built, or for one run
_MOST_DIFFERENCE = 16.0  # mean of 256 levels, of the same frames by other colour matrices; other frames differ more


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


def report(
    arguments: argparse.Namespace, material: Material, device: torch.device, start: Callable[..., Apart] = Apart
) -> None:
    """All of `run` but the preparations; on any device. `start` builds a contestant, by default in a process of its own."""
    race = Race(arguments, material, device, start)
    record = None if arguments.no_record else GrowingRecord("decode_gpu")
    try:
        race.enter()
        for number in range(arguments.repeats):
            if number and race.is_late():
                print(
                    f"{number} of {arguments.repeats} runs of each are done, and --limit {arguments.limit:g} s is over"
                )
                break
            race.round(number)
            if record is not None:
                record.write(**race.fields())
    finally:
        race.close()
    results = {name: summarise([run.by_clock for run in runs]) for name, runs in race.samples.items() if runs}
    show(results, race.samples, race.differences, material, arguments)
    for name, reason in (race.skipped | race.failed).items():
        print(f"{name} does not take part: {reason}")
    for line in conclusions({name: values["p50"] for name, values in results.items()}, arguments.needed):
        print(line)
    if race.failed:
        raise InputError("; ".join(f"'{name}' {reason}" for name, reason in race.failed.items()))


class Race:
    """The contestants, and what is known of them so far."""

    def __init__(
        self, arguments: argparse.Namespace, material: Material, device: torch.device, start: Callable[..., Apart]
    ) -> None:
        self._arguments, self._material, self._device, self._start = arguments, material, device, start
        self._contestants: dict[str, Apart] = {}
        self._begun = time.perf_counter()
        self.samples: dict[str, list[Run]] = {}
        self.differences: dict[str, float] = {}  # mean, of 256 levels, of the first batch from the reference's
        self.skipped: dict[str, str] = {}  # who cannot take part here
        self.failed: dict[str, str] = {}  # who should have been able to

    def enter(self) -> None:
        """Build everybody and hold their first batch against the reference's, which also warms them up.

        Raw files were coded once less than the store, so they may differ by what that cost.

        Raises:
            InputError: there is no reference.
        """
        arguments, expected = self._arguments, None
        taking, self.skipped = names(self._material, self._device)
        for name in taking:
            try:
                contestant = self._start(
                    Contender, name, self._material, self._device, arguments.threads, arguments.batch, limit_s=_LIMIT_S
                )
                self._contestants[name] = contestant
                clips = contestant.call("first").astype(np.float32)
            except ContestantError as error:
                self._drop(name, f"fails: {error}")
                if name == REFERENCE:
                    raise InputError(f"'{name}', which all are held against, fails: {error}") from None
                continue
            expected = clips if expected is None else expected
            difference = float(np.abs(clips - expected).mean())
            if difference > _MOST_DIFFERENCE:
                self._drop(name, f"does not show the pictures of '{REFERENCE}': they differ by {difference:.1f}")
            else:
                self.differences[name], self.samples[name] = difference, []

    def round(self, number: int) -> None:
        """A run of each over all snippets; nobody is always after the same one."""
        order = list(self.samples)
        for name in [order[place] for place in np.roll(range(len(order)), -1 - number)]:
            try:
                run = self._contestants[name].call("run")
            except ContestantError as error:
                self._drop(name, f"fails: {error}")
                continue
            self.samples[name].append(run)
            print(f"run {number + 1}: {name} {run.by_clock:.0f} clips/s", flush=True)

    def is_late(self) -> bool:
        """Whether no further round should begin."""
        return time.perf_counter() - self._begun > self._arguments.limit

    def fields(self) -> dict[str, Any]:
        """Of the record."""
        chosen = ("snippets", "batch", "threads", "short_side", "crop", "hevc")
        fields = {name: getattr(self._arguments, name) for name in chosen}
        fields |= {"videos": len(self._material.raw), "drawn": self._arguments.manifest is None}
        known = {name: runs for name, runs in self.samples.items() if runs}
        return fields | {
            "n": max(map(len, known.values())),
            "needed": self._arguments.needed,
            "results": {name: summarise([run.by_clock for run in runs]) for name, runs in known.items()},
            "busy": {name: _means(runs) for name, runs in known.items()},
            "differences": self.differences,
            "skipped": self.skipped | self.failed,
        }

    def close(self) -> None:
        """End all of them."""
        for contestant in self._contestants.values():
            contestant.close()

    def _drop(self, name: str, reason: str) -> None:
        (self.skipped if name in OTHERS else self.failed)[name] = reason
        self.samples.pop(name, None)
        if name in self._contestants:
            self._contestants.pop(name).close()
        print(f"{name} {reason}", flush=True)


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
