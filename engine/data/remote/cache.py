"""Ranges of objects on a local disk: the last used stay, up to a number of bytes.

A file a range, of its length, checksum and bytes, renamed into its place: processes and ranks share a folder, and what a kill
leaves half written is never read. What does not agree with its checksum counts as not there.
"""

import hashlib
import os
import secrets
import struct
import threading
from contextlib import suppress
from pathlib import Path
from zlib import crc32

_HEAD = struct.Struct("<QI")  # length, CRC-32
_KEPT_SHARE = 0.9  # of the bound, after a clearing
_WRITTEN_SHARE = 0.01  # of the bound, by one process between two clearings


class RangeCache:
    """Ranges by a text that tells their object, its state, and where they lie in it. Threads may share one.

    Args:
        folder: of these files alone; made with the first.
        max_bytes: of all of them, for up to ten processes.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder, self._max_bytes = folder, max_bytes
        self._written, self._lock = max_bytes, threading.Lock()  # the first write looks at what earlier runs left

    def get(self, name: str) -> bytes | None:
        """The range; None where it is not kept, or damaged."""
        path = self._path(name)
        try:
            data = path.read_bytes()
            os.utime(path)
        except OSError:
            return None
        if len(data) < _HEAD.size:
            return None
        length, checksum = _HEAD.unpack_from(data)
        found = data[_HEAD.size :]
        return found if len(found) == length and crc32(found) == checksum else None

    def put(self, name: str, data: bytes) -> None:
        """Keep a range, if the disk will have it."""
        path = self._path(name)
        beside = path.with_suffix(f".{secrets.token_hex(4)}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            beside.write_bytes(_HEAD.pack(len(data), crc32(data)) + data)
            beside.replace(path)
        except OSError:
            with suppress(OSError):
                beside.unlink()
            return
        with self._lock:
            self._written += len(data)
            is_due = self._written > _WRITTEN_SHARE * self._max_bytes
            if is_due:
                self._written = 0
        if is_due:
            self._clear()

    def _clear(self) -> None:
        """Remove the files that were used least lately; what a killed writer left is one of them."""
        files = []
        for path in self._folder.glob("*/*"):
            with suppress(OSError):
                info = path.stat()
                files.append((info.st_mtime_ns, info.st_size, path))
        left = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if left <= _KEPT_SHARE * self._max_bytes:
                break
            with suppress(OSError):
                path.unlink()
            left -= size

    def _path(self, name: str) -> Path:
        key = hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
        return self._folder / key[:2] / key[2:]
