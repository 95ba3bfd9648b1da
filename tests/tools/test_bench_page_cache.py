"""What is measured cold must be able to leave memory."""

import argparse
import os

import pytest
from bench import many_rows, page_cache

from engine.errors import InputError

MOUNTS = "28 1 {} / / rw,relatime shared:1 - ext4 /dev/vda rw\n29 1 {} / /tmp rw shared:2 - tmpfs none rw\n"


def on(monkeypatch, tmp_path, *, is_memory):
    """The system says that the tests' folder is on a disk, or in memory."""
    device = tmp_path.stat().st_dev
    own = f"{os.major(device)}:{os.minor(device)}"
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTS.format(*(("9:9", own) if is_memory else (own, "9:9"))))
    monkeypatch.setattr(page_cache, "_MOUNTS", mounts)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def test_what_lies_on_a_disk_is_forgotten(tmp_path, monkeypatch):
    on(monkeypatch, tmp_path, is_memory=False)
    asked = []
    monkeypatch.setattr(os, "posix_fadvise", lambda *words: asked.append(words[1:]))
    page_cache.check_forgets(tmp_path, "")
    page_cache.forget([tmp_path / "mountinfo"])
    assert asked == [(0, 0, os.POSIX_FADV_DONTNEED)]


def test_a_cold_benchmark_in_memory_is_refused_before_it_begins(program, tmp_path, monkeypatch):
    on(monkeypatch, tmp_path, is_memory=True)
    status, out = program("decode", "--cold", "--snippets", "2", "--repeats", "1")
    assert (
        status == 2 and "lies in memory (tmpfs), so nothing there can be measured cold: set TMPDIR to a folder" in out
    )
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match=r"lies in memory \(tmpfs\).*: name a folder on a disk with --folder$"):
        many_rows.run(argparse.Namespace(folder=tmp_path), None)
