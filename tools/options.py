"""The command lines of the programs in this folder whose work takes seconds to import (torch, torchvision).

A program reads its options with one of these before it imports what it works with, so that --help and a mistake are told at
once. So nothing is imported here that imports torch: tests/tools/test_help.py.
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from bench.runs import QUICKSTART

from engine.data.config import PUBLISHED_SPLITS
from engine.data.layouts.listing import IMAGE_SUFFIXES, VIDEO_SUFFIXES, suffix_of
from engine.errors import InputError
from engine.experiments.names import EXPERIMENTS
from engine.semantics.config import OverlapConfig
from engine.terminal.command_line import Parser, cluster_option, device_option

INSTALLED = Path("installed")  # the model of `predict` and `evaluate` where no run is named


def _set_option(parser: Parser) -> None:
    parser.add_argument("--set", action="append", default=[], metavar="section.key=value",
                        help="change keys of the run's config: sections data, words, evaluate")  # fmt: skip


def evaluate(about: str) -> argparse.Namespace:
    """Of evaluate.py."""
    parser = Parser(description=about)
    add = parser.add_argument
    add("run", nargs="?", type=Path, metavar="RUN",
        help="run folder or file, installed (default; larger: installed:lite2), kinetics400[:FILE]")  # fmt: skip
    add("overrides", nargs="*", metavar="section.key=value",
        help="change keys of the run's config: sections data, words, evaluate")  # fmt: skip
    add("--data", action="append", default=[], metavar="MANIFEST[:SPLIT[,SPLIT]]",
        help="a test set; repeat it for several; default: data.tests of the run")  # fmt: skip
    add("--class-split", metavar="NAME", choices=PUBLISHED_SPLITS,
        help=f"of each --data only a published split's test classes: {', '.join(PUBLISHED_SPLITS)}")  # fmt: skip
    add("--words", metavar="SOURCE[:FILE]",
        help="class vectors: glove[:FILE], word2vec:FILE, npz:FILE or random; default: the run's")  # fmt: skip
    add("--unlabelled", metavar="MANIFEST[:SPLIT[,SPLIT]]",
        help="installed, kinetics400: videos to standardise each class's scores over")  # fmt: skip
    add("--transductive", action="store_true",
        help="name a test set's videos together; takes each class to be shown by some of them")  # fmt: skip
    add("--generalised", metavar="SEEN",
        help="seen classes compete too; SEEN is held-out or MANIFEST[:SPLIT[,SPLIT]]")  # fmt: skip
    add("--snippets", type=int, metavar="T", help="snippets of a video; default: the run's (25)")
    device_option(parser)
    cluster_option(parser, "embed the videos")
    add("--decoder", choices=("auto", "dali", "nvcodec", "pyav"), help="default: the run's data.decoder")
    add("--report", action="store_true", help="also write report.html, and its pictures for TensorBoard")
    add("--out", type=Path, metavar="FOLDER", help="default: evaluation/ in the run folder")
    arguments = parser.parse_intermixed_args()
    if arguments.run is not None and "=" in str(arguments.run) and not arguments.run.exists():
        arguments.overrides.insert(0, str(arguments.run))
        arguments.run = None
    if arguments.class_split and not arguments.data:
        parser.error("--class-split is of the test sets that --data names: name one, of the whole data set")
    if arguments.transductive:
        _refuse_beside_transductive(parser, arguments)
    arguments.run = arguments.run or INSTALLED
    return arguments


def _refuse_beside_transductive(parser: Parser, arguments: argparse.Namespace) -> None:
    reasons = {
        "generalised": "compares each video by itself with seen classes too",
        "unlabelled": "counts scores over other videos, where these are counted over the test's own",
        "report": "shows each video by itself",
    }
    for name, reason in reasons.items():
        if getattr(arguments, name):
            parser.error(f"--{name} {reason}: leave it out, or --transductive")


def predict(about: str) -> argparse.Namespace:
    """Of predict.py."""
    parser = Parser(description=about)
    parser.add_argument("videos", nargs="*", type=Path, metavar="VIDEO", help="files of videos, or photos")
    parser.add_argument("--model", default=INSTALLED, type=Path, metavar="RUN",
                        help="run folder or file, installed (default; larger: installed:lite2), kinetics400[:FILE]")  # fmt: skip
    named = parser.add_mutually_exclusive_group(required=True)
    named.add_argument(
        "--classes",
        nargs="+",
        metavar="CLASS",
        help="class names, or several in one text with commas; in English, where nothing is trained",
    )
    named.add_argument("--classes-file", type=Path, metavar="FILE", help="class names, one a line")
    parser.add_argument("--top", type=int, default=5, metavar="K", help="classes shown of each video (default 5)")
    parser.add_argument("--transductive", action="store_true",
                        help="name the videos together; takes each class to be shown by some of them")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print JSON: a list with one entry for each video")
    parser.add_argument("--words", metavar="SOURCE[:FILE]",
                        help="class vectors: glove[:FILE], word2vec:FILE or npz:FILE; default: the run's")  # fmt: skip
    parser.add_argument("--snippets", type=int, metavar="T", help="snippets of a video; default: the run's (25)")
    device_option(parser)
    parser.add_argument("--decoder", default="pyav", choices=("auto", "dali", "nvcodec", "pyav"),
                        help="default: pyav, which reads the most formats")  # fmt: skip
    _set_option(parser)
    arguments = parser.parse_args()
    if not arguments.videos and arguments.classes:  # --classes has taken what follows it
        arguments.classes, arguments.videos = _classes_and_videos(arguments.classes)
    if not arguments.videos:
        parser.error("no VIDEO is named: name them before --classes")
    arguments.classes = ",".join(arguments.classes) if arguments.classes else None
    return arguments


def _classes_and_videos(texts: Sequence[str]) -> tuple[list[str], list[Path]]:
    """Class names, and behind them videos: from the first file on, and whatever ends as a video or a photo does or lies in a
    folder that is there; it may be missing. A slash alone makes none: "bend/bow" is a class of AVA."""

    def looks_like_one(text: str) -> bool:
        in_folder = os.sep in text and Path(text).parent.is_dir()
        return suffix_of(text) in VIDEO_SUFFIXES | IMAGE_SUFFIXES or in_folder or Path(text).is_file()

    is_video = [looks_like_one(text) for text in texts]
    first = next((index for index, text in enumerate(texts) if Path(text).is_file()), len(texts))
    classes = [text for index, text in enumerate(texts) if not is_video[index] and index < first]
    return classes, [Path(text) for index, text in enumerate(texts) if is_video[index] or index >= first]


def export(about: str) -> argparse.Namespace:
    """Of export.py."""
    parser = Parser(description=about)
    add = parser.add_argument
    add("run", type=Path, metavar="RUN", help="run folder, checkpoint file, installed[:lite2] or kinetics400[:FILE]")
    add("--format", required=True, choices=("torch.export", "onnx", "safetensors"), help="of the model, see above")
    add("--out", type=Path, required=True, metavar="FOLDER", help="where it goes: a new folder")
    named = parser.add_mutually_exclusive_group()
    named.add_argument("--classes", nargs="+", metavar="CLASS", help="class names, or several in one text with commas")
    named.add_argument("--classes-file", type=Path, metavar="FILE", help="class names, one a line")
    _set_option(parser)
    return parser.parse_args()


def refit_head(about: str) -> argparse.Namespace:
    """Of refit_head.py."""
    parser = Parser(description=about)
    parser.add_argument("run", type=Path, metavar="RUN", help="run folder or checkpoint file")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="default: RUN/ridge, or beside a lone checkpoint")
    parser.add_argument(
        "--snippets", type=int, metavar="T", help="snippets of a training video; default: the run's (25)"
    )
    parser.add_argument(
        "--keep", type=float, default=0.0, metavar="SHARE", help="of the trained layer, 0 to 1 (default 0)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the partitions of the training classes (default 0)")
    device_option(parser)
    _set_option(parser)
    arguments = parser.parse_args()
    if not 0 <= arguments.keep <= 1:
        parser.error(f"--keep is {arguments.keep}: it must be from 0 to 1")
    if arguments.seed < 0:
        parser.error(f"--seed is {arguments.seed}: it must be at least 0")
    return arguments


def replay_batch(about: str) -> argparse.Namespace:
    """Of replay_batch.py."""
    parser = Parser(description=about)
    parser.add_argument("folder", type=Path, metavar="RUN/not_finite", help="what the stopped run left")
    parser.add_argument("--step", type=int, metavar="N", help="steps done before the batch; default: the first bad one")
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16", "fp16"), help="default: the run's")
    device_option(parser)
    return parser.parse_args()


def compare_losses(about: str) -> argparse.Namespace:
    """Of compare_losses.py."""
    parser = Parser(description=about)
    parser.add_argument("sides", nargs=2, type=Path, metavar="SIDE", help="run folder, CONFIG or COMMIT:CONFIG")
    parser.add_argument("--set", nargs="+", default=[], metavar="section.key=value", help="change keys of both configs")
    parser.add_argument("--ranks", type=int, default=1, metavar="N", help="processes of a training (default: 1)")
    parser.add_argument("--tolerance", type=float, default=0.0, metavar="R",
                        help="allowed relative difference (default: 0, equal to the bit)")  # fmt: skip
    parser.add_argument("--out", type=Path, default=Path("runs/compare_losses"), metavar="FOLDER",
                        help="where the trainings go, as a and b (default: %(default)s)")  # fmt: skip
    arguments = parser.parse_args()
    if arguments.ranks < 1:
        parser.error(f"--ranks is {arguments.ranks}: it must be at least 1")
    if not 0 <= arguments.tolerance < 1:
        parser.error(f"--tolerance is {arguments.tolerance:g}: it must be from 0 to below 1")
    return arguments


def class_overlap(about: str) -> argparse.Namespace:
    """Of class_overlap.py."""
    parser = Parser(description=about)
    parser.add_argument("--train", action="append", required=True, metavar="[NAME=]CLASSES",
                        help="training classes (or those of pretrained weights); repeat it for several sets")  # fmt: skip
    parser.add_argument("--test", action="append", required=True, metavar="[NAME=]CLASSES",
                        help="test classes; repeat it for several sets")  # fmt: skip
    parser.add_argument("--tau", type=float, default=OverlapConfig().tau, help="threshold (default: %(default)s)")
    parser.add_argument("--words", default="glove", metavar="SOURCE[:FILE]",
                        help="class vectors: glove[:FILE], word2vec:FILE or npz:FILE (default: the installed GloVe)")  # fmt: skip
    parser.add_argument("--rules", default="auto", help="whose word rules, as words.rules (default: auto)")
    parser.add_argument("--centre", default="auto", help="as words.centre (default: auto)")
    parser.add_argument(
        "--missing", default="error", choices=("error", "random"), help="as words.missing (default: error)"
    )
    parser.add_argument("--report", action="store_true",
                        help="also contamination.md and .csv: what of each test was known, by names and contents")  # fmt: skip
    parser.add_argument("--shown", type=int, default=60, metavar="N", help="classes in the picture (default: 60)")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where the table and picture go")
    arguments = parser.parse_args()
    if not 0 <= arguments.tau <= 2:
        raise InputError(f"--tau is {arguments.tau:g}: a cosine distance lies between 0 and 2")
    return arguments


def experiments(about: str) -> argparse.Namespace:
    """Of experiments.py."""
    known = "\n".join(f"  {name:8} {what}" for name, what in EXPERIMENTS.items())
    parser = Parser(description=f"{about}\nexperiments:\n{known}")
    add = parser.add_argument
    add("names", nargs="+", metavar="NAME", help=f"experiments: {', '.join(EXPERIMENTS)}")
    add("--config", type=Path, help="the training that is varied, see configs/")
    add("--methods", type=Path, metavar="FILE", help="methods: the list, see configs/methods/ucf15.yaml")
    add("--set", nargs="+", default=[], metavar="section.key=value",
        help="change keys of the config; of all --methods, where they do not set them themselves")  # fmt: skip
    add("--images", metavar="MANIFEST", help="pictures to pretrain on (Stanford 40, SUN397)")
    add("--out", type=Path, default=Path("runs/experiments"), help="folder for all results (default: %(default)s)")
    add("--splits", type=int, nargs="+", default=(0, 1, 2), help="class splits (default: 0 1 2)")
    add("--draws", type=int, help="random subsets of each kind in a split (default: 1)")
    add("--shares", type=float, nargs="+", help="shares of the training videos (default: 0.1 0.25 0.5 1)")
    add("--class-counts", type=int, nargs="+", help="numbers of training classes (default: 2 4 6 8)")
    add("--clusters", type=int, nargs="+", help="numbers of clusters (default: 1 2 3 6)")
    add("--cluster-classes", type=int, help="training classes from a cluster (default: 6; paper: 50)")
    add("--cluster-images", action="store_true", help="fig5: classes of --images are among those cut into clusters")
    add("--without", nargs="+", default=[], choices=("frozen", "frozen pretrained", "pretrained", "joint"), metavar="METHOD",
        help="methods to leave out: frozen, 'frozen pretrained', pretrained, joint")  # fmt: skip
    add("--frozen-weights", metavar="WEIGHTS",
        help="features of the frozen method, as model.weights: kinetics400 for the paper's baseline")  # fmt: skip
    add(
        "--rate",
        type=float,
        metavar="R",
        help="snippets a second of a worker, to tell hours (default: of finished cells)",
    )
    for side in ("train", "test"):
        add(f"--{side}-classes", action="append", default=[], metavar="[NAME=]CLASSES",
            help="fig2, fig3: classes in place of the config's, as tools/class_overlap.py takes them")  # fmt: skip
    add("--workers", type=int, default=0, help="cells at a time (default: one for each GPU, else for each core)")
    cluster_option(parser, "run the cells")
    add("--record", action="store_true", help="append the values to benchmarks/records/experiments.jsonl")
    add("--only-report", action="store_true", help="run nothing: show what the finished cells say")
    add("--only-plan", action="store_true", help="list the cells and which are finished")
    arguments = parser.parse_args()
    for name in arguments.names:
        if name not in EXPERIMENTS:
            raise InputError(f"no experiment '{name}': there are {', '.join(EXPERIMENTS)}")
    return arguments


def soak(about: str) -> argparse.Namespace:
    """Of soak.py."""
    parser = Parser(description=about)
    common = Parser(add_help=False)
    common.add_argument("--every", type=float, default=5.0, metavar="S", help="seconds between samples (default: 5)")
    common.add_argument("--warm-up", type=float, default=0.1, metavar="SHARE", help="share not judged (default: 0.1)")
    common.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="default: cpu")
    common.add_argument("--threads", type=int, default=1, metavar="N", help="decoding threads (default: 1)")
    common.add_argument("--no-record", action="store_true", help="print only: no record, no picture")
    parts = parser.add_subparsers(dest="part", required=True, metavar="PART")
    decode = parts.add_parser("decode", parents=[common], help="random snippets through one decoder")
    decode.add_argument("decoder", choices=("store", "pyav", "dali"), help="which")
    decode.add_argument("--snippets", type=int, default=200_000, metavar="N", help="default: 200000")
    decode.add_argument("--damaged", type=float, default=0.0, metavar="SHARE", help="of the drawn files (default: 0)")
    decode.add_argument("--manifest", type=Path, help="of videos (or a store) to take in place of drawn ones")
    decode.add_argument("--side", type=int, default=64, metavar="PX", help="of drawn videos (default: 64)")
    decode.add_argument("--motion", action="store_true", help="with the motion of the clips")
    train = parts.add_parser("train", parents=[common], help="engine/train.py until the time is up")
    train.add_argument("--minutes", type=float, default=60.0, metavar="N", help="default: 60")
    train.add_argument(
        "--config", type=Path, default=QUICKSTART, help="with a procedural section (default: quickstart)"
    )
    arguments = parser.parse_args()
    ranges = {"every": (0.05, 600), "warm_up": (0, 0.9), "threads": (1, 1024), "snippets": (1, 10**12),
              "damaged": (0, 0.9), "minutes": (0.1, 10**6), "side": (32, 4096)}  # fmt: skip
    for name, (low, high) in ranges.items():
        value = getattr(arguments, name, low)
        if not low <= value <= high:
            raise InputError(f"--{name.replace('_', '-')} is {value:g}: it must be from {low:g} to {high:g}")
    return arguments


def doctor(about: str) -> argparse.Namespace:
    """Of doctor.py."""
    parser = Parser(description=about)
    parser.add_argument(
        "--data", action="append", default=[], type=Path, metavar="MANIFEST", help="a manifest to look at"
    )
    parser.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR", help="where runs go (default: runs)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--versions", action="store_true", help="only list what is installed, as NAME==VERSION")
    return parser.parse_args()
