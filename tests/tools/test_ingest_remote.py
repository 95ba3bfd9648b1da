"""tools/ingest.py into object storage: shards leave as they are full, and a kill in an upload loses and doubles nothing."""

import signal
import subprocess
import sys
import time
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest

from engine.data.indexing.dataset import index_folder
from engine.data.manifests.manifest import Manifest
from engine.data.pyav.encode import write_video
from engine.data.remote import upload as uploading
from engine.data.remote.upload import is_up, staging_folder
from engine.data.store import reader as reader_module
from engine.data.store.index import StoreIndex
from engine.data.store.reader import open_reader
from engine.files.json_lines import read_json_lines
from tests.environment import ROOT, environment
from tests.forked import Forked
from tests.s3 import SECRET, s3_server
from tests.small_run import run_tool

pytestmark = pytest.mark.slow
NUM_VIDEOS, TARGET = 8, Path("/s3:/bucket/k")
WORDS = ("--short-side", 128, "--gop", 8, "--preset", "ultrafast", "--crf", 10, "--shard-mb", 1, "--workers", 1)
# Stands still in an upload, before or after the bytes are there, once so many are up.
STANDS_STILL = """
import runpy, sys, time
from pathlib import Path
from engine.data.remote import upload

when, marker, program = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
sys.argv[:4] = [program]
put, count = upload.upload, [0]

def stands_still(path, url):
    count[0] += 1
    if when == "after" or count[0] < 2:
        put(path, url)
    if count[0] == 2:
        marker.touch()
        time.sleep(600)

upload.upload = stands_still
runpy.run_path(program, run_name="__main__")
"""


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """Videos of noise: each fills a good part of the smallest shard."""
    root, random = tmp_path_factory.mktemp("noise"), np.random.default_rng(0)
    for number in range(NUM_VIDEOS):
        path = root / f"class{number % 2}" / f"{number}.mp4"
        path.parent.mkdir(exist_ok=True)
        write_video(path, (random.integers(0, 256, (128, 128, 3), np.uint8) for _ in range(40)))
    index_folder(root, root / "manifest.parquet")
    return root / "manifest.parquet"


@pytest.fixture
def s3(tmp_path, monkeypatch):
    """A bucket that keeps every version of an object."""
    monkeypatch.setattr(reader_module, "_READERS", {})
    with s3_server(tmp_path, monkeypatch):
        from engine.data.remote.file_systems import file_system

        files = file_system("s3://bucket")
        files.call_s3("put_bucket_versioning", Bucket="bucket", VersioningConfiguration={"Status": "Enabled"})
        yield files


def checksums(store):
    """Name -> checksum of the bytes of a video, and shard -> that no byte of it belongs to none or to two."""
    index, manifest = StoreIndex(store / "store.index"), Manifest.load(store / "manifest.parquet")
    reader, used = open_reader(index), {}
    entries = [index[number] for number in range(len(index))]
    for entry in entries:
        used[entry.shard] = used.get(entry.shard, 0) + entry.num_bytes
    names = [path.rpartition("#")[0] for path in manifest.paths]
    return {name: crc32(reader.read(e, 0, len(e.group_end) - 1)) for name, e in zip(names, entries, strict=True)}, used


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_in_an_upload_nothing_is_lost_doubled_or_put_twice(manifest, s3, tmp_path, when):
    local, staged = tmp_path / "local", staging_folder(TARGET)
    assert run_tool("ingest.py", manifest, "--out", local, *WORDS).returncode == 0
    expected, _ = checksums(local)
    (tmp_path / "still.py").write_text(STANDS_STILL)
    command = (ROOT / "tools" / "ingest.py", manifest, "--out", "s3://bucket/k", *WORDS)
    process = Forked(tmp_path / "still.py", when, tmp_path / "marker", *command, variables=environment(), merged=True)
    deadline = time.monotonic() + 120
    while not (tmp_path / "marker").exists():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.01)
    process.kill()
    assert process.communicate() is not None and process.returncode == -signal.SIGKILL
    before = {line["name"] for line in read_json_lines(staged / "uploaded.jsonl")}
    assert len(before) == 1 and not (staged / before.pop()).exists()  # its room is free
    assert not s3.exists("bucket/k/store.index") and not s3.exists("bucket/k/manifest.parquet")

    done = run_tool("ingest.py", *command[1:])
    assert done.returncode == 0, done.stderr
    assert f"verified: all {NUM_VIDEOS} byte ranges" in done.stdout and SECRET not in done.stdout + done.stderr
    found, used = checksums(TARGET)
    assert found == expected and len(found) == NUM_VIDEOS
    sizes = {int(Path(name).stem): s3.info(name)["size"] for name in s3.glob("bucket/k/*.h264")}
    assert used == sizes and len(sizes) >= 3
    versions = s3.call_s3("list_object_versions", Bucket="bucket", Prefix="k/")["Versions"]
    names = [each["Key"] for each in versions if each["Key"].endswith(".h264")]
    assert sorted(names) == sorted(set(names))
    assert not list(staged.glob("*.h264"))

    again = run_tool("ingest.py", *command[1:])
    assert again.returncode == 0 and f"{NUM_VIDEOS} of {NUM_VIDEOS} files are in the store" in again.stderr
    assert checksums(TARGET) == (expected, sizes)


def test_what_is_added_goes_to_new_shards_and_motion_is_read_off_those_that_are_up(manifest, s3, tmp_path, monkeypatch):
    whole = Manifest.load(manifest)
    whole.select(np.arange(5)).save(tmp_path / "five.parquet")
    assert run_tool("ingest.py", tmp_path / "five.parquet", "--out", "s3://bucket/k", *WORDS).returncode == 0
    first, sizes = checksums(TARGET)
    words = ("--out", "s3://bucket/k", *map(str, WORDS), "--motion", "--keep-local")
    done = subprocess.run(  # workers of a forked one have the environment of the first test, which had another S3
        [sys.executable, ROOT / "tools" / "ingest.py", manifest, *words], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0 and f"verified: all {NUM_VIDEOS}" in done.stdout, done.stderr
    assert "motion is added to 5 stored videos" in done.stderr
    monkeypatch.setattr(reader_module, "_READERS", {})
    found, now = checksums(TARGET)
    assert found.items() > first.items() and len(found) == NUM_VIDEOS
    assert {shard: now[shard] for shard in sizes} == sizes and len(now) > len(sizes)
    kept = {int(path.stem) for path in staging_folder(TARGET).glob("*.h264")}
    assert kept == now.keys() - sizes.keys()
    assert StoreIndex(TARGET / "store.index").has_motion


def test_a_store_of_another_machine_is_not_overwritten(manifest, s3, tmp_path):
    s3.pipe("bucket/k/store.index", b"of another")
    done = run_tool("ingest.py", manifest, "--out", "s3://bucket/k", *WORDS)
    assert done.returncode == 2 and "there is a store at 's3://bucket/k' that was not made in" in done.stderr
    assert s3.ls("bucket/k") == ["bucket/k/store.index"]


def test_an_object_is_told_from_another_of_its_length(s3, tmp_path, monkeypatch):
    path = tmp_path / "a"
    path.write_bytes(b"0123456789")
    assert not is_up(path, "s3://bucket/a")
    s3.pipe("bucket/a", b"0123456780")
    assert not is_up(path, "s3://bucket/a")
    s3.pipe("bucket/a", b"0123456789")
    assert is_up(path, "s3://bucket/a")
    data = np.random.default_rng(0).bytes(13 * 2**20)
    path.write_bytes(data)
    monkeypatch.setattr(uploading, "_PART_BYTES", 6 * 2**20)
    for part, must_be_read in ((6, False), (5, True)):  # the ETag of other parts says nothing to us
        s3.put_file(str(path), f"bucket/{part}", chunksize=part * 2**20)
        assert s3.info(f"bucket/{part}")["ETag"].endswith('-3"')
        with monkeypatch.context() as patch:
            if not must_be_read:
                patch.setattr(uploading, "read_range", None)
            assert is_up(path, f"s3://bucket/{part}")
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert not is_up(path, "s3://bucket/5") and not is_up(path, "s3://bucket/6")
