"""Motion for the videos of a store that was made without: read off the vectors of what is stored."""

import time
from functools import partial
from pathlib import Path
from zlib import crc32

import av

from engine.cluster.pool import Pool
from engine.data.pyav.opening import reason_of
from engine.data.pyav.stored_motion import motion_of
from engine.data.store.index import StoreSettings, shard_path
from engine.data.store.writer import StoredVideo, StoreRecord, StoreWriter
from engine.errors import InputError
from engine.files.addresses import url_of
from engine.processes.process_pool import Lost
from engine.terminal.progress import Progress, say

LOG_NAME = "log.jsonl"
KILL_MARGIN_S = 30.0  # a process is killed only if the limit within it did not work


def has_motion(record: StoreRecord) -> bool:
    """Whether it is a stored video with its motion."""
    return isinstance(record.made, StoredVideo) and record.made.has_motion


def add_motion(records: dict[str, StoreRecord], writer: StoreWriter, pool: Pool, time_limit_s: float) -> None:
    """Read the motion of videos that were stored without off what is stored of them.

    Args:
        time_limit_s: seconds for one video.

    Raises:
        InputError: one cannot be read, or does not decode, or not in time.
    """
    stored = {path: record.made for path, record in records.items() if isinstance(record.made, StoredVideo)}
    pending = {path: video for path, video in stored.items() if not video.has_motion}
    if not pending:
        return
    say(f"motion is added to {len(pending)} stored videos")
    target = None
    if writer.uploads is not None:
        writer.uploads.wait()  # a shard is here or there
        target = writer.uploads.target
    task = partial(
        _stored_motion, folder=writer.folder, target=target, settings=writer.settings, time_limit_s=time_limit_s
    )
    outcomes = pool.run(task, list(pending.items()), time_limit_s + KILL_MARGIN_S)
    num_frames = sum(video.num_frames for video in pending.values())
    with Progress(num_frames, "frame", log=writer.folder / LOG_NAME) as progress:
        for (path, video), motion in outcomes:
            if not isinstance(motion, bytes):
                reason = motion.text if isinstance(motion, Lost) else motion
                raise InputError(f"no motion of '{path}' in '{writer.folder}': {reason} (see tools/ingest.py --verify)")
            writer.add_motion(path, motion)
            records[path] = writer.records[path]
            progress.advance(0, video.num_frames)


def _stored_motion(
    item: tuple[str, StoredVideo], folder: Path, target: Path | None, settings: StoreSettings, time_limit_s: float
) -> bytes | str:
    """The motion of a stored video, whose shard is here or at `target`; or why there is none."""
    video, deadline = item[1], time.monotonic() + time_limit_s
    shard = shard_path(Path(), video.shard, settings.codec)
    try:
        data = _stored_bytes(video, folder, target, settings.codec)
    except OSError as error:
        return f"shard {shard} cannot be read ({error.strerror or 'it is not there'})"
    if crc32(data) != video.crc32:
        return f"its bytes in shard {shard} are not those that were written (checksum)"
    try:
        return motion_of(data, video.group_bytes, video.num_frames, deadline)
    except TimeoutError:
        return f"it takes more than {time_limit_s:g} s, raise --time-limit"
    except av.FFmpegError as error:
        return f"it does not decode ({reason_of(error)})"


def _stored_bytes(video: StoredVideo, folder: Path, target: Path | None, codec: str) -> bytes:
    path = shard_path(folder, video.shard, codec)
    if target is not None and not path.exists():
        from engine.data.remote.objects import read_range  # only where there is something remote

        return read_range(url_of(shard_path(target, video.shard, codec)), video.offset, video.num_bytes)
    with path.open("rb") as file:
        file.seek(video.offset)
        return file.read(video.num_bytes)
