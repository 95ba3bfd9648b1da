"""A manifest as large as Kinetics-700: how long it takes to load, how much memory, how long an epoch's plan.

The manifest is synthetic (paths, classes, frame counts and key frames distributed like those of Kinetics):
the data set itself is not needed. Each repetition is a fresh process: what a training rank sees. Millions of rows are measured as
a large manifest (`many_rows.py`).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from engine.data.manifests.joining import PART_ROWS
from engine.data.manifests.manifest import MANY_ROWS, Manifest
from engine.data.manifests.manifest_table import SCHEMA
from engine.data.sampling.sampler import plan_epoch
from engine.errors import InputError
from engine.machine import resident_bytes
from engine.records import append_record, summarise
from engine.results.table import Table

LIMITS = {"load_s": 1.0, "resident_mb": 300.0, "peak_mb": 300.0, "plan_s": 0.5}
MEANING = {
    "load_s": "Manifest.load, seconds",
    "resident_mb": "resident memory it adds, MB",
    "peak_mb": "the same at the peak of loading, MB",
    "plan_s": "one epoch planned and shared over the ranks, seconds",
}


def run(arguments: argparse.Namespace) -> None:
    """Measure, print a table, append a record.

    Raises:
        InputError: an option out of range.
    """
    for name in ("rows", "repeats", "ranks", "distinct"):
        if getattr(arguments, name) is not None and getattr(arguments, name) < 1:
            raise InputError(f"--{name} is {getattr(arguments, name)}: it must be at least 1")
    if arguments.rows >= MANY_ROWS:
        from bench import many_rows  # not where this file is itself a fresh process

        many_rows.run(arguments, synthetic_manifest(min(arguments.rows, PART_ROWS)))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "manifest.parquet"
        synthetic_manifest(arguments.rows).save(path)
        file_mb = path.stat().st_size / 1e6
        samples = [_measure_in_fresh_process(path, arguments.ranks) for _ in range(arguments.repeats)]
    results = {name: summarise([sample[name] for sample in samples]) for name in MEANING}
    rows = []
    for name, meaning in MEANING.items():
        quantiles = [results[name][p] for p in ("p20", "p50", "p80")]
        rows.append([meaning, *quantiles, f"< {LIMITS[name]:g}", "yes" if quantiles[-1] < LIMITS[name] else "NO"])
    print(
        f"{arguments.rows:,} rows, {file_mb:.1f} MB on disk, {arguments.repeats} fresh processes, {arguments.ranks} ranks"
    )
    print(Table(["", "p20", "p50", "p80", "limit", "met"], rows).text())
    if not arguments.no_record:
        fields = {
            "device_type": "cpu",
            "rows": arguments.rows,
            "ranks": arguments.ranks,
            "file_mb": round(file_mb, 1),
            "limits": LIMITS,
        }
        path = append_record("manifest", n=arguments.repeats, results=results, **fields)
        print(f"recorded in {Path(os.path.relpath(path))}")


def synthetic_manifest(num_rows: int) -> Manifest:
    """A manifest like that of Kinetics-700: 700 classes, clips of about 10 s, a key frame each 30 to 250 frames."""
    generator = np.random.default_rng(0)
    classes = np.array([f"playing instrument number {number:03d}" for number in range(700)])
    class_index = generator.integers(0, len(classes), num_rows)
    split_index = generator.choice(3, num_rows, p=(0.9, 0.04, 0.06))
    splits = np.array(["train", "val", "test"])
    frames = np.where(generator.random(num_rows) < 0.9, 300, generator.integers(16, 300, num_rows)).astype(np.int32)
    alphabet = np.array(list("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"))
    ids = alphabet[generator.integers(0, 64, (num_rows, 11))].view("<U11").ravel()
    starts = generator.integers(0, 300, num_rows)
    paths = [
        f"{splits[s]}/{classes[c]}/{video}_{start:06d}_{start + 10:06d}.mp4"
        for s, c, video, start in zip(split_index, class_index, ids, starts.tolist(), strict=True)
    ]
    distance = generator.integers(30, 251, num_rows)
    num_keys = (frames - 1) // distance + 1
    offsets = np.concatenate([[0], np.cumsum(num_keys)]).astype(np.int32)
    key_frames = (np.arange(offsets[-1]) - np.repeat(offsets[:-1], num_keys)) * np.repeat(distance, num_keys)
    tall = generator.random(num_rows) < 0.1
    columns = {
        "path": pa.array(paths),
        "class_name": _names(class_index, classes),
        "split": _names(split_index, splits),
        "group": _names(np.zeros(num_rows, np.int32), np.array([""])),
        "num_frames": frames,
        "first_frame": np.zeros(num_rows),
        "file_frames": frames,
        "fps": np.full(num_rows, 29.97),
        "width": np.where(tall, 256, 340),
        "height": np.where(tall, 340, 256),
        "rotation": np.zeros(num_rows),
        "codec": _names(np.zeros(num_rows, np.int32), np.array(["h264"])),
        "pixel_format": _names(np.zeros(num_rows, np.int32), np.array(["yuv420p"])),
        "duration": frames / 29.97,
        "segment_start": np.full(num_rows, np.nan),
        "segment_end": np.full(num_rows, np.nan),
        "file_bytes": generator.integers(200_000, 2_000_000, num_rows),
        "key_frames": pa.ListArray.from_arrays(offsets, pa.array(key_frames.astype(np.int32))),
        "key_pts": pa.ListArray.from_arrays(offsets, pa.array(key_frames * 512)),
        "mtime_ns": generator.integers(16 * 10**17, 17 * 10**17, num_rows),
        "content_hash": generator.integers(-(2**63), 2**63 - 1, num_rows),
        "timed_frames": _pairs(np.zeros(num_rows, np.int32), frames),
        "frame_times": _pairs(np.zeros(num_rows), frames / 29.97),
        "oddity": _names(np.zeros(num_rows, np.int32), np.array([""])),
    }
    arrays = [pa.array(columns[field.name]).cast(field.type) for field in SCHEMA]
    return Manifest(pa.Table.from_arrays(arrays, schema=SCHEMA), Path())


def _pairs(first: np.ndarray, last: np.ndarray) -> pa.ListArray:
    offsets = np.arange(0, 2 * len(first) + 1, 2, dtype=np.int32)
    return pa.ListArray.from_arrays(offsets, pa.array(np.stack([first, last], axis=1).ravel()))


def _names(index: np.ndarray, names: np.ndarray) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(index.astype(np.int32)), pa.array(names))


def _measure_in_fresh_process(path: Path, ranks: int) -> dict[str, float]:
    command = [sys.executable, __file__, str(path), str(ranks)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def measure(path: Path, ranks: int) -> dict[str, float]:
    """Load and plan once, in this process; seconds and MB (1e6 bytes) by the names of `MEANING`."""
    before = resident_bytes()
    start = time.perf_counter()
    manifest = Manifest.load(path)
    load_s = time.perf_counter() - start
    after, peak = resident_bytes(), resident_bytes("VmHWM")
    start = time.perf_counter()
    plan = plan_epoch(manifest.num_frames, seed=0, epoch=1)
    shards = [[np.ascontiguousarray(part[rank::ranks]) for part in (plan.video, plan.start)] for rank in range(ranks)]
    plan_s = time.perf_counter() - start
    if sum(len(video) for video, _ in shards) != len(manifest):
        raise AssertionError("the shards are not the epoch")
    return {
        "load_s": load_s,
        "resident_mb": (after - before) / 1e6,
        "peak_mb": (peak - before) / 1e6,
        "plan_s": plan_s,
    }


if __name__ == "__main__":  # a fresh process of `_measure_in_fresh_process`
    print(json.dumps(measure(Path(sys.argv[1]), int(sys.argv[2]))))
