"""A file of this machine of which a little is read here and there.

It is mapped into memory, and the system reads no more of it than is asked for: what lies around a row is not wanted, and may be
megabytes. What is wanted soon can be named before, so that the disk has all of it to do at a time.
"""

import mmap
import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pyarrow as pa

_POPULATE_READ = 22  # MADV_POPULATE_READ, for which Python has no name
_STEP = 2**17  # bytes that are asked for at a time: the least that systems are set to read ahead


class MappedFile:
    """A file, read only.

    Attributes:
        buffer: all of it, mapped.

    Raises:
        OSError: it cannot be opened. ValueError: it is empty.
    """

    def __init__(self, path: Path) -> None:
        self._handle = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._handle)
        self._map = mmap.mmap(self._handle, 0, prot=mmap.PROT_READ)
        self._map.madvise(mmap.MADV_RANDOM)
        self.buffer = pa.py_buffer(self._map)
        self._is_expected = bytearray(-(-self.buffer.size // mmap.PAGESIZE))  # of its pages

    def place_of(self, part: pa.Buffer) -> int:
        """Where in the file a part of `buffer` begins, in bytes."""
        return part.address - self.buffer.address

    def read(self, first: int, into: np.ndarray) -> None:
        """Fill an array with the bytes from `first` on: read, not mapped, and what follows is read ahead."""
        wanted = memoryview(into).cast("B")
        while wanted:
            count = os.preadv(self._handle, [wanted], first)
            if count == 0:
                raise OSError("a file of the manifest has become shorter")
            wanted, first = wanted[count:], first + count

    def expect(self, first: int, length: int) -> None:
        """Let the system read so many bytes from `first` on, while this process goes on."""
        for start in range(first, first + length, _STEP):
            self._advise(start, min(_STEP, first + length - start))

    def expect_page(self, place: int) -> None:
        """The same for the page of a byte, unless it was asked for before."""
        page = place // mmap.PAGESIZE
        if not self._is_expected[page]:
            self._is_expected[page] = True
            self._advise(page * mmap.PAGESIZE, mmap.PAGESIZE)

    def _advise(self, first: int, length: int) -> None:
        if hasattr(os, "posix_fadvise"):  # which macOS lacks: there a page is read when it is come to
            os.posix_fadvise(self._handle, first, length, os.POSIX_FADV_WILLNEED)

    def touch(self, first: int, length: int) -> None:
        """Map so many bytes from `first` on now, which else costs microseconds for each page that is come to."""
        start = first // mmap.PAGESIZE * mmap.PAGESIZE
        with suppress(OSError):  # of a system that does not know it (Linux before 5.14)
            self._map.madvise(_POPULATE_READ, start, first + length - start)

    @contextmanager
    def gone_over(self) -> Iterator[None]:
        """While inside, the map is read ahead."""
        self._map.madvise(mmap.MADV_NORMAL)
        try:
            yield
        finally:
            self._map.madvise(mmap.MADV_RANDOM)
