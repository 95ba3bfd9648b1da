"""A store in S3, of a real server on this machine: written by ingest, checked, and read as the files that it was made of."""

import subprocess
import sys

import numpy as np
import pytest

from engine.data.indexing import index_folder
from engine.data.manifest import Manifest
from engine.data.pyav.encode import write_video
from engine.data.remote.config import RemoteConfig
from engine.data.remote.settings import use
from engine.data.store import reader as reader_module
from engine.errors import InputError
from tests.data.videos import numbered_frame
from tests.s3 import SECRET, s3_server

pytest.importorskip("s3fs")  # and with it aiohttp, without which the next import ends
from tests.data.test_remote import stream

pytestmark = pytest.mark.slow


@pytest.fixture
def s3(tmp_path, monkeypatch):
    monkeypatch.setattr(reader_module, "_READERS", {})
    use(RemoteConfig(patience_s=20))
    with s3_server(tmp_path, monkeypatch):
        yield


def run_ingest(*arguments):
    done = subprocess.run(
        [sys.executable, "tools/ingest.py", *map(str, arguments)], capture_output=True, text=True, timeout=120
    )
    assert SECRET not in done.stdout + done.stderr
    return done


def test_a_store_is_written_to_and_read_from_s3(s3, tmp_path):
    root = tmp_path / "raw"
    for number in range(6):
        (root / f"class{number % 2}").mkdir(parents=True, exist_ok=True)
        frames = (numbered_frame(7 * number + frame, 96, 96) for frame in range(30))
        write_video(root / f"class{number % 2}" / f"{number}.mp4", frames, gop=30)
    index_folder(root, root / "manifest.parquet")
    options = ("--short-side", 64, "--gop", 8, "--preset", "veryfast", "--workers", 1)
    done = run_ingest(root / "manifest.parquet", "--out", "s3://bucket/k 1", *options)
    assert done.returncode == 0, done.stderr
    assert "verified: all 6 byte ranges" in done.stdout and "s3://bucket/k 1" in done.stdout
    assert run_ingest(root / "manifest.parquet", "--out", tmp_path / "local", *options).returncode == 0
    remote, local = (
        Manifest.load("s3://bucket/k 1/manifest.parquet"),
        Manifest.load(tmp_path / "local/manifest.parquet"),
    )
    found, expected = stream(remote, 6), stream(local, 6)
    assert np.array_equal(found[0], expected[0]) and np.array_equal(found[1], expected[1])
    with pytest.raises(InputError, match=r"no manifest at 's3://bucket/none/manifest\.parquet'"):
        Manifest.load("s3://bucket/none/manifest.parquet")
    with pytest.raises(InputError, match="s3://absent/"):
        Manifest.load("s3://absent/manifest.parquet")
