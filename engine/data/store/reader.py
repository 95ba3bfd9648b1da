"""Bytes out of a snippet store: one contiguous read for the GOPs that a snippet touches."""

import math
import os
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from zlib import crc32

import numpy as np

from engine.data.batch import Video
from engine.data.motion import grid_size
from engine.data.store.index import MOTION_NAME, Entry, StoreIndex, shard_path, split_stored_name
from engine.errors import InputError, SourceGone
from engine.files.addresses import shown, url_of
from engine.machine import OUT_OF_FILES, file_limit

if TYPE_CHECKING:
    from engine.data.remote.ranges import HeldRange

ADD_MOTION = "add it by the command that made the store and --motion (tools/ingest.py)"
_MOST_KEPT = file_limit() // 4  # shards of a store that stay open: a process needs files for other things too


class StoreError(Exception):
    """A stored video that cannot be read; the message is meant for the user."""


class StoreReader:
    """Reads a store; threads may share one.

    Shards are opened when they are first needed and stay open, but for very many, until `close`, or the last user is gone.

    Attributes:
        earlier: reads by the index that this process saw first, where another has taken its place; else None.
    """

    def __init__(self, index: StoreIndex, earlier: "StoreReader | None" = None) -> None:
        self.index, self.earlier = index, earlier
        self._files: dict[int | None, int] = {}
        self._lock = threading.Lock()
        self._whole: set[int] = set()  # numbers of videos
        weakref.finalize(self, _close_all, self._files).atexit = False

    def entry(self, number: int, video: Video) -> Entry:
        """The entry of a manifest's row.

        Raises:
            StoreError: manifest and store are not of one making.
        """
        entry = self.index[number] if number < len(self.index) else None
        if entry is None or (entry.num_bytes, entry.num_frames) != (video.file_bytes, video.file_frames):
            raise StoreError(
                f"the store has changed since this manifest was written: use the one in '{shown(self._folder)}'"
            )
        return entry

    def still_has(self, number: int, video: Video) -> bool:
        """Whether the bytes of a manifest's row are those that the index tells of: the shards may be of another store by now.

        Raises:
            OSError: this process may open no more files.
        """
        try:
            entry = self.entry(number, video)
            if number not in self._whole and crc32(self.read(entry, 0, len(entry.group_end) - 1)) == entry.crc32:
                self._whole.add(number)
        except StoreError:
            return False
        return number in self._whole

    def read(self, entry: Entry, first_group: int, last_group: int) -> bytes:
        """The bytes of GOPs `first_group` to `last_group`, both included.

        Raises:
            StoreError: the shard is missing or too short, or the index is damaged.
            OSError: this process may open no more files.
        """
        start, end = self._group_range(entry, first_group, last_group)
        return self._read(entry.shard, end - start, start)

    def read_motion(self, entry: Entry, first: int, last: int) -> np.ndarray:
        """How fast the blocks of frames `first` to `last`, both included, move: uint8 [frames, rows, columns], quarter pixels.

        Raises:
            StoreError: the store was made without, or its file is missing or too short, or the index is damaged.
            OSError: this process may open no more files.
        """
        if entry.motion_offset is None:
            raise StoreError(f"the store '{shown(self._folder)}' was made without motion: {ADD_MOTION}")
        rows, columns = grid_size(entry.width, entry.height)
        start, end = self._motion_range(entry, first, last)
        data = self._read(None, end - start, start)
        return np.frombuffer(data, np.uint8).reshape(-1, rows, columns)

    def close(self) -> None:
        """Close the shards."""
        with self._lock:
            _close_all(self._files)

    def _group_range(self, entry: Entry, first: int, last: int) -> tuple[int, int]:
        """First byte of GOPs `first` to `last`, both included, in their shard, and the byte behind them."""
        ends = entry.group_end
        if not 0 <= first <= last < len(ends):
            raise self._damaged()
        start, end = int(ends[first - 1]) if first else 0, int(ends[last])
        if not start < end <= entry.num_bytes:
            raise self._damaged()
        return entry.offset + start, entry.offset + end

    def _motion_range(self, entry: Entry, first: int, last: int) -> tuple[int, int]:
        """The same of the motion of frames `first` to `last`."""
        of_frame = math.prod(grid_size(entry.width, entry.height))
        if not of_frame:
            raise self._damaged()
        return entry.motion_offset + first * of_frame, entry.motion_offset + (last + 1) * of_frame

    def _damaged(self) -> StoreError:
        return StoreError(f"'{shown(self.index.path)}' is damaged: copy the store again")

    @property
    def _folder(self) -> Path:
        return self.index.path.parent

    def _path(self, shard: int | None) -> Path:
        """The file of a shard; None: that of the motion."""
        folder = self._folder
        return folder / MOTION_NAME if shard is None else shard_path(folder, shard, self.index.settings.codec)

    def _read(self, shard: int | None, length: int, offset: int) -> bytes:
        try:
            data = self._pread(shard, length, offset)
        except OSError as error:
            if error.errno in OUT_OF_FILES:
                raise
            raise StoreError(
                f"'{shown(self._path(shard))}' cannot be read: {error.strerror or 'it is not there'}"
            ) from error
        if len(data) < length:
            raise StoreError(
                f"'{shown(self._path(shard))}' is cut short: copy the store again, or ingest the videos again"
            )
        return data

    def _pread(self, shard: int | None, length: int, offset: int) -> bytes:
        file = self._files.get(shard)
        if file is None:
            with self._lock:
                file = self._files.get(shard)
                if file is None:
                    file = os.open(self._path(shard), os.O_RDONLY)
                    if len(self._files) >= _MOST_KEPT:
                        try:
                            return _read_at(file, length, offset)
                        finally:
                            os.close(file)
                    self._files[shard] = file
        return _read_at(file, length, offset)


class RemoteReader(StoreReader):
    """Reads a store in object storage; what is planned can be begun before it is asked for."""

    def __init__(self, index: StoreIndex) -> None:
        super().__init__(index)
        from engine.data.remote.ranges import Ranges  # only where there is something remote

        self.ranges = Ranges(index.state)
        self._urls: dict[int | None, str] = {}

    def begin(self, entry: Entry, numbers: Sequence[int], *, motion: bool) -> "list[HeldRange]":
        """Begin the reads for these ascending frames of a video; `self.ranges.release` them.

        Raises:
            StoreError: the index is damaged.
        """
        gop, last = self.index.settings.gop, entry.num_frames - 1
        groups = sorted({min(number, last) // gop for number in numbers})
        url = self._url(entry.shard)
        wanted = [(url, *self._group_range(entry, group, group)) for group in groups]
        if motion and entry.motion_offset is not None:
            wanted.append((self._url(None), *self._motion_range(entry, min(numbers[0], last), min(numbers[-1], last))))
        return self.ranges.begin(wanted)

    def _pread(self, shard: int | None, length: int, offset: int) -> bytes:
        return self.ranges.read(self._url(shard), offset, length)

    def _url(self, shard: int | None) -> str:
        if shard not in self._urls:
            self._urls[shard] = url_of(self._path(shard))
        return self._urls[shard]


def open_reader(index: StoreIndex, replaced: StoreReader | None = None) -> StoreReader:
    """The reader of a store, wherever it lies; `replaced`: that of the index before."""
    if url_of(index.path):
        return RemoteReader(index)
    return StoreReader(index, replaced and (replaced.earlier or StoreReader(replaced.index)))


def _read_at(file: int, length: int, offset: int) -> bytes:
    """These bytes; fewer where the file ends before, none of more than memory holds, as a damaged index may ask for."""
    try:
        return os.pread(file, length, offset)
    except (MemoryError, OverflowError):
        if offset + length <= os.fstat(file).st_size:
            raise
        return b""


def _close_all(files: dict[int | None, int]) -> None:
    for file in files.values():
        os.close(file)
    files.clear()


_READERS: dict[str, tuple[tuple[int, int], StoreReader]] = {}  # index -> its state when it was opened
_OPENING = threading.Lock()  # an index is opened (and fetched) once


def find_entry(video: Video) -> tuple[StoreReader, Entry]:
    """The reader and the entry of a stored video; a store is opened once in a process, and again once its index is replaced.

    A video that the new index has not under this number is read by the one that this process saw first.

    Raises:
        StoreError: there is no such store, it cannot be read, or it is not the one that the manifest was written for.
        OSError: this process may open no more files.
    """
    found = split_stored_name(str(video.path))
    if found is None:
        raise StoreError("its path does not lead into a snippet store")
    index, number = found
    try:
        state, reader = _READERS.get(index, (None, None))
        state_now = _index_state(index)
        if reader is None or state != state_now:
            with _OPENING:
                state, reader = _READERS.get(index, (None, None))
                if reader is None or state != state_now:
                    reader = open_reader(StoreIndex(Path(index)), reader)
                    _READERS[index] = (state_now, reader)
    except FileNotFoundError as error:
        raise StoreError(f"there is no snippet store at '{shown(Path(index).parent)}'") from error
    except OSError as error:  # of a disk over the network it may pass
        if error.errno in OUT_OF_FILES:
            raise
        raise StoreError(f"'{shown(index)}' cannot be read: {error.strerror or error}") from error
    except SourceGone:
        raise
    except InputError as error:
        raise StoreError(str(error)) from error
    try:
        return reader, reader.entry(number, video)
    except StoreError:
        if reader.earlier is None or not reader.earlier.still_has(number, video):
            raise
        return reader.earlier, reader.earlier.entry(number, video)


def _index_state(index: str) -> tuple[int, int]:
    """Another for a store that was added to; of a remote one the same as long as the process lives."""
    if url_of(index):
        return 0, 0
    info = os.stat(index)  # noqa: PTH116 (a `Path` costs ten times that)
    return info.st_ino, info.st_mtime_ns
