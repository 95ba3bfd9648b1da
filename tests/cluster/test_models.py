"""Features and evaluations on two nodes are those of this machine; what a cluster lacks is said in one line."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("ray")  # before what imports it
from engine.cluster import nodes as nodes_module
from engine.cluster.pool import open_pool
from engine.data.manifests.manifest import Manifest
from engine.data.store.index import StoreSettings
from engine.data.store.ingest import WorkSettings, ingest
from engine.errors import InputError
from engine.features.cache import FeatureCache
from engine.processes.process_pool import Lost
from tests.cluster.nodes_of_one_machine import two_nodes
from tests.encoded import fade, manifest_of, write_colors
from tests.environment import ROOT, environment
from tests.object_server import ObjectServer
from tests.small_run import write_run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster():
    with two_nodes() as (cluster, _):
        yield cluster


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run, and 70 videos of two classes as its test set, one of them cut off."""
    folder = tmp_path_factory.mktemp("models")
    rows = []
    for number in range(70):
        name = "red" if number % 2 else "blue"
        path = f"{name}/{number}.mp4"
        write_colors(folder / "set" / path, fade((3 * number, 50, 20), (20, 240 - 3 * number, 90), 8 + number % 9))
        rows.append((path, name, 8 + number % 9))
    broken = folder / "set" / rows[7][0]
    broken.write_bytes(broken.read_bytes()[:300])
    manifest_of(folder / "set", rows, split="a").save(folder / "set.parquet")
    write_run(folder / "run", tests=[{"manifest": str(folder / "set.parquet"), "name": "set"}])
    return folder


def tool(name: str, *words: object) -> str:
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / name), *map(str, words)],
        env=environment(), capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_an_evaluation_is_the_same(folder, cluster):
    for out, more in (("here", ()), ("there", ("--cluster", cluster.address))):
        printed = tool("evaluate.py", folder / "run", "--device", "cpu", "--out", folder / out, *more)
    assert "2 nodes, 2 cores" in printed
    here, there = (json.loads((folder / name / "results.json").read_text()) for name in ("here", "there"))
    for each in (here, there):
        del each["tests"]["set"]["seconds"]
    assert there["tests"] == here["tests"]
    assert len(here["tests"]["set"]["failures"]) == 1
    tables = [(folder / name / "predictions_set.csv").read_bytes() for name in ("here", "there")]
    assert tables[0] == tables[1]


def test_scores_standardised_over_unlabelled_videos_are_the_same(folder, cluster):
    """Of an untrained model, whose points of those videos come from the nodes too."""
    for out, more in (("u_here", ()), ("u_there", ("--cluster", cluster.address))):
        words = ("evaluate.num_snippets=1", "--data", folder / "set.parquet", "--unlabelled", folder / "set.parquet")
        printed = tool("evaluate.py", *words, "--device", "cpu", "--out", folder / out, *more)
        assert "standardised over 69 unlabelled videos" in printed
    here, there = (json.loads((folder / name / "results.json").read_text()) for name in ("u_here", "u_there"))
    for each in (here, there):
        del each["tests"]["set"]["seconds"]
    assert there["tests"] == here["tests"]
    tables = [(folder / name / "predictions_set.csv").read_bytes() for name in ("u_here", "u_there")]
    assert tables[0] == tables[1] and len(tables[0].splitlines()) == 70


def test_nodes_read_a_store_in_object_storage(folder, cluster, tmp_path):
    ingest(
        Manifest.load(folder / "set.parquet"), tmp_path / "store", StoreSettings(short_side=32, gop=4), WorkSettings()
    )
    found = []
    with ObjectServer(tmp_path) as server:
        for store, more in ((tmp_path, ()), (server.url, ("--cluster", cluster.address))):
            out = tmp_path / str(len(found))
            words = ("--data", f"{store}/store/manifest.parquet", "--device", "cpu", "--out", out, *more)
            tool("evaluate.py", folder / "run", *words)
            (tested,) = json.loads((out / "results.json").read_text())["tests"].values()
            found.append({**tested, "seconds": 0})
        assert server.num_gets > 69
    assert found[0] == found[1] and not found[0]["failures"]


def test_features_are_the_same(folder, cluster):
    manifest = Manifest.load(folder / "set.parquet")
    for out, more in (("f_here", ("--threads", 1)), ("f_there", ("--cluster", cluster.address))):
        words = (
            folder / "set.parquet",
            "--model",
            folder / "run",
            "--out",
            folder / out,
            "--device",
            "cpu",
            "--window",
            4,
        )
        tool("extract_features.py", *words, "--dtype", "float32", *more)
    here, there = (FeatureCache(folder / name, manifest=manifest) for name in ("f_here", "f_there"))
    assert sorted(here.videos) == sorted(there.videos) and len(here.videos) == 69
    for path in here.videos:
        assert np.array_equal(here[path].start_s, there[path].start_s)
        scale = np.abs(here[path].features).max()
        assert scale > 0
        assert np.abs(here[path].features - there[path].features).max() < 1e-5 * scale  # batches are cut elsewhere


def test_a_crash_and_a_hang_cost_their_piece(folder, cluster):
    fault, hang = "__import__('os').kill(__import__('os').getpid(), 11)", "__import__('time').sleep(100)"
    items = [*map(str, range(20)), fault, hang, *map(str, range(20, 40))]
    with open_pool(cluster.address, [folder]) as pool:
        found = list(pool.run(eval, items, 3.0))
    assert sorted(item for item, _ in found) == sorted(items)
    found = dict(found)
    assert all(found[str(number)] == number for number in range(40))
    assert found[fault] == Lost(False, "the process that read it died (signal SIGSEGV)")
    assert found[hang] == Lost(True, "stopped after 3 s")


def test_a_piece_whose_worker_dies_again_and_again_is_lost(folder, cluster):
    killer = "__import__('os').kill(__import__('multiprocessing').parent_process().pid, 9)"
    with open_pool(cluster.address, [folder]) as pool:
        found = dict(pool.run(eval, ["1", killer, "2"], 30.0))
    assert (found["1"], found["2"]) == (1, 2)
    assert isinstance(found[killer], Lost) and "died, 4 times" in found[killer].text


def test_few_of_very_many_items_are_under_way(folder, cluster):
    taken = []

    def items():
        for number in range(100_000):
            taken.append(number)
            yield str(number)

    with open_pool(cluster.address, [folder]) as pool:
        running = pool.run(eval, items(), 30.0)
        for _ in range(10):
            next(running)
        assert len(taken) <= 10 + 2 * 3
        running.close()


def test_what_is_missing_is_said_in_one_line(folder, cluster, tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"node 127.0.0.2 .* does not see '.*not there'"), \
            open_pool(cluster.address, [tmp_path / "not there"]):  # fmt: skip
        pass
    with pytest.raises(InputError, match="no node has a GPU"), open_pool(cluster.address, [tmp_path], device="cuda"):
        pass
    monkeypatch.setattr(nodes_module, "code_digest", lambda: "other")
    with pytest.raises(InputError, match="has another version of this package"), open_pool(cluster.address, [tmp_path]):
        pass
    monkeypatch.setattr(nodes_module, "_ANSWER_LIMIT_S", 4.0)
    with pytest.raises(InputError, match=r"no Ray cluster answers at 127.0.0.2:1 within 4 s"), \
            open_pool("127.0.0.2:1", [tmp_path]):  # fmt: skip
        pass
    for wrong in ("ray://127.0.0.2:10001", "here"):
        with pytest.raises(InputError, match="it is auto or HOST:PORT"), open_pool(wrong, [tmp_path]):
            pass


def test_auto_joins_the_cluster_of_the_environment(cluster, tmp_path):
    code = "from pathlib import Path; from engine.cluster.pool import open_pool\n" \
           "with open_pool('auto', [Path('.')]) as pool: print(dict(pool.run(eval, ['6 * 7'], 60.0)))"  # fmt: skip
    for address, expected in ((cluster.address, "{'6 * 7': 42}"), (None, None)):
        variables = environment(**({"RAY_ADDRESS": address} if address else {}), RAY_TMPDIR=str(tmp_path))
        done = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=False)
        if expected:
            assert done.stdout.strip() == expected, done.stderr
    assert os.environ.get("RAY_ADDRESS") is None
