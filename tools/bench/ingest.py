"""Ingesting videos: what each setting costs and gives, both layouts, and the speed beside FFmpeg's own transcode.

    python tools/bench_throughput.py ingest --manifest ucf15.parquet

Two tables. Speed: all files normalised by the engine in one process, and by a plain FFmpeg transcode of the same files
with the same filter, rate and encoder settings (decode, scale, x264, MP4), in turns. Settings: for each, bytes a frame,
luma PSNR and SSIM against the frames that went into the encoder (FFmpeg's `psnr` and `ssim` filters, against a
lossless encoding), frames ingested a second, and clips decoded a second by the engine from two layouts: packed groups
(the store) and an MP4 file a video. Seconds are computing time, which other load disturbs less.
"""

import argparse
import io
import os
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from bench.decode import decode_with, engine, measure
from bench.material import check_counts, prepare
from bench.turns import Turns
from engine.data.manifests.manifest import Manifest
from engine.data.pyav.normalise import (
    ENCODERS,
    NormalisedVideo,
    SourceVideo,
    encoder_options,
    even_size,
    normalise_file,
    output_rate,
)
from engine.data.store.index import StoreSettings
from engine.errors import InputError
from engine.records import append_record
from engine.results.table import Table

_TIME_LIMIT_S = 600.0
_SCALE_FLAGS = "bilinear+accurate_rnd+full_chroma_int+full_chroma_inp"
VARIANTS = (
    {},
    {"gop": 32},
    {"gop": 8},
    {"b_frames": 2},
    {"crf": 18},
    {"crf": 23},
    {"preset": "veryfast"},
    {"preset": "slow"},
    {"tune": "none"},
    {"tune": "none", "b_frames": 2},
    {"short_side": 256},
    {"codec": "hevc"},
    {"codec": "hevc", "crf": 23},
    {"codec": "hevc", "tune": "none"},
    {"codec": "hevc", "preset": "veryfast"},
)


def run(arguments: argparse.Namespace) -> None:
    """Measure, print both tables, append a record.

    Raises:
        InputError: an option out of range, or a video that cannot be ingested.
    """
    check_counts(arguments, "num_videos", "snippets", "repeats", "variants")
    default = StoreSettings(short_side=arguments.short_side)
    with tempfile.TemporaryDirectory() as folder:
        raw = prepare(arguments, Path(folder) / "first", default).raw
        speeds, ratio = compare_speed(raw, default, arguments.repeats, Path(folder))
        rows = [
            _try(replace(default, **changes), changes, raw, arguments) for changes in VARIANTS[: arguments.variants]
        ]
    print(
        f"{len(raw)} videos of {arguments.manifest or 'drawn textures'}, frames/s of computing, {arguments.repeats} runs"
    )
    measured = {"speeds": speeds, "ratio": ratio, "settings": rows}
    print("\n\n".join(table.text() for table in tables_of(measured).values()))
    if not arguments.no_record:
        fields = {
            "device_type": "cpu",
            "videos": len(raw),
            "drawn": arguments.manifest is None,
            "default": asdict(default),
        }
        path = append_record("ingest", n=arguments.repeats, **measured, **fields)
        print(f"recorded in {Path(os.path.relpath(path))}")


def tables_of(record: Mapping[str, Any]) -> dict[str, Table]:
    """Both tables of a record: speed beside a plain transcode, in frames a second of computing, and settings."""
    points, settings = ("p20", "p50", "p80"), record["settings"]
    speeds = [[name, *(values[point] for point in points)] for name, values in record["speeds"].items()]
    speeds.append(["ingest / plain transcode", "", record["ratio"], ""])
    heads = [name for name in settings[0] if name != "settings"]
    rows = [[row["settings"], *("" if row[name] is None else row[name] for name in heads)] for row in settings]
    return {"frames/s": Table(["", *points], speeds), "settings": Table(["setting", *heads], rows)}


def source_videos(raw: Manifest) -> list[SourceVideo]:
    """The files of a manifest as ingest sees them."""
    fps = raw.table.column("fps").to_pylist()
    videos = [raw.video(row) for row in range(len(raw))]
    facts = zip(videos, fps, strict=True)
    return [SourceVideo(str(v.path), rate, v.rotation, v.file_bytes, v.file_frames) for v, rate in facts]


def compare_speed(
    raw: Manifest, settings: StoreSettings, repeats: int, folder: Path
) -> tuple[dict[str, dict[str, float]], float]:
    """Frames per second of computing of both, and the median of the ratios of neighbouring runs."""
    sources, num_frames, out = source_videos(raw), int(raw.num_frames.sum()), folder / "plain.mp4"
    ways = {
        "ingest": lambda: [_normalise(source, settings) for source in sources],
        "plain transcode": lambda: [transcode_plainly(source, settings, out) for source in sources],
    }
    turns: Turns[Callable[[], object], float] = Turns(ways)

    def turn(way: Callable[[], object]) -> float:
        start = time.process_time()
        way()
        return num_frames / (time.process_time() - start)

    for _ in turns.take(repeats, turn):
        pass
    ratio = statistics.median(a / b for a, b in zip(*turns.samples.values(), strict=True))
    return turns.summaries(float), ratio


def _normalise(source: SourceVideo, settings: StoreSettings) -> NormalisedVideo:
    made = normalise_file(source, Path(), settings, _TIME_LIMIT_S)
    if not isinstance(made, NormalisedVideo):
        raise InputError(f"'{source.path}' cannot be ingested: {made.text}; take it out of the manifest")
    return made


def transcode_plainly(source: SourceVideo, settings: StoreSettings, out: Path) -> int:
    """Decode, `fps` and `scale` filters, the encoder with the settings of ingest, MP4; returns the number of frames."""
    rate = output_rate(source.fps, settings)
    with av.open(source.path) as container, av.open(str(out), "w") as target:
        decoded = container.streams.video[0]
        decoded.codec_context.thread_count = 1
        width, height = even_size(decoded.codec_context.width, decoded.codec_context.height, settings.short_side)
        encoder = target.add_stream(ENCODERS[settings.codec], rate=rate, width=width, height=height, pix_fmt="yuv420p")
        context = encoder.codec_context
        context.thread_count, context.gop_size, context.max_b_frames = 1, settings.gop, settings.b_frames
        context.options = encoder_options(settings)
        graph = av.filter.Graph()
        graph.threads = 1
        graph.link_nodes(
            graph.add_buffer(template=decoded, time_base=decoded.time_base),
            graph.add("fps", str(rate)),
            graph.add("scale", f"{width}:{height}:flags={_SCALE_FLAGS}"),
            graph.add("format", "yuv420p"),
            graph.add("buffersink"),
        ).configure()
        for frame in [*container.decode(decoded), None]:
            graph.push(frame)
            while (scaled := _pull(graph)) is not None:
                scaled.pict_type = 0
                target.mux(encoder.encode(scaled))
        target.mux(encoder.encode(None))
        return encoder.frames


def _pull(graph: av.filter.Graph) -> av.VideoFrame | None:
    try:
        return graph.pull()
    except (av.error.BlockingIOError, av.error.EOFError):
        return None


def _try(
    settings: StoreSettings, changes: dict[str, object], raw: Manifest, arguments: argparse.Namespace
) -> dict[str, object]:
    """One row of the table of settings."""
    sources = source_videos(raw)
    start = time.process_time()
    made = [_normalise(source, settings) for source in sources]
    seconds = time.process_time() - start
    lossless = replace(settings, crf=0, preset="ultrafast", tune="none", b_frames=0, codec="h264")
    exact = [_normalise(source, lossless) for source in sources]
    quality = {name: _quality(name, made, exact, settings.codec) for name in ("psnr", "ssim")}
    options = argparse.Namespace(**{**vars(arguments), "short_side": settings.short_side})
    with tempfile.TemporaryDirectory() as folder:
        material = prepare(options, Path(folder), settings)
        forms = {"store": material.store} | ({} if material.mp4 is None else {"mp4": material.mp4})
        runners = {name: decode_with(engine(material, 1), material, form) for name, form in forms.items()}
        speeds = measure(material, runners, arguments.repeats, cold=False).summaries(lambda run: run.by_computing)
    frames = sum(video.num_frames for video in made)
    row = {
        "settings": ", ".join(f"{name} {value}" for name, value in changes.items()) or "default",
        "bytes/frame": sum(len(video.data) for video in made) / frames,
        "PSNR dB": quality["psnr"],
        "SSIM": quality["ssim"],
        "ingest frames/s": frames / seconds,
        "store clips/s": speeds["store"]["p50"],
    }
    if material.mp4 is None:
        return row | {"bytes/frame in MP4": None, "MP4 clips/s": None}
    mp4_bytes = sum(material.mp4.video(row).file_bytes for row in range(len(material.mp4)))
    return row | {"bytes/frame in MP4": mp4_bytes / frames, "MP4 clips/s": speeds["mp4"]["p50"]}


def _quality(name: str, made: list[NormalisedVideo], exact: list[NormalisedVideo], codec: str) -> float:
    """The mean over all frames of FFmpeg's filter `psnr` (dB) or `ssim`, of luma; `exact` is of H.264."""
    pattern = {"psnr": r"psnr_y:(\S+)", "ssim": r" Y:(\S+)"}[name]
    values: list[float] = []
    for video, reference in zip(made, exact, strict=True):
        with tempfile.TemporaryDirectory() as folder:
            log = Path(folder) / "log"
            _run_filter(f"{name}", f"stats_file={log}", (video, codec), (reference, "h264"))
            values += [float(value) for value in re.findall(pattern, log.read_text())]
    return float(np.mean(np.minimum(values, 100.0)))  # equal frames: infinite dB


def _run_filter(name: str, options: str, *inputs: tuple[NormalisedVideo, str]) -> None:
    """Send the frames of two videos (and codecs) through a filter of two inputs."""
    video, _ = inputs[0]
    graph, rate = av.filter.Graph(), Fraction(video.fps).limit_denominator(1001)
    filter_, sink = graph.add(name, options), graph.add("buffersink")
    buffers = []
    for index in (0, 1):
        buffers.append(graph.add_buffer(width=video.width, height=video.height, format="yuv420p", time_base=1 / rate))
        buffers[-1].link_to(filter_, 0, index)
    filter_.link_to(sink)
    graph.configure()
    containers = [av.open(io.BytesIO(made.data), format=codec) for made, codec in inputs]
    for number, pair in enumerate(zip(*(container.decode(video=0) for container in containers), strict=True)):
        for buffer, frame in zip(buffers, pair, strict=True):
            frame.pts, frame.time_base = number, 1 / rate
            buffer.push(frame)
        while _pull(graph) is not None:
            pass
    for container in containers:
        container.close()
