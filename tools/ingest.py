"""Ingest videos into a snippet store: normalised once, then read at random as fast as they decode.

    python tools/index_dataset.py ~/data/UCF-101 --out manifests/ucf101.parquet
    python tools/ingest.py manifests/ucf101.parquet --out stores/ucf101
    python tools/ingest.py --verify stores/ucf101

The store is a folder with a manifest of its own: name STORE/manifest.parquet in a config where the raw
manifest was, and nothing else changes. SOURCE is a manifest, or a folder of videos, which is then indexed
first with the layout that is found.

Every video keeps its frames (with --fps it gets a constant rate), its shorter displayed side scaled to
--short-side, even sizes, 8-bit 4:2:0, upright, no sound; coded as H.264 (or HEVC) in closed GOPs of --gop frames, all
in a few large shards with an index of byte ranges. A snippet then costs one read and no search.

A run that is killed, also by kill -9, continues when the same command is given again: only the
files in hand are done again. The same command also adds what is new in SOURCE and redoes what changed. Files
that cannot be used are named with their reason in STORE/report.json. At the end a sample is read back:
checksums, byte ranges, frames of every GOP.

With --motion a store also keeps how fast the blocks of each frame move, read off the vectors of its own H.264. Given with the
command of a store that is there already, it is added; nothing is encoded again.

A STORE in object storage (s3://...) is made in ~/.cache/unseen/ingest: each shard is uploaded when it is full and its file
here removed, index and manifest go last.

With --cluster the nodes of a Ray cluster do the work (docs/cluster_ray.md).

docs/data.md has the rules in full and what the settings cost.
"""

import argparse
import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import InputError, run_command
from engine.machine import usable_cores
from engine.terminal.command_line import Parser, cluster_option, refuse_with_cluster

if TYPE_CHECKING:
    from engine.cluster.pool import Pool

_PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow")


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    about, _, more = __doc__.partition("\n\n")
    parser = Parser(prog="ingest.py", description=about, epilog=more)
    from engine.data.store.index import CODECS, StoreSettings

    default = StoreSettings()
    parser.add_argument("source", type=Path, nargs="?", metavar="SOURCE", help="a manifest, or a folder of videos")
    parser.add_argument("--out", type=Path, metavar="STORE", help="the folder of the store, or s3://BUCKET/STORE")
    parser.add_argument(
        "--keep-local", action="store_true", help="of a store in object storage: keep its shards on this machine too"
    )
    parser.add_argument("--verify", type=Path, metavar="STORE", help="only check this store")
    parser.add_argument(
        "--sample", type=int, default=200, metavar="N", help="videos decoded when checking (default: 200; -1: all)"
    )
    parser.add_argument(
        "--short-side", type=int, default=default.short_side, help="pixels, even (default: %(default)s)"
    )
    parser.add_argument("--gop", type=int, default=default.gop, help="frames of a GOP (default: %(default)s)")
    parser.add_argument(
        "--fps",
        type=float,
        default=default.fps,
        help="constant frame rate of all videos (default: every frame of each, as it is)",
    )
    parser.add_argument(
        "--crf", type=int, default=default.crf, help="quality, 0 (best; H.264: none lost) to 51 (default: %(default)s)"
    )
    parser.add_argument("--codec", choices=CODECS, default=default.codec, help="of the store (default: %(default)s)")
    parser.add_argument(
        "--preset", choices=_PRESETS, default=default.preset, help="of x264 or x265 (default: %(default)s)"
    )
    parser.add_argument(
        "--b-frames", type=int, default=default.b_frames, help="most B-frames in a row (default: %(default)s)"
    )
    parser.add_argument(
        "--tune", choices=("none", "fastdecode"), default=default.tune, help="of x264 or x265 (default: %(default)s)"
    )
    parser.add_argument(
        "--motion", action="store_true", help="keep how fast each block of 16 x 16 pixels moves, for clip.motion"
    )
    parser.add_argument("--workers", type=int, metavar="N", help="processes, on this machine (default: one per core)")
    cluster_option(parser, "normalise the videos")
    parser.add_argument("--time-limit", type=float, default=3600.0, metavar="S", help="seconds for one file")
    parser.add_argument("--shard-mb", type=int, default=1024, metavar="MB", help="size of a shard (default: 1024)")
    return parser.parse_args()


def main() -> None:
    """Ingest, check, and print what came of it."""
    arguments = parse_arguments()
    _check(arguments)
    if arguments.verify is None:
        _ingest(arguments)
    _verify(arguments.verify or arguments.out, arguments.sample)


def _check(arguments: argparse.Namespace) -> None:
    refuse_with_cluster(arguments, "workers")
    if arguments.workers is None:
        arguments.workers = usable_cores()
    if arguments.verify is not None and (arguments.source or arguments.out):
        raise InputError("--verify STORE stands alone: leave SOURCE and --out out")
    if arguments.verify is None and not (arguments.source and arguments.out):
        raise InputError("give SOURCE and --out STORE, or --verify STORE")
    ranges = {
        "short_side": (16, 4096), "gop": (1, 250), "fps": (0, 240), "crf": (0, 51), "b_frames": (0, 16),
        "workers": (1, 4096), "time_limit": (1, float("inf")), "shard_mb": (1, 2**20), "sample": (-1, float("inf")),
    }  # fmt: skip
    for name, (low, high) in ranges.items():
        value = getattr(arguments, name)
        if not low <= value <= high:
            raise InputError(f"--{name.replace('_', '-')} is {value:g}: it must be from {low:g} to {high:g}")
    if arguments.short_side % 2:
        raise InputError(f"--short-side is {arguments.short_side}: 4:2:0 pictures need an even number")


def _ingest(arguments: argparse.Namespace) -> None:
    # Here, because the processes that normalise import this file too.
    from engine.cluster.pool import open_pool
    from engine.data.manifests.manifest import Manifest
    from engine.data.remote.upload import Uploads, staging_folder
    from engine.data.store.index import StoreSettings
    from engine.data.store.ingest import INGEST_REASONS, REPORT_NAME, WorkSettings, ingest
    from engine.files.addresses import as_path, shown, url_of

    start = time.monotonic()
    out, uploads = as_path(arguments.out), None
    if url_of(out):
        out, target = staging_folder(out), out
        uploads = Uploads(out, target, keep=arguments.keep_local)
        print(f"the store is made in '{out}', and shards are uploaded as they are full", flush=True)
    elif arguments.keep_local:
        raise InputError("--keep-local is for a store in object storage: leave it out")
    settings = StoreSettings(**{name: getattr(arguments, name) for name in StoreSettings.__dataclass_fields__})
    work = WorkSettings(arguments.workers, arguments.time_limit, arguments.shard_mb * 2**20, arguments.motion)
    known = None if arguments.source.is_dir() else Manifest.load(arguments.source)
    stored = [out] if arguments.motion and out.is_dir() else []  # motion is read off what is there already
    with (
        uploads or contextlib.nullcontext(),
        open_pool(arguments.cluster, [known.root if known is not None else arguments.source, *stored]) as pool,
    ):
        source = known if known is not None else Manifest.load(_indexed(arguments.source, out, arguments.workers, pool))
        report = ingest(source, out, settings, work, pool, uploads)
        if uploads is not None:
            uploads.finish()
    print(f"\n{shown(uploads.target if uploads else out)} ({time.monotonic() - start:.1f} s)")
    for name, number, remark in (
        ("videos", report.num_videos, f"in {report.num_shards:,} shards"),
        ("rows", report.num_rows, "of the manifest"),
        ("frames", report.num_frames, ""),
        (
            "MB",
            report.num_bytes // 10**6,
            f"{report.num_bytes / max(report.source_bytes, 1):.2f} of the source's bytes",
        ),
        ("not usable", len(report.files), ""),
        *((f"  {kind}", count, INGEST_REASONS[kind]) for kind, count in report.bad.items()),
    ):
        print(f"  {name:<14}{number:>14,}  {remark}".rstrip())
    if report.files:
        print(f"each with its reason: {out / REPORT_NAME}")


def _indexed(folder: Path, out: Path, num_workers: int, pool: "Pool | None") -> Path:
    """The manifest of a folder, made within the store."""
    from engine.data.indexing.dataset import IndexSettings, index_dataset
    from engine.data.layouts import read_layout

    listing = read_layout("auto", folder)
    if not listing.lists and _is_seen_below(folder, out):
        raise InputError(
            f"the store '{out}' would lie within '{folder}', whose folders name the classes, and its shards be videos of one the "
            "next time: name an --out outside (a store may be moved as a folder)"
        )
    for note in listing.notes:
        print(note, flush=True)
    manifest = out / "source.parquet"
    index_dataset(listing, folder, manifest, IndexSettings(num_workers), pool)
    return manifest


def _is_seen_below(folder: Path, path: Path) -> bool:
    """Whether a path is the folder or lies in it, and who walks the folder meets it: hidden names are passed over."""
    folder, path = folder.resolve(), path.resolve()
    return path.is_relative_to(folder) and not any(name.startswith(".") for name in path.relative_to(folder).parts)


def _verify(store: Path, num_sampled: int) -> None:
    from engine.data.store.verify import verify
    from engine.files.addresses import shown as as_told
    from engine.files.addresses import url_of

    report = verify(store, num_sampled if num_sampled >= 0 else 2**62)
    if report.problems:
        shown = "; ".join(report.problems[:5]) + ("; ..." if len(report.problems) > 5 else "")
        mend = "copy it again, or remove it and ingest"
        if url_of(store):
            from engine.data.remote.upload import staging_folder

            mend = (
                f"give the command that made it again on the machine that made it (in '{staging_folder(store)}'); remove it "
                "first if that does not help"
            )
        raise InputError(f"store '{as_told(store)}' is damaged in {len(report.problems)} places: {shown}; {mend}")
    print(f"verified: all {report.num_videos:,} byte ranges; checksums and frames of {report.num_decoded:,} videos")


if __name__ == "__main__":
    run_command(main)
