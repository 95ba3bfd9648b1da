"""Index and ingest on a cluster of two nodes: what is made is what this machine's processes make, whatever dies on the way."""

import subprocess
import sys
import time
from pathlib import Path
from zlib import crc32

import pytest

from engine.data.manifests.manifest import Manifest
from engine.data.pyav.encode import write_video
from engine.data.store.reader import find_entry
from engine.files.json_lines import read_json_lines
from tests.cluster.nodes_of_one_machine import two_nodes
from tests.data.videos import numbered_frame
from tests.environment import ROOT, environment

pytest.importorskip("ray")
pytestmark = pytest.mark.slow
NUM_CLIPS = 300


def tool(name: str, *words: object) -> list[str]:
    return [sys.executable, str(ROOT / "tools" / name), *map(str, words)]


def run(command: list[str]) -> str:
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def ingest_of(source: Path, store: Path, *more: object) -> list[str]:
    return tool("ingest.py", source, "--out", store, "--preset", "ultrafast", "--short-side", 64, *more)


@pytest.fixture(scope="module")
def local(tmp_path_factory) -> tuple[Path, Path]:
    """300 clips, each other pictures; their manifest, and the store that two processes of this machine make of them."""
    folder = tmp_path_factory.mktemp("clips")
    (folder / "raw" / "shown").mkdir(parents=True)
    for clip in range(NUM_CLIPS):
        frames = (numbered_frame(clip % 240 + number, 64, 48 + 2 * (clip // 240)) for number in range(12))
        write_video(folder / "raw" / "shown" / f"{clip:03d}.mp4", frames, gop=6)
    run(tool("index_dataset.py", folder / "raw", "--out", folder / "raw.parquet", "--workers", 2))
    run(ingest_of(folder / "raw.parquet", folder / "store", "--workers", 2))
    return folder / "raw.parquet", folder / "store"


def checksums(store: Path) -> list[int]:
    """Of each row's video, as it is stored."""
    manifest = Manifest.load(store / "manifest.parquet")
    assert len(manifest) == NUM_CLIPS
    return [crc32(_read(manifest, row)) for row in range(NUM_CLIPS)]


def _read(manifest: Manifest, row: int) -> bytes:
    reader, entry = find_entry(manifest.video(row))
    return reader.read(entry, 0, len(entry.group_end) - 1)


def lines(store: Path) -> int:
    path = store / "journal.jsonl"
    return path.read_bytes().count(b'"path"') if path.is_file() else 0


def wait_for_half(store: Path, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 300
    while lines(store) < NUM_CLIPS // 2:
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0]
        time.sleep(0.005)


def assert_same(store: Path, local: tuple[Path, Path]) -> None:
    """The same videos, each once: in the journal, in the index, and no byte more in the shards."""
    expected = checksums(local[1])
    assert len(set(expected)) == NUM_CLIPS
    assert checksums(store) == expected
    assert (store / "manifest.parquet").read_bytes() == (local[1] / "manifest.parquet").read_bytes()
    noted = [line["path"] for line in read_json_lines(store / "journal.jsonl") if "path" in line]
    assert len(noted) == len(set(noted)) == NUM_CLIPS
    sizes = {sum(shard.stat().st_size for shard in each.glob("*.h264")) for each in (store, local[1])}
    assert len(sizes) == 1


def start(command: list[str]) -> subprocess.Popen:
    return subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_a_node_dies_half_way(local, tmp_path):
    with two_nodes() as (cluster, second):
        again = local[0].with_name("again.parquet")
        printed = run(tool("index_dataset.py", local[0].parent / "raw", "--out", again, "--cluster", cluster.address))
        assert "2 nodes, 2 cores" in printed
        assert again.read_bytes() == local[0].read_bytes()
        store = tmp_path / "store"
        process = start(ingest_of(local[0], store, "--cluster", cluster.address))
        wait_for_half(store, process)
        cluster.remove_node(second, allow_graceful=False)
        begun = lines(store)
        printed, _ = process.communicate(timeout=300)
    assert process.returncode == 0, printed
    assert begun < NUM_CLIPS  # Ray may notice only after the end: what is said of a lost node is tested with the cells
    assert_same(store, local)


def test_the_driver_dies_half_way_and_is_started_again(local, tmp_path):
    store = tmp_path / "store"
    with two_nodes() as (cluster, _):
        command = ingest_of(local[0], store, "--cluster", cluster.address)
        process = start(command)
        wait_for_half(store, process)
        process.kill()
        process.communicate()
        begun = lines(store)
        assert begun < NUM_CLIPS and not (store / "manifest.parquet").exists()
        assert f"{begun} of {NUM_CLIPS} files are in the store and unchanged" in run(command)
    assert_same(store, local)
