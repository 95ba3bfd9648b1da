"""Writing a snippet store so that a kill at any moment loses nothing that was finished and doubles nothing.

    normalised video ──append──▶ shard ──then──▶ journal line           at the end: journal ──▶ store.index

A video counts once its line stands in the journal. What a kill left behind it in the shard is cut off when the
store is opened again. One process writes; others normalise.
"""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING
from zlib import crc32

import numpy as np

from engine.data.indexing.journal import Failure, FileState
from engine.data.pyav.normalise import NormalisedVideo
from engine.data.store.index import (
    FIRST_CODEC,
    INDEX_NAME,
    MANIFEST_NAME,
    MOTION_NAME,
    StoreSettings,
    motion_bytes,
    numbers_of,
    shard_number,
    shard_path,
    write_index,
)
from engine.errors import InputError, writing
from engine.files.json_lines import JsonLines, read_json_lines, understood
from engine.files.locks import try_lock

if TYPE_CHECKING:
    from engine.data.remote.upload import Uploads

_JOURNAL_NAME = "journal.jsonl"
_VERSION = 1


@dataclass(frozen=True, slots=True)
class StoredVideo:
    """A video in a shard; the fields as in `Entry` and `NormalisedVideo`."""

    shard: int
    offset: int
    group_bytes: tuple[int, ...]
    num_frames: int
    width: int
    height: int
    fps: float
    crc32: int
    motion_offset: int | None = None
    motion_crc32: int | None = None

    @property
    def num_bytes(self) -> int:
        return sum(self.group_bytes)

    @property
    def place(self) -> tuple[int, int, int]:
        """As `numbers_of` has it."""
        return self.shard, self.offset, self.crc32

    @property
    def has_motion(self) -> bool:
        return self.motion_offset is not None

    @property
    def motion_end(self) -> int:
        """First byte of `store.motion` behind its own."""
        return self.motion_offset + motion_bytes(self.num_frames, self.width, self.height) if self.has_motion else 0

    @property
    def end(self) -> int:
        """First byte of the shard behind it."""
        return self.offset + self.num_bytes


@dataclass(frozen=True, slots=True)
class StoreRecord:
    """A source file, as it was, and what became of it.

    said: of one that failed, what tells whether the manifest still says the same of it; None in journals of before.
    """

    state: FileState
    made: StoredVideo | Failure
    said: str | None = None


class StoreWriter:
    """Adds videos to the store in a folder, a new or a begun one; a context manager.

    Args:
        folder: of the store.
        settings: must be those that the store was begun with.
        shard_bytes: a shard that has reached them is followed by the next.
        uploads: where full shards go; those that are up are not added to.

    Attributes:
        records: source path -> what became of it, from earlier runs too.

    Raises:
        InputError: the folder cannot be written, has another store, or is being written by another process.
    """

    def __init__(
        self, folder: Path, settings: StoreSettings, shard_bytes: int, uploads: "Uploads | None" = None
    ) -> None:
        self.folder, self.settings, self._shard_bytes, self.uploads = folder, settings, shard_bytes, uploads
        self._sealed = uploads.sealed if uploads is not None else {}
        self._lost = uploads.lost if uploads is not None else set()
        self._ends: dict[int, int] = {}  # shard -> first byte behind its finished videos
        self._motion_path, self._motion_end = folder / MOTION_NAME, 0  # the same
        path = folder / _JOURNAL_NAME
        if (folder / MANIFEST_NAME).exists() and not path.exists():
            raise InputError(f"'{folder / MANIFEST_NAME}' is of no store and would be overwritten: name another --out")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._journal = JsonLines(path)
        except OSError as error:
            raise InputError(f"cannot write a store in '{folder}': {error.strerror}") from error
        try:
            if not try_lock(self._journal.file):
                raise InputError(f"another process is writing the store '{folder}': wait for it or stop it")
            self.records = self._resume(path)
        except (OSError, InputError):
            self._journal.close()
            raise
        self._shard, self._file = self._last_shard()
        self._motion: FileIO | None = None  # once there is something to write

    def add(self, path: str, state: FileState, video: NormalisedVideo) -> None:
        """Keep a normalised video; it is with the operating system when this returns."""
        if self._file.tell() >= self._shard_bytes:
            _close(self._file)
            self._upload(self._shard)
            self._shard += 1
            self._file = _open_at(self._path(self._shard), 0)
        offset = self._file.tell()
        _append(self._file, video.data)
        facts = {name: getattr(video, name) for name in StoredVideo.__dataclass_fields__ if hasattr(video, name)}
        stored = StoredVideo(shard=self._shard, offset=offset, **facts)
        if video.motion is not None:
            stored = self._with_motion(stored, video.motion)
        self._note(path, StoreRecord(state, stored))

    def add_motion(self, path: str, motion: bytes) -> None:
        """Keep the motion of a video that was stored without."""
        record = self.records[path]
        self._note(path, StoreRecord(record.state, self._with_motion(record.made, motion)))

    def add_failure(self, path: str, state: FileState, failure: Failure, said: str) -> None:
        """Keep why a file is not in the store; `said` as in `StoreRecord`."""
        self._note(path, StoreRecord(state, failure, said))

    def finish(self, paths: Sequence[str]) -> list[str]:
        """Write the index of these videos (all stored). Returns them by their numbers.

        Those of the index that is there keep theirs, so that its manifests and readers are not disturbed; the others fill what is
        left, in this order.
        """
        paths = self._numbered(paths)
        for file in self._open_files():
            os.fsync(file.fileno())
        videos = [self.records[path].made for path in paths]
        counts = np.array([len(video.group_bytes) for video in videos], np.int64)
        names = ["shard", "offset", "num_frames", "width", "height", "crc32"]
        if all(video.has_motion for video in videos):
            names += ["motion_offset", "motion_crc32"]
        columns = {name: np.array([getattr(video, name) for video in videos], np.uint64) for name in names}
        columns["first_group"] = np.concatenate([[0], np.cumsum(counts)])
        ends = [np.cumsum(np.array(video.group_bytes, np.uint64)) for video in videos]
        columns["group_end"] = np.concatenate(ends) if ends else np.empty(0, np.uint64)
        write_index(self.folder / INDEX_NAME, self.settings, columns)
        return paths

    def __enter__(self) -> "StoreWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for file in self._open_files():
            _close(file)
        self._journal.close()

    def _numbered(self, paths: Sequence[str]) -> list[str]:
        known = numbers_of(self.folder / INDEX_NAME)
        numbers = {path: known.get(self.records[path].made.place, len(paths)) for path in paths}
        kept = {number: path for path, number in numbers.items() if number < len(paths)}
        others = (path for path, number in numbers.items() if number >= len(paths))
        return [kept.get(number) or next(others) for number in range(len(paths))]

    def _note(self, path: str, record: StoreRecord) -> None:
        kind = "failure" if isinstance(record.made, Failure) else "video"
        state = {"bytes": record.state.num_bytes, "mtime_ns": record.state.mtime_ns}
        made = {name: value for name, value in asdict(record.made).items() if value is not None}
        said = {} if record.said is None else {"said": record.said}
        self._journal.append({"path": path, **state, kind: made, **said})
        self.records[path] = record

    def _resume(self, path: Path) -> dict[str, StoreRecord]:
        """What the journal says and the shards bear out; a new journal gets its first line."""
        values = read_json_lines(path)
        head = next(values, None)
        if head is None:
            if self._shards():
                raise InputError(f"'{self.folder}' has shards without a journal: choose another --out, or remove it")
            self._journal.restart({"store": _VERSION, "settings": self.settings.written()})
        else:
            self._check_settings(head)
        lines = list(understood(values, _record))
        # After a power cut the disk may have the journal's line and not the bytes of it.
        sizes = {shard: self._path(shard).stat().st_size for shard in self._shards()} | self._sealed
        of_motion = self._motion_path.stat().st_size if self._motion_path.exists() else 0

        def is_whole(made: StoredVideo | Failure) -> bool:
            return isinstance(made, Failure) or (made.end <= sizes.get(made.shard, -1) and made.motion_end <= of_motion)

        whole = [(name, record) for name, record in lines if is_whole(record.made)]
        # Also of videos that were made anew later: the index of an earlier run may still show them.
        for _, record in whole:
            if isinstance(record.made, StoredVideo):
                self._ends[record.made.shard] = max(self._ends.get(record.made.shard, 0), record.made.end)
                self._motion_end = max(self._motion_end, record.made.motion_end)
        return dict(whole)

    def _check_settings(self, head: dict) -> None:
        if head.get("store") != _VERSION:
            raise InputError(f"'{self.folder}' has a store of another version: choose another --out, or remove it")
        ours, theirs = asdict(self.settings), {"codec": FIRST_CODEC, **head.get("settings", {})}
        changed = [f"{name} {theirs.get(name)} (now {ours[name]})" for name in ours if ours[name] != theirs.get(name)]
        if changed:
            raise InputError(
                f"the store '{self.folder}' was begun with {', '.join(changed)}: give the same, or another --out"
            )

    def _last_shard(self) -> tuple[int, FileIO]:
        """The shard to go on with, cut off behind its last finished video."""
        last = max([*self._ends, *self._sealed, *self._lost], default=0)
        if last in self._sealed or last in self._lost:
            last += 1
        file = _open_at(self._path(last), self._ends.get(last, 0))
        for shard in self._shards():
            if shard > last:  # begun, with no finished video
                self._path(shard).unlink()
            elif shard < last and shard not in self._sealed:
                self._upload(shard)
        return last, file

    def _upload(self, shard: int) -> None:
        if self.uploads is not None:
            self.uploads.begin(self._path(shard))

    def _shards(self) -> list[int]:
        numbers = (shard_number(file.name) for file in self.folder.glob(f"*.{self.settings.codec}"))
        return sorted(number for number in numbers if number is not None)

    def _path(self, shard: int) -> Path:
        return shard_path(self.folder, shard, self.settings.codec)

    def _with_motion(self, video: StoredVideo, motion: bytes) -> StoredVideo:
        """The video with its motion, which is with the operating system then."""
        if self._motion is None:
            self._motion = _open_at(self._motion_path, self._motion_end)
        offset = self._motion.tell()
        _append(self._motion, motion)
        return replace(video, motion_offset=offset, motion_crc32=crc32(motion))

    def _open_files(self) -> list[FileIO]:
        files = [self._file] if self._motion is None else [self._file, self._motion]
        return [file for file in files if not file.closed]  # closed: full, and its upload failed


def _open_at(path: Path, end: int) -> FileIO:
    """A file to go on with, cut off there. Unbuffered: what a full disk refuses is not tried again when it is closed."""
    file = path.open("ab", buffering=0)
    file.truncate(end)
    file.seek(0, os.SEEK_END)
    return file


def _append(file: FileIO, data: bytes) -> None:
    """Write all of it; it is with the operating system then."""
    left = memoryview(data)
    with writing(Path(file.name)):
        while left:
            left = left[file.write(left) :]


def _close(file: FileIO) -> None:
    os.fsync(file.fileno())
    file.close()


def _record(value: dict) -> tuple[str, StoreRecord]:
    state = FileState(value["bytes"], value["mtime_ns"])
    if "failure" in value:
        return value["path"], StoreRecord(state, Failure(**value["failure"]), value.get("said"))
    facts = value["video"]
    return value["path"], StoreRecord(state, StoredVideo(**{**facts, "group_bytes": tuple(facts["group_bytes"])}))
