"""A store that is made for object storage: what is up is looked at before it is trusted, and nothing of another is overwritten."""

import errno
import hashlib
import re
import sys

import fsspec
import numpy as np
import pytest

from engine.data.indexing.dataset import index_folder
from engine.data.manifests.manifest import Manifest
from engine.data.pyav.encode import write_video
from engine.data.remote import upload as uploading
from engine.data.remote.objects import upload
from engine.data.remote.states import State
from engine.data.remote.upload import Uploads, staging_folder
from engine.data.store import reader as reader_module
from engine.data.store.index import StoreSettings
from engine.data.store.ingest import WorkSettings, ingest
from engine.data.store.verify import verify
from engine.errors import InputError, SourceGone
from engine.files.addresses import as_path
from tests.data.videos import numbered_frame
from tests.small_run import call_tool

SETTINGS = StoreSettings(short_side=64, gop=8, preset="ultrafast")
TARGET, KEY = as_path("memory://uploads/k"), "/uploads/k"
NUM_VIDEOS = 4


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    root = tmp_path_factory.mktemp("raw")
    for number in range(NUM_VIDEOS):
        (root / f"class{number % 2}").mkdir(exist_ok=True)
        frames = (numbered_frame(9 * number + frame, 96, 96) for frame in range(20 + 7 * number))
        write_video(root / f"class{number % 2}" / f"{number}.mp4", frames)
    index_folder(root, root / "m.parquet")
    return Manifest.load(root / "m.parquet")


@pytest.fixture(autouse=True)
def bucket(tmp_path, monkeypatch):
    """Objects in the memory of this process, with ETags."""
    monkeypatch.setattr(reader_module, "_READERS", {})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "A"))
    files, look = fsspec.filesystem("memory"), uploading.state_of

    def with_etag(url):
        return State(f'"{hashlib.md5(files.cat(url)).hexdigest()}"', look(url).length)

    monkeypatch.setattr(uploading, "state_of", with_etag)
    yield files
    if files.exists("/uploads"):
        files.rm("/uploads", recursive=True)


def make(source, *, is_lost=False, keep=False, motion=False):
    """Make the store with a shard a video; or be lost before the last shard and the index are up."""
    folder = staging_folder(TARGET)
    with Uploads(folder, TARGET, keep=keep) as uploads:
        report = ingest(source, folder, SETTINGS, WorkSettings(shard_bytes=1, motion=motion), None, uploads)
        if is_lost:
            uploads.wait()
        else:
            uploads.finish()
    reader_module._READERS.clear()
    return report


def problems():
    return verify(TARGET, NUM_VIDEOS).problems


def names(bucket):
    return sorted(path.rpartition("/")[2] for path in bucket.find(KEY))


@pytest.mark.parametrize("keep", [False, True])
def test_a_store_that_was_removed_is_made_again(source, bucket, keep, capsys):
    make(source, keep=keep, motion=True)
    bucket.rm(KEY, recursive=True)
    capsys.readouterr()
    make(source, keep=keep, motion=True)
    assert "4 shards are not as they were uploaded (the first is 00000.h264)" in capsys.readouterr().err
    assert problems() == [] and "store.motion" in names(bucket)
    before = names(bucket)
    make(source, keep=keep, motion=True)
    assert f"{NUM_VIDEOS} of {NUM_VIDEOS} files are in the store and unchanged" in capsys.readouterr().err
    assert problems() == [] and names(bucket) == before


@pytest.mark.parametrize("damage", ["gone", "cut", "changed"])
def test_a_shard_that_is_gone_or_another_is_made_again(source, bucket, damage):
    make(source)
    data = bucket.cat(f"{KEY}/00001.h264")
    if damage == "gone":
        bucket.rm(f"{KEY}/00001.h264")
    else:
        bucket.pipe(f"{KEY}/00001.h264", data[:-5] if damage == "cut" else data[:-1] + bytes([data[-1] ^ 1]))
    assert problems() != []
    others = {name: bucket.cat(f"{KEY}/{name}") for name in ("00000.h264", "00002.h264", "00003.h264")}
    make(source)
    assert problems() == []
    assert {name: bucket.cat(f"{KEY}/{name}") for name in others} == others
    assert "00004.h264" in names(bucket)  # what is there is not written over
    # What was made of the lost shard's video before counts no more, though the journal tells of it.
    make(source.select(np.array([0, 2, 3])))
    assert make(source).num_videos == NUM_VIDEOS and problems() == []


def test_a_store_that_another_machine_has_made_meanwhile_is_left_alone(source, bucket, tmp_path, monkeypatch):
    make(source, is_lost=True)
    assert names(bucket) == ["00000.h264", "00001.h264", "00002.h264"]
    turned = source.select(np.arange(NUM_VIDEOS)[::-1])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "B"))
    refused = (
        rf"there is a store at 'memory://uploads/k' that was not made in '{tmp_path}/.* \(00000\.h264 is another's\)"
    )
    with pytest.raises(InputError, match=refused):
        make(turned)
    bucket.rm(KEY, recursive=True)  # as the error says
    make(turned, is_lost=True)
    for _ in range(2):  # while the other is at it, and when it is done
        there = bucket.find(KEY, detail=True)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "A"))
        with pytest.raises(InputError, match=r"that was not made in .*is another's"):
            make(source)
        assert bucket.find(KEY, detail=True) == there
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "B"))
        make(turned)
        assert problems() == []


def test_a_shard_that_another_puts_meanwhile_is_not_overwritten(source, bucket, monkeypatch):
    put = uploading.upload

    def beside(path, url):
        put(path, url)
        bucket.pipe(f"{KEY}/00002.h264", b"of another")

    monkeypatch.setattr(uploading, "upload", beside)
    with pytest.raises(InputError, match=r"00002\.h264 is another's"):
        make(source)
    assert bucket.cat(f"{KEY}/00002.h264") == b"of another"


@pytest.mark.parametrize("name", ["00001.h264", "00003.h264", "store.index"])
def test_a_kill_between_an_object_and_its_line_is_told_by_the_bytes(source, bucket, monkeypatch, name):
    note = Uploads._note

    def killed(self, path, state):
        if path.name == name:
            raise KeyboardInterrupt
        note(self, path, state)

    with monkeypatch.context() as patch:
        patch.setattr(Uploads, "_note", killed)
        with pytest.raises(KeyboardInterrupt):
            make(source)
    with monkeypatch.context() as patch:  # and another before anything else is put
        patch.setattr(Uploads, "_put", lambda *_: sys.exit())
        with pytest.raises(SystemExit):
            make(source)
    make(source)
    assert problems() == [] and [each for each in names(bucket) if each.endswith("h264")] == [
        f"0000{shard}.h264" for shard in range(NUM_VIDEOS)
    ]


def test_journals_of_before_tell_lengths_alone(source, bucket):
    make(source)
    journal = staging_folder(TARGET) / "uploaded.jsonl"
    lines = [line.partition(', "etag"')[0].rstrip("}\n") + "}\n" for line in journal.open()]
    journal.write_text("".join(lines))
    make(source)
    assert problems() == [] and len(names(bucket)) == NUM_VIDEOS + 2


def test_a_line_of_the_journal_that_the_disk_has_changed_is_passed_over(source, bucket):
    make(source)
    journal = staging_folder(TARGET) / "uploaded.jsonl"
    lines = journal.read_text()
    for old, new in (('"name": "00001', '"nane": "00001'), ("00002.h264", "0x002.h264"), ("mtime_ns", "mtime_ms")):
        journal.write_text(new.join(lines.rsplit(old, 1)))
        assert make(source).num_videos == NUM_VIDEOS and problems() == []
        lines = journal.read_text()


def test_damage_is_told_with_the_folder_that_mends_it(source, bucket, monkeypatch, capsys):
    make(source)
    bucket.rm(f"{KEY}/00001.h264")
    assert call_tool("ingest.py", "--verify", "memory://uploads/k", monkeypatch=monkeypatch) == 2
    error = capsys.readouterr().err
    assert "give the command that made it again" in error and str(staging_folder(TARGET)) in error


def test_a_store_is_not_made_for_a_web_server(tmp_path):
    """It would be encoded, and then waited for."""
    with pytest.raises(InputError, match="'https://h/k' is on a web server, which stores are read from alone: name an"):
        Uploads(tmp_path / "staged", as_path("https://h/k"))
    assert list(tmp_path.iterdir()) == []


def test_a_bucket_that_is_not_there_is_told(source, bucket, monkeypatch):
    def absent(self, path, key):
        raise FileNotFoundError(errno.ENOENT, "The specified bucket does not exist")

    monkeypatch.setattr(type(bucket), "put_file", absent)
    told = (
        "00000.h264' cannot be put there (FileNotFoundError: The specified bucket does not exist): see that its bucket"
    )
    with pytest.raises(SourceGone, match=re.escape(told)):
        make(source)
    with pytest.raises(FileNotFoundError):
        upload(staging_folder(TARGET) / "none", "memory://uploads/k/none")
