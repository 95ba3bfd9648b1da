"""Windows of whole videos: decoded once in order, as tools/extract_features.py does, beside a seek for each window.

One core each, windows a second of computing, no network: the same windows of the same frames, in the same pixels.

    python tools/bench_throughput.py windows --manifest data/videos.parquet --num-videos 20
"""

import argparse
import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from bench.material import check_counts, clip_of, drawn_manifest
from bench.turns import Turns
from engine.data.batch import ClipFormat, SnippetRequest, Video
from engine.data.manifests.manifest import Manifest
from engine.data.pyav.decode import PyAVDecoder
from engine.errors import InputError
from engine.features.reading import PieceMaker, WindowReader, timed_videos
from engine.features.windows import WindowGrid
from engine.records import append_record
from engine.results.table import Table

Videos = list[tuple[Video, float]]
_CALL = 32  # windows that are asked for together, of the third contestant
LEAST_RATIO = 5.0  # of in order over a seek a window, at 16 frames and hop 8


def run(arguments: argparse.Namespace) -> None:
    """Measure, print, record, and hold the limit."""
    check_counts(arguments, "num_videos", "repeats", "hop")
    clip, grid = clip_of(arguments), WindowGrid(16, arguments.hop)
    with tempfile.TemporaryDirectory() as folder:
        videos = _videos(arguments, Path(folder))
        ways: dict[str, Callable[[], int]] = {
            "in order": lambda: in_order(videos, clip, grid),
            "a seek a window": lambda: by_seeks(videos, clip, grid, 1),
            f"{_CALL} windows a call": lambda: by_seeks(videos, clip, grid, _CALL),
        }
        num_windows = {way() for way in ways.values()}  # warm-up
        if len(num_windows) > 1:
            raise RuntimeError(f"the contestants decoded different numbers of windows: {num_windows}")
        turns: Turns[Callable[[], int], float] = Turns(ways)
        for name, rate in turns.take(arguments.repeats, windows_per_second):
            print(f"{name}: {rate:.1f} windows/s of computing", flush=True)
    results = turns.summaries(float)
    ratio = results["in order"]["p50"] / results["a seek a window"]["p50"]
    lines = [[name, *(each[p] for p in ("p20", "p50", "p80"))] for name, each in results.items()]
    print(Table(["windows/s", "p20", "p50", "p80"], lines).text())
    frames = [video.file_frames for video, _ in videos]
    print(f"in order: {ratio:.1f} times a seek a window; {len(videos)} videos of {np.mean(frames):.0f} frames")
    if not arguments.no_record:
        keys = sum(len(video.key_frames) for video, _ in videos)
        append_record(
            "windows", n=arguments.repeats, device_type="cpu", results=results, ratio=ratio, videos=len(videos),
            frames=sum(frames), key_frames=keys, hop=arguments.hop, size=list(videos[0][0].displayed_size),
            windows=num_windows.pop(),
        )  # fmt: skip
    if grid.hop == 8 and ratio < LEAST_RATIO:
        raise InputError(
            f"in order is {ratio:.1f} times as fast as a seek a window: at least {LEAST_RATIO:g} is demanded"
        )


def windows_per_second(way: Callable[[], int]) -> float:
    """Windows a second of computing, of all threads."""
    start = time.process_time()
    return way() / (time.process_time() - start)


def in_order(videos: Videos, clip: ClipFormat, grid: WindowGrid) -> int:
    """Every video once; returns the number of windows."""
    with WindowReader(videos, PieceMaker(clip, grid, _CALL), 1) as pieces:
        return sum(len(piece.spans) for piece in pieces)


def by_seeks(videos: Videos, clip: ClipFormat, grid: WindowGrid, together: int) -> int:
    """So many windows asked for together, as snippets are, of one video after another."""
    decoder, count = PyAVDecoder(clip, torch.device("cpu"), 1), 0
    for video, _ in videos:
        num_windows = 1 + math.ceil(max(0, video.file_frames - grid.length) / grid.hop)
        starts = range(0, video.file_frames, int(grid.hop))[:num_windows]
        requests = [SnippetRequest(video, start, 0.5, 0.5, flip=False) for start in starts]
        for first in range(0, len(requests), together):
            decoded = decoder.decode(requests[first : first + together])
            for reason in decoded.failures.values():
                raise InputError(f"'{video.path}' does not decode: {reason}: name another --manifest")
            count += len(decoded.frames)
    decoder.close()
    return count


def _videos(arguments: argparse.Namespace, folder: Path) -> Videos:
    manifest = Manifest.load(arguments.manifest or drawn_manifest(folder, np.random.default_rng(arguments.seed)))
    rows = np.random.default_rng(arguments.seed).permutation(len(manifest))[: arguments.num_videos]
    return timed_videos(manifest, sorted(rows.tolist()))
