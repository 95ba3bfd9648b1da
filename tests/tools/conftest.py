"""What the tests of the benchmark program share: the program in this process, and a few videos."""

import pytest
from bench import material

from engine.data.manifests.manifest import Manifest
from engine.data.store.index import StoreSettings
from engine.data.store.ingest import WorkSettings, ingest
from tests.jobs import write_videos
from tests.small_run import call_tool


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Manifests of the same few videos: as files, and in a store."""
    folder = tmp_path_factory.mktemp("videos")
    raw = write_videos(folder / "raw")
    ingest(Manifest.load(raw), folder / "store", StoreSettings(short_side=32), WorkSettings())
    return raw, folder / "store" / "manifest.parquet"


@pytest.fixture
def program(monkeypatch, tmp_path, capsys):
    """Runs bench_throughput.py with a folder of its own: (exit status, what it printed)."""
    monkeypatch.setattr(material, "_DRAWN", (2, 40, (96, 64)))

    def run(*words):
        status = call_tool("bench_throughput.py", "--out", tmp_path / "out", *words, monkeypatch=monkeypatch)
        printed = capsys.readouterr()
        return status, printed.out + printed.err

    return run
