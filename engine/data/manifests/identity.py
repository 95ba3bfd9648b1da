"""Whether a file is still the one that was indexed; every decoder asks here before it decodes a file.

    another size ──▶ changed      same time of modification ──▶ the same      else ──▶ its contents are compared

Contents are read only where the times differ: a data set that was copied without them, or a file that was written
again. What a file holds is remembered, so that it is read once in a process.
"""

import functools
import hashlib
from pathlib import Path
from typing import Protocol

_REMEMBERED = 2**16  # files of which it is known what they hold; some 30 MB when full


class IndexedFile(Protocol):
    """What a manifest knows of a file's identity; None in manifests that were written before it was noted."""

    @property
    def file_bytes(self) -> int: ...
    @property
    def mtime_ns(self) -> int | None: ...
    @property
    def content_hash(self) -> int | None: ...


def content_hash(path: Path) -> int:
    """64 bits (BLAKE2b) of all that a file holds, as a signed number.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=8)).digest()
    return int.from_bytes(digest, "little", signed=True)


def change_since_index(path: Path, indexed: IndexedFile) -> str | None:
    """In what way a file is not the one that was indexed, as a sentence for the user; None where it is.

    Raises:
        OSError: it is missing, or cannot be read.
    """
    info = path.stat()
    if info.st_size != indexed.file_bytes:
        return f"it has {info.st_size} bytes, but had {indexed.file_bytes} when it was indexed: index it again"
    if indexed.content_hash is None or info.st_mtime_ns == indexed.mtime_ns:
        return None
    if _remembered_hash(path, info.st_size, info.st_mtime_ns) != indexed.content_hash:
        return "the file has changed since it was indexed: index it again"
    return None


@functools.lru_cache(_REMEMBERED)
def _remembered_hash(path: Path, _num_bytes: int, _mtime_ns: int) -> int:
    """The hash of a file in this state; one that is written again has another."""
    return content_hash(path)
