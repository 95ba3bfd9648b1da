"""How long a search without training takes over so many windows that are indexed already: one query, its vector at hand.

    python tools/bench_throughput.py search --windows 1000000

Windows are made up, as find_moments.py keeps them: a thousand scores of length 1, in float16; videos have 600 (five minutes).
"""

import argparse
import resource
import time
from types import SimpleNamespace

import numpy as np

from bench.material import check_counts
from engine.moments.index import GRID
from engine.moments.objects import ObjectIndex, find_moments, looked_for
from engine.records import append_record, summarise

_OBJECTS, _ASKED, _OF_A_VIDEO = 1000, 50, 600


def run(arguments: argparse.Namespace) -> None:
    """Measure, print, record."""
    check_counts(arguments, "windows", "repeats")
    cache = MadeUpIndex(arguments.windows, np.random.default_rng(0))
    query = np.zeros(_OBJECTS, np.float32)
    query[np.random.default_rng(1).permutation(_OBJECTS)[:_ASKED]] = _ASKED**-0.5
    seconds, computed = [], []
    for _ in range(1 + arguments.repeats):  # the first is a warm-up
        begun, cpu = time.perf_counter(), time.process_time()
        index = ObjectIndex(cache)
        find_moments(index, cache.videos, "made up", looked_for(index, cache.videos, query), 5)
        seconds.append(time.perf_counter() - begun)
        computed.append(time.process_time() - cpu)
    results = {"wall_s": summarise(seconds[1:]), "cpu_s": summarise(computed[1:])}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    shown = ", ".join(f"{name} {each['p50']:.2f}" for name, each in results.items())
    print(
        f"{arguments.windows:,} windows: {shown}; features {cache.features.nbytes / 1e9:.2f} GB, peak {peak / 1e9:.2f} GB"
    )
    if not arguments.no_record:
        sizes = {"windows": arguments.windows, "feature_bytes": cache.features.nbytes, "peak_bytes": peak}
        append_record("search", n=arguments.repeats, device_type="cpu", results=results, **sizes)


class MadeUpIndex:
    """What a search reads of a `FeatureCache`."""

    def __init__(self, count: int, draws: np.random.Generator) -> None:
        self.features = np.empty((count, _OBJECTS), np.float16)
        for first in range(0, count, 10_000):
            scores = draws.random((min(10_000, count - first), _OBJECTS), np.float32) ** 4
            self.features[first : first + 10_000] = scores / np.linalg.norm(scores, axis=1, keepdims=True)
        self.video_of = np.arange(count) // _OF_A_VIDEO
        self.videos = tuple(f"{place}.mp4" for place in range(self.video_of[-1] + 1))

    def __getitem__(self, video: str) -> SimpleNamespace:
        first = int(video.partition(".")[0]) * _OF_A_VIDEO
        features = self.features[first : first + _OF_A_VIDEO]
        starts = np.arange(len(features)) * GRID.hop
        return SimpleNamespace(
            features=features, start_s=starts, end_s=starts + GRID.length, duration_s=len(features) * GRID.hop
        )
