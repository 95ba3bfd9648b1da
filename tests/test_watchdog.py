"""Ranks that die or hang, and ranks that must agree."""

import os
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
