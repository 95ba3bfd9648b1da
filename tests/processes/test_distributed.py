"""Ranks: collectives over real processes, and the device rule."""

import json

import pytest
import torch

from engine.config import RunConfig
from engine.errors import InputError, is_rank_0
from engine.processes.distributed import broadcast_from_main, choose_device, gather, mean_over_ranks, session
from tests import jobs

WORKER = """
import json, sys
import torch
from engine.config import RunConfig
from engine.processes.distributed import barrier, gather, broadcast_from_main, mean_over_ranks, session
with session(RunConfig(device="cpu")) as ranks:
    barrier()
    seen = {
        "world": ranks.world_size,
        "main": ranks.is_main,
        "told": broadcast_from_main(f"from {ranks.rank}"),
        "gathered": gather(ranks.rank * 10),
        "mean": mean_over_ranks(torch.tensor([float(ranks.rank), 4.0])).tolist(),
    }
    with open(f"{sys.argv[1]}/{ranks.rank}.json", "w") as file:
        json.dump(seen, file)
"""


@pytest.mark.distributed
def test_collectives_over_two_processes(tmp_path):
    jobs.run_script(WORKER, tmp_path, ranks=2, timeout_s=120)
    for rank in range(2):
        assert json.loads((tmp_path / f"{rank}.json").read_text()) == {
            "world": 2, "main": rank == 0, "told": "from 0", "gathered": [0, 10], "mean": [0.5, 4.0],
        }  # fmt: skip


LONG_WORK = """
import sys, time
from pathlib import Path
from engine.config import RunConfig
from engine.processes.distributed import barrier, done_by_main, session
made = Path(sys.argv[1], "made")

def work():
    time.sleep(8)
    made.touch()

with session(RunConfig(device="cpu", timeout_s=3)) as ranks:
    done_by_main(ranks, work)
    assert made.is_file()
    barrier()  # the other rank has looked
    done_by_main(ranks, made.unlink)
    assert not made.exists()
"""


@pytest.mark.distributed
def test_a_work_of_rank_0_may_take_longer_than_a_rank_is_waited_for(tmp_path):
    jobs.run_script(LONG_WORK, tmp_path, ranks=2, timeout_s=120)


MASKS = """
import os, sys
from pathlib import Path
from engine import machine
from engine.config import RunConfig
from engine.processes.distributed import session
rank = int(os.environ["RANK"])
masks = {"own": set(range(12 * rank, 12 * rank + 12)), "shared": set(range(24))}
machine._QUOTA = Path("none")
found = []
for name in 5 * list(masks):
    os.sched_getaffinity = lambda pid: masks[name]
    with session(RunConfig(device="cpu", cpu_threads=1)):
        found.append(machine.rank_cores())
Path(sys.argv[1], str(rank)).write_text(str(found))
"""


@pytest.mark.distributed
def test_ranks_with_cores_of_their_own_use_them_all(tmp_path):
    """As srun binds its tasks; torchrun's share those of the machine. Each session after the first finds its ranks, too."""
    jobs.run_script(MASKS, tmp_path, ranks=2, timeout_s=120)
    assert [(tmp_path / str(rank)).read_text() for rank in range(2)] == [str(10 * [12])] * 2


def test_one_process_needs_no_group():
    with session(RunConfig(device="cpu", cpu_threads=1)) as ranks:
        assert (ranks.rank, ranks.world_size, ranks.is_main, ranks.device) == (0, 1, True, torch.device("cpu"))
        assert gather(3) == [3]
        assert broadcast_from_main("x") == "x"
        assert mean_over_ranks(torch.tensor(2.0)) == 2


def test_empty_variables_are_of_one_process(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(name, "")
    assert is_rank_0()
    with session(RunConfig(device="cpu", cpu_threads=1)) as ranks:
        assert (ranks.rank, ranks.world_size) == (0, 1)


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"RANK": "first"}, "RANK is 'first': unset it, or start the ranks with torchrun"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE is '0': unset it, or start"),
        (
            {"RANK": "0", "WORLD_SIZE": "2"},
            "WORLD_SIZE tells of several ranks, but MASTER_ADDR, MASTER_PORT is not set",
        ),
        ({"RANK": "", "WORLD_SIZE": "2", "MASTER_ADDR": "here", "MASTER_PORT": "1"}, "but RANK is not set: start the"),
    ],
)
def test_variables_that_tell_no_ranks_are_named(variables, says, monkeypatch):
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=says), session(RunConfig(device="cpu", cpu_threads=1)):
        pass


def test_asking_for_a_gpu_without_one_is_an_error_not_a_fallback(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == torch.device("cpu")
    with pytest.raises(InputError, match=r"^run.device or --device is 'cuda' but torch sees no GPU"):
        choose_device("cuda")


def test_more_ranks_than_gpus_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr("engine.processes.distributed.unfit", lambda index: None)
    assert choose_device("auto", 1) == torch.device("cuda", 1)
    with pytest.raises(InputError, match=r"local rank 2 has no GPU of its own \(2 on this machine\)"):
        choose_device("cuda", 2)


MISTAKE = """
import sys
from engine.config import RunConfig
from engine.processes.distributed import barrier, done_by_main, session
from engine.errors import InputError, run_command

def work():
    if sys.argv[1] == "work":
        raise InputError("wrong")

def main():
    with session(RunConfig(device="cpu")) as ranks:
        barrier()
        done_by_main(ranks, work)
        if sys.argv[1] in ("all", str(ranks.rank)):
            raise InputError("wrong")
        barrier()

run_command(main)
"""


@pytest.mark.distributed
@pytest.mark.parametrize("who", ["all", 0, 1, "work"])
def test_a_mistake_is_told_once_whichever_ranks_meet_it(tmp_path, who):
    """The others, which lose their connection, do not add a traceback."""
    script = tmp_path / "mistake.py"
    script.write_text(MISTAKE)
    done = [rank.completed(60) for rank in jobs.fork_ranks(script, who, ranks=2, merged=True)]
    assert [each.returncode for each in done] == [2, 2]
    said = "".join(each.stdout for each in done)
    # torch may warn of the store that is gone, where a rank still waits for it
    assert [line for line in said.splitlines() if line.startswith(("error", "Traceback"))] == ["error: wrong"], said
