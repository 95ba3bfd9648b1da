"""The command lines of the programs over kept features and untrained models, as `options.py` has those of the others.

Nothing is imported here that imports torch either.
"""

import argparse
from pathlib import Path

from options import INSTALLED

from engine.errors import InputError
from engine.schema.parser import MAX_SEED
from engine.semantics.config import OverlapConfig
from engine.tasks.masked.config import KINDS
from engine.terminal.command_line import Parser, cluster_option, device_option, refuse_with_cluster
from engine.terminal.native_names import as_text

# As in engine/heads/catalogue.py, which imports torch.
OBJECT_HEAD_NAMES = ("objects", "objects_standardised", "objects_ridge")  # of features of an installed network
TRAINED_HEAD_NAME = "trained"  # of features of a run, with --run
HEAD_NAMES = ("linear", "ridge", "aurl", "action2vec", "tarn", "after_url")


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
    parser = Parser(description=about)
    parser.add_argument("manifest", type=Path, metavar="MANIFEST", help="of the labelled videos")
    parser.add_argument(
        "--model", default=INSTALLED, type=Path, help="installed (the default), installed:lite2 or kinetics400[:FILE]"
    )
    _class_splits(parser, 100, "classes that a split leaves aside")
    device_option(parser)
    parser.add_argument("--record", action="store_true", help="append the rows to benchmarks/records/untrained.jsonl")
    return _at_least_one(parser, parser.parse_args(), "num_train", "splits")


def extract_features(about: str) -> argparse.Namespace:
    """Of extract_features.py."""
    parser = Parser(description=about)
    add = parser.add_argument
    add("manifest", type=Path, metavar="MANIFEST", help="of tools/index_dataset.py, or a store's manifest.parquet")
    add(
        "--model", required=True, help="a run's folder, a checkpoint file, or: installed, objects, each with :lite2 too"
    )
    add("--out", type=Path, required=True, metavar="FOLDER", help="where the features go, or are already")
    add("--window", metavar="L", help="length: frames (16) or seconds (2s); default: the frames that a clip covers")
    add("--hop", metavar="H", help="from one window to the next, in the same unit; default: half a window")
    add("--dtype", choices=("float16", "float32"), default="float16", help="as kept (default: %(default)s)")
    add("--batch", type=int, default=32, metavar="N", help="windows in one pass of the network (default: %(default)s)")
    add(
        "--threads",
        type=int,
        default=0,
        metavar="N",
        help="videos decoded at a time, on this machine (default: one a core)",
    )
    add("--processes", action="store_true",
        help="decode in as many processes, on this machine: for many cores, and where a file crashes FFmpeg")  # fmt: skip
    cluster_option(parser, "extract")
    device_option(parser)
    add(
        "--allow-outside", action="store_true", help="let paths of the manifest leave its root, as data.*.allow_outside"
    )
    arguments = parser.parse_args()
    refuse_with_cluster(arguments, "threads", "processes")
    for name, low, high in (("batch", 1, 65536), ("threads", 0, 1024)):
        if not low <= getattr(arguments, name) <= high:
            raise InputError(f"--{name} is {getattr(arguments, name)}: it must be from {low} to {high}")
    return arguments


def fit_head(about: str) -> argparse.Namespace:
    """Of fit_head.py."""
    parser = Parser(description=about)
    add, names = parser.add_argument, (*HEAD_NAMES, *OBJECT_HEAD_NAMES, TRAINED_HEAD_NAME)
    add("features", type=Path, metavar="FEATURES", help="folder of tools/extract_features.py")
    add("manifest", type=Path, metavar="MANIFEST", help="of their labelled videos")
    _class_splits(parser, 20, "classes that a split sees")
    add("--heads", nargs="+", default=[], choices=names, metavar="HEAD",
        help=f"{', '.join(names)} (default: all that these features serve); differences are to the first")  # fmt: skip
    add("--run", type=Path, metavar="RUN",
        help="the run whose features these are: its own layer is a head too (trained), its words are taken")  # fmt: skip
    add("--always-seen", type=Path, metavar="FILE",
        help="classes of MANIFEST that every split sees, one name a line; the others are split")  # fmt: skip
    add("--joined", nargs=2, action="append", default=[], metavar=("FEATURES", "MANIFEST"),
        help="further videos whose classes are split with those of MANIFEST; repeat it for several")  # fmt: skip
    add("--also", nargs=2, action="append", default=[], metavar=("FEATURES", "MANIFEST"),
        help="further videos whose classes are seen; repeat it for several")  # fmt: skip
    add("--tau", type=float, metavar="D",
        help="leave out seen classes that overlap with an unseen one: no further, or sharing words (default: with further "
        f"videos or --always-seen {OverlapConfig.tau}, else none is)")  # fmt: skip
    add("--class-counts", type=int, nargs="+", default=[], metavar="N",
        help="measure with so many of the seen classes, drawn at random, fewer part of more (default: with all)")  # fmt: skip
    add("--transductive", action="store_true", help="each head also with the videos of a split named together")
    add("--occurring", type=int, metavar="N",
        help="ask about videos of N of a split's unseen classes alone (default: of all)")  # fmt: skip
    add("--apart", type=Path, metavar="FILE", help="classes, one name a line, told apart from the others as well")
    add("--figure", type=Path, metavar="FILE", help="with --class-counts: write the curves with their bands, a PNG")
    add("--record", action="store_true", help="append the rows to benchmarks/records/heads.jsonl")
    arguments = _at_least_one(parser, parser.parse_args(), "num_train", "splits")
    if min(arguments.class_counts, default=1) < 1:
        parser.error("--class-counts are at least 1")
    if arguments.occurring is not None and arguments.occurring < 1:
        parser.error(f"--occurring is {arguments.occurring}: it must be at least 1")
    arguments.class_counts = sorted(set(arguments.class_counts))
    if arguments.figure and not arguments.class_counts:
        parser.error("--figure shows accuracy over --class-counts, and none are given")
    if arguments.tau is None and (arguments.also or arguments.joined or arguments.always_seen):
        arguments.tau = OverlapConfig.tau
    if arguments.run and arguments.definitions:
        parser.error("--definitions does not go with --run: a run's words are those it was trained with")
    return arguments


def domain_shift(about: str) -> argparse.Namespace:
    """Of domain_shift.py."""
    parser = Parser(description=about)
    add, names = parser.add_argument, (*HEAD_NAMES, *OBJECT_HEAD_NAMES)
    add("--pair", nargs=4, action="append", required=True, metavar=("FEATURES", "MANIFEST", "FEATURES", "MANIFEST"),
        help="a set, whose manifest has groups, and one of another source; repeat it for several")  # fmt: skip
    add("--heads", nargs="+", default=["linear"], choices=names, metavar="HEAD",
        help=f"{', '.join(names)} (default: linear)")  # fmt: skip
    add("--tau", type=float, default=OverlapConfig.tau, metavar="D",
        help="distance of two names up to which they are one class (default: %(default)s)")  # fmt: skip
    add("--record", action="store_true", help="append the classes to benchmarks/records/domain_shift.jsonl")
    return parser.parse_args()


def moments_in_a_row(about: str) -> argparse.Namespace:
    """Of moments_in_a_row.py."""
    parser = Parser(description=about)
    add = parser.add_argument
    add(
        "features",
        nargs="+",
        type=Path,
        metavar="FEATURES",
        help="folders of extract_features.py, of clips in class folders",
    )
    add("--leave-out", nargs="+", default=[], metavar="CLASS", help="classes that are not used")
    add("--halvings", type=int, default=10, metavar="N", help="halves of the classes (default: %(default)s)")
    add("--videos", type=int, default=100, metavar="N", help="of each half, ten queries each (default: %(default)s)")
    add("--record", action="store_true", help="append the shares to benchmarks/records/moments_in_a_row.jsonl")
    return _at_least_one(parser, parser.parse_args(), "halvings", "videos")


def find_moments(about: str) -> argparse.Namespace:
    """Of find_moments.py."""
    parser = Parser(description=about)
    add = parser.add_argument
    add("videos", nargs="*", type=Path, metavar="VIDEO",
        help="files, folders, manifests, snippet stores; with --index default: all that it has")  # fmt: skip
    add(
        "--query",
        action="append",
        type=as_text,
        required=True,
        metavar="TEXT",
        help="what to look for, in English where nothing is trained; repeat it for several",
    )
    add(
        "--model",
        type=Path,
        metavar="RUN",
        help="run of task moments, or its checkpoint; installed (the default) or installed:lite2: nothing trained",
    )
    add(
        "--encoder",
        metavar="MODEL",
        help="the network of the run's features: run folder or checkpoint; default: looked for",
    )
    add("--index", type=Path, metavar="FOLDER", help="where the videos' features are kept; default: nowhere")
    add("--top", type=int, default=5, metavar="N", help="moments of each query (default: %(default)s)")
    add("--json", action="store_true", help="print JSON: a list with one entry for each moment")
    add("--html", type=Path, metavar="FILE", help="write a page with pictures, curves and links")
    add("--cut", type=Path, metavar="FOLDER", help="save each moment as a file of its own")
    device_option(parser)
    add("--allow-outside", action="store_true", help="let paths of a manifest leave its root")
    arguments = parser.parse_args()
    if arguments.encoder and not arguments.model:
        parser.error("--encoder is the network of a --model's features, and no --model is named")
    if not arguments.videos and arguments.index is None:
        parser.error("no VIDEO is named, and no --index")
    if not 1 <= arguments.top <= 1000:
        parser.error(f"--top is {arguments.top}: it must be from 1 to 1000")
    return arguments


def pretraining_worth(about: str) -> argparse.Namespace:
    """Of pretraining_worth.py."""
    parser = Parser(description=about)
    add = parser.add_argument
    add("pretraining", type=Path, metavar="PRETRAINING", help="config of the task masked")
    add("labelled", type=Path, metavar="LABELLED", help="config of the task zero_shot, of the same backbone")
    add("--out", type=Path, required=True, metavar="FOLDER", help="where the runs go, or are already")
    add("--masks", nargs="+", default=["random", "tube", "smm", "mgm"], choices=KINDS, metavar="MASK",
        help="differences are also to the first (default: %(default)s)")  # fmt: skip
    add("--shares", nargs="+", type=float, default=[1.0, 0.25, 0.1], metavar="SHARE",
        help="of each class's labelled videos (default: %(default)s)")  # fmt: skip
    add("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4], metavar="SEED", help="default: %(default)s")
    add("--uses", nargs="+", default=["probe", "fine-tuned"], choices=("probe", "fine-tuned"), metavar="USE",
        help="probe alone leaves the trainings with labels out (default: %(default)s)")  # fmt: skip
    add("--markdown", action="store_true", help="the table for a document")
    add("--record", action="store_true", help="append the rows to benchmarks/records/pretraining_worth.jsonl")
    arguments = parser.parse_args()
    for share in arguments.shares:
        if not 0 < share <= 1:
            parser.error(f"--shares has {share}: above 0, at most 1")
    for seed in arguments.seeds:
        if not 0 <= seed <= MAX_SEED:
            parser.error(f"--seeds has {seed}: seeds are from 0 to {MAX_SEED}")
    return arguments
