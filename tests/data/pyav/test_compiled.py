"""Functions compiled to machine code: kept for the next process where a disk takes them, and compiled again where none does."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from tests.environment import environment

OWN = """
import numba
from engine.data.pyav.compiled import compiled

@compiled(numba.int64(numba.int64))
def twice(number):
    return 2 * number

@compiled()
def thrice(number):
    return 3 * number
"""


def compute(folder: Path, before: str = "", **variables: str) -> None:
    """In a process of its own, by functions with a signature and without one."""
    if not (source := folder / "own.py").exists():  # written anew it would be another, by its time
        source.write_text(OWN)
    code = f"import sys\nsys.path.insert(0, {str(folder)!r})\n{before}\nimport own\nassert (own.twice(2), own.thrice(2)) == (4, 6)"
    subprocess.run([sys.executable, "-c", code], check=True, env=environment(**variables))


def test_where_nothing_may_be_written_it_is_compiled_again(tmp_path):
    """An installation that belongs to somebody else, and a user without a home."""
    compute(tmp_path, "from numba.core import caching; caching.CacheImpl._locator_classes = []")
    assert not list(tmp_path.rglob("*.nb?"))


def test_what_is_compiled_is_kept_and_made_again_where_it_is_spoiled(tmp_path):
    """A power cut leaves files of 0 bytes."""
    compute(tmp_path, NUMBA_CACHE_DIR=str(tmp_path))
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nb?")}
    assert len(kept) == 4  # an index and its code of each function
    compute(tmp_path, NUMBA_CACHE_DIR=str(tmp_path))
    assert kept == {path: path.stat().st_mtime_ns for path in kept}
    for suffix in (".nbi", ".nbc"):
        spoiled = [path for path in kept if path.suffix == suffix]
        for path in spoiled:
            path.write_bytes(b"")
        compute(tmp_path, NUMBA_CACHE_DIR=str(tmp_path))
        assert all(path.stat().st_size for path in spoiled), suffix


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES])
def test_a_cache_that_cannot_be_read_or_written_stops_nothing(tmp_path, number):
    """A full disk, another user's files."""
    refused = f"""
import builtins, os
def refuse(path, *rest, real=open, **more):
    if ".nb" in str(path):
        raise OSError({number}, os.strerror({number}), path)
    return real(path, *rest, **more)
builtins.open = refuse
"""
    compute(tmp_path, refused, NUMBA_CACHE_DIR=str(tmp_path))


def test_a_user_without_home_gets_no_folder_in_the_current_one(tmp_path):
    (current := tmp_path / "current").mkdir()
    homeless = f"""
import os
from numba.core import caching
caching.InTreeCacheLocator.from_function = lambda *_: None  # somebody else's installation
os.path.expanduser = lambda path: path  # neither HOME nor a user of this number
os.chdir({str(current)!r})
"""
    compute(tmp_path, homeless, XDG_CACHE_HOME="")
    assert list(current.iterdir()) == []
