"""Ranks that die or hang, and ranks that must agree."""

import json
import os
import re
import signal
import time

import pytest

from engine.data.manifests.manifest import Manifest
from engine.processes.watchdog import EXIT_STATUS, PHASES, WAITING, Beat, Watchdog
from tests import jobs

MOST_BAD = 0.5  # of the samples: the set is tiny
TIMEOUT_S = 10  # longer than any step on a busy machine
EPOCHS = 14
LONG = EPOCHS * 18 // 4  # steps of such a job, none of them in an evaluation
SECTIONS = {
    **jobs.EXACT,
    "train": {**jobs.EXACT["train"], "epochs": EPOCHS, "precision": "fp64"},
    "evaluate": {"every_epochs": EPOCHS, "num_snippets": 2},
    "checkpoint": {"every_steps": 1},
}


@pytest.fixture(scope="module")
def spoilt_videos(tmp_path_factory):
    """(manifest, file): one of the training videos was cut in half after it was indexed."""
    manifest = jobs.write_videos(tmp_path_factory.mktemp("spoilt"))
    known = Manifest.load(manifest)
    row = known.table.column("split").to_pylist().index("train")
    path = known.video(row).path
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return manifest, path


@pytest.fixture
def long_config(videos, tmp_path):
    """(config, run folder) of a job with so many steps that it is still at them when a late kill comes."""
    return jobs.write_config(tmp_path / "config.yaml", videos, tmp_path / "run", **SECTIONS), tmp_path / "run"


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


def test_a_rank_that_says_the_same_again_has_made_no_progress():
    watchdog = Watchdog(None, 0, 2, timeout_s=10)
    for now in (100.0, 105.0, 110.0, 111.0):
        watchdog._see(0, Beat(int(now), 4, 1), now)
        watchdog._see(1, Beat(7, 4, 1), now)
    assert watchdog.late(now=111.0) == 1


def test_a_rank_of_an_earlier_step_is_behind_wherever_it_is_in_it():
    watchdog = Watchdog(None, 0, 2, timeout_s=10)
    watchdog._see(0, Beat(30, 5, PHASES.index("waiting for data")), now=100.0)
    watchdog._see(1, Beat(30, 4, PHASES.index("computing")), now=101.0)
    assert watchdog.late(now=112.0) == 1


def test_a_rank_that_has_done_its_share_waits_with_reason():
    """Of an evaluation, whose ranks need not be equally fast; but not beside one that stands still, or where all have done."""
    watchdog, (evaluating, waiting) = (
        Watchdog(None, 0, 2, timeout_s=10),
        (PHASES.index("evaluating"), PHASES.index(WAITING)),
    )
    watchdog._see(0, Beat(50, 100, waiting), now=100.0)
    watchdog._see(1, Beat(900, 100, evaluating), now=115.0)
    assert watchdog.late(now=120.0) is None
    assert watchdog.late(now=126.0) == 1
    watchdog._see(1, Beat(901, 100, waiting), now=126.0)
    assert watchdog.late(now=135.0) is None  # all have come
    assert watchdog.late(now=137.0) == 0


@pytest.mark.distributed
@pytest.mark.parametrize(
    ("victim", "says"),
    [
        (0, "error: the ranks' store has not answered for .*: rank 0"),
        pytest.param(1, "error: rank 1 has made no progress for", marks=pytest.mark.slow),
    ],
)
def test_a_hanging_rank_ends_the_job_in_the_set_time_by_its_name(long_config, victim, says):
    """Rank 0 keeps the store by which the ranks watch each other, so that its silence is of another kind."""
    config, folder = long_config
    ranks = jobs.start_ranks(2, config, f"run.timeout_s={TIMEOUT_S}")
    try:
        jobs.wait_for_step(folder, 2, ranks[0])
        ranks[victim].send_signal(signal.SIGSTOP)
        stopped = time.monotonic()
        printed, _ = ranks[1 - victim].communicate(timeout=180)
        assert ranks[1 - victim].returncode == EXIT_STATUS, printed
        assert re.search(says, printed), printed
        assert time.monotonic() - stopped < 3 * TIMEOUT_S
    finally:
        for rank in ranks:
            rank.kill()
            rank.communicate()


@pytest.mark.distributed
@pytest.mark.slow  # the next two tests kill a rank, with a launcher that starts it again and without one
@pytest.mark.parametrize("victim", [0, 1])
def test_a_rank_that_dies_ends_the_job_in_the_set_time_by_its_name(long_config, victim):
    config, folder = long_config
    process = jobs.start(config, ranks=2)
    jobs.wait_for_step(folder, 2, process)
    os.kill(jobs.workers(process)[victim], signal.SIGKILL)
    killed = time.monotonic()
    printed, _ = process.communicate(timeout=120)
    assert process.returncode == 1, printed
    assert f"local_rank: {victim}" in printed
    assert time.monotonic() - killed < 60
    assert max(jobs.losses(folder)) < LONG


@pytest.mark.distributed
def test_without_a_launcher_the_others_end_too(long_config):
    config, folder = long_config
    ranks = jobs.start_ranks(2, config)
    jobs.wait_for_step(folder, 2, ranks[0])
    ranks[1].kill()
    printed, _ = ranks[0].communicate(timeout=60)
    ranks[1].communicate()
    assert ranks[0].returncode == 1, printed
    assert printed.count("Traceback") == 1  # what the step met, and nothing on top of it


@pytest.mark.distributed
@pytest.mark.parametrize(("kills", "epochs"), [(1, 4), pytest.param(10, EPOCHS, marks=pytest.mark.slow)])
def test_torchrun_restarts_all_after_a_kill_and_they_resume(long_config, videos, tmp_path, kills, epochs):
    """Rank 1, then rank 0 and so on; in the end every step is there once, with the loss of one rank that nobody killed."""
    config, folder = long_config
    few, steps = (f"train.epochs={epochs}", f"evaluate.every_epochs={epochs}"), epochs * 18 // 4
    process = jobs.start(config, *few, ranks=2, launcher=("--max-restarts", str(kills)))
    seen = []
    for number in range(kills):
        jobs.wait_for_step(folder, 3 * (number + 1), process, starts=number + 1)
        os.kill(jobs.workers(process)[1 - number % 2], signal.SIGKILL)
        seen.append(3 * (number + 1))
    printed, _ = process.communicate(timeout=600)
    assert process.returncode == 0, printed
    assert all(f"local_rank: {1 - number % 2}" in printed for number in range(kills))
    starts = [event["step"] for event in jobs.events(folder, "start")]
    assert starts[0] == 0 and len(starts) == kills + 1
    # A rank 0 that was killed may have told of a step whose checkpoint it had not written yet.
    assert all(step - 1 <= start < steps for step, start in zip(seen, starts[1:], strict=True)), starts
    whole = jobs.write_config(tmp_path / "whole.yaml", videos, tmp_path / "whole", **SECTIONS)
    jobs.run(whole, *few)
    assert list(jobs.losses(folder)) == list(range(1, steps + 1))
    assert jobs.losses(folder) == pytest.approx(jobs.losses(tmp_path / "whole"), rel=1e-12)


@pytest.mark.distributed
@pytest.mark.parametrize("ranks", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_ranks_give_the_loss_curve_of_one_in_fp64(spoilt_videos, tmp_path, ranks):
    """A file that cannot be decoded falls to one rank alone: it is replaced as it would be anywhere, nobody waits."""
    manifest, spoilt = spoilt_videos
    curves = []
    for name, count in (("one", 0), ("many", ranks)):
        sections = {**jobs.EXACT, "train": {**jobs.EXACT["train"], "precision": "fp64"}}
        config = jobs.write_config(tmp_path / f"{name}.yaml", manifest, tmp_path / name, **sections)
        jobs.run(config, f"data.max_bad_share={MOST_BAD}", ranks=count)
        curves.append(jobs.losses(tmp_path / name))
    # Whichever rank met it, it is named once for each epoch.
    bad, bad_of_many = (
        [(event["step"], event["path"], event["reason"]) for event in jobs.events(tmp_path / name, "bad_sample")]
        for name in ("one", "many")
    )
    assert [path for _, path, _ in bad] == [str(spoilt)] * 2
    assert bad_of_many == bad
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
    ranks = jobs.start_ranks(2, config)
    jobs.wait_for_step(folder, 3, ranks[0])
    ranks[1].send_signal(signal.SIGTERM)
    printed = [rank.communicate(timeout=300)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], printed
    stopped = jobs.events(folder, "stopped")[-1]["step"]
    jobs.run(config, "train.accumulate=2")
    assert [event["step"] for event in jobs.events(folder, "start")] == [0, stopped]
    assert 3 <= stopped < max(jobs.losses(folder))
    assert jobs.losses(folder) == pytest.approx(jobs.losses(tmp_path / "one"), rel=1e-12)
