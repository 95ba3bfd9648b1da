"""Bytes out of a snippet store: one contiguous read for the GOPs that a snippet touches."""

import os
import threading
from pathlib import Path

import numpy as np

from engine.data.batch import Video
from engine.data.motion import grid_size
from engine.data.store.index import MOTION_NAME, Entry, StoreIndex, shard_path, split_stored_name
from engine.errors import InputError
from engine.machine import OUT_OF_FILES, file_limit

ADD_MOTION = "add it by the command that made the store and --motion (tools/ingest.py)"
_MOST_KEPT = file_limit() // 4  # shards of a store that stay open: a process needs files for other things too


class StoreError(Exception):
    """A stored video that cannot be read; the message is meant for the user."""


class StoreReader:
    """Reads a store; threads may share one. Shards are opened when they are first needed and stay open, but for very many."""

    def __init__(self, index: StoreIndex) -> None:
        self.index = index
        self._files: dict[int | None, int] = {}
        self._lock = threading.Lock()

    def entry(self, number: int, video: Video) -> Entry:
        """The entry of a manifest's row.

        Raises:
            StoreError: manifest and store are not of one making.
        """
        entry = self.index[number] if number < len(self.index) else None
        if entry is None or (entry.num_bytes, entry.num_frames) != (video.file_bytes, video.file_frames):
            raise StoreError(f"the store has changed since this manifest was written: use the one in '{self._folder}'")
        return entry

    def read(self, entry: Entry, first_group: int, last_group: int) -> bytes:
        """The bytes of GOPs `first_group` to `last_group`, both included.

        Raises:
            StoreError: the shard is missing or too short.
            OSError: this process may open no more files.
        """
        start = int(entry.group_end[first_group - 1]) if first_group else 0
        return self._read(entry.shard, int(entry.group_end[last_group]) - start, entry.offset + start)

    def read_motion(self, entry: Entry, first: int, last: int) -> np.ndarray:
        """How fast the blocks of frames `first` to `last`, both included, move: uint8 [frames, rows, columns], quarter pixels.

        Raises:
            StoreError: the store was made without, or its file is missing or too short.
            OSError: this process may open no more files.
        """
        if entry.motion_offset is None:
            raise StoreError(f"the store '{self._folder}' was made without motion: {ADD_MOTION}")
        rows, columns = grid_size(entry.width, entry.height)
        of_frame = rows * columns
        data = self._read(None, (last - first + 1) * of_frame, entry.motion_offset + first * of_frame)
        return np.frombuffer(data, np.uint8).reshape(-1, rows, columns)

    def close(self) -> None:
        """Close the shards."""
        with self._lock:
            for file in self._files.values():
                os.close(file)
            self._files.clear()

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
            raise StoreError(f"'{self._path(shard)}' cannot be read: {error.strerror}") from error
        if len(data) < length:
            raise StoreError(f"'{self._path(shard)}' is cut short: copy the store again, or ingest the videos again")
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
                            return os.pread(file, length, offset)
                        finally:
                            os.close(file)
                    self._files[shard] = file
        return os.pread(file, length, offset)


_READERS: dict[str, tuple[tuple[int, int], StoreReader]] = {}  # index -> its state when it was opened


def find_entry(video: Video) -> tuple[StoreReader, Entry]:
    """The reader and the entry of a stored video; a store is opened once in a process.

    Raises:
        StoreError: there is no such store, or it is not the one that the manifest was written for.
    """
    found = split_stored_name(str(video.path))
    if found is None:
        raise StoreError("its path does not lead into a snippet store")
    index, number = found
    try:
        info = os.stat(index)  # noqa: PTH116 (a `Path` costs ten times that). A store that was added to has a new index
        state, reader = _READERS.get(index, (None, None))
        if state != (info.st_ino, info.st_mtime_ns):
            reader = StoreReader(StoreIndex(Path(index)))
            _READERS[index] = ((info.st_ino, info.st_mtime_ns), reader)
    except FileNotFoundError as error:
        raise StoreError(f"there is no snippet store at '{Path(index).parent}'") from error
    except InputError as error:
        raise StoreError(str(error)) from error
    return reader, reader.entry(number, video)
