"""The options of `bench_throughput.py plan`, and what it assumes where none is given. Imports no torch, as `options`."""

import argparse
from pathlib import Path

GIGABIT = 1e9 / 8  # bytes
OF_RECORDS = ("gpu_rate", "core_rate", "nvdec_rate", "snippet_bytes", "parameters")  # options that win over records
ASSUMED = {  # of `plan`: option -> (value without it, what it is, unit)
    "gpus_per_node": (8, "GPUs a node", ""),
    "cores_per_node": (96, "cores a node", ""),
    "node_gbit": (200.0, "line of a node", "Gbit/s"),
    "store_gbit": (100.0, "line of the store, of all nodes", "Gbit/s"),
    "batch": (64, "clips a GPU and step", ""),
    "in_flight": (0, "reads in flight a GPU", ""),  # 0: a thread a core, as the engine has it
}


def plan(parser: argparse.ArgumentParser) -> None:
    """The options of `bench_throughput.py plan`."""
    parser.add_argument("--gpus", type=int, nargs="+", default=[8, 64, 512], metavar="N", help="default: 8 64 512")
    parser.add_argument(
        "--latency-ms",
        type=float,
        nargs="+",
        default=[1, 20, 200],
        metavar="MS",
        help="median of a read (default: 1 20 200)",
    )
    parser.add_argument(
        "--tail", type=float, default=4.0, help="99th percentile of a read over its median (default: 4)"
    )
    parser.add_argument("--videos", type=int, default=541_624, help="of an epoch (default: Kinetics-700)")
    parser.add_argument("--manifest", type=Path, help="takes its number of videos instead")
    parser.add_argument("--frames", type=int, default=16, help="from a snippet's first frame to its last (default: 16)")
    parser.add_argument("--gpu-rate", type=float, metavar="CLIPS/S", help="a GPU trains (default: record of `compute`)")
    parser.add_argument(
        "--core-rate", type=float, metavar="CLIPS/S", help="a core decodes (default: record of `decode`)"
    )
    parser.add_argument("--nvdec-rate", type=float, metavar="CLIPS/S",
                        help="a GPU's NVDEC decodes (default: record of `decode_gpu`; none: left out)")  # fmt: skip
    parser.add_argument("--snippet-bytes", type=float, metavar="BYTES", help="of a read (default: record of `ingest`)")
    parser.add_argument("--parameters", type=float, metavar="N", help="of the network (default: counted, the config's)")
    for name, (assumed, what, unit) in ASSUMED.items():
        default = f"{assumed:g}" if assumed else "the cores of a GPU"
        words = f"{what}{', ' if unit else ''}{unit} (default: {default}, assumed)"
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(assumed), metavar="N", help=words)
    parser.add_argument("--clips", type=int, default=400_000, help="of a simulation, at least (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="measurements of each setting (default: %(default)s)")
    parser.add_argument(
        "--no-measure", action="store_true", help="do not hold the simulation against a measurement first"
    )
