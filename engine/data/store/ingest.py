"""From a manifest to a snippet store: every file normalised once, by processes; one process writes.

    manifest ──▶ files ──▶ in the store already and unchanged? ──▶ journal ──▶ store.index, manifest.parquet
                    └──▶ normalise, in parallel ──▶ shard ────────────▲              └──▶ report.json

The rows of the new manifest are those of the old one, in its order, with the facts of the normalised videos.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import astuple, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from engine.cluster.pool import LocalPool, Pool
from engine.data.indexing.journal import Failure, FileState
from engine.data.manifests.manifest import Manifest
from engine.data.manifests.manifest_table import SCHEMA, path_as_text
from engine.data.pyav.normalise import NORMALISE_REASONS, SourceVideo, frames_taken, normalise_file
from engine.data.pyav.probe import REASONS
from engine.data.pyav.stored_motion import CODEC as MOTION_CODEC
from engine.data.store.adding_motion import KILL_MARGIN_S, LOG_NAME, add_motion, has_motion
from engine.data.store.index import MANIFEST_NAME, StoreSettings, is_stored, stored_path
from engine.data.store.writer import StoredVideo, StoreRecord, StoreWriter
from engine.errors import InputError
from engine.files.addresses import shown
from engine.processes.process_pool import Lost
from engine.terminal.progress import Progress, say, tally, write_report

if TYPE_CHECKING:
    from engine.data.remote.upload import Uploads

INGEST_REASONS = {**REASONS, **NORMALISE_REASONS}
REPORT_NAME = "report.json"
_TRY_AGAIN = ("io-error", "too-slow", "crashed", "missing", "changed")  # may be mended without a new modification time


@dataclass(frozen=True, slots=True)
class WorkSettings:
    """How the work is done; it leaves no trace in the videos.

    num_workers: processes; 0 works in this process, without protection against crashes and hangs.
    time_limit_s: seconds for one file.
    shard_bytes: a shard that has reached them is followed by the next.
    motion: keep how fast the blocks of every frame move; a store that has it keeps it in any case.
    """

    num_workers: int = 0
    time_limit_s: float = 3600.0
    shard_bytes: int = 2**30
    motion: bool = False


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What came of it; kept as JSON in the store.

    num_rows: rows of the manifest. num_videos, num_frames, num_bytes: of the files in the store.
    source_bytes: size of those files before.
    bad: reason -> how many. files: path, reason and a sentence for each file that is not in the store.
    """

    settings: StoreSettings
    num_rows: int
    num_videos: int
    num_frames: int
    num_bytes: int
    source_bytes: int
    num_shards: int
    bad: dict[str, int]
    files: list[dict[str, str]]


def ingest(
    source: Manifest,
    folder: Path,
    settings: StoreSettings,
    work: WorkSettings,
    pool: Pool | None = None,
    uploads: "Uploads | None" = None,
) -> IngestReport:
    """Bring all videos of a manifest into the store in `folder`, and write its index, manifest and report.

    What was finished before a kill, or in an earlier run, is kept; index and manifest appear complete or not
    at all, and say the same whatever the number of workers and however often the run was interrupted.

    Args:
        pool: where files are normalised; default: by `work.num_workers` processes of this machine.
        uploads: of a store that goes to object storage: full shards leave `folder`. `uploads.finish` puts the rest.

    Raises:
        InputError: no video can be used, the source is a store itself or lists frames, or `folder` cannot be used.
    """
    pool, videos = pool or LocalPool(work.num_workers), _source_videos(source)
    if settings.fps and any(video.fps and not video.timed_frames for video in videos.values()):
        raise InputError(
            f"'{source.source}' does not say when the frames of its videos are shown (it was made before that was noted), which "
            "--fps needs: index the data set again, or ingest without --fps"
        )
    if work.motion and settings.codec != MOTION_CODEC:
        raise InputError(f"FFmpeg gives out no motion vectors of {settings.codec}: leave --motion out, or --codec")
    with StoreWriter(folder, settings, work.shard_bytes, uploads) as writer:
        work = replace(work, motion=work.motion or any(has_motion(record) for record in writer.records.values()))
        records = _normalise_all(videos, source, writer, work, pool)
        if work.motion:
            add_motion(records, writer, pool, work.time_limit_s)
        stored = [path for path, record in records.items() if isinstance(record.made, StoredVideo)]
        if not stored:
            failed = _summarise(records, settings, 0)
            write_report(failed, folder / REPORT_NAME)
            why = f"({tally(failed.bad)}): see '{folder / REPORT_NAME}'"
            raise InputError(f"none of the {len(videos)} files can be used {why}")
        stored = writer.finish(stored)
    manifest = build_manifest(source, {path: records[path].made for path in stored}, Path(), settings)
    manifest.save(folder / MANIFEST_NAME)
    report = _summarise(records, settings, len(manifest))
    write_report(report, folder / REPORT_NAME)
    return report


def _source_videos(source: Manifest) -> dict[str, SourceVideo]:
    """Path -> the file, once for each file, in the manifest's order."""
    stills = np.flatnonzero(source.is_still)
    if len(stills):
        raise InputError(
            f"'{source.source}' lists {len(stills)} still picture(s), the first is "
            f"'{source.paths[stills[0]]}': a store holds videos; pictures are trained on as they are"
        )
    columns = ("fps", "rotation", "file_bytes", "file_frames", "mtime_ns", "content_hash")
    columns += ("timed_frames", "frame_times")
    videos: dict[str, SourceVideo] = {}
    values = (source.table.column(name).to_pylist() for name in columns)
    for path, *facts, timed, times in zip(source.paths, *values, strict=True):
        if is_stored(path):
            raise InputError(
                f"'{shown(source.source)}' is the manifest of a store already: ingest the original videos' manifest"
            )
        videos.setdefault(path, SourceVideo(path, *facts, timed or (), times or ()))
    return videos


def _normalise_all(
    videos: Mapping[str, SourceVideo], source: Manifest, writer: StoreWriter, work: WorkSettings, pool: Pool
) -> dict[str, StoreRecord]:
    """Path -> what is in the store of it, for all files in their order; what is not there yet is normalised."""
    states = {path: FileState.of(source.root / path) for path in videos}
    pending = [
        video
        for path, video in videos.items()
        if not _holds(writer.records.get(path), states[path], video, writer.settings)
    ]
    if len(pending) < len(videos):
        say(f"{len(videos) - len(pending)} of {len(videos)} files are in the store and unchanged")
    task = partial(
        normalise_file,
        root=source.root,
        settings=writer.settings,
        time_limit_s=work.time_limit_s,
        motion=work.motion,
    )
    outcomes = pool.run(task, pending, work.time_limit_s + KILL_MARGIN_S)
    num_bad = 0
    num_frames = sum(video.num_frames for video in pending)
    with Progress(num_frames, "frame", log=writer.folder / LOG_NAME) as progress:
        for video, made in outcomes:
            if isinstance(made, Lost):
                made = Failure.of(made)
            if isinstance(made, Failure):
                writer.add_failure(video.path, states[video.path], made, _said(video))
                num_bad += 1
            else:
                writer.add(video.path, states[video.path], made)
            progress.advance(num_bad, video.num_frames)
    return {path: writer.records[path] for path in videos}


def _holds(record: StoreRecord | None, state: FileState, video: SourceVideo, settings: StoreSettings) -> bool:
    """Whether a file is dealt with. The originals may be gone once their videos are stored.

    Stores of before have other numbers of frames where they took decoding stamps for times, or made a variable rate constant.
    """
    if record is None:
        return False
    if isinstance(record.made, Failure):
        return (record.state, record.said) == (state, _said(video)) and record.made.kind not in _TRY_AGAIN
    num_frames = len(frames_taken(video, settings))
    return state.num_bytes < 0 or (record.state == state and record.made.num_frames == num_frames)


def _said(video: SourceVideo) -> str:
    """What the manifest says of a file, in short: one that failed is tried again once it says another thing."""
    return hashlib.blake2b(repr(astuple(video)).encode(), digest_size=8).hexdigest()


def build_manifest(
    source: Manifest, stored: Mapping[str, StoredVideo], root: Path, settings: StoreSettings
) -> Manifest:
    """The rows of `source` whose files are stored, as rows of the store; `stored` in the order of the index.

    A labelled segment has the same frames, as far as the store has taken them.
    """
    numbers = {path: number for number, path in enumerate(stored)}
    paths = source.paths
    rows = np.flatnonzero([path in numbers for path in paths])
    table = source.table.take(pa.array(rows))
    videos = [stored[paths[row]] for row in rows]
    file_frames = np.array([video.num_frames for video in videos], np.int64)
    old = {name: table.column(name).to_numpy() for name in ("first_frame", "num_frames", "file_frames", "fps")}
    factor = file_frames / old["file_frames"]  # 1, but for videos of an earlier version whose originals are gone
    first = np.floor(old["first_frame"] * factor + 1e-6).astype(np.int64)
    end = np.ceil((old["first_frame"] + old["num_frames"]) * factor - 1e-6).astype(np.int64)
    if settings.fps:
        sources = _source_videos(source)
        taken = {path: frames_taken(sources[path], settings) for path in stored}
        first, end = (
            np.array([np.searchsorted(taken[paths[row]], frame) for row, frame in zip(rows, frames, strict=True)])
            for frames in (old["first_frame"], old["first_frame"] + old["num_frames"])
        )
    first = np.minimum(first, file_frames - 1)
    fps = np.array([video.fps for video in videos])
    if not settings.fps:
        fps = np.where(old["fps"] > 0, old["fps"], fps)
    columns = {
        "path": [path_as_text(stored_path(numbers[paths[row]], paths[row])) for row in rows],
        "num_frames": np.clip(end, first + 1, file_frames) - first,
        "first_frame": first,
        "file_frames": file_frames,
        "fps": fps,
        "width": [video.width for video in videos],
        "height": [video.height for video in videos],
        "rotation": np.zeros(len(rows)),
        "codec": [settings.codec] * len(rows),
        "pixel_format": ["yuv420p"] * len(rows),
        "duration": file_frames / fps,
        "file_bytes": [video.num_bytes for video in videos],
        "key_frames": [[]] * len(rows),  # the index knows them
        "key_pts": [[]] * len(rows),
        "mtime_ns": [None] * len(rows),  # stored bytes have their own checksums; content_hash stays the original's
        "oddity": [""] * len(rows),
    }
    if settings.fps:  # two times say it all; a file need not begin at 0
        begin = [times[0] if times else 0.0 for times in table.column("frame_times").to_pylist()]
        columns["timed_frames"] = [[0, count] for count in file_frames.tolist()]
        columns["frame_times"] = [
            [start, start + count / rate]
            for start, count, rate in zip(begin, file_frames.tolist(), fps.tolist(), strict=True)
        ]
    for index, field in enumerate(SCHEMA):
        if field.name in columns:
            table = table.set_column(index, field, pa.array(columns[field.name]).cast(field.type))
    return Manifest(table, root)


def _summarise(records: Mapping[str, StoreRecord], settings: StoreSettings, num_rows: int) -> IngestReport:
    stored = [record for record in records.values() if isinstance(record.made, StoredVideo)]
    failures = [(path, record.made) for path, record in records.items() if isinstance(record.made, Failure)]
    return IngestReport(
        settings=settings,
        num_rows=num_rows,
        num_videos=len(stored),
        num_frames=sum(record.made.num_frames for record in stored),
        num_bytes=sum(record.made.num_bytes for record in stored),
        source_bytes=sum(record.state.num_bytes for record in stored),
        num_shards=len({record.made.shard for record in stored}),
        bad=dict(Counter(failure.kind for _, failure in failures).most_common()),
        files=[{"path": path, "kind": failure.kind, "text": failure.text} for path, failure in failures],
    )
