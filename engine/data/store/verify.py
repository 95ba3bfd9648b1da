"""Whether a store holds what its index and its manifest say."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import av
import numpy as np

from engine.data.manifests.manifest import Manifest
from engine.data.pyav.gops import GopDecoder
from engine.data.store.index import (
    INDEX_NAME,
    MANIFEST_NAME,
    MOTION_NAME,
    Entry,
    StoreIndex,
    motion_bytes,
    shard_path,
    split_stored_path,
)
from engine.data.store.reader import StoreError, StoreReader, open_reader
from engine.files.addresses import as_path, url_of
from engine.terminal.progress import Progress


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """num_videos: in the store. num_decoded: of them decoded to their end. problems: one line for each thing wrong."""

    num_videos: int
    num_decoded: int
    problems: list[str]


def verify(folder: Path, num_sampled: int) -> VerifyReport:
    """Check byte ranges and manifest of the whole store; checksums and frames of a random sample of its videos, always the same.

    Args:
        folder: of the store.
        num_sampled: videos that are read and decoded; every GOP by itself.

    Raises:
        InputError: there is no store, or no manifest.
    """
    folder = as_path(folder)
    index = StoreIndex(folder / INDEX_NAME)
    manifest = Manifest.load(folder / MANIFEST_NAME)
    problems = [*_check_ranges(index, folder), *_check_manifest(index, manifest)]
    names = _names(index, manifest)
    numbers = np.random.default_rng(0).permutation(len(index))[:num_sampled]
    reader, decoder = open_reader(index), GopDecoder()
    with contextlib.closing(reader), Progress(len(numbers), "video", label="verify") as progress:
        for number in sorted(numbers.tolist()):
            try:
                problem = check_video(reader, index[number], decoder)
            except (StoreError, av.FFmpegError) as error:
                problem = str(error)
            if problem:
                problems.append(f"{names[number]}: {problem}")
            progress.advance(len(problems))
    return VerifyReport(len(index), len(numbers), problems)


def check_video(reader: StoreReader, entry: Entry, decoder: GopDecoder) -> str | None:
    """What is wrong with a video; None if its bytes are those written and each GOP decodes to its frames."""
    gop, codec = reader.index.settings.gop, reader.index.settings.codec
    data = reader.read(entry, 0, len(entry.group_end) - 1)
    if crc32(data) != entry.crc32:
        return "its bytes are not those that were written (checksum)"
    if reader.index.has_motion and crc32(reader.read_motion(entry, 0, entry.num_frames - 1)) != entry.motion_crc32:
        return "its motion is not what was written (checksum)"
    start = 0
    for group, end in enumerate(entry.group_end.tolist()):
        expected = min(gop, entry.num_frames - group * gop)
        sizes = [(frame.width, frame.height) for frame in decoder.frames(data[start:end], codec)]
        if sizes != [(entry.width, entry.height)] * expected:
            return f"GOP {group} decodes to {len(sizes)} frames of {set(sizes)}, not to {expected}"
        start = end
    return None


def _check_ranges(index: StoreIndex, folder: Path) -> list[str]:
    """Every range must lie within its shard, no two may overlap, every GOP must be counted for."""
    problems = []
    first_group, group_end = index.columns["first_group"].astype(np.int64), index.columns["group_end"]
    groups = -(-index.columns["num_frames"].astype(np.int64) // index.settings.gop)
    if first_group[0] or first_group[-1] != len(group_end) or (np.diff(first_group) != groups).any():
        problems.append("videos have other numbers of GOPs than their frames make")
    else:
        problems += _check_shards(index, folder, group_end[first_group[1:] - 1])
    if index.has_motion:
        problems += _check_motion(index, folder / MOTION_NAME)
    return problems


def _check_shards(index: StoreIndex, folder: Path, num_bytes: np.ndarray) -> list[str]:
    """num_bytes: uint64 [V], of each video."""
    problems = []
    start = index.columns["offset"].astype(np.float64)  # exact up to 2**53; of a damaged index nothing wraps around
    end = start + num_bytes
    for shard in np.unique(index.columns["shard"]).tolist():
        path, rows = shard_path(folder, shard, index.settings.codec), np.flatnonzero(index.columns["shard"] == shard)
        rows = rows[np.argsort(start[rows])]
        size = _size(path)
        if size is None:
            problems.append(f"shard {path.name} is missing, with {len(rows)} videos")
        elif end[rows].max() > size:
            problems.append(f"shard {path.name} is cut short: {size} bytes of {end[rows].max():.0f}")
        if (start[rows[1:]] < end[rows[:-1]]).any():
            problems.append(f"videos overlap in shard {path.name}")
    return problems


def _check_motion(index: StoreIndex, path: Path) -> list[str]:
    columns = index.columns
    sizes = zip(*(columns[name].tolist() for name in ("num_frames", "width", "height")), strict=True)
    start = columns["motion_offset"].astype(np.float64)  # as above
    end = start + np.array([motion_bytes(*size) for size in sizes], np.float64)
    order = np.argsort(start)
    size = _size(path)
    if size is None:
        return [f"{path.name} is missing, with the motion of {len(index)} videos"]
    problems = ["the motion of videos overlaps"] if (start[order[1:]] < end[order[:-1]]).any() else []
    return problems + ([f"{path.name} is cut short: {size} bytes of {end.max():.0f}"] if end.max() > size else [])


def _size(path: Path) -> int | None:
    """Length of a file, wherever it lies; None if it is not there."""
    url = url_of(path)
    if url is None:
        return path.stat().st_size if path.is_file() else None
    from engine.data.remote.objects import size_of

    try:
        return size_of(url)
    except FileNotFoundError:
        return None


def _check_manifest(index: StoreIndex, manifest: Manifest) -> list[str]:
    """Every row must name a video of its size and number of frames."""
    problems, seen = [], set()
    facts = [manifest.table.column(name).to_pylist() for name in ("file_frames", "file_bytes")]
    for path, num_frames, num_bytes in zip(manifest.paths, *facts, strict=True):
        position = split_stored_path(manifest.root / path)
        number = position[1] if position else -1
        if not 0 <= number < len(index):
            problems.append(f"row '{path}' of the manifest names no video of the store")
        elif number not in seen and (num_frames, num_bytes) != (index[number].num_frames, index[number].num_bytes):
            problems.append(f"row '{path}' of the manifest has other frames or bytes than the store")
        seen.add(number)
    missing = set(range(len(index))) - seen
    return problems + ([f"{len(missing)} videos of the store are not in its manifest"] if missing else [])


def _names(index: StoreIndex, manifest: Manifest) -> Sequence[str]:
    names = [f"video {number}" for number in range(len(index))]
    for path in manifest.paths:
        position = split_stored_path(manifest.root / path)
        if position and position[1] < len(names):
            names[position[1]] = path
    return names
