"""Files that are read here and there."""

import gc
import mmap
import os
import resource
from pathlib import Path

import numpy as np
import pytest

from engine.data.manifests.mapped_file import MappedFile
from engine.machine import allow_files


@pytest.fixture
def values() -> np.ndarray:
    return np.random.default_rng(0).integers(-(2**31), 2**31, 400_000, dtype=np.int32)


@pytest.fixture
def file(tmp_path, values) -> MappedFile:
    (tmp_path / "values").write_bytes(b"head" + values.tobytes())
    return MappedFile(tmp_path / "values")


def test_numbers_are_read_in_order(file, values):
    some = np.empty(70_000, np.int32)
    file.read(4 + 4 * 1000, some)
    assert np.array_equal(some, values[1000:71_000])
    assert file.place_of(file.buffer.slice(100, 8)) == 100
    with pytest.raises(OSError, match="shorter"):
        file.read(len(file.buffer) - 8, some)


def test_what_is_expected_is_there_when_it_is_read(file, values):
    file.expect(4, file.buffer.size - 4)
    for place in (0, 100_000, file.buffer.size - 1):
        file.expect_page(place)
    with file.gone_over():
        assert np.array_equal(np.frombuffer(file.buffer, np.int32, offset=4), values)


def test_a_page_is_asked_for_once(file, monkeypatch):
    asked = []
    monkeypatch.setattr(os, "posix_fadvise", lambda handle, first, length, advice: asked.append((first, length)))
    page = mmap.PAGESIZE
    for place in (0, page - 1, 3 * page, 0, 3 * page + 1, page):
        file.expect_page(place)
    assert asked == [(0, page), (3 * page, page), (page, page)]
    asked.clear()
    file.expect(10, 2**18)
    assert sum(length for _, length in asked) == 2**18 and asked[0][0] == 10 and len(asked) == 2


def test_what_is_touched_is_mapped(file):
    def mapped() -> int:
        return sum(int(line.split()[1]) for line in _smaps("/values") if line.startswith("Rss:"))

    before = mapped()
    file.touch(mmap.PAGESIZE + 4, 2**20)
    assert mapped() - before >= 2**10 - 64  # kB; a page may lie on another's huge one


def _smaps(name: str) -> list[str]:
    """What the system tells of the maps of files of this name."""
    lines, found = Path("/proc/self/smaps").read_text().splitlines(), []
    is_of = False
    for line in lines:
        if "-" in line.split()[0] and ":" not in line.split()[0]:
            is_of = line.endswith(name)
        elif is_of:
            found.append(line)
    return found


def test_it_is_closed_when_nobody_needs_it(file):
    def of_file() -> list[str]:
        names = [os.path.realpath(link) for link in Path("/proc/self/fd").iterdir()]
        return [name for name in names if name.endswith("/values")]

    opened = MappedFile(Path(of_file()[0]))
    assert len(of_file()) == 4  # and a map has its own
    buffer = opened.buffer.slice(4, 4)
    del opened
    gc.collect()
    assert len(of_file()) == 3 and np.frombuffer(buffer, np.int32).shape == (1,)


def test_more_files_are_allowed_as_far_as_the_system_lets():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft - 100, hard))
        allow_files(60)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (soft - 40, hard)
        allow_files(10**9)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] in (hard, soft - 40 + 10**9)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
