"""Random snippets per second on CPU cores: raw files, the snippet store, other ways to read, and the limit.

    python tools/bench_throughput.py decode --manifest ucf15.parquet --threads 1

The same snippets (drawn once, random video and start) are decoded by every contestant, in turns, so that what else
the machine does meets all of them. Peers and limit use one thread; with --threads N the engine uses N, on N cores.

  store         the engine on a snippet store made from the videos with the default settings
  engine mp4    the engine on MP4 files of the very same coded frames, one file a video
  engine raw    the engine on the videos as they are
  PyAV mp4      plain PyAV as its documentation shows it, on those MP4 files: open, seek, decode, to_ndarray
  PyAV raw      the same on the videos as they are
  limit         FFmpeg decoding the coded frames that a snippet needs, from memory: no file, seek or conversion

Beside clips per second by the clock stand clips per second of computing time (all threads together), which a
machine that others use too disturbs less; "of the limit" compares those.
"""

import argparse
import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import torch

from bench.material import Material, prepare
from engine.data.batch import ClipFormat, SnippetRequest
from engine.data.manifest import Manifest
from engine.data.pyav.decode import PyAVDecoder
from engine.data.pyav.groups import GroupDecoder, split_pictures
from engine.data.store.index import StoreIndex, split_stored_path
from engine.data.store.reader import find_entry
from engine.errors import InputError
from engine.records import append_record, summarise
from engine.tables import format_table

_BATCH = 16  # snippets of one call of the engine's decoder
LIMIT = "limit"

Contestant = Callable[[Sequence[int]], None]


@dataclass(frozen=True, slots=True)
class Speed:
    """Clips per second of one run: by the clock, and of the computing time of all threads."""

    by_clock: float
    by_computing: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `bench_throughput.py decode`."""
    parser.add_argument("--manifest", type=Path, help="of raw videos (default: a few drawn ones, groups of 250 frames)")
    parser.add_argument("--num-videos", type=int, default=60, help="taken from the manifest at random (default: 60)")
    parser.add_argument("--snippets", type=int, default=192, help="decoded in one run (default: 192)")
    parser.add_argument("--repeats", type=int, default=7, help="runs of each contestant (default: 7)")
    parser.add_argument("--threads", type=int, default=1, help="cores and threads of the engine (default: 1)")
    parser.add_argument("--short-side", type=int, default=128, help="of store and snippets, pixels (default: 128)")
    parser.add_argument("--crop", type=int, default=112, help="of the snippets, pixels (default: 112)")
    parser.add_argument("--cold", action="store_true", help="ask the system to forget the files before every run")
    parser.add_argument("--seed", type=int, default=0, help="of videos and snippets (default: 0)")
    parser.add_argument("--chart", type=Path, metavar="PNG", help="also draw the bars into this file")
    parser.add_argument("--no-record", action="store_true", help="print only, append nothing to benchmarks/records")


def run(arguments: argparse.Namespace) -> None:
    """Measure, print a table, append a record.

    Raises:
        InputError: an option out of range, or more threads than cores.
    """
    for name in ("num_videos", "snippets", "repeats", "threads"):
        if getattr(arguments, name) < 1:
            raise InputError(f"--{name.replace('_', '-')} is {getattr(arguments, name)}: it must be at least 1")
    with tempfile.TemporaryDirectory() as folder, _on_cores(arguments.threads):
        material = prepare(arguments, Path(folder))
        samples = measure(material, arguments.threads, arguments.repeats, arguments.cold)
    results = {name: summarise([run.by_clock for run in runs]) for name, runs in samples.items()}
    computing = {name: summarise([run.by_computing for run in runs]) for name, runs in samples.items()}
    show(results, computing, material, arguments)
    if arguments.chart:
        draw_bars(results, arguments.chart)
    if not arguments.no_record:
        fields = {name: getattr(arguments, name) for name in ("snippets", "threads", "short_side", "crop", "cold")}
        fields |= {"videos": len(material.raw), "drawn": arguments.manifest is None}
        path = append_record("decode", n=arguments.repeats, results=results, computing=computing, **fields)
        print(f"recorded in {Path(os.path.relpath(path))}")


@contextlib.contextmanager
def _on_cores(count: int) -> Iterator[None]:
    """Keep this process and its threads on `count` cores, so that "one core" is one."""
    before = os.sched_getaffinity(0)
    if count > len(before):
        raise InputError(f"--threads is {count}, but this process may use {len(before)} cores")
    os.sched_setaffinity(0, sorted(before)[:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def contestants(material: Material, threads: int) -> dict[str, Contestant]:
    """Name -> a function that decodes the snippets of these numbers."""

    def engine(manifest: Manifest) -> Contestant:
        decoder = PyAVDecoder(material.clip, torch.device("cpu"), threads)

        def decode(numbers: Sequence[int]) -> None:
            for first in range(0, len(numbers), _BATCH):
                places = [material.snippets[number] for number in numbers[first : first + _BATCH]]
                requests = [SnippetRequest(manifest.video(row), start, 0.5, 0.5, False) for row, start in places]
                if failures := decoder.decode(requests).failures:
                    raise InputError(f"snippets that do not decode: {failures}")

        return decode

    def plain(manifest: Manifest) -> Contestant:
        return lambda numbers: [
            decode_plainly(manifest, *material.snippets[number], material.clip) for number in numbers
        ]

    return {
        "store": engine(material.store),
        "engine mp4": engine(material.mp4),
        "engine raw": engine(material.raw),
        "PyAV mp4": plain(material.mp4),
        "PyAV raw": plain(material.raw),
        LIMIT: _limit(material),
    }


def decode_plainly(manifest: Manifest, row: int, start: int, clip: ClipFormat) -> np.ndarray:
    """A snippet as PyAV's documentation would read it; uint8 [T, crop, crop, 3], from the middle of the picture."""
    video, frames = manifest.video(row), []
    fps = float(manifest.table.column("fps")[row].as_py())
    with av.open(str(video.path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        wanted = (start - 0.5) / fps + float((stream.start_time or 0) * stream.time_base)
        container.seek(max(0, int(wanted / stream.time_base)), stream=stream)
        for frame in container.decode(stream):
            if frame.time >= wanted:
                frames.append(frame.to_ndarray(format="rgb24"))
            if len(frames) == clip.num_frames:
                break
    clip_thwc = np.stack(frames)
    top, left = ((side - clip.crop) // 2 for side in clip_thwc.shape[1:3])
    return clip_thwc[:, top : top + clip.crop, left : left + clip.crop].copy()


def _limit(material: Material) -> Contestant:
    """Decodes the pictures from the group's first to the snippet's last; all bytes are in memory beforehand."""
    pictures, gop = [], StoreIndex(split_stored_path(material.store.video(0).path)[0]).settings.gop
    for row, start in material.snippets:
        reader, entry = find_entry(material.store.video(row))
        last = start + material.clip.span - 1
        data = reader.read(entry, start // gop, last // gop)
        pictures.append(b"".join(split_pictures(data)[: last - start // gop * gop + 1]))
    decoder = GroupDecoder()

    def decode(numbers: Sequence[int]) -> None:
        for number in numbers:
            for _ in decoder.pictures(pictures[number]):
                pass

    return decode


def measure(material: Material, threads: int, repeats: int, cold: bool) -> dict[str, list[Speed]]:
    """The speed of each contestant in each run; the first, which warms up, does not count."""
    runners = contestants(material, threads)
    samples: dict[str, list[Speed]] = {name: [] for name in runners}
    numbers = range(len(material.snippets))
    for runner in runners.values():
        runner(numbers[:_BATCH])
    order = list(runners)
    for _ in range(repeats):
        order.append(order.pop(0))  # nobody is always after the same one
        for name in order:
            if cold:
                _forget(material)
            clock, computing = time.perf_counter(), time.process_time()
            runners[name](numbers)
            clock, computing = time.perf_counter() - clock, time.process_time() - computing
            samples[name].append(Speed(len(numbers) / clock, len(numbers) / computing))
    return samples


def _forget(material: Material) -> None:
    """Ask for the files to leave the page cache."""
    stored = split_stored_path(material.store.video(0).path)[0].parent
    videos = [manifest.video(row).path for manifest in (material.raw, material.mp4) for row in range(len(manifest))]
    for path in (*videos, *stored.glob("*.h264")):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def show(
    results: dict[str, dict[str, float]],
    computing: dict[str, dict[str, float]],
    material: Material,
    arguments: argparse.Namespace,
) -> None:
    """Print the table."""
    frames = material.clip.num_frames
    limit, rows = computing[LIMIT]["p50"], []
    for name, values in results.items():
        quantiles, share = [values[p] for p in ("p20", "p50", "p80")], computing[name]["p50"] / limit
        rows.append([name, *quantiles, values["p50"] * frames, computing[name]["p50"], share])
    form = f"{frames}x{arguments.crop}x{arguments.crop} from short side {arguments.short_side}"
    print(
        f"{len(material.raw)} videos, {arguments.snippets} snippets {form}, {arguments.repeats} runs in turns,"
        f" {arguments.threads} core(s), {'cold' if arguments.cold else 'warm'} cache"
    )
    heads = ["clips/s", "p20", "p50", "p80", "frames/s", "clips per s of computing", "of the limit"]
    print(format_table(heads, rows))


def draw_bars(results: dict[str, dict[str, float]], path: Path) -> None:
    """The medians as bars with their 20th and 80th percentiles, as a PNG."""
    from matplotlib.figure import Figure

    names = list(reversed(results))
    middle = [results[name]["p50"] for name in names]
    spread = [[results[name]["p50"] - results[name]["p20"] for name in names]]
    spread.append([results[name]["p80"] - results[name]["p50"] for name in names])
    figure = Figure(figsize=(7, 0.45 * len(names) + 1), layout="constrained")
    axes = figure.subplots()
    axes.barh(names, middle, xerr=spread, color=["#E69F00" if name == LIMIT else "#0072B2" for name in names])
    axes.set_xlabel("random 16-frame snippets per second (median, 20th to 80th percentile)")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100, format="png")
