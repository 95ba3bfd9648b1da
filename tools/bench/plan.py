"""What a cluster needs, calculated from what was measured: what saturates first, cores, network and storage, hours an epoch.

    python tools/bench_throughput.py plan                                  # 8, 64 and 512 GPUs
    python tools/bench_throughput.py plan --gpus 32 --core-rate 190 --snippet-bytes 60000 --videos 100000000
    python tools/bench_throughput.py plan --no-measure                     # without holding the simulation against a measurement

Every figure says where it is from: a record (measured there), what follows from records (derived), what was assumed, or
an option (given). A discrete-event simulation (readers with latency, bounded reads in flight, shared lines, cores, steps in
lockstep) says what the figures come to together. First the same simulation is held against the engine itself, reading on this
machine from a store whose reads are made late, beside a step of fixed length.
"""

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from math import ceil, inf
from pathlib import Path
from typing import Any

from bench.delayed import drawn_store, measure
from bench.material import check_counts
from bench.needs import Quantity, cluster_of, figures, limits, needs
from bench.plan_options import ASSUMED
from bench.plan_tables import tables_of
from bench.rows import Row, line, number
from bench.simulation import Cluster, Latency, simulate
from engine.data.manifests.manifest import Manifest
from engine.errors import InputError
from engine.machine import usable_cores
from engine.records import GrowingRecord, summarise

_LATENCIES_MS, _IN_FLIGHT, _TAIL = (5, 20, 80), (2, 8, 32), 4.0  # of the settings that are measured
_STEP = {"batch": 16, "step_s": 0.02}
_RUN_S = 5.0  # of one measurement
_LEAST_STEPS = 12  # of a simulated cluster
_STEPS = 400  # simulated beside a measurement


def run(arguments: argparse.Namespace) -> None:
    """Measure and simulate, then calculate; print and record each part as it comes."""
    check_counts(arguments, "repeats", "videos", "clips", "frames")
    _check(arguments)
    record = None if arguments.no_record else GrowingRecord("plan")
    values: dict[str, Any] = {"n": arguments.repeats, "results": [], "tail": arguments.tail}
    known = figures(arguments)
    videos = len(Manifest.load(arguments.manifest)) if arguments.manifest else arguments.videos
    values |= {"figures": [asdict(each) for each in known.values()], "videos": videos}
    values["needs"] = [needs(known, gpus, videos) for gpus in arguments.gpus]
    values["simulated"] = []
    for gpus in arguments.gpus:
        for latency_ms in arguments.latency_ms:
            values["simulated"].append(
                simulated(known, gpus, Latency(latency_ms / 1e3, arguments.tail), arguments.clips)
            )
    if not arguments.no_measure:
        values["results"] = [asdict(row) for row in measured(arguments.repeats)]
    for part, table in tables_of(values).items():
        print(f"\n{part}\n{table.text()}", flush=True)
    if record is not None:
        record.write(**values)


def _check(arguments: argparse.Namespace) -> None:
    """Refuse what no cluster can be made of.

    Raises:
        InputError: naming the option.
    """
    per_node = arguments.gpus_per_node or ASSUMED["gpus_per_node"][0]
    for gpus in arguments.gpus:
        if gpus < 1 or (gpus > per_node and gpus % per_node):
            raise InputError(f"--gpus {gpus}: give at most --gpus-per-node {per_node}, or a multiple of it")
    if not (1 <= arguments.tail < inf and all(0 < each < inf for each in arguments.latency_ms)):
        raise InputError("--latency-ms must be more than 0, and --tail at least 1")


def simulated(known: Mapping[str, Quantity], gpus: int, latency: Latency, clips: int) -> dict[str, Any]:
    """What so many GPUs do with reads of that latency: the least limit by formula, and all limits together by simulation: as
    it is, with twice the reads in flight that the GPUs need by Little's law, and with so many batches begun that they last
    through the slowest read of a hundred steps."""
    cluster = cluster_of(known, gpus, latency)
    bounds = limits(cluster)
    first = min(bounds, key=bounds.__getitem__)
    needed = known["gpu"].value * (latency.mean_s + cluster.decode_s)
    threads = replace(cluster, in_flight=max(cluster.in_flight, ceil(2 * needed)))
    of_step = cluster.nodes * cluster.ranks_per_node * cluster.batch
    steps, slowest_s = max(_LEAST_STEPS, clips // of_step), latency.slowest_s(100 * of_step)
    ahead = replace(threads, begun=cluster.begun + int(slowest_s / cluster.step_s))
    rates = {"default": simulate(cluster, steps), "threads": simulate(threads, steps), "ahead": simulate(ahead, steps)}
    return {
        "gpus": gpus, "latency_ms": 1e3 * latency.median_s, "first": first, "limit": bounds[first], "clips_per_s": rates,
        "busy": {name: rate / bounds["GPUs"] for name, rate in rates.items()}, "needed_in_flight": needed,
        "batches_begun": ahead.begun,
    }  # fmt: skip


def measured(repeats: int) -> list[Row]:
    """Simulation and measurement of the same settings, in turns; a row each, as it comes."""
    with tempfile.TemporaryDirectory() as folder:
        store = drawn_store(Path(folder))
        base = _calibrated(store, repeats)
        settings = [
            replace(base, in_flight=count, latency=Latency(milliseconds / 1e3, _TAIL), **_STEP)
            for milliseconds in _LATENCIES_MS
            for count in _IN_FLIGHT
        ]
        expected = [simulate(setting, _STEPS) for setting in settings]
        steps = [max(12, int(rate * _RUN_S / setting.batch)) for rate, setting in zip(expected, settings, strict=True)]
        found: list[list[float]] = [[] for _ in settings]
        for seed in range(repeats):
            for index, setting in enumerate(settings):
                found[index].append(measure(store, setting, steps[index], seed))
    rows = [_row(*each) for each in zip(settings, expected, found, strict=True)]
    for row in rows:
        print(line(row), flush=True)
    return rows


def _calibrated(store: Manifest, repeats: int) -> Cluster:
    """What decoding takes here without latency: seconds of a clip, and how many are decoded at a time."""
    one = Cluster(1, 1, 16, 0.0, 1, Latency(0.0), 1, 0.0)
    alone, together = (
        summarise([measure(store, replace(one, in_flight=threads), 40, seed) for seed in range(repeats)])["p50"]
        for threads in (1, usable_cores())
    )
    print(f"decoding without latency: {number(alone)} clips/s by one thread, {number(together)} by {usable_cores()}")
    return replace(one, cores=max(1, round(together / alone)), decode_s=1 / alone)


def _row(setting: Cluster, expected: float, found: Sequence[float]) -> Row:
    rate = summarise(found)["p50"]
    values = {"clips_per_s": rate, "simulated_clips_per_s": expected, "over_simulated": rate / expected}
    case, variant = f"{1e3 * setting.latency.median_s:g} ms", f"{setting.in_flight} in flight"
    return Row(case, variant, "", summarise([setting.batch / each for each in found]), values)
