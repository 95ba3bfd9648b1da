"""Ingest through a Ray cluster beside this machine's own processes: what Ray adds to a piece of work, and to the start.

    python tools/bench_throughput.py cluster --workers 2

Drawn videos, each other pictures, become stores in turns: by so many processes of this machine, and by a Ray of this machine with
as many cores, which is started for it. Besides the clock's time there is the computing time of all processes of a contestant, of
Ray its daemons too, which other work on the machine hardly changes. A video's time is that of the pieces after the first two of
each worker, so that the start (imports, and of Ray its workers) is told apart.
"""

import argparse
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from bench.material import check_counts
from bench.resources import computing_s, process_tree
from bench.turns import Turns
from engine.cluster.pool import LocalPool, Pool, open_pool
from engine.data.indexing.dataset import index_folder
from engine.data.manifests.manifest import Manifest
from engine.data.pyav.encode import write_video
from engine.data.store.index import StoreSettings
from engine.data.store.ingest import WorkSettings, ingest
from engine.errors import InputError
from engine.records import append_record, summarise
from engine.results.table import Table

_SIZE, _NUM_FRAMES = (320, 240), 125  # five seconds
_OBJECT_STORE = 200 * 2**20  # bytes
_FIRST = 2  # pieces of each worker that count as its start


@dataclass(frozen=True, slots=True)
class Sample:
    """A turn. clock_s, computing_s: a video, after the start. first_s: until the first was done. all_s: computing of the turn."""

    clock_s: float
    computing_s: float
    first_s: float
    all_s: float


MEANING = {
    "clock_s": "s a video",
    "computing_s": "computing s a video",
    "first_s": "s to the first",
    "all_s": "computing s of the turn",
}


class Watched:
    """A pool that notes when each piece was done: the clock's and the computing seconds since it was asked."""

    def __init__(self, pool: Pool, computing: Callable[[], float]) -> None:
        self._pool, self._computing, self.cpus = pool, computing, pool.cpus
        self.done: list[tuple[float, float]] = []

    def run(self, function: Callable[[Any], Any], items: Iterable[Any], time_limit_s: float) -> Iterator[Any]:
        """See `Pool`."""
        begun, computed = time.perf_counter(), self._computing()
        for found in self._pool.run(function, items, time_limit_s):
            self.done.append((time.perf_counter() - begun, self._computing() - computed))
            yield found


def run(arguments: argparse.Namespace) -> None:
    """Measure, print the table, append a record.

    Raises:
        InputError: an option out of range, or Ray is not installed.
    """
    check_counts(arguments, "num_videos", "workers", "repeats")
    if arguments.num_videos < 2 * _FIRST * arguments.workers:
        raise InputError(f"--num-videos is {arguments.num_videos}: each worker needs {2 * _FIRST} at least")
    with TemporaryDirectory() as name:
        source = _draw(Path(name), arguments.num_videos)
        samples = _measure(source, Path(name), arguments.workers, arguments.repeats).samples
    results = {
        f"{name}: {meaning}": summarise([getattr(sample, key) for sample in each])
        for key, meaning in MEANING.items()
        for name, each in samples.items()
    }
    pairs = list(zip(samples["processes"], samples["ray"], strict=True))
    for key, meaning in MEANING.items():  # of neighbouring turns
        results[f"ray / processes: {meaning}"] = summarise(
            [getattr(ray, key) / getattr(local, key) for local, ray in pairs]
        )
    rows = [[name, *(quantiles[p] for p in ("p20", "p50", "p80"))] for name, quantiles in sorted(results.items())]
    print(Table(["", "p20", "p50", "p80"], rows).text())
    if not arguments.no_record:
        fields = {
            "device_type": "cpu",
            "workers": arguments.workers,
            "videos": arguments.num_videos,
            "frames": _NUM_FRAMES,
            "size": _SIZE,
        }
        path = append_record("cluster", n=arguments.repeats, results=results, **fields)
        print(f"recorded in {Path(os.path.relpath(path))}")


def _measure(source: Manifest, folder: Path, workers: int, repeats: int) -> Turns[Pool, Sample]:
    """Turns of both."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 (by default Ray's workers wait for all others, ours do not)
    try:
        import ray
    except ImportError as error:
        raise InputError("this benchmark needs Ray: pip install -e '.[cluster]'") from error
    before = set(process_tree(os.getpid()))
    ray.init(
        num_cpus=workers, object_store_memory=_OBJECT_STORE, include_dashboard=False,
        log_to_driver=False, logging_level="ERROR", _node_ip_address="127.0.0.2",
    )  # fmt: skip
    daemons = set(process_tree(os.getpid())) - before
    stores = iter(range(10**6))

    def of_all() -> float:
        return computing_s(process_tree(os.getpid()))

    def without_ray() -> float:
        of_ray = {pid for daemon in daemons for pid in process_tree(daemon)}
        return computing_s(set(process_tree(os.getpid())) - of_ray)

    def turn(pool: Pool) -> Sample:
        computing = without_ray if isinstance(pool, LocalPool) else of_all
        watched, begun = Watched(pool, computing), computing()
        ingest(source, folder / f"store{next(stores)}", StoreSettings(short_side=128), WorkSettings(), watched)
        done, first = watched.done, _FIRST * workers
        clock_s, used_s = (
            (end - start) / (len(done) - first) for start, end in zip(done[first - 1], done[-1], strict=True)
        )
        return Sample(clock_s, used_s, done[0][0], computing() - begun)

    try:
        with open_pool("auto", [source.root]) as pool, Turns({"processes": LocalPool(workers), "ray": pool}) as turns:
            for name, sample in turns.take(repeats, turn):
                told = ", ".join(f"{getattr(sample, key):.2f} {meaning}" for key, meaning in MEANING.items())
                print(f"{name}: {told}", flush=True)
        return turns
    finally:
        ray.shutdown()


def _draw(folder: Path, num_videos: int) -> Manifest:
    """The manifest of so many videos of moving textures."""
    (folder / "raw" / "drawn").mkdir(parents=True)
    width, height = _SIZE
    for number in range(num_videos):
        texture = np.random.default_rng(number).integers(0, 255, (height // 8, width // 8, 3), np.uint8)
        picture = texture.repeat(8, 0).repeat(8, 1)
        frames = (np.roll(picture, (frame, 2 * frame), (0, 1)) for frame in range(_NUM_FRAMES))
        write_video(folder / "raw" / "drawn" / f"{number}.mp4", frames, options={"preset": "ultrafast"})
    index_folder(folder / "raw", folder / "raw.parquet")
    return Manifest.load(folder / "raw.parquet")
