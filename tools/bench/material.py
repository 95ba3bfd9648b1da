"""The videos and snippets that decoding is measured on: as they are, in a store, and as MP4 files of the store's frames."""

import argparse
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from engine.data.batch import ClipFormat
from engine.data.indexing.dataset import index_folder
from engine.data.manifests.manifest import Manifest
from engine.data.pyav.encode import write_video
from engine.data.pyav.gops import split_frames
from engine.data.pyav.normalise import ENCODERS
from engine.data.store.index import MANIFEST_NAME, StoreSettings
from engine.data.store.ingest import WorkSettings, ingest
from engine.data.store.reader import find_entry
from engine.errors import InputError

_DRAWN = (8, 250, (320, 240))  # videos, frames, size: what is measured without a manifest


@dataclass(frozen=True, slots=True)
class Material:
    """The videos in three forms, row by row the same, and the snippets to decode: (row, start).

    mp4: None where the store has B-frames, whose order in time its bytes do not tell a muxer.
    hevc: a second store, of HEVC; None where it is not wanted.
    """

    raw: Manifest
    store: Manifest
    mp4: Manifest | None
    snippets: list[tuple[int, int]]
    clip: ClipFormat
    hevc: Manifest | None = None


def check_counts(arguments: argparse.Namespace, *names: str) -> None:
    """Refuse options that count something and are below 1.

    Raises:
        InputError: naming the first of them.
    """
    for name in names:
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise InputError(f"--{name.replace('_', '-')} is {value}: it must be at least 1")


def check_even(arguments: argparse.Namespace, *names: str) -> None:
    """Refuse sides of pictures that are odd.

    Raises:
        InputError: naming the first of them.
    """
    for name in names:
        if (value := getattr(arguments, name)) % 2:
            raise InputError(f"--{name.replace('_', '-')} is {value}: 4:2:0 pictures need an even number")


def clip_of(arguments: argparse.Namespace) -> ClipFormat:
    """The clips of --short-side and --crop.

    Raises:
        InputError: there are none of these sizes.
    """
    check_counts(arguments, "short_side", "crop")
    if arguments.crop > arguments.short_side:
        raise InputError(f"--crop is {arguments.crop}: it must be at most --short-side, {arguments.short_side}")
    return ClipFormat(short_side=arguments.short_side, crop=arguments.crop)


def prepare(
    arguments: argparse.Namespace, folder: Path, settings: StoreSettings | None = None, *, motion: bool = False
) -> Material:
    """Choose the videos, ingest them (by the default settings; with their motion), write the MP4 files, draw the snippets.

    Raises:
        InputError: sizes that no store or snippet has, or videos that are too short or cannot be ingested.
    """
    check_even(arguments, "short_side")
    clip = clip_of(arguments)
    generator = np.random.default_rng(arguments.seed)
    raw = Manifest.load(arguments.manifest or drawn_manifest(folder, generator))
    rows = np.flatnonzero(raw.num_frames >= clip.span)
    raw = raw.select(np.sort(generator.permutation(rows)[: arguments.num_videos]))
    if len(raw) == 0:
        raise InputError(f"'{raw.source}' lists no video of at least {clip.span} frames: name another --manifest")
    settings = settings or StoreSettings(short_side=arguments.short_side)
    report = ingest(raw, folder / "store", settings, WorkSettings(motion=motion))
    if report.files:
        raise InputError(f"'{raw.source}' has files that cannot be ingested: {report.files[:3]}")
    store = Manifest.load(folder / "store" / MANIFEST_NAME)
    mp4 = None if settings.b_frames else _mp4_files(store, folder, settings)
    frames = np.minimum(raw.num_frames, store.num_frames)
    chosen = generator.integers(0, len(raw), arguments.snippets)
    starts = generator.integers(0, np.maximum(frames[chosen] - clip.span, 0), endpoint=True)
    return Material(raw, store, mp4, list(zip(chosen.tolist(), starts.tolist(), strict=True)), clip)


def add_hevc(material: Material, folder: Path, crf: int, num_workers: int) -> Material:
    """With a store of HEVC of the same videos, of that quality, made by so many processes."""
    settings = StoreSettings(short_side=material.clip.short_side, codec="hevc", crf=crf)
    report = ingest(material.raw, folder / "hevc", settings, WorkSettings(num_workers))
    if report.files:
        raise InputError(f"'{material.raw.source}' has files that cannot be ingested: {report.files[:3]}")
    return replace(material, hevc=Manifest.load(folder / "hevc" / MANIFEST_NAME))


def _mp4_files(store: Manifest, folder: Path, settings: StoreSettings) -> Manifest:
    for row in range(len(store)):
        write_mp4(store, row, folder / "mp4" / "all" / f"{row:06d}.mp4", settings)
    index_folder(folder / "mp4", folder / "mp4.parquet")
    return Manifest.load(folder / "mp4.parquet")


def drawn_manifest(folder: Path, generator: np.random.Generator) -> Path:
    """Draw a few videos into a folder and index them; returns their manifest."""
    draw_videos(folder / "raw", generator)
    index_folder(folder / "raw", folder / "raw.parquet")
    return folder / "raw.parquet"


def draw_videos(folder: Path, generator: np.random.Generator) -> None:
    """A few H.264 videos of a soft texture that drifts, key frames 250 apart, a folder as the class."""
    count, num_frames, (width, height) = _DRAWN
    (folder / "drawn").mkdir(parents=True)
    for number in range(count):
        texture = generator.integers(0, 256, (height // 8, width // 8, 3)).astype(np.float32)
        texture = np.kron(texture, np.ones((8, 8, 1), np.float32))
        for axis in (0, 1):  # a box filter over 16 pixels
            texture = np.mean([np.roll(texture, shift, axis) for shift in range(16)], axis=0)
        steps = generator.integers(-3, 4, (num_frames, 2)).cumsum(axis=0)
        frames = (np.roll(texture, tuple(step), axis=(0, 1)).astype(np.uint8) for step in steps.tolist())
        write_video(folder / "drawn" / f"{number}.mp4", frames, gop=250)


def write_mp4(store: Manifest, row: int, path: Path, settings: StoreSettings) -> None:
    """The coded frames of a stored video without B-frames, in an MP4 file of its own."""
    reader, entry = find_entry(store.video(row))
    data = reader.read(entry, 0, len(entry.group_end) - 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    rate = Fraction(float(store.table.column("fps")[row].as_py())).limit_denominator(1001)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(ENCODERS[settings.codec], rate=rate)  # only its description is used
        stream.width, stream.height, stream.pix_fmt = entry.width, entry.height, "yuv420p"
        stream.codec_context.options = {"x265-params": "log-level=none:pools=none"} if settings.codec == "hevc" else {}
        stream.codec_context.extradata = _parameter_sets(data, settings.codec)
        container.start_encoding()
        for number, frame in enumerate(split_frames(data, settings.codec)):
            packet = av.Packet(frame)
            packet.stream, packet.time_base = stream, 1 / rate
            packet.pts = packet.dts = number
            packet.is_keyframe = number % settings.gop == 0
            container.mux(packet)


def _parameter_sets(data: bytes, codec: str) -> bytes:
    """The parameter sets (of sequence, picture and, in HEVC, video) before the first frame, each behind its start code."""
    units = [unit for unit in data[:4096].split(b"\x00\x00\x01")[1:] if unit]  # the cut may be at a start code
    if codec == "hevc":
        wanted = [unit for unit in units if unit[0] >> 1 & 63 in (32, 33, 34)]
    else:
        wanted = [unit for unit in units if unit[0] & 31 in (7, 8)]
    return b"".join(b"\x00\x00\x00\x01" + unit.rstrip(b"\x00") for unit in wanted)
