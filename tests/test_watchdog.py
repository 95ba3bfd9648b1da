"""Ranks that die or hang, and ranks that must agree."""

import json
import os
import re
import signal
import time
from pathlib import Path

import pytest

from engine.watchdog import EXIT_STATUS, Beat, Watchdog
from tests import jobs


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    return jobs.write_videos(tmp_path_factory.mktemp("videos"))


def test_the_rank_that_is_behind_is_the_one_that_is_named():
    watchdog = Watchdog(None, 0, 3, timeout_s=10)
    for rank, beat in enumerate((Beat(9, 4, 1), Beat(8, 4, 0), Beat(9, 4, 1))):  # 0 and 2 compute, 1 has no data yet
        watchdog._see(rank, beat, now=100.0 + rank)
    assert watchdog.late(now=109.0) is None
    assert watchdog.late(now=111.0) == 1
    watchdog._see(1, Beat(9, 4, 1), now=112.0)
    assert watchdog.late(now=113.0) == 0  # all at the same place: the first that fell silent
    watchdog._see(0, Beat(-1, 0, 0), now=113.0)  # it is done and not waited for
    assert watchdog.late(now=113.0) == 2


@pytest.mark.distributed
def test_a_hanging_rank_ends_the_job_in_the_set_time_by_its_name(videos, tmp_path):
    folder = tmp_path / "run"
    config = jobs.write_config(tmp_path / "config.yaml", videos, folder, **jobs.EXACT)
    ranks = jobs.start_ranks(2, config, "run.timeout_s=8", port=29653)
    try:
        jobs.wait_for_step(folder, 2, ranks[0])
        ranks[1].send_signal(signal.SIGSTOP)
        stopped = time.monotonic()
        printed, _ = ranks[0].communicate(timeout=60)
        assert ranks[0].returncode == EXIT_STATUS, printed
        assert "error: rank 1 has made no progress for" in printed
        assert time.monotonic() - stopped < 3 * 8
    finally:
        ranks[1].kill()
        ranks[1].communicate()


@pytest.mark.distributed
def test_torchrun_restarts_all_after_a_kill_and_they_resume(videos, tmp_path):
    folder = tmp_path / "run"
    config = jobs.write_config(tmp_path / "config.yaml", videos, folder, **jobs.EXACT, checkpoint={"every_steps": 1})
    process = jobs.start(config, ranks=2, launcher=("--max-restarts", "1"))
    jobs.wait_for_step(folder, 3, process)
    workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    cmdlines = [(int(pid), Path(f"/proc/{pid}/environ").read_bytes()) for pid in workers]
    (victim,) = (pid for pid, text in cmdlines if b"\0RANK=1\0" in text)
    os.kill(victim, signal.SIGKILL)
    printed, _ = process.communicate(timeout=180)
    assert process.returncode == 0, printed
    assert "local_rank: 1" in printed  # torchrun names the one that died
    first, second = jobs.events(folder, "start")
    assert (first["step"], second["step"] >= 3) == (0, True)
    assert list(jobs.losses(folder)) == list(range(1, max(jobs.losses(folder)) + 1))


@pytest.mark.distributed
@pytest.mark.parametrize("ranks", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_ranks_give_the_loss_curve_of_one_in_fp64(videos, tmp_path, ranks):
    curves = []
    for name, count in (("one", 0), ("many", ranks)):
        sections = {**jobs.EXACT, "train": {**jobs.EXACT["train"], "precision": "fp64"}}
        config = jobs.write_config(tmp_path / f"{name}.yaml", videos, tmp_path / name, **sections)
        jobs.run(config, ranks=count)
        curves.append(jobs.losses(tmp_path / name))
    assert curves[1] == pytest.approx(curves[0], rel=1e-12)
    assert curves[1] != curves[0]  # sums in another order: exactly equal would mean that nothing was divided
    # Six videos of each set over four ranks do not come out even: none is left out, none counted twice.
    one, many = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("one", "many"))
    for part, other in ((one["seen"], many["seen"]), (one["tests"]["combinations"], many["tests"]["combinations"])):
        assert other["all_classes"] == part["all_classes"]
    # Only rank 0 writes: the same files (TensorBoard's bear a process's number), each begun once.
    kinds = [sorted(re.sub("tfevents.*", "tfevents", path.name) for path in (tmp_path / name).rglob("*"))
             for name in ("one", "many")]  # fmt: skip
    assert kinds[0] == kinds[1]
    assert len(jobs.events(tmp_path / "many", "start")) == 1
    assert (tmp_path / "many" / "provenance.jsonl").read_text().count("\n") == 1


@pytest.mark.distributed
def test_fewer_ranks_that_accumulate_go_on_with_the_same_global_batches(videos, tmp_path):
    """Two ranks are stopped in the middle; one goes on with twice the micro-batches. In fp64 the curve is that of one."""
    sections = {**jobs.EXACT, "train": {**jobs.EXACT["train"], "precision": "fp64"}}
    jobs.run(jobs.write_config(tmp_path / "one.yaml", videos, tmp_path / "one", **sections))
    folder = tmp_path / "run"
    config = jobs.write_config(tmp_path / "config.yaml", videos, folder, **sections)
    ranks = jobs.start_ranks(2, config, port=29667)
    jobs.wait_for_step(folder, 3, ranks[0])
    ranks[1].send_signal(signal.SIGTERM)
    printed = [rank.communicate(timeout=300)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], printed
    stopped = jobs.events(folder, "stopped")[-1]["step"]
    jobs.run(config, "train.accumulate=2")
    assert [event["step"] for event in jobs.events(folder, "start")] == [0, stopped]
    assert 3 <= stopped < max(jobs.losses(folder))
    assert jobs.losses(folder) == pytest.approx(jobs.losses(tmp_path / "one"), rel=1e-12)
