"""Iterators of packets and frames that are left before their end give back all memory."""

import ctypes
import gc
import time
from collections.abc import Callable
from pathlib import Path

import av
import pytest

from engine.data.pyav.encode import write_video
from engine.data.pyav.files import FileFrames
from engine.data.pyav.packets import demux, read_frames
from tests.data.videos import describe, numbered_frame


def in_use() -> int:
    """Bytes that this process has from malloc."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallinfo2"):
        pytest.skip("mallinfo2 is of glibc 2.33")

    class Report(ctypes.Structure):
        _fields_ = [(f"field_{number}", ctypes.c_size_t) for number in range(10)]

    libc.mallinfo2.restype = Report
    gc.collect()
    report = libc.mallinfo2()
    return report.field_7 + report.field_4  # in its heaps, and mapped


def first_of(read: Callable) -> Callable[[Path], None]:
    def use(path: Path) -> None:
        with av.open(str(path)) as container:
            assert next(read(container, container.streams.video[0])) is not None

    return use


def one_frame(path: Path) -> None:
    source = FileFrames(describe(path), time.monotonic() + 60)
    assert [number for number, _ in source.frames([14], seek=True)] == [14]  # reads, seeks, reads on
    source.close()


@pytest.mark.parametrize(
    "use", [first_of(demux), first_of(read_frames), one_frame], ids=["packets", "frames", "one_frame"]
)
def test_what_is_left_early_gives_back_all_memory(use, tmp_path):
    path, count = tmp_path / "video.mp4", 400
    write_video(path, [numbered_frame(number, 64, 64) for number in range(24)], gop=12)
    for _ in range(200):
        use(path)
    before = in_use()
    for _ in range(count):
        use(path)
    assert in_use() - before < 60 * count  # bytes; PyAV's iterators left open: 150 each


def test_a_stream_that_appears_while_a_file_is_read_ends_nothing():
    """PyAV asks for it behind the last packet, and has none; what comes from elsewhere is not swallowed."""

    class Container:
        def demux(self, stream):
            yield from ("a", "b")
            raise IndexError("list index out of range")

    assert list(demux(Container(), None)) == ["a", "b"]
    with pytest.raises(IndexError, match="of who reads"):
        for _ in demux(Container(), None):
            raise IndexError("of who reads")
