"""Snippets from object storage beside the same from local files: clips/s, computing of client and server, bits, memory.

    python tools/bench_throughput.py storage                       # 50 ms latency, 1 % failures, 64 reads in flight
    python tools/bench_throughput.py storage --apart               # servers on a core of their own, as if on other machines
    python tools/bench_throughput.py storage --only http --snippets 20000

A drawn store of the usual size (short side 128, groups of 16 frames) is read by the engine's own loader in turns: from files; over
HTTP with ranges; from S3 at the same cheap server, which does not look at signatures (what s3:// costs the client); from S3 at
moto's, if that is installed (its server computes more than the client). Each remote one also with neither latency nor failures.
Servers and clients are processes of their own; what each computes is told apart, since on one machine they share the cores, but for
--apart: then the servers have the last core, and the readers the others. The first batches must equal the local ones bit by bit.
"""

import argparse
import os
import statistics
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from bench.apart import Apart, ContestantError
from bench.cores import on_cores, usable_numbers
from bench.material import check_counts
from bench.object_servers import Manners, MotoServer, RangeServer
from bench.rows import Row, table
from bench.storage_reader import Reader, Turn
from bench.turns import Turns
from engine.data.indexing.dataset import index_folder
from engine.data.manifests.manifest import Manifest
from engine.data.pyav.encode import write_video
from engine.data.store.index import MANIFEST_NAME, StoreSettings
from engine.data.store.ingest import WorkSettings, ingest
from engine.errors import InputError
from engine.machine import usable_cores
from engine.records import append_record, summarise

_SIZE, _NUM_FRAMES = (228, 128), 64  # of a drawn video
_SHARD_BYTES = 2**20  # moto reads a whole object for each of its ranges
_LIMIT_S = 300.0
_COMPARED = 8  # batches
_RECORDED = ("latency", "failures", "reads", "batch", "batches", "snippets", "threads", "apart")  # options
_READERS, _SERVERS = slice(-1), slice(-1, None)  # cores of --apart
_UNSIGNED = {"AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none", "AWS_DEFAULT_REGION": "us-east-1"}


@dataclass(frozen=True, slots=True)
class Contestant:
    """Who reads, from which server, and how that behaves meanwhile."""

    reader: Apart
    server: Apart | None
    manners: Manners

    def turn(self, batches: int) -> tuple[Turn, float]:
        """One stretch of reading, and the seconds that the server computed for it and for what was taken before."""
        if self.server is None:
            return self.reader.call("turn", batches), 0.0
        self.server.call("behave", self.manners)
        before = self.server.call("cpu_s")
        return self.reader.call("turn", batches), self.server.call("cpu_s") - before


def run(arguments: argparse.Namespace) -> None:
    """Measure, print, record.

    Raises:
        InputError: an option out of range, a missing package, or a stream that is not the local one.
    """
    if arguments.apart and len(usable_numbers()) < 2:
        raise InputError("--apart needs two cores: one for the servers, the others for who reads")
    if arguments.threads is None:
        arguments.threads = usable_cores() - arguments.apart
    check_counts(arguments, "reads", "batch", "batches", "rounds", "num_videos", "threads")
    if not (0 <= arguments.failures < 1 and arguments.latency >= 0 and arguments.snippets >= 0):
        raise InputError("--failures is a share from 0 to 1; --latency and --snippets are not negative")
    if find_spec("aiohttp") is None or find_spec("s3fs") is None:
        raise InputError("this benchmark reads object storage: pip install -e '.[remote]'")
    started: list[Apart] = []
    with tempfile.TemporaryDirectory() as name:
        try:
            folder = Path(name)
            store = _draw_store(folder / "served" / "store", arguments.num_videos)
            contestants = _contestants(arguments, folder, started)
            _check_equal(contestants)
            turns = _measure(contestants, arguments)
            memory = _memory(contestants, arguments)
        finally:
            for each in started:
                each.close()
    rows = _rows(turns, arguments)
    print(table(rows).text())
    if not arguments.no_record:
        path = append_record(
            "storage", n=arguments.rounds, device_type="cpu", results=[asdict(row) for row in rows], memory_mb=memory,
            **store,
            **{option: getattr(arguments, option) for option in _RECORDED},
        )  # fmt: skip
        print(f"recorded in {Path(os.path.relpath(path))}")


def _contestants(arguments: argparse.Namespace, folder: Path, started: list[Apart]) -> dict[str, Contestant]:
    """By name. Every process is noted in `started`."""

    begin = _beginner(arguments, started)

    def reader(store: str, **environment: str) -> Apart:
        cache = str(folder / f"cache{len(started)}")
        return begin(
            Reader, f"{store}/{MANIFEST_NAME}", cache, arguments.reads, arguments.batch, arguments.threads, environment
        )

    served, wanted = folder / "served", arguments.only or ("http", "s3", "moto")
    late = Manners(arguments.latency / 1000, arguments.failures)
    found = {"local files": Contestant(reader(str(served / "store")), None, Manners())}

    def add(name: str, server: Apart, store: str, **environment: str) -> None:
        who = reader(store, **environment)
        found[name] = Contestant(who, server, late)
        found[f"{name}, none late"] = Contestant(who, server, Manners())

    if {"http", "s3"} & set(wanted):
        server = begin(RangeServer, served)
        address = f"http://127.0.0.1:{server.call('where')}"
        if "http" in wanted:
            add("HTTP", server, f"{address}/store")
        if "s3" in wanted:
            add("S3, cheap server", server, "s3://store", AWS_ENDPOINT_URL=address, **_UNSIGNED)
    if "moto" in wanted and find_spec("moto") is not None:
        server = begin(MotoServer)
        address = f"http://127.0.0.1:{server.call('where')}"
        server.call("fill", served / "store", "bucket")
        add("S3, moto", server, "s3://bucket", AWS_ENDPOINT_URL=address, **_UNSIGNED)
    elif "moto" in wanted:
        print("moto is not installed (pip install 'moto[server]'): left out")
    return found


def _beginner(arguments: argparse.Namespace, started: list[Apart]) -> Callable[..., Apart]:
    """What starts a process, on its part of the cores, and notes it in `started`."""

    def begin(build: Callable[..., object], *values: object) -> Apart:
        part = _READERS if build is Reader else _SERVERS
        with on_cores(usable_numbers()[part]) if arguments.apart else nullcontext():  # it keeps those of who starts it
            started.append(Apart(build, *values, limit_s=_LIMIT_S))
        return started[-1]

    return begin


def _check_equal(contestants: dict[str, Contestant]) -> None:
    """Hold the first batches of each against those of local files.

    Raises:
        InputError: they are others.
    """
    expected = None
    for name, each in contestants.items():
        if each.server is not None:
            each.server.call("behave", each.manners)
        try:
            found = each.reader.call("digest", _COMPARED)
        except ContestantError as error:
            raise InputError(f"{name}: {error}") from error
        expected = expected or found
        if found != expected:
            raise InputError(f"{name}: the stream is not that of local files")
    print(f"the first {_COMPARED} batches are equal, bit by bit: {', '.join(contestants)}", flush=True)


def _measure(
    contestants: dict[str, Contestant], arguments: argparse.Namespace
) -> Turns[Contestant, tuple[Turn, float]]:
    with Turns(contestants) as turns:
        for name, (turn, server_s) in turns.take(arguments.rounds, lambda each: each.turn(arguments.batches)):
            print(
                f"{name}: {turn.clips / turn.seconds:.0f} clips/s; computing a snippet: client "
                f"{1e3 * turn.cpu_s / turn.clips:.2f} ms, server {1e3 * _served(turn, server_s):.2f} ms", flush=True,
            )  # fmt: skip
    return turns


def _served(turn: Turn, server_s: float) -> float:
    """Seconds that the server computed for a clip."""
    return server_s / (turn.clips + turn.untimed)


def _memory(contestants: dict[str, Contestant], arguments: argparse.Namespace) -> dict[str, list[float]]:
    """MB of those that read late, after a tenth of --snippets and at their end."""
    found = {}
    for name, each in contestants.items() if arguments.snippets else ():
        if each.server is not None and each.manners != Manners():
            each.server.call("behave", each.manners)
            steps = -(-arguments.snippets // arguments.batch)
            found[name] = [each.reader.call("memory_mb", -(-steps // 10)), each.reader.call("memory_mb", steps)]
            after, end = found[name]
            told = f"{after:.1f} MB after a tenth of {arguments.snippets} snippets, {end:.1f} MB at the end"
            print(f"{name}: {told}", flush=True)
    return found


def _rows(turns: Turns[Contestant, tuple[Turn, float]], arguments: argparse.Namespace) -> list[Row]:
    local = [turn for turn, _ in turns.samples["local files"]]
    rows = []
    for name, samples in turns.samples.items():
        if not samples:
            rows.append(Row(name, "", "", None, note=turns.failures[name]))
            continue
        clips = samples[0][0].clips
        values = {
            "clips_per_s": statistics.median(clips / turn.seconds for turn, _ in samples),
            "of_local": statistics.median(ours.seconds / turn.seconds for ours, (turn, _) in zip(local, samples, strict=False)),
            "of_local_cpu": statistics.median(ours.cpu_s / turn.cpu_s for ours, (turn, _) in zip(local, samples, strict=False)),
            "client_cpu_s": statistics.median(turn.cpu_s / clips for turn, _ in samples),
            "server_cpu_s": statistics.median(_served(turn, server_s) for turn, server_s in samples),
        }  # fmt: skip
        rows.append(Row(name, "", "", summarise([turn.seconds / arguments.batches for turn, _ in samples]), values))
    return rows


def _draw_store(folder: Path, num_videos: int) -> dict[str, float]:
    """A store of so many videos of a soft texture that drifts. Returns what is told of it."""
    raw, (width, height) = folder.parent.parent / "raw", _SIZE
    (raw / "drawn").mkdir(parents=True)
    for number in range(num_videos):
        draws = np.random.default_rng(number)
        coarse, fine = (
            draws.integers(0, 256, (height // by, width // by, 3)).repeat(by, 0).repeat(by, 1) for by in (16, 4)
        )
        texture = np.zeros((height, width, 3))
        texture[: coarse.shape[0], : coarse.shape[1]] = 0.85 * coarse
        texture += 0.15 * fine[:height, :width]
        picture = texture.astype(np.uint8)
        steps = draws.integers(-2, 3, (_NUM_FRAMES, 2)).cumsum(axis=0).tolist()
        write_video(raw / "drawn" / f"{number}.mp4", (np.roll(picture, step, (0, 1)) for step in steps))
    index_folder(raw, raw / "manifest.parquet")
    settings = StoreSettings()
    report = ingest(Manifest.load(raw / "manifest.parquet"), folder, settings, WorkSettings(shard_bytes=_SHARD_BYTES))
    group = report.num_bytes / report.num_frames * settings.gop
    print(f"{report.num_videos} videos, {group / 1e3:.1f} kB a group of {settings.gop} frames", flush=True)
    return {"videos": report.num_videos, "group_bytes": group}
