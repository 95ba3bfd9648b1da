"""Ingest through a Ray cluster beside this machine's own processes: what Ray adds to a piece of work, and to the start.

    python tools/bench_throughput.py cluster --workers 2

Drawn videos, each other pictures, become stores in turns: by so many processes of this machine, and by a Ray of this machine with
as many cores, which is started for it. Rates are of the pieces after the first of each worker, so that the start (imports, and of
Ray its workers) is told apart, as the seconds until the first piece is done.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bench.material import check_counts
from bench.turns import Turns
from engine.cluster.pool import LocalPool, Pool, open_pool
from engine.data.indexing import index_folder
from engine.data.manifest import Manifest
from engine.data.pyav.encode import write_video
from engine.data.store.index import StoreSettings
from engine.data.store.ingest import WorkSettings, ingest
from engine.errors import InputError
from engine.records import append_record
from engine.results.table import Table

_SIZE, _NUM_FRAMES = (320, 240), 125  # five seconds
_OBJECT_STORE = 200 * 2**20  # bytes


class Watched:
    """A pool that notes when each piece was done, in seconds since it was asked."""

    def __init__(self, pool: Pool) -> None:
        self._pool, self.cpus, self.done_s = pool, pool.cpus, []

    def run(self, function: Callable[[Any], Any], items: Iterable[Any], time_limit_s: float) -> Iterator[Any]:
        """See `Pool`."""
        begun = time.perf_counter()
        for found in self._pool.run(function, items, time_limit_s):
            self.done_s.append(time.perf_counter() - begun)
            yield found


def run(arguments: argparse.Namespace) -> None:
    """Measure, print the table, append a record.

    Raises:
        InputError: an option out of range, or Ray is not installed.
    """
    check_counts(arguments, "num_videos", "workers", "repeats")
    if arguments.num_videos < 2 * arguments.workers:
        raise InputError(f"--num-videos is {arguments.num_videos}: each worker needs two at least")
    with tempfile.TemporaryDirectory() as name:
        source = _draw(Path(name), arguments.num_videos)
        samples = _measure(source, Path(name), arguments.workers, arguments.repeats)
    rates, starts = samples.summaries(lambda sample: sample[0]), samples.summaries(lambda sample: sample[1])
    pairs = zip(samples.samples["processes"], samples.samples["ray"], strict=True)
    ratio = statistics.median(ray[0] / local[0] for local, ray in pairs)
    rows = [[name, *(rates[name][p] for p in ("p20", "p50", "p80")), starts[name]["p50"]] for name in rates]
    print(Table(["", "videos/s p20", "p50", "p80", "s to the first"], rows).text())
    print(f"{ratio:.3f}  ray / processes, median of neighbouring turns")
    if not arguments.no_record:
        fields = {"workers": arguments.workers, "videos": arguments.num_videos, "frames": _NUM_FRAMES, "size": _SIZE}
        path = append_record("cluster", n=arguments.repeats, rates=rates, starts=starts, ratio=ratio, **fields)
        print(f"recorded in {Path(os.path.relpath(path))}")


def _measure(source: Manifest, folder: Path, workers: int, repeats: int) -> Turns[Pool, tuple[float, float]]:
    """(videos/s, seconds to the first) of each turn."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 (by default Ray's workers wait for all others, ours do not)
    try:
        import ray
    except ImportError as error:
        raise InputError("this benchmark needs Ray: pip install 'unseen[cluster]'") from error
    ray.init(
        num_cpus=workers, object_store_memory=_OBJECT_STORE, include_dashboard=False,
        log_to_driver=False, logging_level="ERROR", _node_ip_address="127.0.0.2",
    )  # fmt: skip
    stores = iter(range(10**6))

    def turn(pool: Pool) -> tuple[float, float]:
        watched = Watched(pool)
        ingest(source, folder / f"store{next(stores)}", StoreSettings(short_side=128), WorkSettings(), watched)
        done = watched.done_s
        return (len(done) - workers) / (done[-1] - done[workers - 1]), done[0]

    try:
        with open_pool("auto", [source.root]) as pool, Turns({"processes": LocalPool(workers), "ray": pool}) as turns:
            for name, (rate, start_s) in turns.take(repeats, turn):
                print(f"{name}: {rate:.2f} videos/s, the first after {start_s:.1f} s", flush=True)
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
