"""Random snippets per second on CPU cores: raw files, the snippet store, other libraries, and the limit.

    python tools/bench_throughput.py decode --manifest ucf15.parquet
    python tools/bench_throughput.py decode --manifest ucf15.parquet --threads 2 --cold

The same snippets (drawn once, random video and start) are decoded by every contestant, in turns, so that
other load affects all alike. All use one thread; --threads N adds the engine with N threads and with N processes
(`data.decode_processes`), on N cores, and the limit in N processes: the best that N cores can give, since the cores of
a shared machine may be half cores.

  store         the engine on a snippet store made from the videos with the default settings
  engine mp4    the engine on MP4 files of the very same coded frames, one file a video
  engine raw    the engine on the videos as they are
  ... with motion   the same with the motion of the clips (`clip.motion`): from the store, or by the vectors of the files,
                where their codecs have any
  NAME mp4      a peer on those MP4 files, used as its documentation recommends: PyAV, decord2, torchcodec,
                video_reader-rs (`pip install .[bench]`); one that is missing or does not load is named
  NAME raw      the same on the videos as they are
  limit         FFmpeg decoding the coded frames that a snippet needs, from memory: no file, seek or conversion

The table has clips per second by the clock and per second of computing time (all threads together). Other load disturbs
the second less; "of the limit" compares those.
"""

import argparse
import contextlib
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch

from bench.charts import save_bars
from bench.cores import first_cores, on_cores
from bench.material import Material, check_counts, prepare
from bench.page_cache import check_forgets, forget
from bench.readers import Reader, find_readers
from bench.resources import computing_s
from bench.turns import Turns
from engine.data.batch import SnippetRequest, VideoDecoder
from engine.data.loading.ahead import decode_in_order, in_batches
from engine.data.manifests.manifest import Manifest
from engine.data.motion import VECTOR_CODECS
from engine.data.pyav.decode import PyAVDecoder
from engine.data.pyav.gops import GopDecoder, split_frames
from engine.data.pyav.processes import ProcessDecoder
from engine.data.store.index import StoreIndex, split_stored_path
from engine.data.store.reader import find_entry
from engine.errors import InputError
from engine.records import append_record
from engine.results.table import Table

_BATCH = 64  # snippets of one call of the engine's decoder
LIMIT = "limit"

Contestant = Callable[[Sequence[int]], None]


@dataclass(frozen=True, slots=True)
class Speed:
    """Clips per second of one run: by the clock, and of the computing time of all threads."""

    by_clock: float
    by_computing: float


def run(arguments: argparse.Namespace) -> None:
    """Measure, print a table, append a record.

    Raises:
        InputError: an option out of range, more threads than cores, or --cold of what lies in memory.
    """
    check_counts(arguments, "num_videos", "snippets", "repeats", "threads")
    with (
        tempfile.TemporaryDirectory() as folder,
        on_cores(first_cores(arguments.threads)),
        contextlib.ExitStack() as opened,
    ):
        if arguments.cold:
            check_forgets(Path(folder), "set TMPDIR to a folder on a disk, or leave --cold out")
        material = prepare(arguments, Path(folder), motion=True)
        if arguments.cold:
            check_forgets(material.raw.video(0).path, "name a --manifest of videos on a disk, or leave --cold out")
        samples = [manifest.video(0).path for manifest in (material.mp4, material.raw)]
        readers, missing = find_readers(samples, material.clip.num_frames)
        runners = contestants(material, readers, arguments.threads, opened)
        turns = measure(material, runners, arguments.repeats, arguments.cold)
    results, computing = turns.summaries(lambda run: run.by_clock), turns.summaries(lambda run: run.by_computing)
    found = ratios(results, computing)
    show(results, computing, material, arguments)
    for name, reason in missing.items():
        print(f"{name}: {reason}")
    for name, ratio in found.items():
        print(f"{ratio:.2f}  {name}")
    if not arguments.no_record:
        fields = {name: getattr(arguments, name) for name in ("snippets", "threads", "short_side", "crop", "cold")}
        fields |= {
            "device_type": "cpu",
            "videos": len(material.raw),
            "drawn": arguments.manifest is None,
            "missing": missing,
        }
        values = {"results": results, "computing": computing, "ratios": found}
        path = append_record("decode", n=arguments.repeats, **values, **fields)
        title = f"Random 16-frame snippets, {'cold' if arguments.cold else 'warm'} cache"
        medians = [values["p50"] for values in results.values()]
        notes = [f"{value:.0f}" for value in medians]
        picture = path.parents[1] / "pictures" / f"decode_{'cold' if arguments.cold else 'warm'}.png"
        save_bars(picture, title, "clips/s, median", list(results), medians, notes, ours="store")
        print(f"recorded in {Path(os.path.relpath(path))}, picture in {Path(os.path.relpath(picture.parent))}")


def contestants(
    material: Material, readers: dict[str, Reader], threads: int, opened: contextlib.ExitStack
) -> dict[str, Contestant]:
    """Name -> a function that decodes the snippets of these numbers; the processes of some end with `opened`."""
    runners = {
        "store": decode_with(engine(material, 1), material, material.store),
        "engine mp4": decode_with(engine(material, 1), material, material.mp4),
        "engine raw": decode_with(engine(material, 1), material, material.raw),
    }
    with_motion = replace(material, clip=replace(material.clip, motion=True))
    runners["store with motion"] = decode_with(engine(with_motion, 1), material, material.store)
    if {material.raw.video(row).codec for row in range(len(material.raw))} <= set(VECTOR_CODECS):
        runners["engine raw with motion"] = decode_with(engine(with_motion, 1), material, material.raw)
    for form, manifest in (("mp4", material.mp4), ("raw", material.raw)):
        for name, reader in readers.items():
            runners[f"{name} {form}"] = decode_with_peer(material, manifest, reader)
    if threads > 1:
        for name, manifest in (("store", material.store), ("engine raw", material.raw)):
            runners[f"{name}, {threads} threads"] = decode_with(engine(material, threads), material, manifest)
            processes = ProcessDecoder(material.clip, torch.device("cpu"), threads, _BATCH)
            opened.callback(processes.close)
            runners[f"{name}, {threads} processes"] = decode_with(processes, material, manifest)
        runners[f"{LIMIT}, {threads} processes"] = _limit_in_processes(material, threads, opened)
    return runners | {LIMIT: _limit(material)}


def engine(material: Material, threads: int) -> PyAVDecoder:
    """The engine's decoder in threads."""
    return PyAVDecoder(material.clip, torch.device("cpu"), threads)


def decode_with(decoder: VideoDecoder, material: Material, manifest: Manifest) -> Contestant:
    """One of the engine's decoders on one of the forms of the videos."""

    def decode(numbers: Sequence[int]) -> None:
        snippets = [material.snippets[number] for number in numbers]
        requests = (SnippetRequest(manifest.video(row), start, 0.5, 0.5, False) for row, start in snippets)
        for decoded in decode_in_order(decoder, in_batches(requests, _BATCH)):
            for reason in decoded.failures.values():
                raise InputError(f"snippets that do not decode: {reason}")

    return decode


def decode_with_peer(material: Material, manifest: Manifest, reader: Reader) -> Contestant:
    """A peer on one of the forms of the videos."""
    return lambda numbers: [read_clip(reader, material, manifest, *material.snippets[number]) for number in numbers]


def read_clip(reader: Reader, material: Material, manifest: Manifest, row: int, start: int) -> np.ndarray:
    """A snippet by a peer; uint8 [T, crop, crop, 3], from the middle of the frame."""
    clip, fps = material.clip, float(manifest.table.column("fps")[row].as_py())
    clip_thwc = reader(manifest.video(row).path, fps, start, clip.num_frames)
    height, width = clip_thwc.shape[1:3]
    if min(height, width) != clip.short_side:  # none of them can be told to, in a way that they share
        scale = clip.short_side / min(height, width)
        size = (round(width * scale), round(height * scale))
        clip_thwc = np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in clip_thwc])
    top, left = ((side - clip.crop) // 2 for side in clip_thwc.shape[1:3])
    return clip_thwc[:, top : top + clip.crop, left : left + clip.crop].copy()


def _limit(material: Material) -> Contestant:
    """Decodes the frames from the group's first to the snippet's last; all bytes are in memory beforehand."""
    coded, gop = [], StoreIndex(split_stored_path(material.store.video(0).path)[0]).settings.gop
    for row, start in material.snippets:
        reader, entry = find_entry(material.store.video(row))
        last = start + material.clip.span - 1
        data = reader.read(entry, start // gop, last // gop)
        coded.append(b"".join(split_frames(data)[: last - start // gop * gop + 1]))
    decoder = GopDecoder()

    def decode(numbers: Sequence[int]) -> None:
        for number in numbers:
            for _ in decoder.frames(coded[number]):
                pass

    return decode


def _limit_in_processes(material: Material, count: int, opened: contextlib.ExitStack) -> Contestant:
    """As many processes as cores, each with its share of the snippets; nothing comes back."""
    pool = opened.enter_context(multiprocessing.get_context("spawn").Pool(count, _begin, (material,)))
    return lambda numbers: pool.map(_decode_share, [numbers[index::count] for index in range(count)], chunksize=1)


_LIMIT_HERE: list[Contestant] = []  # of a process of the pool


def _begin(material: Material) -> None:
    _LIMIT_HERE.append(_limit(material))


def _decode_share(numbers: Sequence[int]) -> None:
    _LIMIT_HERE[0](numbers)


def measure(material: Material, runners: dict[str, Contestant], repeats: int, cold: bool) -> Turns[Contestant, Speed]:
    """The speed of each contestant in each run. The first batch, which warms up, does not count."""
    numbers = range(len(material.snippets))
    turns: Turns[Contestant, Speed] = Turns(runners)
    for runner in runners.values():
        runner(numbers[:_BATCH])

    def turn(runner: Contestant) -> Speed:
        if cold:
            _forget(material)
        clock, computing = time.perf_counter(), _computing()
        runner(numbers)
        clock, computing = time.perf_counter() - clock, _computing() - computing
        return Speed(len(numbers) / clock, len(numbers) / computing)

    for _ in turns.take(repeats, turn):
        pass
    return turns


def _computing() -> float:
    """Seconds that this process and its children have computed so far."""
    return time.process_time() + computing_s(child.pid for child in multiprocessing.active_children())


def _forget(material: Material) -> None:
    stored = split_stored_path(material.store.video(0).path)[0].parent
    videos = [manifest.video(row).path for manifest in (material.raw, material.mp4) for row in range(len(manifest))]
    forget([*videos, *stored.glob("*.h264")])


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
    print(Table(heads, rows).text())


def ratios(results: dict[str, dict[str, float]], computing: dict[str, dict[str, float]]) -> dict[str, float]:
    """What the figures are wanted for: the engine against the best peer, the limit, and itself."""

    def best(form: str) -> float:
        peers = [name for name in results if name.endswith(f" {form}") and not name.startswith("engine")]
        return max(results[name]["p50"] for name in peers)

    clock = {name: values["p50"] for name, values in results.items()}
    found = {
        "store / best peer on MP4 files of its frames": clock["store"] / best("mp4"),
        "store / limit": computing["store"]["p50"] / computing[LIMIT]["p50"],
        "engine / best peer on raw files": clock["engine raw"] / best("raw"),
        "store / raw files": clock["store"] / clock["engine raw"],
    }
    for name in computing:
        if name.endswith(" with motion"):
            one = name.removesuffix(" with motion")
            found[f"{name} / {one}"] = computing[name]["p50"] / computing[one]["p50"]
    for name, value in clock.items():
        one, _, several = name.partition(",")
        if several:
            found[f"{name} / one thread"] = value / clock[one]
    return found
