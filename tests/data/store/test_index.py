"""The index of a store: opened at once however large, refused where it is none; and paths that lead into one."""

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest

from engine.data.store.index import StoreIndex, StoreSettings, is_stored, split_stored_path, stored_path, write_index
from engine.errors import InputError


def test_an_index_that_is_none(tmp_path):
    for content in (b"", b"PAR1" + bytes(5000)):
        (tmp_path / "store.index").write_bytes(content)
        with pytest.raises(InputError):
            StoreIndex(tmp_path / "store.index")


def test_a_large_index_opens_at_once(tmp_path):
    count = 541_624
    columns = {
        name: np.zeros(count, np.uint64) for name in ("shard", "offset", "num_frames", "width", "height", "crc32")
    }
    columns |= {"first_group": np.arange(count + 1) * 19, "group_end": np.arange(count * 19) % 19 + 1}
    write_index(tmp_path / "store.index", StoreSettings(), columns)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        entry = StoreIndex(tmp_path / "store.index")[count - 1]
        times.append(time.perf_counter() - start)
    assert entry.num_bytes == 19
    assert min(times) < 0.005


def test_a_store_of_h264_has_the_index_that_it_had_before_there_was_a_choice(tmp_path):
    columns = {name: np.arange(3) for name in ("shard", "offset", "num_frames", "width", "height", "crc32")}
    columns |= {"first_group": np.arange(4), "group_end": np.arange(3) + 1}
    settings = {}
    for codec in ("h264", "hevc"):
        path = tmp_path / f"{codec}.index"
        write_index(path, StoreSettings(gop=8, codec=codec), columns)
        head = path.read_bytes()[:4096].partition(b"\0")[2]
        settings[codec] = json.loads(head)["settings"]
        assert StoreIndex(path).settings == StoreSettings(gop=8, codec=codec)
    names = ["short_side", "gop", "fps", "crf", "preset", "b_frames", "tune"]
    assert list(settings["h264"]) == names  # as the first version of stores wrote them, in that order
    assert settings["hevc"] == settings["h264"] | {"codec": "hevc"}


def test_an_index_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    """A power cut leaves the one of before or this one, whole."""
    path, synced = tmp_path / "store.index", []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append((os.fstat(handle).st_ino, path.exists())))
    columns = {name: np.arange(3) for name in ("shard", "offset", "num_frames", "width", "height", "crc32")}
    write_index(path, StoreSettings(), columns | {"first_group": np.arange(4), "group_end": np.arange(3) + 1})
    assert synced == [(path.stat().st_ino, False), (tmp_path.stat().st_ino, True)]


def test_paths_into_a_store():
    assert stored_path(12, "a/b#3.mp4") == "store.index/a/b#3.mp4#12"
    assert stored_path(0, "/data/../a.mp4") == "store.index/data/a.mp4#0"  # never leads out of the store
    assert split_stored_path(Path("/d/s/store.index/a/b#3.mp4#12")) == (Path("/d/s/store.index"), 12)
    assert split_stored_path(Path("store.index/a.mp4#7")) == (Path("store.index"), 7)
    assert split_stored_path(Path("/d/a.mp4#7")) is None
    assert all(split_stored_path(Path(f"/d/store.index/a{end}")) is None for end in (".mp4", ".mp4#", "#1.mp4", "#-1"))
    assert is_stored("store.index/a/b.mp4#12")
    assert not is_stored("my.store.index.mp4")
    assert not is_stored("restore.index/12/b.mp4")
