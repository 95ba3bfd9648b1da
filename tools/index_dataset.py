"""Index a folder of videos: write its manifest, the one file that training and evaluation read.

    python tools/index_dataset.py ~/data/UCF-101 --out manifests/ucf101.parquet --split-number 1

Every file is opened. Frames are counted by what decodes, not by what the header says. Files that cannot be
used do not stop the indexing; each is named with its reason in MANIFEST.report.json. After a kill the same
command continues. Indexing a folder again takes seconds if little has changed.

layouts
  folder       CLASS/video, SPLIT/CLASS/video (train, val_256, ...) or CLASS/SPLIT/video; --splits overrules the names.
               With --splits none videos in no folder are one class, for what needs no classes (pretraining, moments)
  ucf101       v_CLASS_gGG_cCC.avi in class folders; trainlist0N.txt and testlist0N.txt in the folder,
               beside it, or in --annotations
  hmdb51       class folders; CLASS_test_splitN.txt in the folder, beside it, or in --annotations
  kinetics     --annotations: CSV of label,youtube_id,time_start,time_end,split, or a folder of several;
               files ID_000010_000020.mp4 or ID.mp4 anywhere in FOLDER
  activitynet  --annotations: the JSON of labelled segments; files v_ID.mp4 or ID.mkv anywhere in FOLDER
  something    --annotations: JSON list of id and template (Something-Something), or the folder of several;
               files ID.webm anywhere in FOLDER
  csv          --annotations: CSV or TSV of path,label[,split][,group]; a header may name the columns. Also
               lists with a space (mmaction2, SlowFast: `path 12`), and a folder with one list per split
  images       still pictures: CLASS/picture or SPLIT/CLASS/picture; training shows them as moving crops
  sun397       still pictures of SUN397: a/abbey/picture, a/apartment_building/outdoor/picture
  auto         looks at --annotations and FOLDER, and says what it found

Every file below FOLDER and every row of a list is in the manifest or in the report, with its reason.
The first lines say what was guessed. Labels that are numbers get the names of --class-names, or of
a file of class names beside the list.

With --cluster the nodes of a Ray cluster do the work (docs/cluster_ray.md).

docs/data.md explains how to get each data set, and what the columns of the manifest mean.
"""

import argparse
import time
from pathlib import Path

from engine.errors import InputError, run_command
from engine.files.atomic_file import check_replaceable
from engine.machine import usable_cores
from engine.terminal.command_line import Parser, check_local, cluster_option, refuse_with_cluster


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    about, _, more = __doc__.partition("\n\n")
    parser = Parser(prog="index_dataset.py", description=about, epilog=more)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="the folder of the data set")
    parser.add_argument("--layout", default="auto", help="how it is laid out; see below (default: auto)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the manifest (default: FOLDER/manifest.parquet)")
    parser.add_argument(
        "--annotations", type=Path, metavar="PATH", help="the layout's list, or the folder of its lists"
    )
    parser.add_argument(
        "--split-number", type=int, choices=(1, 2, 3), help="official split of UCF101 or HMDB51 (default: 1)"
    )
    parser.add_argument(
        "--splits",
        metavar="NAME,NAME",
        help="the top folders that are splits, or none: each is a class (default: told by their names; implies --layout folder)",
    )
    parser.add_argument(
        "--class-names",
        type=Path,
        metavar="FILE",
        help="names of numeric labels: one a line (the first is 0), lines of NUMBER NAME, or JSON",
    )
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="files read at once, on this machine (default: one per core)",
    )
    cluster_option(parser, "read the files")
    parser.add_argument(
        "--full-decode",
        action="store_true",
        help="decode every file to its end; without it, long H.264, HEVC and AV1 files in MP4 and Matroska are only"
        " decoded in places, and their frames counted by their packets",
    )
    parser.add_argument(
        "--time-limit", type=float, default=300.0, metavar="S", help="seconds for one file (default: 300)"
    )
    parser.add_argument(
        "--max-pixels", type=int, default=2**27, metavar="N", help="largest frame, in pixels (default: 134217728)"
    )
    parser.add_argument("--max-hours", type=float, default=8.0, metavar="H", help="longest file (default: 8)")
    return parser.parse_args()


def main() -> None:
    """Index, and print what came of it."""
    arguments = parse_arguments()
    refuse_with_cluster(arguments, "workers")
    if arguments.workers is None:
        arguments.workers = usable_cores()
    if arguments.workers < 1:
        raise InputError(f"--workers is {arguments.workers}: it must be at least 1")
    if not arguments.time_limit > 0:
        raise InputError(f"--time-limit is {arguments.time_limit:g}: it must be more than 0 seconds")
    if arguments.out:
        check_local(arguments.out, "--out")
        check_replaceable(arguments.out)
    # Here, because the processes that probe import this file too.
    from engine.cluster.pool import open_pool
    from engine.data.indexing.dataset import IndexSettings, index_dataset
    from engine.data.layouts import read_layout

    start = time.monotonic()
    out = arguments.out or arguments.folder / "manifest.parquet"
    listing = read_layout(
        "folder" if arguments.splits and arguments.layout == "auto" else arguments.layout,
        arguments.folder,
        annotations=arguments.annotations,
        split_number=arguments.split_number,
        splits=_split_names(arguments.splits),
        class_names=arguments.class_names,
    )
    for note in listing.notes:
        print(note, flush=True)
    settings = IndexSettings(
        arguments.workers, arguments.full_decode, arguments.time_limit, arguments.max_pixels, arguments.max_hours
    )
    with open_pool(arguments.cluster, [arguments.folder]) as pool:
        report = index_dataset(listing, arguments.folder, out, settings, pool)
    print_summary(report, out, time.monotonic() - start)


def _split_names(text: str | None) -> list[str] | None:
    """Names of folders; empty for "none", None where nothing was said."""
    if text is None:
        return None
    return [] if text == "none" else [name.strip() for name in text.split(",") if name.strip()]


def print_summary(report, out: Path, seconds: float) -> None:  # noqa: ANN001 - imported only in `main`
    """The table at the end."""
    from engine.data.indexing.dataset import ALL_REASONS

    rows = [
        (
            "videos",
            f"{report.num_videos:,}",
            "" if report.num_videos == report.num_files else f"in {report.num_files:,} files",
        ),
        ("classes", f"{report.num_classes:,}", ""),
        ("frames", f"{report.num_frames:,}", ""),
        ("hours", f"{report.hours:,.2f}", ""),
        ("not usable", f"{len(report.files):,}", ""),
        *((f"  {kind}", f"{count:,}", ALL_REASONS[kind]) for kind, count in report.bad.items()),
        *([("damaged", f"{len(report.damaged):,}", "files used as far as they decode")] if report.damaged else []),
        *([("left out", f"{len(report.unused):,}", "other files below the folder")] if report.unused else []),
    ]
    print(f"\n{out} ({seconds:.1f} s)")
    for name, number, remark in rows:
        print(f"  {name:<14}{number:>14}  {remark}".rstrip())
    if report.files or report.unused:
        print(f"each with its reason: {out}.report.json")


if __name__ == "__main__":
    run_command(main)
