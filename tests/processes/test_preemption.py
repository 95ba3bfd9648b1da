"""A scheduler takes the machine: checkpoint, exit status 0, and the run goes on as if nothing had been."""

import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from types import SimpleNamespace

import pytest

from engine.processes.preemption import SIGNALS, StopVote, stop_on_signals
from tests import jobs


def test_sigterm_and_sigusr1_save_and_the_run_goes_on_bit_for_bit(videos, whole, tmp_path):
    folder = tmp_path / "run"
    # No checkpoint but those that the signals ask for, and the ones at measured epochs.
    config = jobs.write_config(tmp_path / "config.yaml", videos, folder, checkpoint={"every_epochs": 4})
    for number, step in ((signal.SIGTERM, 3), (signal.SIGUSR1, 8)):
        process = jobs.start(config)
        jobs.wait_for_step(folder, step, process)
        status, printed, seconds = jobs.stop(process, number)
        assert status == 0, printed
        assert seconds < 30
        assert "the same command goes on from there" in printed
        stopped = jobs.events(folder, "stopped")[-1]
        assert stopped["signal"] == number.name
        assert step <= stopped["step"] <= step + 2
        assert jobs.events(folder, "scalars")[-1]["step"] == stopped["step"]  # nothing was done after it
    jobs.run(config)
    assert [e["step"] for e in jobs.events(folder, "start")] == [
        0,
        *(e["step"] for e in jobs.events(folder, "stopped")),
    ]
    assert jobs.same_weights(whole, folder)
    assert jobs.losses(folder) == jobs.losses(whole)


def test_a_run_that_is_asked_to_stop_while_it_still_imports_saves_and_ends_well(videos, tmp_path):
    """As a user's process does, which is not forked: SIGUSR1 comes before anything listens to it."""
    config = jobs.write_config(tmp_path / "config.yaml", videos, tmp_path / "run")
    script = "import os, signal; from engine.processes import early_signals; keep = early_signals.keep\n"
    script += "early_signals.keep = lambda: (keep(), os.kill(os.getpid(), signal.SIGUSR1))\n"  # at once
    script += f"import runpy, sys; sys.argv = [{jobs.TRAIN!r}, {str(config)!r}]; runpy.run_path(sys.argv[0], run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", script], env=jobs.environment(), cwd=jobs.REPO, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "stopped after step 0 as asked: the same command goes on from there" in done.stdout
    assert (tmp_path / "run" / "checkpoints" / "step_00000000.pt").is_file()
    with stop_on_signals() as vote:
        assert not vote.requested()


def test_ctrl_c_saves_and_the_run_is_told_apart_from_a_finished_one(videos, tmp_path):
    folder = tmp_path / "run"
    config = jobs.write_config(tmp_path / "config.yaml", videos, folder, checkpoint={"every_epochs": 4})
    process = jobs.start(config)
    jobs.wait_for_step(folder, 3, process)
    status, printed, _ = jobs.stop(process, signal.SIGINT)
    assert status == 130
    assert "Ctrl-C again stops at once" in printed
    assert "Traceback" not in printed
    stopped = jobs.events(folder, "stopped")[-1]
    assert stopped["signal"] == "SIGINT"
    assert (folder / "checkpoints" / f"step_{stopped['step']:08d}.pt").is_file()


def test_a_second_ctrl_c_stops_at_once_but_not_torchruns_echo_of_the_first(monkeypatch, capsys):
    clock = [100.0]
    monkeypatch.setattr("engine.processes.preemption.time.monotonic", lambda: clock[0])
    with stop_on_signals() as vote:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        assert vote.requested()
        clock[0] += 5
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert capsys.readouterr().err.count("\n") == 1


def test_echoes_do_not_put_off_the_second_ctrl_c(monkeypatch):
    """It is told from them by the time since the first."""
    clock = [100.0]
    monkeypatch.setattr("engine.processes.preemption.time.monotonic", lambda: clock[0])
    with stop_on_signals():
        for clock[0] in (100.0, 100.5, 100.9):
            signal.raise_signal(signal.SIGINT)
        clock[0] = 101.5
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_signals_mean_behind_a_run_what_they_meant_before_it():
    before = [signal.getsignal(number) for number in SIGNALS]
    with stop_on_signals():
        assert all(
            signal.getsignal(number) not in (handler, None) for number, handler in zip(SIGNALS, before, strict=True)
        )
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_a_vote_that_fails_with_a_rank_does_not_hide_what_the_run_met():
    """And one that has been answered is not asked again."""

    def fail() -> None:
        raise RuntimeError("Connection closed by peer")

    vote = StopVote()
    vote._pending = SimpleNamespace(wait=fail)
    vote.finish()
    waited: list[int] = []
    vote._pending = SimpleNamespace(wait=lambda: waited.append(1))
    vote.finish()
    vote.finish()
    assert waited == [1]


@pytest.mark.parametrize("is_nohup", [False, True])
def test_a_terminal_that_is_closed_asks_for_a_stop_but_under_nohup(is_nohup):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN if is_nohup else signal.SIG_DFL)
    try:
        with stop_on_signals() as vote:
            signal.raise_signal(signal.SIGHUP)
        assert vote.requested() is not is_nohup
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_signal_during_evaluation_costs_no_step(videos, whole, tmp_path):
    folder = tmp_path / "run"
    # 60 snippets of each video make the evaluation after two epochs the longest thing in the run.
    config = jobs.write_config(
        tmp_path / "config.yaml", videos, folder,
        evaluate={"every_epochs": 2, "num_snippets": 2, "during_snippets": 60, "batch_size": 2},
        checkpoint={"every_epochs": 4},
    )  # fmt: skip
    process = jobs.start(config)
    half = max(jobs.losses(whole)) // 2
    jobs.wait_for_step(folder, half, process)
    time.sleep(0.3)
    status, printed, seconds = jobs.stop(process, signal.SIGTERM)
    assert (status, seconds < 30) == (0, True), printed
    assert jobs.events(folder, "stopped")[-1]["step"] == half
    assert "seen/top1" not in jobs.events(folder, "scalars")[-1], "the evaluation had ended before the signal came"
    jobs.run(config, "evaluate.during_snippets=1")
    measured = [e for e in jobs.events(folder, "scalars") if "seen/top1" in e]
    expected = [e for e in jobs.events(whole, "scalars") if "seen/top1" in e]
    assert [{**e, "time": 0} for e in measured] == [{**e, "time": 0} for e in expected]  # the one cut short was done
    assert jobs.same_weights(whole, folder)


@pytest.mark.distributed
def test_a_signal_to_one_rank_stops_all_after_the_same_step_and_other_numbers_of_ranks_go_on(
    videos, exact_losses, tmp_path
):
    """One rank alone, then four, then two: the loss curve of the same global batches in the same order."""
    folder = tmp_path / "run"
    config = jobs.write_config(tmp_path / "config.yaml", videos, folder, **jobs.EXACT)
    ranks = jobs.start_ranks(4, config)
    jobs.wait_for_step(folder, 2, ranks[0])
    ranks[2].send_signal(signal.SIGUSR1)
    printed = [rank.communicate(timeout=60)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0, 0, 0], printed
    stopped = jobs.events(folder, "stopped")[-1]["step"]
    assert 2 <= stopped < max(exact_losses)
    jobs.run(config, ranks=2)
    assert jobs.events(folder, "start")[-1]["step"] == stopped
    assert jobs.losses(folder) == pytest.approx(exact_losses, rel=1e-4)


@pytest.mark.distributed
def test_sigterm_to_torchrun_reaches_all_ranks(videos, tmp_path):
    folder = tmp_path / "run"
    process = jobs.start(jobs.write_config(tmp_path / "config.yaml", videos, folder, **jobs.EXACT), ranks=2, fresh=True)
    jobs.wait_for_step(folder, 2, process)
    status, printed, seconds = jobs.stop(process, signal.SIGTERM)
    assert seconds < 30
    stopped = jobs.events(folder, "stopped")[-1]["step"]
    assert (folder / "checkpoints" / f"step_{stopped:08d}.pt").is_file()
    assert status != 0, "torchrun itself says that it was stopped (docs/cluster.md); if that changed, say so there"
    assert "the same command goes on from there" in printed


SIGNALLED = """
import os
import signal
import sys
from pathlib import Path

from engine.config import load_config
from engine.errors import run_command
from engine.tasks.zero_shot.task import ZeroShot
from engine.train import main

loss, calls = ZeroShot.loss, []


def signalled(self, network, batch):
    calls.append(batch)
    if len(calls) == 3:
        signal.raise_signal(signal.SIGTERM)
        if os.environ["RANK"] == sys.argv[2]:
            raise RuntimeError("C++ compile error")
    return loss(self, network, batch)


ZeroShot.loss = signalled
run_command(main, load_config(Path(sys.argv[1]), []))
"""


@pytest.mark.distributed
@pytest.mark.parametrize("victim", [0, 1])
def test_a_signal_that_breaks_off_a_step_of_one_rank_stops_all_before_it(videos, tmp_path, victim):
    """As where it ends the compiler of one rank, for which the others wait in the step."""
    folder, script = tmp_path / "run", tmp_path / "signalled.py"
    config = jobs.write_config(tmp_path / "config.yaml", videos, folder, **jobs.EXACT)
    script.write_text(SIGNALLED)
    done = [rank.completed(60) for rank in jobs.fork_ranks(script, config, victim, ranks=2, merged=True)]
    printed = "".join(each.stdout for each in done)
    assert [each.returncode for each in done] == [0, 0], printed
    assert "Traceback" not in printed
    reason = r"step 3 was broken off while the run was asked to stop \(RuntimeError: "
    assert re.search(rf"^{reason}", done[0].stdout, re.MULTILINE)
    assert re.search(rf"^rank 1: {reason}", done[1].stdout, re.MULTILINE)
    assert "(RuntimeError: C++ compile error)\n" in done[victim].stdout
    assert jobs.events(folder, "stopped")[-1]["step"] == 2
    assert (folder / "checkpoints" / "step_00000002.pt").is_file()


# What docs/cluster/slurm.sh calls: srun starts two ranks, hands signals on and gives back the worst status.
SRUN = """#!/bin/bash
[[ " $* " == *" --cpus-per-task=12 "* ]] || exit 64
while [[ $1 == --* ]]; do shift; done
trap 'kill -USR1 $(jobs -p)' USR1
for rank in 0 1; do SLURM_PROCID=$rank SLURM_LOCALID=$rank "$@" & done
status=0
for job in $(jobs -p); do
  until wait $job; result=$?; [[ $result -lt 128 ]]; do :; done
  [[ $result -gt $status ]] && status=$result
done
exit $status
"""
SCONTROL = """#!/bin/bash
case $1 in show) echo 127.0.0.1 ;; requeue) echo $2 >> "$REQUEUED" ;; esac
"""


@pytest.mark.slow
@pytest.mark.distributed
def test_the_slurm_script_of_the_documentation_saves_and_requeues(videos, tmp_path):
    """With stand-ins for srun and scontrol: the signal to the script stops both ranks, and the job queues again."""
    folder, requeued = tmp_path / "run", tmp_path / "requeued"
    sections = {**jobs.EXACT, "train": {**jobs.EXACT["train"], "epochs": 8}, "evaluate": {"every_epochs": 8}}
    config = jobs.write_config(tmp_path / "config.yaml", videos, folder, **sections)
    for name, content in (
        ("srun", SRUN),
        ("scontrol", SCONTROL),
        ("python", f'#!/bin/bash\nexec {sys.executable} "$@"\n'),
    ):
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(0o755)
    job_id = str(jobs.free_port() - 20_000)  # the script takes 20000 and the job's number for a port
    slurm = {"SLURM_JOB_ID": job_id, "SLURM_JOB_NODELIST": "x", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2"}
    slurm["SLURM_CPUS_PER_TASK"] = "12"
    environment = jobs.environment(PATH=f"{tmp_path}:{os.environ['PATH']}", REQUEUED=str(requeued), **slurm)
    start = partial(subprocess.Popen, ["bash", "docs/cluster/slurm.sh", config], cwd=jobs.REPO, env=environment, text=True,
                    stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip
    job = start()
    jobs.wait_for_step(folder, 3, job)
    job.send_signal(signal.SIGUSR1)
    printed, _ = job.communicate(timeout=120)
    assert requeued.read_text().split() == [job_id], printed
    stopped = jobs.events(folder, "stopped")[-1]
    job = start()  # as the scheduler would
    printed, _ = job.communicate(timeout=600)
    assert job.returncode == 0, printed
    assert [event["step"] for event in jobs.events(folder, "start")] == [0, stopped["step"]]
    assert requeued.read_text().split() == [job_id]  # it was done, and not queued once more
