"""A store that is added to, while others read it and where the addition is cut off: readers of before go on."""

import errno
import os
import resource
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.data.batch import ClipFormat, SnippetRequest
from engine.data.indexing.dataset import index_folder
from engine.data.indexing.journal import FileState
from engine.data.manifests.manifest import Manifest
from engine.data.pyav.decode import PyAVDecoder
from engine.data.pyav.encode import write_video
from engine.data.pyav.normalise import NormalisedVideo
from engine.data.store import reader as reader_module
from engine.data.store.index import StoreIndex, StoreSettings
from engine.data.store.ingest import WorkSettings, ingest
from engine.data.store.verify import verify
from engine.data.store.writer import StoreWriter
from tests.data.videos import numbered_frame, numbers

SETTINGS, WORK = StoreSettings(short_side=64, gop=8, preset="veryfast"), WorkSettings(shard_bytes=10_000)
NAMES = tuple("abcde")


def write(path, first, count=20):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, (numbered_frame(first + number, 96, 96) for number in range(count)))


@pytest.fixture
def source(tmp_path):
    """Videos of equal lengths, each of which begins with another number."""
    for place, name in enumerate(NAMES):
        write(tmp_path / "raw" / "x" / f"{name}.mp4", 10 * place)
    return indexed(tmp_path)


@pytest.fixture
def decoder():
    decoder = PyAVDecoder(ClipFormat(num_frames=1, short_side=64, crop=64), torch.device("cpu"), 2)
    yield decoder
    decoder.close()


def indexed(folder):
    index_folder(folder / "raw", folder / "m.parquet")
    return Manifest.load(folder / "m.parquet")


def load(store):
    return Manifest.load(store / "manifest.parquet")


def shown(manifest, decoder):
    """The number of each row's first frame."""
    rows = range(len(manifest))
    found = decoder.decode([SnippetRequest(manifest.video(row), 0, 0, 0, False) for row in rows])
    assert not found.failures
    return numbers(found.frames.numpy()[:, 0])


def num_open(folder):
    """How many files of a folder this process has open."""
    return sum(file.resolve().parent == folder for file in Path("/proc/self/fd").iterdir())


def test_a_reader_goes_on_while_videos_are_added(source, tmp_path, decoder):
    store = tmp_path / "s"
    ingest(source.select(np.array([1, 2, 4])), store, SETTINGS, WORK)
    before = load(store)
    assert shown(before, decoder) == [10, 20, 40]
    ingest(source, store, SETTINGS, WORK)
    reader_module._READERS.clear()  # as a process that has not seen the index of before
    assert shown(before, decoder) == [10, 20, 40]
    assert shown(load(store), decoder) == [0, 10, 20, 30, 40]
    assert [path.rpartition("#")[2] for path in load(store).paths] == ["3", "0", "1", "4", "2"]
    assert verify(store, 9).problems == []


def test_a_failure_between_index_and_manifest_leaves_the_store_of_before(source, tmp_path, decoder, monkeypatch):
    store = tmp_path / "s"
    ingest(source.select(np.array([1, 2, 4])), store, SETTINGS, WORK)

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(Manifest, "save", full)
        with pytest.raises(OSError, match="No space left"):
            ingest(source, store, SETTINGS, WORK)
    assert len(StoreIndex(store / "store.index")) == 5
    assert shown(load(store), decoder) == [10, 20, 40]
    ingest(source, store, SETTINGS, WORK)
    assert shown(load(store), decoder) == [0, 10, 20, 30, 40] and verify(store, 9).problems == []


def test_a_disk_that_is_full_is_told_with_the_file_that_it_did_not_take(tmp_path):
    video = NormalisedVideo(bytes(300), (300,), 1, 64, 64, 25.0, 0, motion=bytes(16))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    writer = StoreWriter(tmp_path / "s", SETTINGS, 2**20)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (800, hard))  # the system refuses what goes beyond, as on a full disk
        with pytest.raises(OSError, match="File too large") as caught, writer:
            for name in NAMES:
                writer.add(name, FileState(1, 1), video)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.filename == str(tmp_path / "s/00000.h264")
    with StoreWriter(tmp_path / "s", SETTINGS, 2**20) as again:
        assert list(again.records) == ["a", "b"]
    assert (tmp_path / "s/00000.h264").stat().st_size == 600


def test_a_reader_keeps_the_index_that_it_knows_where_videos_are_made_anew_or_left_out(source, tmp_path, decoder):
    store = tmp_path / "s"
    ingest(source, store, SETTINGS, WORK)
    before = load(store)
    assert shown(before, decoder) == [0, 10, 20, 30, 40]
    write(tmp_path / "raw" / "x" / "b.mp4", 90, 33)
    ingest(indexed(tmp_path).select(np.array([1, 3, 4])), store, SETTINGS, WORK)
    ingest(indexed(tmp_path).select(np.array([1, 4])), store, SETTINGS, WORK)
    assert shown(before, decoder) == [0, 10, 20, 30, 40]
    assert shown(load(store), decoder) == [90, 40]
    assert verify(store, 9).problems == []


def test_the_index_of_before_does_not_read_another_store_in_its_place(source, tmp_path, decoder):
    store = tmp_path / "s"
    ingest(source, store, SETTINGS, WORK)
    before = load(store)
    shown(before, decoder)
    shutil.rmtree(store)
    write(tmp_path / "raw" / "x" / "b.mp4", 90, 33)
    ingest(indexed(tmp_path).select(np.array([1, 3, 4])), store, SETTINGS, WORK)
    found = decoder.decode([SnippetRequest(before.video(row), 0, 0, 0, False) for row in range(5)])
    assert sorted(found.failures) == [0, 1, 2, 3, 4]
    assert all("the store has changed since this manifest was written" in text for text in found.failures.values())


def test_the_shards_of_a_replaced_index_are_closed(source, tmp_path, decoder):
    store = tmp_path / "s"
    ingest(source, store, SETTINGS, WorkSettings(shard_bytes=1))
    manifest, counts = load(store), []
    for number in range(6):
        os.utime(store / "store.index", ns=(number, number))
        assert shown(manifest, decoder) == [0, 10, 20, 30, 40]
        counts.append(num_open(store))
    assert counts[0] == 6 and set(counts[1:]) == {7}  # the shards, and the indices seen first and last


def test_a_damaged_index_is_written_anew(source, tmp_path):
    store = tmp_path / "s"
    ingest(source, store, SETTINGS, WORK)
    whole = (store / "store.index").read_bytes()
    for damaged in (b"", whole[:100], whole[:20] + b"\0" * (len(whole) - 20)):
        (store / "store.index").write_bytes(damaged)
        ingest(source, store, SETTINGS, WORK)
        assert (store / "store.index").read_bytes() == whole
