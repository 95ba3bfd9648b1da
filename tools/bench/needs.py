"""The figures a plan stands on, each with where it is from, and what follows from them without a simulation."""

import argparse
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from bench.plan_options import ASSUMED, GIGABIT, OF_RECORDS
from bench.publish import Record, is_of_gpu, where_measured
from bench.simulation import Cluster, Latency
from engine.data.batch import ClipFormat
from engine.errors import InputError
from engine.files.json_lines import read_json_lines
from engine.models.config import ModelConfig
from engine.models.embedder import build_embedder
from engine.records import RECORDS

_TRAINER = "engine flat compiled"  # what model.form and train.compile `auto` take on a GPU
_NETWORK = ModelConfig()
_WORD_DIM = 300  # of word2vec and GloVe, as published
_GRADIENT_BYTES = 4  # of a parameter: gradients are fp32 in every precision


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number of the plan. source: "measured (...)", "derived (...)", "assumed" or "given" (an option)."""

    name: str
    value: float
    unit: str
    source: str


def figures(arguments: argparse.Namespace) -> dict[str, Quantity]:
    """Every figure by its short name; options win over records.

    Raises:
        InputError: no record and no option has it.
    """
    batch = arguments.batch or ASSUMED["batch"][0]
    given = {name: getattr(arguments, name) for name in (*OF_RECORDS, *ASSUMED)}
    for name, value in given.items():
        if value is not None and not 0 < value < math.inf:
            raise InputError(f"--{name.replace('_', '-')} is {value:g}: it must be more than 0")
    found = {
        "gpu": _figure("clips/s a GPU trains", given["gpu_rate"], "clips/s", lambda: _gpu_rate(batch)),
        "core": _figure("clips/s a core decodes", given["core_rate"], "clips/s", _core_rate),
        "nvdec": _figure("clips/s a GPU's NVDEC decodes", given["nvdec_rate"], "clips/s", _nvdec_rate),
        "bytes": _figure("bytes a snippet", given["snippet_bytes"], "bytes", lambda: _snippet_bytes(arguments.frames)),
        "parameters": _figure("parameters", given["parameters"], "", _parameters),
    }
    for name, (assumed, called, unit) in ASSUMED.items():
        value = given[name]
        found[name] = Quantity(
            called, assumed if value is None else value, unit, "assumed" if value is None else "given"
        )
    if given["in_flight"] is None:
        threads = max(1, int(found["cores_per_node"].value / found["gpus_per_node"].value))
        found["in_flight"] = replace(
            found["in_flight"], value=threads, source="derived (data.decode_threads: a thread a core)"
        )
    return found


def cluster_of(known: Mapping[str, Quantity], gpus: int, latency: Latency) -> Cluster:
    """So many GPUs, in whole nodes or in one that is smaller."""
    per_node = min(gpus, int(known["gpus_per_node"].value))
    cores = max(1, int(known["cores_per_node"].value / known["gpus_per_node"].value))
    decoding = cores * known["core"].value + known["nvdec"].value
    nodes, batch = -(-gpus // per_node), int(known["batch"].value)
    line = known["node_gbit"].value * GIGABIT
    step_s = max(batch / known["gpu"].value, gradient_bytes(known, nodes) / line)
    return Cluster(
        nodes, per_node, batch, step_s, int(known["in_flight"].value), latency, cores, cores / decoding, known["bytes"].value,
        line, known["store_gbit"].value * GIGABIT,
    )  # fmt: skip


def limits(cluster: Cluster) -> dict[str, float]:
    """Clips/s of all ranks that each part allows where no other holds it back."""
    ranks = cluster.nodes * cluster.ranks_per_node
    of_bytes = cluster.snippet_bytes or 1.0
    return {
        "GPUs": ranks * cluster.batch / cluster.step_s,
        "reads in flight": ranks
        * min(cluster.in_flight, cluster.begun * cluster.batch)
        / (cluster.latency.mean_s + cluster.decode_s),
        "cores": ranks * cluster.cores / cluster.decode_s,
        "nodes' lines": cluster.nodes * cluster.node_rate / of_bytes,
        "the store's line": cluster.store_rate / of_bytes,
    }


def gradient_bytes(known: Mapping[str, Quantity], nodes: int) -> float:
    """That leave a node in a step: a ring over the nodes sends each gradient 2 (n - 1) / n times; within a node is NVLink."""
    return 2 * (nodes - 1) / nodes * known["parameters"].value * _GRADIENT_BYTES


def needs(known: Mapping[str, Quantity], gpus: int, videos: int) -> dict[str, Any]:
    """What keeps so many GPUs busy: clips/s, cores a GPU beside NVDEC, bytes/s of a node's line and of the store's, and the
    seconds of an epoch."""
    per_node = min(gpus, int(known["gpus_per_node"].value))
    nodes, rate, batch = -(-gpus // per_node), known["gpu"].value, known["batch"].value
    step_s, sent = batch / rate, gradient_bytes(known, nodes)
    return {
        "gpus": gpus, "nodes": nodes, "clips_per_s": gpus * rate,
        "cores": max(0.0, rate - known["nvdec"].value) / known["core"].value,
        "read_rate": per_node * rate * known["bytes"].value, "store_rate": gpus * rate * known["bytes"].value,
        "gradient_bytes": sent, "gradient_rate": sent / step_s,
        "gradient_share": sent / (known["node_gbit"].value * GIGABIT * step_s), "epoch_s": videos / (gpus * rate),
    }  # fmt: skip


def _figure(name: str, given: float | None, unit: str, find: Any) -> Quantity:
    if given is not None:
        return Quantity(name, given, unit, "given")
    value, source = find()
    return Quantity(name, value, unit, source)


def _newest(name: str) -> Iterator[Record]:
    return reversed(list(read_json_lines(RECORDS / f"{name}.jsonl")))


def _gpu_rate(batch: int) -> tuple[float, str]:
    """Of the network and clips whose parameters are counted: the config's."""
    clip = ClipFormat()
    setting = {"backbone": _NETWORK.backbone, "width": _NETWORK.width, "frames": clip.num_frames, "crop": clip.crop}
    for record in _newest("compute"):
        rows = [row for row in record["results"] if row["variant"] == _TRAINER and row["seconds"]]
        is_of_setting = all(record.get(key) == value for key, value in {**setting, "batch": batch}.items())
        if is_of_gpu(record) and is_of_setting and rows:
            return rows[0]["values"]["clips_per_s"], _measured("compute", record, f"{_TRAINER}, {record['title']}")
    network = f"{_NETWORK}, clips of {clip.num_frames}x{clip.crop}x{clip.crop}"
    raise InputError(
        f"no record of `compute` on a GPU with {batch} clips a step ({network}): give --gpu-rate CLIPS/S, or --batch"
    )


def _core_rate() -> tuple[float, str]:
    for record in _newest("decode"):
        if record["threads"] == 1 and not record["cold"] and not record["drawn"] and "store" in record["computing"]:
            what = f"store at a short side of {record['short_side']}, a second of computing"
            return record["computing"]["store"]["p50"], _measured("decode", record, what)
    raise InputError("no record of `decode` from a store: give --core-rate CLIPS/S")


def _nvdec_rate() -> tuple[float, str]:
    for record in _newest("decode_gpu"):
        if record["device"]["gpus"] and "DALI store" in record["results"]:
            return record["results"]["DALI store"]["p50"], _measured("decode_gpu", record, "DALI, store")
    return 0.0, "not measured yet: left out"


def _snippet_bytes(frames: int) -> tuple[float, str]:
    """A snippet reads whole GOPs: of a start that is equally often at each frame, frames + GOP - 1 frames in the mean."""
    for record in _newest("ingest"):
        default = next((each for each in record["settings"] if each["settings"] == "default"), None)
        if default and not record["drawn"] and record.get("default", {}).get("gop"):
            read = frames + record["default"]["gop"] - 1
            what = f"{default['bytes/frame']:.0f} bytes a frame x {read} frames of whole GOPs"
            return default["bytes/frame"] * read, "derived: " + _measured("ingest", record, what)
    raise InputError("no record of `ingest` of real videos: give --snippet-bytes BYTES")


def _parameters() -> tuple[float, str]:
    count = sum(each.numel() for each in build_embedder(_NETWORK, ClipFormat(), _WORD_DIM).parameters())
    return float(count), f"derived (counted: {_NETWORK.backbone}, width {_NETWORK.width})"


def _measured(name: str, record: Record, what: str) -> str:
    return f"measured ({name} {record['time'][:16]}, {where_measured(record)}; {what})"
