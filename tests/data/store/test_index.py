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


def small_index(path):
    columns = {name: np.arange(3) for name in ("shard", "offset", "num_frames", "width", "height", "crc32")}
    write_index(path, StoreSettings(), columns | {"first_group": np.arange(4), "group_end": np.arange(3) + 1})
    return path.read_bytes()


def test_an_index_in_which_the_disk_has_changed_a_letter_is_read_or_one_error(tmp_path):
    path, generator = tmp_path / "store.index", np.random.default_rng(0)
    content = small_index(path)
    told = set()
    for place in range(15, len(content[:4096].rstrip())):
        for letter in generator.choice(list(b'0123456789"{}[],:x \xff\0'), 4):
            path.write_bytes(content[:place] + bytes([letter]) + content[place + 1 :])
            try:
                index = StoreIndex(path)
            except InputError as error:
                told.add(str(error).partition("store.index' ")[2][:10])
            else:
                assert len([index[number].num_bytes for number in range(3)]) == 3
    assert {"is damaged"} < told
    path.write_bytes(content.replace(b'"gop": 16', b'"gop": 0 '))
    with pytest.raises(InputError, match=r"is damaged \(GOPs of 0 frames\): copy the store again"):
        StoreIndex(path)


def test_a_video_of_an_index_with_a_hole_in_it_is_not_the_one_of_the_manifest(tmp_path):
    path = tmp_path / "store.index"
    content = small_index(path)
    path.write_bytes(content[:4096] + bytes(len(content) - 4096))
    assert StoreIndex(path)[1].num_bytes == 0


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
