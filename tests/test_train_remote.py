"""Training from object storage that goes away: for a while the run waits, for good it saves, ends, and goes on later."""

import signal
import time

import pytest

from engine.data.manifest import Manifest
from engine.data.store.index import StoreSettings
from engine.data.store.ingest import WorkSettings, ingest
from tests import jobs
from tests.object_server import ObjectServer

pytest.importorskip("aiohttp")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def served(videos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    ingest(Manifest.load(videos), folder / "k", StoreSettings(short_side=32, gop=4), WorkSettings())
    return folder


@pytest.fixture(scope="module")
def expected(served, tmp_path_factory):
    """The run from local files."""
    here = tmp_path_factory.mktemp("local")
    jobs.run(jobs.write_config(here / "config.yaml", served / "k" / "manifest.parquet", here / "run"))
    return here / "run"


def config_of(server, here, patience_s):
    sources = {
        "train": [{"manifest": f"{server.url}/k/manifest.parquet", "splits": ["train"]}],
        "tests": [{"manifest": f"{server.url}/k/manifest.parquet", "splits": ["unseen"], "name": "combinations"}],
        "remote": {"patience_s": patience_s, "reads_in_flight": 2, "cache_folder": str(here / "cache")},
    }
    return jobs.write_config(here / "config.yaml", "", here / "run", data=sources)


def test_a_store_that_is_away_for_20_s_costs_nothing_but_time(served, expected, tmp_path):
    with ObjectServer(served, latency_s=0.02, failures=0.01) as server:
        process = jobs.start(config_of(server, tmp_path, 120), merged=False)
        jobs.wait_for_step(tmp_path / "run", 3, process)
        server.stop()
        time.sleep(20)
        server.start()
        done = process.completed(200)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("waiting for it") == 1 and done.stderr.count("answers again") == 1
    assert jobs.losses(tmp_path / "run") == jobs.losses(expected)
    assert jobs.same_weights(tmp_path / "run", expected)


def test_a_store_that_is_gone_leaves_a_checkpoint_to_go_on_from(served, expected, tmp_path):
    with ObjectServer(served, latency_s=0.02) as server:
        config = config_of(server, tmp_path, 2)
        process = jobs.start(config, merged=False)
        jobs.wait_for_step(tmp_path / "run", 3, process)
        server.stop()
        done = process.completed(100)
        assert done.returncode == 2
        assert done.stderr.count("error:") == 1 and f"'{server.url}/k/00000.h264' cannot be read" in done.stderr
        steps = max(jobs.losses(tmp_path / "run"))
        assert f"gone after step {steps}" in done.stdout
        server.start()
        again = jobs.run(config)
    assert f"step {steps}" in again.stdout
    assert jobs.losses(tmp_path / "run") == jobs.losses(expected)
    assert jobs.same_weights(tmp_path / "run", expected)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_a_store_is_away_saves_and_ends_at_once(served, expected, tmp_path, number):
    with ObjectServer(served, latency_s=0.02) as server:
        config = config_of(server, tmp_path, 600)
        process = jobs.start(config)
        jobs.wait_for_step(tmp_path / "run", 3, process)
        server.stop()
        time.sleep(6)  # what was read ahead is used up, and the pauses between tries are seconds
        status, printed, seconds = jobs.stop(process, number)
        assert (status, seconds < 10) == (130 if number == signal.SIGINT else 0, True), printed
        steps = max(jobs.losses(tmp_path / "run"))
        assert f"stopped after step {steps} as asked" in printed and "error:" not in printed
        server.start()
        again = jobs.run(config)
    assert f"step {steps}" in again.stdout
    assert jobs.losses(tmp_path / "run") == jobs.losses(expected)
    assert jobs.same_weights(tmp_path / "run", expected)
