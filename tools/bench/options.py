"""The command line of `bench_throughput.py`, and the names that it and the benchmarks share.

Nothing is imported here that imports torch, which takes seconds: tests/tools/test_help.py.
"""

import argparse
import ast
import dataclasses
from pathlib import Path

from bench.plan_options import plan
from bench.suites import BASELINES, CPU_TRAINERS, ENGINE, GPU_TRAINERS, SUITES, part_name
from engine.errors import InputError
from engine.models.config import ModelConfig
from engine.records import RECORDS
from engine.tasks.masked.config import KINDS
from engine.terminal.command_line import Parser

KINETICS_700 = 541_624  # videos
SHARED_BYTES = {80: 166_912, 89: 101_376, 90: 232_448, 100: 232_448}  # that a block may have, by compute capability
PRECISIONS = ("fp32", "bf16", "fp16")
_EQUAL_CRF = 21  # of HEVC: the PSNR of H.264 at the default of 20 (benchmark `ingest`, UCF101 at a short side of 128)


def read(about: str) -> argparse.Namespace:
    """The command line of bench_throughput.py.

    Raises:
        InputError: a wrong option, or not one thing to do.
    """
    arguments = build_parser(about).parse_args()
    if (arguments.part or arguments.skip) and not arguments.suite:
        raise InputError("--part and --skip name parts of a suite: name the suite with --suite")
    chosen = [arguments.benchmark, arguments.suite, arguments.markdown]
    if sum(bool(each) for each in chosen) != 1:
        raise InputError("name one benchmark, one --suite, or --markdown; --help lists them")
    return arguments


def build_parser(about: str) -> argparse.ArgumentParser:
    """The whole command line; `about` is what --help says first."""
    parser = Parser(description=about)
    parser.add_argument("--suite", choices=SUITES, help="every benchmark that says something about such a machine")
    parts = sorted({part_name(words) for suite in SUITES.values() for words in suite})
    parser.add_argument("--part", choices=parts, action="append", help="only this part of the suite; may be repeated")
    parser.add_argument("--skip", choices=parts, action="append", help="not this part; may be repeated")
    parser.add_argument("--markdown", action="store_true",
                        help="print the newest record of each benchmark below as tables; other programs' are left out")  # fmt: skip
    parser.add_argument(
        "--out", type=Path, default=RECORDS.parent, help="for records and pictures (default: benchmarks)"
    )
    commands = parser.add_subparsers(dest="benchmark", metavar="BENCHMARK")
    for name in BENCHMARKS:
        description = _docstring(name)
        command = commands.add_parser(
            name,
            help=description.splitlines()[0],
            description=description,
        )
        add_options(name, command)
    return parser


def add_options(name: str, parser: argparse.ArgumentParser) -> None:
    """The options of a benchmark: its own, and that of all."""
    BENCHMARKS[name](parser)
    parser.add_argument("--no-record", action="store_true", help="print only, append nothing to benchmarks/records")


def _docstring(name: str) -> str:
    """What a benchmark's module says of itself, read without importing it."""
    return ast.get_docstring(ast.parse(Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8")))


def _material(parser: argparse.ArgumentParser, *, num_videos: int, snippets: int) -> None:
    """The options that `bench.material.prepare` reads, with these defaults."""
    parser.add_argument("--manifest", type=Path, help="of raw videos (default: a few drawn ones, groups of 250 frames)")
    parser.add_argument(
        "--num-videos", type=int, default=num_videos, help="taken from the manifest at random (default: %(default)s)"
    )
    parser.add_argument("--snippets", type=int, default=snippets, help="decoded in one run (default: %(default)s)")
    parser.add_argument("--short-side", type=int, default=128, help="of store and snippets, pixels (default: 128)")
    parser.add_argument("--crop", type=int, default=112, help="of the snippets, pixels (default: 112)")
    parser.add_argument("--seed", type=int, default=0, help="of videos and snippets (default: 0)")


def _device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: a GPU if any")


def manifest(parser: argparse.ArgumentParser) -> None:
    """The options of `bench_throughput.py manifest`."""
    parser.add_argument("--rows", type=int, default=KINETICS_700, help="videos in the manifest (default: Kinetics-700)")
    parser.add_argument(
        "--distinct", type=int, metavar="N",
        help="of 2,000,000 rows and more: files of a million rows that are written; the others are links to them (default: all)",
    )  # fmt: skip
    parser.add_argument(
        "--folder", type=Path, help="where such a manifest is written meanwhile (default: the system's)"
    )
    parser.add_argument("--repeats", type=int, default=7, help="fresh processes (default: 7)")
    parser.add_argument("--ranks", type=int, default=8, help="ranks the epoch is shared over (default: 8)")


def decode(parser: argparse.ArgumentParser) -> None:
    """The options of `bench_throughput.py decode`."""
    _material(parser, num_videos=60, snippets=192)
    parser.add_argument("--repeats", type=int, default=7, help="runs of each contestant (default: 7)")
    parser.add_argument(
        "--threads", type=int, default=1, help="cores; above 1 adds the engine with as many threads (default: 1)"
    )
    parser.add_argument("--cold", action="store_true", help="ask the system to forget the files before every run")


def decode_gpu(parser: argparse.ArgumentParser) -> None:
    """The options of `bench_throughput.py decode_gpu`."""
    _material(parser, num_videos=200, snippets=2048)
    parser.add_argument("--batch", type=int, default=64, help="snippets of one call (default: 64)")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each contestant (default: 5)")
    parser.add_argument("--threads", type=int, help="of each contestant (default: this process's cores)")
    parser.add_argument(
        "--hevc",
        type=int,
        nargs="?",
        const=_EQUAL_CRF,
        metavar="CRF",
        help="also ingest with --codec hevc --crf CRF (default: %(const)s), and decode that",
    )
    parser.add_argument(
        "--limit", type=float, default=600.0, metavar="S", help="begin no further run after (default: 600)"
    )
    parser.add_argument("--needed", type=float, help="clips/s that the network eats on this GPU (see `compute`)")


def ingest(parser: argparse.ArgumentParser) -> None:
    """The options of `bench_throughput.py ingest`."""
    _material(parser, num_videos=15, snippets=96)
    parser.add_argument("--repeats", type=int, default=5, help="runs of each contestant (default: 5)")
    parser.add_argument("--variants", type=int, help="settings tried (default: all)")


def cluster(parser: argparse.ArgumentParser) -> None:
    """The options of `bench_throughput.py cluster`."""
    parser.add_argument("--workers", type=int, default=2, help="of either (default: %(default)s)")
    parser.add_argument("--num-videos", type=int, default=48, help="of five seconds (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="turns of each (default: %(default)s)")


def storage(parser: argparse.ArgumentParser) -> None:
    """The options of `bench_throughput.py storage`."""
    add = parser.add_argument
    add("--latency", type=float, default=50.0, metavar="MS", help="of every answer (default: 50)")
    add("--failures", type=float, default=0.01, metavar="SHARE", help="of the requests that fail (default: 0.01)")
    add("--reads", type=int, default=64, help="in flight: data.remote.reads_in_flight (default: %(default)s)")
    add(
        "--only",
        choices=("http", "s3", "moto"),
        action="append",
        help="beside local files; may be repeated (default: all)",
    )
    add("--rounds", type=int, default=7, help="turns of each contestant (default: %(default)s)")
    add("--batches", type=int, default=40, help="timed in one turn (default: %(default)s)")
    add("--batch", type=int, default=64, help="snippets of one (default: %(default)s)")
    add("--threads", type=int, help="that decode (default: the cores that the readers have)")
    add("--apart", action="store_true",
        help="servers on the last core and readers on the others, as if the servers were other machines (Linux)")  # fmt: skip
    add("--num-videos", type=int, default=192, help="drawn, of 64 frames (default: %(default)s)")
    add("--snippets", type=int, default=0, metavar="N",
        help="then read so many in one stream; memory after a tenth of them and at the end (default: 0, none)")  # fmt: skip


def windows(parser: argparse.ArgumentParser) -> None:
    """The options of `bench_throughput.py windows`."""
    parser.add_argument("--manifest", type=Path, help="of raw videos (default: a few drawn ones, groups of 250 frames)")
    parser.add_argument("--num-videos", type=int, default=8, help="taken at random (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each contestant (default: %(default)s)")
    parser.add_argument("--hop", type=int, default=8, help="frames from one window to the next (default: %(default)s)")
    parser.add_argument("--short-side", type=int, default=128, help="of the windows, pixels (default: 128)")
    parser.add_argument("--crop", type=int, default=112, help="of the windows, pixels (default: 112)")
    parser.add_argument("--seed", type=int, default=0, help="of the videos (default: 0)")


def names(parser: argparse.ArgumentParser) -> None:
    """The options of `bench_throughput.py names`."""
    parser.add_argument("--model", default="installed", help="installed (the default) or installed:lite2")
    parser.add_argument("--manifest", type=Path, help="of raw videos (default: a few drawn ones)")
    parser.add_argument("--num-videos", type=int, default=8, help="taken at random (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each part (default: %(default)s)")


def search(parser: argparse.ArgumentParser) -> None:
    """The options of `bench_throughput.py search`."""
    parser.add_argument("--windows", type=int, default=1_000_000, help="that are searched (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=7, help="searches (default: %(default)s)")


def long_video(parser: argparse.ArgumentParser) -> None:
    """The options of `bench_throughput.py long_video`."""
    parser.add_argument("--manifest", type=Path, required=True, help="of clips that have classes")
    parser.add_argument(
        "--minutes", type=float, nargs="+", default=[15, 30, 120], metavar="M", help="default: 15 30 120"
    )
    parser.add_argument("--width", type=int, default=320, help="of the video, pixels (default: %(default)s)")
    parser.add_argument("--height", type=int, default=240, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of the clips' order (default: 0)")


def compute(parser: argparse.ArgumentParser) -> None:
    """The options of `bench_throughput.py compute`."""
    known = dataclasses.fields(ModelConfig)[0].metadata["choices"]
    backbones = [name for name in known if "*" not in name]
    _device(parser)
    parser.add_argument("--backbone", choices=backbones, default="r2plus1d_18", help="default: r2plus1d_18")
    parser.add_argument("--width", type=int, default=None, help="its channels (default: 64, published; 16 on a CPU)")
    parser.add_argument("--frames", type=int, default=None, help="of a clip (default: 16 on a GPU, 8 on a CPU)")
    parser.add_argument("--crop", type=int, default=None, help="its side (default: 112 on a GPU, 56 on a CPU)")
    parser.add_argument("--batch", type=int, default=None, help="clips of a step (default: 64 on a GPU, 4 on a CPU)")
    parser.add_argument("--steps", type=int, default=None, help="timed steps (default: 50 on a GPU, 7 on a CPU)")
    parser.add_argument(
        "--only",
        choices=dict.fromkeys(CPU_TRAINERS + GPU_TRAINERS),
        action="append",
        help="only this trainer; may be repeated",
    )
    parser.add_argument("--trace", type=Path, help="write a profiler trace of three steps of 'engine' to this file")
    parser.add_argument("--limit", type=float, default=None, help="seconds a trainer may take (default: 600; CPU: 100)")
    parser.add_argument("--roofline", action="store_true", help="the operations of a step in place of the trainers")
    parser.add_argument(
        "--compiled",
        action="store_true",
        help="instead, the bytes that a step of 16x112x112 moves on an H100, as torch.compile writes it; it needs none",
    )


def tokens(parser: argparse.ArgumentParser) -> None:
    """The options of `bench_throughput.py tokens`."""
    add = parser.add_argument
    add("--shares", type=float, nargs="+", default=[1.0, 0.5, 0.25, 0.125], metavar="SHARE",
        help="of the tokens (default: 1 0.5 0.25 0.125)")  # fmt: skip
    _device(parser)
    add("--backbone", choices=("vit_tiny", "vit_small", "vit_base"), default="vit_tiny", help="default: vit_tiny")
    add("--frames", type=int, default=8, help="of a clip (default: %(default)s)")
    add("--crop", type=int, default=64, help="its side (default: %(default)s)")
    add("--batch", type=int, default=8, help="clips of a step (default: %(default)s)")
    add("--repeats", type=int, default=7, help="steps of each share (default: %(default)s)")
    add("--compile", action="store_true", help="through torch.compile, in bf16 or fp16")


def train(parser: argparse.ArgumentParser) -> None:
    """The options of `bench_throughput.py train`."""
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="change keys of the config")
    parser.add_argument("--config", type=Path, help="of the training (default: the quickstart's; on a GPU the paper's)")
    parser.add_argument("--manifest", type=Path, help="store or raw videos (default: the config's, or drawn ones)")
    parser.add_argument("--raw", type=Path, help="manifest of the raw videos, for the baselines, where it is a store")
    parser.add_argument("--decoder", choices=("auto", "dali", "pyav"), help="of the engine (default: the config's)")
    _device(parser)
    parser.add_argument("--rounds", type=int, default=3, help="turns of each contestant (default: 3)")
    parser.add_argument("--steps", type=int, default=None, help="timed in one turn (default: 30 on a GPU, 12 on a CPU)")
    parser.add_argument("--workers", type=int, default=None, help="of the baselines' DataLoader (default: the cores)")
    parser.add_argument("--only", choices=(*ENGINE, *BASELINES), action="append", help="may be repeated")
    parser.add_argument(
        "--compile", action=argparse.BooleanOptionalAction, help="the torchvision baseline (default: on a GPU)"
    )
    parser.add_argument(
        "--limit", type=float, default=240, help="seconds one may take to start, warm up or have a turn (default: 240)"
    )
    parser.add_argument("--trace", type=Path, help="write a profiler trace of three steps of the first to this file")


def pretrain(parser: argparse.ArgumentParser) -> None:
    """The options of `bench_throughput.py pretrain`."""
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="change keys of the config")
    parser.add_argument("--config", type=Path, help="of the pretraining (default: see above)")
    parser.add_argument("--manifest", type=Path, help="of a store with motion (default: the config's, or drawn videos)")
    parser.add_argument("--mask", choices=KINDS, action="append", help="only this; may be repeated")
    parser.add_argument("--decoder", choices=("auto", "dali", "nvcodec", "pyav"), help="default: the config's")
    _device(parser)
    parser.add_argument("--rounds", type=int, default=3, help="turns of each contestant (default: 3)")
    parser.add_argument("--steps", type=int, default=None, help="timed in one turn (default: 30 on a GPU, 8 on a CPU)")


def kernels(parser: argparse.ArgumentParser) -> None:
    """The options of `bench_throughput.py kernels`."""
    _device(parser)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the queries and clips to use (default: 1)")
    parser.add_argument("--repeats", type=int, default=None, help="timed calls (default: 50 on a GPU, 7 on a CPU)")
    parser.add_argument("--only", metavar="TEXT", help="only the cases that have this in their name")
    parser.add_argument("--no-compile", action="store_true", help="leave the torch.compile rivals out")
    parser.add_argument(
        "--compiled",
        type=int,
        choices=SHARED_BYTES,
        help="registers, spills and loads for a GPU of this compute capability (90: H100) instead; nothing is recorded",
    )


def accuracy(parser: argparse.ArgumentParser) -> None:
    """The options of `bench_throughput.py accuracy`."""
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN", help="run folders or checkpoint files")
    parser.add_argument("--data", action="append", default=[], metavar="MANIFEST[:SPLIT[,SPLIT]]",
                        help="a test set; default: data.tests of each run")  # fmt: skip
    parser.add_argument("--clips", type=int, action="append", help="of a video; repeat it (default: 1, 3, 5, 10, 25)")
    parser.add_argument(
        "--precision", choices=PRECISIONS, action="append", help="default: fp32, and bf16 (old GPUs: fp16)"
    )
    parser.add_argument("--max-videos", type=int, default=None, help="of each test set (default: all)")
    parser.add_argument("--repeats", type=int, default=1, help="evaluations of each kind (default: 1)")
    _device(parser)
    parser.add_argument(
        "--train", action="store_true", help="first train the quickstart, half its epochs, where there is no run"
    )


BENCHMARKS = {  # each is a module of this folder
    "manifest": manifest,
    "decode": decode,
    "decode_gpu": decode_gpu,
    "ingest": ingest,
    "cluster": cluster,
    "storage": storage,
    "windows": windows,
    "names": names,
    "search": search,
    "long_video": long_video,
    "compute": compute,
    "tokens": tokens,
    "train": train,
    "pretrain": pretrain,
    "kernels": kernels,
    "accuracy": accuracy,
    "plan": plan,
}
