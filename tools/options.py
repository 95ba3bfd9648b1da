"""The command lines of the programs in this folder whose work takes seconds to import (torch, torchvision).

A program reads its options with one of these before it imports what it works with, so that --help and a mistake are told at
once. So nothing is imported here that imports torch: tests/tools/test_help.py.
"""

import argparse
from pathlib import Path

from bench.runs import QUICKSTART

from engine.command_line import Parser
from engine.config import OverlapConfig
from engine.errors import InputError
from engine.experiments.names import EXPERIMENTS

HEAD_NAMES = ("linear", "ridge", "aurl")  # engine/heads/catalogue.py, which imports torch
INSTALLED = Path("installed")  # the model of `predict` and `evaluate` where no run is named


def evaluate(about: str) -> argparse.Namespace:
    """Of evaluate.py."""
    parser = Parser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", type=Path, metavar="RUN",
                        help="run folder, checkpoint file, installed (the default) or kinetics400[:FILE]")  # fmt: skip
    parser.add_argument("overrides", nargs="*", metavar="section.key=value",
                        help="change keys of the run's config: sections data, words, evaluate")  # fmt: skip
    parser.add_argument("--data", action="append", default=[], metavar="MANIFEST[:SPLIT[,SPLIT]]",
                        help="a test set; repeat it for several; default: data.tests of the run")  # fmt: skip
    parser.add_argument("--words", metavar="SOURCE[:FILE]",
                        help="class vectors: glove[:FILE], word2vec:FILE, npz:FILE or random; default: the run's")  # fmt: skip
    parser.add_argument("--unlabelled", metavar="MANIFEST[:SPLIT[,SPLIT]]",
                        help="installed, kinetics400: videos to standardise each class's scores over")  # fmt: skip
    parser.add_argument("--generalised", metavar="SEEN",
                        help="seen classes compete too; SEEN is held-out or MANIFEST[:SPLIT[,SPLIT]]")  # fmt: skip
    parser.add_argument("--snippets", type=int, metavar="T", help="snippets of a video; default: the run's (25)")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"), help="default: auto")
    parser.add_argument(
        "--decoder", choices=("auto", "dali", "nvcodec", "pyav"), help="default: the run's data.decoder"
    )
    parser.add_argument(
        "--report", action="store_true", help="also write report.html, and its pictures for TensorBoard"
    )
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="default: evaluation/ in the run folder")
    arguments = parser.parse_intermixed_args()
    if arguments.run is not None and "=" in str(arguments.run) and not arguments.run.exists():
        arguments.overrides.insert(0, str(arguments.run))
        arguments.run = None
    arguments.run = arguments.run or INSTALLED
    return arguments


def predict(about: str) -> argparse.Namespace:
    """Of predict.py."""
    parser = Parser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", nargs="*", type=Path, metavar="VIDEO", help="video files")
    parser.add_argument("--model", default=INSTALLED, type=Path, metavar="RUN",
                        help="run folder, checkpoint file, installed (the default) or kinetics400[:FILE]")  # fmt: skip
    named = parser.add_mutually_exclusive_group(required=True)
    named.add_argument("--classes", nargs="+", metavar="CLASS", help="class names, or several in one text with commas")
    named.add_argument("--classes-file", type=Path, metavar="FILE", help="class names, one a line")
    parser.add_argument("--top", type=int, default=5, metavar="K", help="classes shown of each video (default 5)")
    parser.add_argument("--json", action="store_true", help="print JSON: a list with one entry for each video")
    parser.add_argument("--words", metavar="SOURCE[:FILE]",
                        help="class vectors: glove[:FILE], word2vec:FILE or npz:FILE; default: the run's")  # fmt: skip
    parser.add_argument("--snippets", type=int, metavar="T", help="snippets of a video; default: the run's (25)")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"), help="default: auto")
    parser.add_argument("--decoder", default="pyav", choices=("auto", "dali", "nvcodec", "pyav"),
                        help="default: pyav, which reads the most formats")  # fmt: skip
    parser.add_argument("--set", action="append", default=[], metavar="section.key=value",
                        help="change keys of the run's config: sections data, words, evaluate")  # fmt: skip
    arguments = parser.parse_args()
    if not arguments.videos and arguments.classes:  # --classes has taken what follows it
        arguments.videos = [Path(text) for text in arguments.classes if Path(text).is_file()]
        arguments.classes = [text for text in arguments.classes if not Path(text).is_file()]
    if not arguments.videos:
        parser.error("no VIDEO is named: name them before --classes")
    arguments.classes = ",".join(arguments.classes) if arguments.classes else None
    return arguments


def _class_splits(parser: Parser, splits: int, num_train: str) -> None:
    """The options of what is measured over random splits of the classes."""
    add = parser.add_argument
    add("--num-train", type=int, required=True, metavar="N", help=num_train)
    add("--splits", type=int, default=splits, metavar="N", help="random class splits (default: %(default)s)")
    add("--definitions", action="append", default=[], metavar="FILE",
        help="class definitions, as words.definitions; repeat it for several")  # fmt: skip


def _at_least_one(parser: Parser, arguments: argparse.Namespace, *names: str) -> argparse.Namespace:
    """Refuse a number below 1."""
    for name in names:
        if getattr(arguments, name) < 1:
            parser.error(f"--{name.replace('_', '-')} is {getattr(arguments, name)}: it must be at least 1")
    return arguments


def untrained_splits(about: str) -> argparse.Namespace:
    """Of untrained_splits.py."""
    parser = Parser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path, metavar="MANIFEST", help="of the labelled videos")
    parser.add_argument("--model", default=INSTALLED, type=Path, help="installed (the default) or kinetics400[:FILE]")
    _class_splits(parser, 100, "classes that a split leaves aside")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"), help="default: auto")
    parser.add_argument("--record", action="store_true", help="append the rows to benchmarks/records/untrained.jsonl")
    return _at_least_one(parser, parser.parse_args(), "num_train", "splits")


def extract_features(about: str) -> argparse.Namespace:
    """Of extract_features.py."""
    parser = Parser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("manifest", type=Path, metavar="MANIFEST", help="of tools/index_dataset.py, or a store's manifest.parquet")
    add("--model", required=True, help="a run's folder, a checkpoint file, or: installed, objects")
    add("--out", type=Path, required=True, metavar="FOLDER", help="where the features go, or are already")
    add("--window", metavar="L", help="length: frames (16) or seconds (2s); default: the frames that a clip covers")
    add("--hop", metavar="H", help="from one window to the next, in the same unit; default: half a window")
    add("--dtype", choices=("float16", "float32"), default="float16", help="as kept (default: %(default)s)")
    add("--batch", type=int, default=32, metavar="N", help="windows in one pass of the network (default: %(default)s)")
    add("--threads", type=int, default=0, metavar="N", help="videos decoded at a time (default: one a core)")
    add("--processes", action="store_true",
        help="decode in as many processes: for many cores, and where a file crashes FFmpeg")  # fmt: skip
    add("--device", default="auto", choices=("auto", "cpu", "cuda"), help="default: auto")
    add(
        "--allow-outside", action="store_true", help="let paths of the manifest leave its root, as data.*.allow_outside"
    )
    arguments = parser.parse_args()
    for name, low, high in (("batch", 1, 65536), ("threads", 0, 1024)):
        if not low <= getattr(arguments, name) <= high:
            raise InputError(f"--{name} is {getattr(arguments, name)}: it must be from {low} to {high}")
    return arguments


def fit_head(about: str) -> argparse.Namespace:
    """Of fit_head.py."""
    parser = Parser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("features", type=Path, metavar="FEATURES", help="folder of tools/extract_features.py")
    add("manifest", type=Path, metavar="MANIFEST", help="of their labelled videos")
    _class_splits(parser, 20, "classes that a split sees")
    add("--heads", nargs="+", default=[], choices=HEAD_NAMES, metavar="HEAD",
        help=f"{', '.join(HEAD_NAMES)} (default: all); differences are to the first")  # fmt: skip
    add("--record", action="store_true", help="append the rows to benchmarks/records/heads.jsonl")
    return _at_least_one(parser, parser.parse_args(), "num_train", "splits")


def find_moments(about: str) -> argparse.Namespace:
    """Of find_moments.py."""
    parser = Parser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add(
        "videos", nargs="*", type=Path, metavar="VIDEO", help="files and folders; with --index default: all that it has"
    )
    add("--query", action="append", required=True, metavar="TEXT", help="what to look for; repeat it for several")
    add("--index", type=Path, metavar="FOLDER", help="where the videos' features are kept; default: nowhere")
    add("--top", type=int, default=5, metavar="N", help="moments of each query (default: %(default)s)")
    add("--json", action="store_true", help="print JSON: a list with one entry for each moment")
    add("--device", default="auto", choices=("auto", "cpu", "cuda"), help="default: auto")
    arguments = parser.parse_args()
    if not arguments.videos and arguments.index is None:
        parser.error("no VIDEO is named, and no --index")
    if not 1 <= arguments.top <= 1000:
        parser.error(f"--top is {arguments.top}: it must be from 1 to 1000")
    return arguments


def refit_head(about: str) -> argparse.Namespace:
    """Of refit_head.py."""
    parser = Parser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN", help="run folder or checkpoint file")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="default: RUN/ridge")
    parser.add_argument(
        "--snippets", type=int, metavar="T", help="snippets of a training video; default: the run's (25)"
    )
    parser.add_argument(
        "--keep", type=float, default=0.0, metavar="SHARE", help="of the trained layer, 0 to 1 (default 0)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the partitions of the training classes (default 0)")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"), help="default: auto")
    parser.add_argument("--set", action="append", default=[], metavar="section.key=value",
                        help="change keys of the run's config: sections data, words, evaluate")  # fmt: skip
    arguments = parser.parse_args()
    if not 0 <= arguments.keep <= 1:
        parser.error(f"--keep is {arguments.keep}: it must be from 0 to 1")
    if arguments.seed < 0:
        parser.error(f"--seed is {arguments.seed}: it must be at least 0")
    return arguments


def replay_batch(about: str) -> argparse.Namespace:
    """Of replay_batch.py."""
    parser = Parser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="RUN/not_finite", help="what the stopped run left")
    parser.add_argument("--step", type=int, metavar="N", help="steps done before the batch; default: the first bad one")
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16", "fp16"), help="default: the run's")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"), help="default: auto")
    return parser.parse_args()


def compare_losses(about: str) -> argparse.Namespace:
    """Of compare_losses.py."""
    parser = Parser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
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
    parser = Parser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
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
    parser.add_argument("--shown", type=int, default=60, metavar="N", help="classes in the picture (default: 60)")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where the table and picture go")
    arguments = parser.parse_args()
    if not 0 <= arguments.tau <= 2:
        raise InputError(f"--tau is {arguments.tau:g}: a cosine distance lies between 0 and 2")
    return arguments


def experiments(about: str) -> argparse.Namespace:
    """Of experiments.py."""
    known = "\n".join(f"  {name:8} {what}" for name, what in EXPERIMENTS.items())
    parser = Parser(description=f"{about}\nexperiments:\n{known}", formatter_class=argparse.RawDescriptionHelpFormatter)
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
    for side in ("train", "test"):
        add(f"--{side}-classes", action="append", default=[], metavar="[NAME=]CLASSES",
            help="fig2, fig3: classes in place of the config's, as tools/class_overlap.py takes them")  # fmt: skip
    add("--workers", type=int, default=0, help="cells at a time (default: one for each GPU, else for each core)")
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
    parser = Parser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
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
    decode.add_argument("--damaged", type=float, default=0.0, metavar="SHARE", help="of the files (default: 0)")
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
    parser = Parser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", action="append", default=[], type=Path, metavar="MANIFEST", help="a manifest to look at"
    )
    parser.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR", help="where runs go (default: runs)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--versions", action="store_true", help="only list what is installed, as NAME==VERSION")
    return parser.parse_args()
