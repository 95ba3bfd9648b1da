"""`--ranks N`: torchrun's launcher, which ends as the ranks do and adds no pages to what they say."""

import logging
import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from engine.errors import InputError
from engine.processes.launch import launch
from engine.training.options import read
from tests import jobs
from tests.environment import environment
from tests.forked import Forked

SCRIPT = """
import os, signal, sys, threading, time
from engine.errors import InputError, run_command
from engine.processes.launch import launch

def main():
    if "RANK" not in os.environ:
        launch(2, sys.argv)
    if sys.argv[1] == "mistake":
        raise InputError("the same on all ranks")
    if sys.argv[1] == "slow" and os.environ["RANK"] == "0":
        time.sleep(2)
        os._exit(2)
    if sys.argv[1] == "slow":
        threading.Thread(target=time.sleep, args=(20,)).start()
        InputError.is_of_this_rank = True
        raise InputError("of one rank")
    if sys.argv[1] == "killed" and os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGKILL)
    if sys.argv[1] == "defect" and os.environ["RANK"] == "1":
        os._exit(7)
    if sys.argv[1] == "lost" and os.environ["RANK"] == "0":
        time.sleep(2)
        os.kill(os.getpid(), signal.SIGKILL)
    if sys.argv[1] == "lost":
        signal.signal(signal.SIGTERM, lambda *_: os._exit(2))
    if sys.argv[1] in ("killed", "defect", "lost"):
        signal.pause()
    os.write(1, f"rank {os.environ['RANK']} of {os.environ['WORLD_SIZE']}\\n".encode())

run_command(main)
"""


@pytest.mark.distributed
@pytest.mark.parametrize(
    ("what", "status", "printed"),
    [
        ("well", 0, ["rank 0 of 2", "rank 1 of 2"]),
        ("mistake", 2, ["error: the same on all ranks"]),
        ("slow", 2, ["error: of one rank"]),  # the other, which lost it, is gone first
        ("killed", 137, ["error: rank 1 was ended by SIGKILL, and the others with it; what it said stands above"]),
        ("lost", 137, ["error: rank 0 was ended by SIGKILL, and the others with it; what it said stands above"]),
        ("defect", 7, ["error: rank 1 ended with exit status 7, and the others with it; what it said stands above"]),
    ],
)
def test_it_ends_as_the_ranks_do_and_says_no_more(tmp_path, what, status, printed):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = Forked(script, what, variables=environment(), merged=True).completed(120)
    assert (done.returncode, sorted(done.stdout.splitlines())) == (status, printed)


def test_ranks_of_one_machine_do_not_need_its_name(monkeypatch):
    given = []
    monkeypatch.setattr(logging, "disable", lambda level: None)
    monkeypatch.setattr("torch.distributed.run.run", given.append)
    with pytest.raises(SystemExit) as ended:
        launch(2, ["script.py", "word"])
    assert ended.value.code == 0
    assert (given[0].local_addr, given[0].standalone, given[0].nproc_per_node) == ("127.0.0.1", True, "2")
    assert (given[0].training_script, given[0].training_script_args) == ("script.py", ["word"])


@pytest.mark.distributed
def test_ctrl_c_saves_and_ends_in_a_line(videos, tmp_path):
    folder = tmp_path / "run"
    config = jobs.write_config(tmp_path / "config.yaml", videos, folder, **jobs.EXACT)
    process = jobs.start(config, "--ranks", 2)
    jobs.wait_for_step(folder, 2, process)
    for pid in (process.pid, *jobs.workers(process).values()):  # a terminal signals all of them
        os.kill(pid, signal.SIGINT)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 130, printed
    assert printed.rstrip().endswith("the same command goes on from there\ninterrupted")
    assert "Traceback" not in printed and printed.count("interrupted\n") == 1
    stopped = jobs.events(folder, "stopped")[-1]["step"]
    assert (folder / "checkpoints" / f"step_{stopped:08d}.pt").is_file()


@pytest.mark.distributed
def test_ranks_whose_launcher_is_killed_save_and_end(videos, tmp_path):
    folder = tmp_path / "run"
    config = jobs.write_config(tmp_path / "config.yaml", videos, folder, train={"epochs": 2000})
    process = jobs.start(config, "--ranks", 2, fresh=True)
    jobs.wait_for_step(folder, 2, process)
    ranks = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.kill()
    try:
        printed, _ = process.communicate(timeout=60)  # to the end of the ranks, which print there too
    finally:
        for rank in ranks:
            with suppress(ProcessLookupError):
                os.kill(int(rank), signal.SIGKILL)
    assert len(ranks) == 2 and process.returncode == -signal.SIGKILL
    assert "the same command goes on from there" in printed
    stopped = jobs.events(folder, "stopped")[-1]
    assert stopped["signal"] in ("SIGTERM", "") and not (folder / "results.json").exists()
    assert (folder / "checkpoints" / f"step_{stopped['step']:08d}.pt").is_file()


@pytest.mark.parametrize(
    ("words", "variables", "says"),
    [
        (["no.yaml", "--ranks", "2"], {}, "no config file at 'no.yaml'"),  # before anything is started
        (["configs/ucf15.yaml", "--ranks", "0"], {}, "--ranks is 0: it must be at least 1"),
        (["configs/ucf15.yaml", "--ranks", "2"], {"RANK": "0"}, "torchrun or srun has done already"),
    ],
)
def test_mistakes_are_told_before_a_rank_is_started(words, variables, says, monkeypatch):
    monkeypatch.chdir(jobs.REPO)
    monkeypatch.delenv("RANK", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.argv", ["train.py", *words])
    monkeypatch.setattr("engine.training.options.launch", lambda *_: pytest.fail("started"))
    with pytest.raises(InputError, match=says):
        read("about")
