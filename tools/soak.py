"""Run one part of the engine for a long time and see whether memory, open files, threads or GPU memory grow.

    python tools/soak.py decode store --snippets 200000
    python tools/soak.py decode pyav --snippets 200000 --damaged 0.05
    python tools/soak.py train --minutes 60

decode: random snippets through one decoder, from videos that are drawn and encoded for it (or from --manifest):
  store   PyAV from a snippet store    pyav   PyAV from H.264 files
  dali    DALI from H.264 files, with --device cuda
  With --damaged some of the files are cut short, so that the handling of failures runs too.
train: engine/train.py on drawn videos, over and over, with evaluations and a checkpoint every 50 steps, until the
  time is up; then SIGTERM, which must end it with status 0.

The part runs in a process of its own; that process and its children are looked at every few seconds. After a
warm-up (the first tenth) a Theil-Sen line is fitted to each quantity. Flat: the line rises by at most 2 % or 4 MB
of memory (mapped files left out), and half a file or thread, from there to the end. Prints a table, draws
benchmarks/pictures/soak_NAME.png, appends a line to benchmarks/records/soak.jsonl. Exit status 1 if something grows.
"""

import options

from engine.errors import read_command, run_command

if __name__ == "__main__":  # before the imports below, which take seconds
    ARGUMENTS = read_command(options.soak, __doc__)

import argparse
import multiprocessing
import os
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench.charts import PICTURES
from bench.resources import UNITS, Sample, Trend, least_s, trends, watch
from bench.runs import TRAIN, endless

from engine.config import load_config
from engine.data.batch import ClipFormat, SnippetRequest
from engine.data.decoders import build_decoder, choose_decoder
from engine.data.drawn.drawing import MOVEMENTS, THINGS, draw_clip
from engine.data.indexing.dataset import index_folder
from engine.data.manifests.manifest import Manifest
from engine.data.pyav.encode import write_video
from engine.data.store.index import MANIFEST_NAME, StoreSettings
from engine.data.store.ingest import WorkSettings, ingest
from engine.errors import InputError
from engine.processes.distributed import choose_device
from engine.processes.parts import end_with_parent, running, stop_on_sigterm
from engine.records import append_record
from engine.results.figures import NEUTRAL, RIGHT, new_figure, open_frame, save_figure
from engine.results.table import Table
from engine.terminal.progress import Progress

_FRAMES, _NUM_VIDEOS, _BATCH = 48, 48, 16


def main(arguments: argparse.Namespace) -> None:
    """Run, judge, keep what was seen."""
    stop_on_sigterm()
    with tempfile.TemporaryDirectory() as folder:
        soak = soak_decoder if arguments.part == "decode" else soak_training
        samples, facts = soak(arguments, Path(folder))
    name = f"decode_{arguments.decoder}" if arguments.part == "decode" else "train"
    found = trends(samples, arguments.warm_up)
    show(name, samples, found, facts)
    if not arguments.no_record:
        draw(samples, found, PICTURES / f"soak_{name}.png")
        path = append_record(
            "soak", part=name, seconds=samples[-1].seconds, snippets=samples[-1].done, samples=len(samples),
            warm_up=arguments.warm_up, **facts,
            trends={key: {**asdict(trend), "is_flat": trend.is_flat} for key, trend in found.items()},
        )  # fmt: skip
        print(f"recorded in {Path(os.path.relpath(path))}")
    sys.exit(0 if all(trend.is_flat for trend in found.values()) else 1)


def soak_decoder(arguments: argparse.Namespace, folder: Path) -> tuple[list[Sample], dict[str, Any]]:
    """Decode in a process of its own, and watch it. Returns the samples and what the record should tell beside them."""
    choose_decoder(_decoder_name(arguments), choose_device(arguments.device))  # here too: a mistake is one line
    if arguments.damaged and arguments.manifest:
        raise InputError(
            "--damaged is for drawn videos, and those of --manifest stay as they are: leave one of the two out"
        )
    if arguments.damaged and arguments.decoder == "store":
        raise InputError("--damaged is for files: a store was made from what decodes")
    manifest = arguments.manifest or draw_videos(arguments, folder)
    num_videos = len(Manifest.load(manifest))
    context = multiprocessing.get_context("spawn")
    counts = context.Array("q", 2)  # snippets done, of which failed
    process = context.Process(target=decode_for_long, args=(arguments, manifest, counts))  # it has children: no daemon
    process.start()
    shown = 0
    with Progress(arguments.snippets, "snippet") as progress:

        def is_over(sample: Sample) -> bool:
            nonlocal shown
            if sample.done > shown:
                progress.advance(counts[1], sample.done - shown)
                shown = sample.done
            return shown >= arguments.snippets

        try:
            samples = watch(process.pid, lambda: counts[0], is_over, arguments.every)
            process.join(60)
        finally:
            process.kill()
            process.join()
    if counts[0] < arguments.snippets or process.exitcode != 0:
        raise InputError(f"the decoding process ended with status {process.exitcode} after {counts[0]} snippets")
    return samples, {
        "decoder": arguments.decoder, "device_type": arguments.device, "threads": arguments.threads,
        "videos": num_videos, "side": None if arguments.manifest else arguments.side,
        "damaged": arguments.damaged, "motion": arguments.motion, "failed": counts[1],
    }  # fmt: skip


def _decoder_name(arguments: argparse.Namespace) -> str:
    return "dali" if arguments.decoder == "dali" else "pyav"


def draw_videos(arguments: argparse.Namespace, folder: Path) -> Path:
    """Draw and encode videos that the decoder reads, damage some, and write their manifest (of the store, for one)."""
    raw, generator = folder / "raw", np.random.default_rng(0)
    (raw / "drawn").mkdir(parents=True)
    for number in range(_NUM_VIDEOS):
        thing, movement = list(THINGS)[number % len(THINGS)], list(MOVEMENTS)[number % len(MOVEMENTS)]
        frames = draw_clip(thing, movement, frames=_FRAMES, size=arguments.side, rng=generator)
        write_video(raw / "drawn" / f"{number}.mp4", frames, gop=12)
    manifest = folder / "raw.parquet"
    index_folder(raw, manifest)
    if arguments.decoder == "store":
        work = WorkSettings(motion=arguments.motion)
        ingest(Manifest.load(manifest), folder / "store", StoreSettings(short_side=arguments.side), work)
        manifest = folder / "store" / MANIFEST_NAME
    elif arguments.damaged:
        for path in sorted((raw / "drawn").iterdir())[: round(arguments.damaged * _NUM_VIDEOS)]:
            data = path.read_bytes()  # of the same length, so that it reaches the decoder and is not refused before
            path.write_bytes(data[: len(data) // 2] + generator.bytes(len(data) - len(data) // 2))
    return manifest


def decode_for_long(arguments: argparse.Namespace, manifest_path: Path, counts: Any) -> None:
    """Decode random snippets until there are enough; counts: how many are done, and of these how many failed."""
    end_with_parent()
    torch.set_num_threads(1)
    manifest, generator = Manifest.load(manifest_path), np.random.default_rng(1)
    side = arguments.side // 8 * 7
    clip = ClipFormat(short_side=arguments.side, crop=side) if arguments.manifest is None else ClipFormat()
    clip = replace(clip, motion=arguments.motion)
    decoder = build_decoder(_decoder_name(arguments), clip, choose_device(arguments.device), arguments.threads, _BATCH)
    while counts[0] < arguments.snippets:
        rows = generator.integers(len(manifest), size=_BATCH)
        starts = generator.integers(np.maximum(manifest.num_frames[rows] - clip.span, 0), endpoint=True)
        crops = generator.random((_BATCH, 2))
        requests = [
            SnippetRequest(manifest.video(int(row)), int(start), y, x, flip=row % 2 == 0)
            for row, start, (y, x) in zip(rows, starts, crops.tolist(), strict=True)
        ]
        counts[1] += len(decoder.decode(requests).failures)
        counts[0] += _BATCH
    decoder.close()


def soak_training(arguments: argparse.Namespace, folder: Path) -> tuple[list[Sample], dict[str, Any]]:
    """Train by engine/train.py until the time is up, and watch it. Returns as `soak_decoder`."""
    least = least_s(arguments.every, arguments.warm_up)
    if 60 * arguments.minutes <= least:
        raise InputError(
            f"--minutes {arguments.minutes:g} is too short to judge: {least:.0f} s of work are needed with --every "
            f"{arguments.every:g}, and the start takes up to a minute more"
        )
    more = {"data.decode_threads": arguments.threads, "evaluate.every_epochs": 1, "checkpoint.every_steps": 50}
    overrides = endless(folder, arguments.device, more)
    config = load_config(arguments.config, overrides)
    log, output, seconds = folder / "run" / "log.jsonl", folder / "output.txt", 60 * arguments.minutes
    shown = 0
    with output.open("wb") as file, Progress(round(seconds), "second") as progress:
        command = [sys.executable, str(TRAIN), str(arguments.config), *overrides]

        def is_over(sample: Sample) -> bool:
            nonlocal shown
            if sample.seconds >= shown + 1:
                progress.advance(0, int(sample.seconds) - shown)
                shown = int(sample.seconds)
            return sample.seconds >= seconds

        with running(command, stdout=file, stderr=file) as process:
            samples = watch(process.pid, lambda: _last_step(log) * config.train.batch_size, is_over, arguments.every)
    if process.returncode != 0 or samples[-1].seconds < seconds:
        raise InputError(
            f"the training ended with status {process.returncode}: {output.read_text(errors='replace')[-500:]}"
        )
    measured = sum("/top1" in line for line in log.read_text(encoding="utf-8").splitlines())
    return samples, {"config": arguments.config.name, "device_type": arguments.device, "threads": arguments.threads,
                     "evaluations": measured}  # fmt: skip


def _last_step(log: Path) -> int:
    """The last step that a run's log.jsonl tells of."""
    if not log.is_file():
        return 0
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 4096))
        steps = re.findall(rb'"event": "scalars", "step": (\d+),', file.read())
    return int(steps[-1]) if steps else 0


def show(name: str, samples: Sequence[Sample], found: Mapping[str, Trend], facts: Mapping[str, Any]) -> None:
    """Print the table."""
    last = samples[-1]
    print(f"{name}: {last.done:,} snippets in {last.seconds / 60:.1f} min, {len(samples)} samples; {facts}")
    rows = [
        [f"{key}, {UNITS[key]}", trend.first, trend.last, trend.per_1000_snippets, trend.per_hour, *trend.halves,
         trend.limit, "flat" if trend.is_flat else "GROWS"]
        for key, trend in found.items()
    ]  # fmt: skip
    heads = ["held", "after warm-up", "at the end", "per 1,000 snippets", "per hour", "first half", "second half"]
    print(Table([*heads, "may rise by", ""], rows).text())


def draw(samples: Sequence[Sample], found: Mapping[str, Trend], path: Path) -> None:
    """A panel for each quantity: the samples, and the fitted line over what was judged."""
    figure = new_figure(8, 2.1 * len(found))
    minutes = np.array([sample.seconds for sample in samples]) / 60
    for axes, (name, trend) in zip(np.atleast_1d(figure.subplots(len(found), sharex=True)), found.items(), strict=True):
        axes.plot(minutes, [sample.held[name] for sample in samples], ".", markersize=2, color=NEUTRAL)
        axes.plot([trend.since_s / 60, minutes[-1]], [trend.first, trend.last], color=RIGHT)
        axes.set_ylim(0)
        axes.set_ylabel(f"{name}, {UNITS[name]}" if UNITS[name] == "MB" else name)
        axes.set_title(
            f"{trend.per_hour:+.3g} {UNITS[name]} an hour, {'flat' if trend.is_flat else 'grows'}", fontsize=9
        )
        open_frame(axes)
    axes.set_xlabel("minutes")
    save_figure(figure, path)


if __name__ == "__main__":
    run_command(main, ARGUMENTS)
