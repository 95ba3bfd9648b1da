"""Training from object storage that goes away: for a while the run waits, for good it saves, ends, and goes on later."""

import os
import shutil
import signal
import time

import pytest

from engine.data.manifests.manifest import Manifest
from engine.data.store.index import StoreSettings
from engine.data.store.ingest import WorkSettings, ingest
from engine.files.addresses import as_path
from tests import jobs
from tests.environment import environment
from tests.forked import Forked
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


def config_of(server, here, patience_s, **data):
    sources = {
        "train": [{"manifest": f"{server.url}/k/manifest.parquet", "splits": ["train"]}],
        "tests": [{"manifest": f"{server.url}/k/manifest.parquet", "splits": ["unseen"], "name": "combinations"}],
        "remote": {"patience_s": patience_s, "reads_in_flight": 2, "cache_folder": str(here / "cache")},
    }
    return jobs.write_config(here / "config.yaml", "", here / "run", data={**sources, **data})


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


@pytest.mark.parametrize("processes", [False, True])
def test_a_shard_that_is_replaced_is_the_one_error_and_no_bad_sample(served, expected, tmp_path, processes):
    shutil.copytree(served, tmp_path / "served")
    shard = tmp_path / "served" / "k" / "00000.h264"
    old, info = shard.read_bytes(), shard.stat()
    with ObjectServer(tmp_path / "served", latency_s=0.02) as server:
        config = config_of(server, tmp_path, 120, decode_processes=processes)
        process = jobs.start(config, merged=False)
        jobs.wait_for_step(tmp_path / "run", 3, process)
        server.replace("k/00000.h264", old[:1000] + bytes(len(old) - 1000))
        done = process.completed(100)
        assert done.returncode == 2
        assert done.stderr.count("error:") == 1, done.stderr
        assert f"error: '{server.url}/k/00000.h264' was replaced while it was read (" in done.stderr
        steps = max(jobs.losses(tmp_path / "run"))
        assert steps < 18 and f"gone after step {steps}, which is saved" in done.stdout
        assert "replaced a sample" not in done.stdout
        shard.write_bytes(old)
        os.utime(shard, ns=(info.st_atime_ns, info.st_mtime_ns))
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


ONE_RANK_ELSEWHERE = """
import os, runpy, sys

program, other = sys.argv[1:3]
sys.argv[:3] = [program]
if os.environ["RANK"] == "1":
    sys.argv.append(f"data.train.0.manifest={other}/k/manifest.parquet")
runpy.run_path(program, run_name="__main__")
"""


@pytest.mark.distributed
@pytest.mark.parametrize(("is_lost", "manifest_is_here"), [(True, False), (True, True), (False, False)])
def test_one_rank_that_loses_its_videos_or_waits_for_them_keeps_no_step_of_rank_0(
    served, tmp_path, is_lost, manifest_is_here
):
    """Its store does not come back; or it is away, and Ctrl-C reaches both ranks. The manifest may lie here all the same."""
    folder = tmp_path / "run"
    (tmp_path / "program.py").write_text(ONE_RANK_ELSEWHERE)
    with ObjectServer(served, latency_s=0.02) as server, ObjectServer(served, latency_s=0.02) as other:
        config, elsewhere = config_of(server, tmp_path, 2 if is_lost else 600), other.url
        if manifest_is_here:
            elsewhere = tmp_path / "elsewhere"
            for source, place in ((server, tmp_path / "here"), (other, elsewhere)):
                Manifest.load(as_path(f"{source.url}/k/manifest.parquet")).save(place / "k" / "manifest.parquet")
            here = {"manifest": str(tmp_path / "here" / "k" / "manifest.parquet")}
            tests = [{**here, "splits": ["unseen"], "name": "combinations"}]
            config = config_of(server, tmp_path, 2, train=[{**here, "splits": ["train"]}], tests=tests)
        words = ("--standalone", "--nproc-per-node", 2, tmp_path / "program.py", jobs.TRAIN, elsewhere, config)
        process = Forked(jobs.TORCHRUN, *words, variables=environment(), merged=True)
        jobs.wait_for_step(folder, 3, process)
        other.stop()
        if not is_lost:
            time.sleep(6)
            for pid in jobs.workers(process).values():
                os.kill(pid, signal.SIGINT)
        printed = process.completed(100).stdout
        steps = max(jobs.losses(folder))
        assert steps < 18 and (folder / "checkpoints" / f"step_{steps:08d}.pt").is_file(), printed
        lines = [line for line in printed.splitlines() if line.startswith("error:")]
        if is_lost:
            assert len(lines) == 1 and f"error: '{other.url}/k/00000.h264' cannot be read" in lines[0], printed
            assert lines[0].endswith("(rank 1 of 2)") and f"gone after step {steps}, which is saved" in printed
        else:
            assert not lines and f"stopped after step {steps} as asked" in printed, printed
        again = jobs.run(config, ranks=2)
    assert f"step {steps}" in again.stdout
    assert max(jobs.losses(folder)) == 18
