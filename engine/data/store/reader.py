"""Bytes out of a snippet store: one contiguous read for the groups of pictures that a snippet touches."""

import functools
import os
import threading
from pathlib import Path

from engine.data.batch import Video
from engine.data.store.index import Entry, StoreIndex, shard_path, split_stored_path
from engine.errors import InputError


class StoreError(Exception):
    """A stored video that cannot be read; the message is meant for the user."""


class StoreReader:
    """Reads a store; threads may share one. Shards are opened when they are first needed and stay open."""

    def __init__(self, index: StoreIndex) -> None:
        self.index = index
        self._files: dict[int, int] = {}
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
        """The bytes of groups `first_group` to `last_group`, both included.

        Raises:
            StoreError: the shard is missing or too short.
        """
        start = int(entry.group_end[first_group - 1]) if first_group else 0
        length = int(entry.group_end[last_group]) - start
        path = shard_path(self._folder, entry.shard)
        try:
            data = os.pread(self._file(entry.shard, path), length, entry.offset + start)
        except OSError as error:
            raise StoreError(f"shard '{path}' cannot be read: {error.strerror}") from error
        if len(data) < length:
            raise StoreError(f"shard '{path}' is cut short: copy the store again, or ingest the videos again")
        return data

    def close(self) -> None:
        """Close the shards."""
        with self._lock:
            for file in self._files.values():
                os.close(file)
            self._files.clear()

    @property
    def _folder(self) -> Path:
        return self.index.path.parent

    def _file(self, shard: int, path: Path) -> int:
        with self._lock:
            if shard not in self._files:
                self._files[shard] = os.open(path, os.O_RDONLY)
            return self._files[shard]


@functools.cache
def _shared_reader(path: Path, state: tuple[int, int]) -> StoreReader:
    return StoreReader(StoreIndex(path))


def find_entry(video: Video) -> tuple[StoreReader, Entry]:
    """The reader and the entry of a stored video; a store is opened once in a process.

    Raises:
        StoreError: there is no such store, or it is not the one that the manifest was written for.
    """
    place = split_stored_path(video.path)
    if place is None:
        raise StoreError("its path does not lead into a snippet store")
    path, number = place
    try:
        info = path.stat()  # a store that was added to has a new index
        reader = _shared_reader(path, (info.st_ino, info.st_mtime_ns))
    except FileNotFoundError as error:
        raise StoreError(f"there is no snippet store at '{path.parent}'") from error
    except InputError as error:
        raise StoreError(str(error)) from error
    return reader, reader.entry(number, video)
