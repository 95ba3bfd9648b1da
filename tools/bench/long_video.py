"""A long video made of real clips, searched whole by tools/find_moments.py: memory, speed, and whether what is found is right.

    python tools/bench_throughput.py long_video --manifest data/clips.parquet --minutes 15 30 120

Clips of a manifest's classes in a row, a new order of the classes each round, as one H.264 file; a shorter video is the
beginning of a longer one. Every class is asked for by its name. A found moment is right if it overlaps a clip of that class with
an IoU of at least 0.5; the control holds the same moments against the clips of each other class.
"""

import argparse
import itertools
import json
import math
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.material import check_counts, check_even
from bench.resources import run_to_end
from engine.data.manifests.manifest import Manifest
from engine.data.pyav.encode import write_video
from engine.data.pyav.opening import open_video
from engine.errors import InputError
from engine.moments.measures import iou
from engine.records import append_record
from engine.results.table import Table
from engine.semantics.words import split_name

_FPS, _IOU, _TOP = 25, 0.5, 5
_TOOL = Path(__file__).parent.parent / "find_moments.py"


@dataclass(frozen=True)
class Searched:
    """One video. peak_bytes: resident, of the program and its processes; what they share, and files that they map, count in each.

    first, any: share of the best moments, and of all, that are right. control: of the best, had another class been asked for.
    """

    minutes: float
    frames: int
    clips: int
    queries: int
    wall_s: float
    cpu_s: float
    peak_bytes: int
    index_bytes: int
    first: float
    any: float
    control: float


def run(arguments: argparse.Namespace) -> None:
    """Measure each length, print, record."""
    check_counts(arguments, "width", "height")
    check_even(arguments, "width", "height")
    if bad := [minutes for minutes in arguments.minutes if not 1 <= minutes * 60 * _FPS < math.inf]:
        raise InputError(f"--minutes is {bad[0]:g}: it must be more than 0, and a frame at least")
    with tempfile.TemporaryDirectory() as folder:
        found = [search_one(arguments, minutes, Path(folder)) for minutes in sorted(arguments.minutes)]
    if not arguments.no_record:
        append_record("long_video", n=1, size=[arguments.width, arguments.height], lengths=[asdict(e) for e in found])


def search_one(arguments: argparse.Namespace, minutes: float, folder: Path) -> Searched:
    """Make a video so long, find every class's moments in it, and hold them against the truth."""
    clips: list[tuple[str, float, float]] = []
    video, size = folder / f"{minutes:g}.mp4", (arguments.width, arguments.height)
    order = clips_in_a_row(Manifest.load(arguments.manifest), np.random.default_rng(arguments.seed))
    pictures = itertools.islice(shown(order, size, clips), round(minutes * 60 * _FPS))
    frames = write_video(video, pictures, fps=_FPS)
    clips[-1] = (*clips[-1][:2], frames / _FPS)
    classes = sorted({name for name, *_ in clips})
    index = folder / f"{minutes:g}"
    queries = [word for name in classes for word in ("--query", " ".join(split_name(name, frozenset())))]
    words = [video, *queries, "--index", index, "--json", "--top", _TOP]
    with (folder / "answer.json").open("w+") as said:
        spent = run_to_end(list(map(str, [sys.executable, _TOOL, *words])), said)
        if spent.status:
            raise InputError(f"{_TOOL} ended with {spent.status}, as told above")
        said.seek(0)
        answer = json.load(said)
    moments = [
        np.array([(each["start_s"], each["end_s"]) for each in of_class])
        for _, of_class in itertools.groupby(answer, key=lambda each: each["query"])
    ]
    shares = judge(moments, [np.array([clip[1:] for clip in clips if clip[0] == name]) for name in classes])
    kept = sum(path.stat().st_size for path in index.glob("*.npy"))
    video.unlink()
    cost = (spent.clock_s, spent.computing_s, spent.peak_bytes, kept)
    found = Searched(frames / _FPS / 60, frames, len(clips), len(classes), *cost, *shares)
    print(tables_of({"lengths": [asdict(found)]})[""].text(), flush=True)
    return found


def clips_in_a_row(manifest: Manifest, draws: np.random.Generator) -> Iterator[tuple[str, Path]]:
    """Without end: classes in a new order each round, none twice in a row, of each any clip."""
    of_class: dict[str, list[Path]] = {}
    for name, path in zip(manifest.strings("class_name").tolist(), manifest.paths, strict=True):
        of_class.setdefault(name, []).append(manifest.root / path)
    if len(of_class) < 2:
        raise InputError(f"'{manifest.source}' has {len(of_class)} class: name a --manifest of at least 2")
    last = None
    while True:
        names = draws.permutation(sorted(of_class)).tolist()
        names = names[::-1] if names[0] == last else names
        for last in names:
            yield last, of_class[last][draws.integers(len(of_class[last]))]


def shown(
    order: Iterator[tuple[str, Path]], size: tuple[int, int], clips: list[tuple[str, float, float]]
) -> Iterator[np.ndarray]:
    """Their frames in RGB, all of one size; `clips` gets the class, start and end in seconds of each that is begun."""
    count = 0
    for name, path in order:
        clips.append((name, count / _FPS, 0.0))
        with open_video(path, time_limit_s=60) as container:
            for frame in container.decode(video=0):
                count += 1
                yield frame.reformat(*size, "rgb24").to_ndarray()
        clips[-1] = (name, clips[-1][1], count / _FPS)


def judge(moments: Sequence[np.ndarray], true: Sequence[np.ndarray]) -> tuple[float, float, float]:
    """Shares that are right: of the best moments, of all, and of the best held against each other class.

    Args:
        moments: of each class asked for float [K, 2], seconds, the best first. true: of each class float [T, 2].
    """
    best = np.array([[iou(each[:1], other).max() >= _IOU for other in true] for each in moments])
    every = [iou(each, own).max(axis=1) >= _IOU for each, own in zip(moments, true, strict=True)]
    others = best[~np.eye(len(true), dtype=bool)]
    return float(np.diag(best).mean()), float(np.concatenate(every).mean()), float(others.mean())


def tables_of(record: Mapping[str, Any]) -> dict[str, Table]:
    """A record as its one table: a column for each length."""
    columns = [_column(Searched(**each)) for each in record["lengths"]]
    rows = [[name, *(column[name] for column in columns)] for name in columns[0]]
    return {"": Table([""] * (1 + len(columns)), rows)}


def _column(found: Searched) -> dict[str, str]:
    seconds = found.minutes * 60
    return {
        "video": f"{found.minutes:.0f} min, {found.clips:,} clips, {found.queries} queries",
        "times real time": f"{seconds / found.wall_s:.1f} by the clock, {seconds / found.cpu_s:.1f} of one core's computing",
        "peak memory": f"{found.peak_bytes / 1e6:,.0f} MB",
        "index": f"{found.index_bytes / 1e6:.1f} MB, {found.index_bytes / 1e6 / seconds * 3600:.1f} an hour",
        "right": f"{found.first:.3f} of the best moments, {found.any:.3f} of all; other classes {found.control:.3f}",
    }
