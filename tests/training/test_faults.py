"""What ruins long runs, done to real ones: kill -9 at any moment, full disks, checkpoints that are not what they seem."""

import random
import resource
import shutil
import subprocess
import time
from pathlib import Path

import pytest
import torch

from engine.errors import InputError
from engine.training.checkpoint import list_checkpoints, newest_checkpoint
from tests import jobs


def config_of(folder, videos):
    """A checkpoint after every step, pictures left out (files then stay smaller than a checkpoint)."""
    return jobs.write_config(
        folder.parent / "config.yaml", videos, folder,
        checkpoint={"every_steps": 1, "keep": 1}, log={"every_steps": 1, "sample_clips": 0},
    )  # fmt: skip


def kill_and_resume(folder, videos, whole, num_kills, seed):
    """Kill a run again and again, at moments drawn from its start to its end, until that was done often enough."""
    config, draw, steps, last = config_of(folder, videos), random.Random(seed), set(), 0
    end = max(jobs.losses(whole))
    for kill in range(num_kills):
        starts = len(jobs.events(folder, "start")) if (folder / "log.jsonl").exists() else 0
        process = jobs.start(config)
        in_start_up = kill > 0 and draw.random() < 0.2
        while not in_start_up and process.poll() is None:
            if (folder / "log.jsonl").exists() and len(jobs.events(folder, "start")) > starts:
                break
            time.sleep(0.01)
        is_waited_for = kill == 0 or (last < end and not in_start_up and draw.random() < 0.5)
        if is_waited_for:  # within training for sure, on a slow machine too
            jobs.wait_for_step(folder, min(end, last + draw.randint(3, 6)), process, starts + 1)
        time.sleep(draw.uniform(0, 1.2 if kill else 0.1))
        process.kill()
        process.communicate()
        if (folder / "results.json").exists():  # it was done before it was killed: once more from nothing
            shutil.rmtree(folder)
            last = 0
            continue
        found, passed_over = newest_checkpoint(folder)
        assert passed_over == []
        last = found["step"] if found else 0
        steps.add(last)
    jobs.run(config)
    assert jobs.same_weights(whole, folder)
    assert jobs.losses(folder) == jobs.losses(whole)
    assert [path.name for path in (folder / "checkpoints").glob(".*")] == []  # nothing half-written is left
    return steps


def test_kill_9_at_random_moments_ends_with_the_same_weights(videos, whole, tmp_path):
    steps = kill_and_resume(tmp_path / "run", videos, whole, num_kills=3, seed=0)
    assert max(steps) > 0  # at least one of them hit the training


@pytest.mark.slow
def test_kill_9_at_thirty_random_moments(videos, whole, tmp_path):
    steps = kill_and_resume(tmp_path / "run", videos, whole, num_kills=30, seed=1)
    assert len(steps) >= 5  # they were spread over the run


def test_a_full_disk_ends_with_one_error_and_the_last_good_checkpoint(videos, whole, tmp_path):
    """No file may grow beyond half a checkpoint (EFBIG, as ENOSPC would): training goes on until it must save."""
    folder = tmp_path / "run"
    process = jobs.start(config_of(folder, videos))
    jobs.wait_for_step(folder, 3, process)
    size = list_checkpoints(whole)[0].stat().st_size
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (size // 2, size // 2))
    printed, _ = process.communicate(timeout=120)
    assert process.returncode == 2, printed
    errors = [line for line in printed.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "could not be written (File too large): raise the limit on the size of files" in errors[0]
    failed = jobs.events(folder, "checkpoint_failed")
    assert len(failed) >= 5
    assert max(jobs.losses(folder)) == max(jobs.losses(whole))
    found, passed_over = newest_checkpoint(folder)
    assert (found["step"], passed_over) == (failed[0]["step"] - 1, [])
    jobs.run(config_of(folder, videos))
    assert jobs.same_weights(whole, folder)


def test_a_disk_that_has_room_again_costs_only_the_checkpoints_between(videos, whole, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("may not mount a small file system here")
    try:
        folder = disk / "run"
        process = jobs.start(config_of(folder, videos), "train.epochs=12")
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("step 4/"):
                ballast = _fill(disk / "ballast")
            if "training goes on, the last good checkpoint is kept" in line:
                assert "No space left on device" in line
                assert newest_checkpoint(folder)[0] is not None
                ballast.unlink(missing_ok=True)
        assert process.wait() == 0, "".join(lines)
        assert any("training goes on, the last good checkpoint" in line for line in lines)
        assert newest_checkpoint(folder)[0]["step"] == 12 * 18 // 4
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


def _fill(path: Path) -> Path:
    with path.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            return path
    raise AssertionError("the disk is not full")


@pytest.mark.parametrize("spoil", ["truncated", pytest.param("foreign", marks=pytest.mark.slow)])
def test_a_spoiled_newest_checkpoint_is_named_set_aside_and_the_one_before_it_used(whole, videos, tmp_path, spoil):
    folder = tmp_path / "run"
    config = config_of(folder, videos)
    jobs.run(config, "train.epochs=2", "checkpoint.keep=3")
    newest, before, *_ = list_checkpoints(folder)
    if spoil == "truncated":
        newest.write_bytes(newest.read_bytes()[: newest.stat().st_size // 2])
    else:
        newest = newest.with_name("step_99999999.pt")
        torch.save({"state_dict": {}}, newest)
        before = list_checkpoints(folder)[1]
    jobs.run(config)
    log = (folder / "log.txt").read_text()
    assert f"passed over: {'checkpoint ' if spoil == 'truncated' else ''}'{newest}'" in log
    assert f"resumed at step {int(before.stem[5:])} " in log
    assert newest.with_name(newest.name + ".aside").is_file()
    assert jobs.same_weights(whole, folder)  # milestones and all: a longer run goes on as the whole one did


def test_a_run_without_one_readable_checkpoint_is_not_begun_anew_over_them(tmp_path):
    for step in (1, 2):
        path = tmp_path / "checkpoints" / f"step_{step:08d}.pt"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"no")
    with pytest.raises(
        InputError, match=r"no checkpoint of .* can be read; move them away.*step_00000002.*step_00000001"
    ):
        newest_checkpoint(tmp_path)
