"""A manifest of many millions of rows: from the config to the first batch, and what a rank needs for it.

The manifest is synthetic and its files are real; those over --distinct are hard links to earlier ones, which spares a disk but
lets a cold start read less than it would. Each repetition is a fresh process that goes the way of a training (`load_training`,
`ClipLoader`) with a decoder that decodes nothing, once with the files out of the page cache and once after it.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from engine.data.batch import ClipFormat, DecodedClips, SnippetRequest, VideoDecoder
from engine.data.config import DataConfig, SourceConfig, ValidationConfig
from engine.data.loading.loader import ClipLoader, StreamPlan
from engine.data.manifests.joining import PART_ROWS, write_large
from engine.data.manifests.large_manifest import PATTERN, open_large
from engine.data.manifests.large_part import SOURCE
from engine.data.manifests.manifest import Manifest
from engine.data.sampling.plans import plan_version
from engine.data.sets.sources import class_lookup, load_training
from engine.machine import resident_bytes
from engine.records import append_record, summarise
from engine.results.table import Table

LIMITS = {"ready_s": 5.0, "plan_ms": 10.0, "own_mb": 1000.0}
MEANING = {
    "ready_s": "config to first batch, s",
    "load_s": "of this load_training, s",
    "cpu_s": "processor's time until then, of all threads, s",
    "first_ms": "1,024 positions of the plan at first, ms",
    "first_cpu_ms": "of this processor's time, ms",
    "plan_ms": "the same after 30,000 others, ms",
    "plan_cpu_ms": "of this processor's time, ms",
    "own_mb": "its own memory at its peak, MB",
    "peak_mb": "with mapped files, MB",
}
BATCH, POSITIONS, HELD_OUT = 64, 1024, (0.0, 0.1)
_ID = 11  # letters of a video's name


def run(arguments: argparse.Namespace, template: Manifest) -> None:
    """Write the manifest, measure, print a table, append a record.

    Args:
        template: the rows of a file, of which the names, classes, lengths and contents are drawn anew for each.

    Raises:
        InputError: the folder lies in memory.
    """
    from bench.page_cache import check_forgets, forget  # not where this file is itself a fresh process

    with tempfile.TemporaryDirectory(dir=arguments.folder) as made:
        check_forgets(Path(made), "name a folder on a disk with --folder")
        folder = Path(made) / "large"
        files = -(-arguments.rows // len(template))
        distinct = min(arguments.distinct or files, files)
        size = write_synthetic(template, arguments.rows, distinct, folder)
        samples: dict[str, list[dict[str, float]]] = {}
        for _ in range(arguments.repeats):
            for share in HELD_OUT:
                for cache in ("cold", "warm"):
                    if cache == "cold":
                        forget(folder.iterdir())
                    samples.setdefault(f"held out {share:g}, {cache}", []).append(_in_fresh_process(folder, share))
    results = {
        f"{way}: {name}": summarise([sample[name] for sample in found])
        for way, found in samples.items()
        for name in MEANING
    }
    print(
        f"{arguments.rows:,} rows in files of {size / arguments.rows:.0f} bytes a row, {arguments.repeats} fresh processes a line"
    )
    rows = []
    for name, quantiles in results.items():
        way, _, key = name.rpartition(": ")
        limit = LIMITS.get(key)
        met = "" if limit is None else "yes" if quantiles["p80"] < limit else "NO"
        rows.append(
            [way, MEANING[key], *(quantiles[p] for p in ("p20", "p50", "p80")), f"< {limit:g}" if limit else "", met]
        )
    print(Table(["", "", "p20", "p50", "p80", "limit", "met"], rows).text())
    if not arguments.no_record:
        fields = {
            "device_type": "cpu",
            "rows": arguments.rows,
            "distinct": min(distinct * PART_ROWS, arguments.rows),
            "bytes_a_row": round(size / arguments.rows),
        }
        path = append_record("many_rows", n=arguments.repeats, results=results, limits=LIMITS, **fields)
        print(f"recorded in {Path(os.path.relpath(path))}")


def tables_of(record: Mapping[str, Any]) -> dict[str, Table]:
    """A record as its one table: medians of each way, and in brackets the 80th percentile."""
    from bench.rows import number  # not where this file is itself a fresh process

    results = record["results"]
    ways = list(dict.fromkeys(name.rpartition(": ")[0] for name in results))
    rows = []
    for key, meaning in MEANING.items():
        values = [results[f"{way}: {key}"] for way in ways if f"{way}: {key}" in results]
        limit = f"< {record['limits'][key]:g}" if key in record["limits"] else ""
        if values:
            rows.append([meaning, limit, *(f"{number(value['p50'])} ({number(value['p80'])})" for value in values)])
    return {"": Table(["", "wanted", *ways], rows)}


def write_synthetic(template: Manifest, rows: int, distinct: int, folder: Path) -> int:
    """Write a large manifest; returns the bytes of its files, as if none were a link."""
    write_large([template], folder)
    first = folder / PATTERN.replace("*", "00000")
    table, count = pa.ipc.open_file(first).read_all(), -(-rows // len(template))
    for number in range(1, count):
        file = folder / PATTERN.replace("*", f"{number:05d}")
        left = rows - number * len(template)
        if number < distinct or left < len(template):
            with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
                writer.write_table(
                    _drawn_anew(table.slice(0, left).combine_chunks(), number), max_chunksize=len(template)
                )
        else:
            file.hardlink_to(folder / PATTERN.replace("*", f"{number % distinct:05d}"))
    return sum(file.stat().st_size for file in folder.iterdir())


def _drawn_anew(table: pa.Table, number: int) -> pa.Table:
    generator, count = np.random.default_rng(number), len(table)
    letters = np.frombuffer(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_", np.uint8)
    path = np.empty((count, _ID + 9), np.uint8)
    path[:, :5], path[:, -4:] = np.frombuffer(f"{number:04d}/".encode(), np.uint8), np.frombuffer(b".mp4", np.uint8)
    path[:, 5:-4] = letters[generator.integers(0, 64, (count, _ID), dtype=np.uint8)]
    offsets = pa.py_buffer(np.arange(count + 1, dtype=np.int32) * path.shape[1])
    names = table.column("class_name").chunk(0).dictionary
    classes = pa.array(generator.integers(0, len(names), count, dtype=np.int32))
    contents = generator.integers(-(2**63), 2**63 - 1, count)
    drawn = {
        "path": pa.StringArray.from_buffers(count, offsets, pa.py_buffer(path)),
        "class_name": pa.DictionaryArray.from_arrays(classes, names),
        "content_hash": pa.array(contents),
        SOURCE: pa.array(contents),
    }
    for name, column in drawn.items():
        place = table.schema.get_field_index(name)
        table = table.set_column(place, table.schema.field(place), column)
    return table


def _in_fresh_process(folder: Path, share: float) -> dict[str, float]:
    command = [sys.executable, __file__, str(folder), str(share)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


class _NoDecoder(VideoDecoder):
    """Decodes nothing, at once."""

    name = "none"

    def decode(self, requests: list[SnippetRequest]) -> DecodedClips:
        import torch

        return DecodedClips(torch.zeros(len(requests), 1, 1, 1, 3, dtype=torch.uint8))

    def close(self) -> None:
        pass


class _OwnMemory:
    """The most memory of this process that is no mapped file, looked at 200 times a second; the system keeps no account of it."""

    def __init__(self) -> None:
        self._most, self._is_over = 0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._is_over.wait(0.005):
            self._most = max(self._most, resident_bytes("RssAnon"))

    def close(self) -> int:
        """Bytes."""
        self._is_over.set()
        self._thread.join()
        return max(self._most, resident_bytes("RssAnon"))


def measure(folder: Path, share: float) -> dict[str, float]:
    """One start, in this process, by the names of `MEANING`; MB are 1e6 bytes."""
    memory = _OwnMemory()
    start, cpu = time.perf_counter(), time.process_time()
    config = DataConfig([SourceConfig(str(folder))], validation=ValidationConfig(share))
    data = load_training(config)
    load_s = time.perf_counter() - start
    manifest = data.train.manifest
    stream = StreamPlan(0, BATCH, 0, 1, flip=True, plan=plan_version(config.plan, len(manifest)))
    labels = class_lookup(manifest, data.train.classes)
    loader = ClipLoader(manifest, labels, _NoDecoder(), ClipFormat(), stream, config, weights=data.weights)
    batch = next(loader)
    ready_s = time.perf_counter() - start
    cpu_s = time.process_time() - cpu
    own, peak = memory.close(), resident_bytes("VmHWM")
    loader.close()
    if len(set(batch.video.tolist())) != BATCH or abs(len(manifest) / len(open_large(folder)) - 1 + share) > 0.01:
        raise AssertionError("these are no rows of the manifest")
    taken, of_cpu = [], []
    for turn in range(40):  # elsewhere in the epoch each time
        places = np.arange(POSITIONS) + turn * (loader.epoch_size // 50)
        start, cpu = time.perf_counter(), time.thread_time()
        loader.plan.at(np.full(POSITIONS, turn), places)
        of_cpu.append(1e3 * (time.thread_time() - cpu))
        taken.append(1e3 * (time.perf_counter() - start))
    return {
        "ready_s": ready_s,
        "load_s": load_s,
        "cpu_s": cpu_s,
        "first_ms": float(np.median(taken[:3])),
        "first_cpu_ms": float(np.median(of_cpu[:3])),
        "plan_ms": float(np.median(taken[30:])),
        "plan_cpu_ms": float(np.median(of_cpu[30:])),
        "peak_mb": peak / 1e6,
        "own_mb": own / 1e6,
    }


if __name__ == "__main__":  # a fresh process of `_in_fresh_process`
    print(json.dumps(measure(Path(sys.argv[1]), float(sys.argv[2]))))
