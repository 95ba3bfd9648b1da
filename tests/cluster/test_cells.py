"""Long programs on two nodes: each once at a time, stopped with SIGTERM, started again elsewhere when their node dies."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from engine.experiments.runner import Job, Runner
from engine.files.json_lines import read_json_lines
from tests.cluster.nodes_of_one_machine import two_nodes
from tests.environment import environment, wait_until

pytest.importorskip("ray")
pytestmark = pytest.mark.slow

STEPS = 100
# Like a training: state on disk, a line a step, saved and left well on SIGTERM, gone on with when it is started again.
BODY = """
import json, os, signal, sys, time
folder, steps = sys.argv[1], int(sys.argv[2])
stopped = []
signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
path = os.path.join(folder, "state")
step = int(open(path).read()) if os.path.exists(path) else 0
with open(os.path.join(folder, "log.jsonl"), "a") as log:
    while step < steps and not stopped:
        step += 1
        print(json.dumps({"step": step, "pid": os.getpid()}), file=log, flush=True)
        time.sleep(0.1)
    open(path, "w").write(str(step))
if step == steps:
    open(os.path.join(folder, "done"), "w").close()
print("ended at", step)
"""


def job(folder: Path, steps: int = STEPS) -> Job:
    return Job(
        folder.name, folder, [sys.executable, "-S", "-c", BODY, str(folder), str(steps)],
        (folder / "done").is_file, lambda: None,
    )  # fmt: skip


def lines(folder: Path) -> list[dict]:
    return list(read_json_lines(folder / "log.jsonl")) if (folder / "log.jsonl").is_file() else []


@pytest.fixture
def cluster_and_second():
    with two_nodes() as found:
        yield found


def test_the_cells_of_a_dead_node_go_on_elsewhere(cluster_and_second, tmp_path, capsys):
    from engine.cluster.programs import open_programs

    cluster, second = cluster_and_second
    jobs = [job(tmp_path / f"cell{number}") for number in range(2)]
    bad = Job(
        "bad",
        tmp_path / "bad",
        [sys.executable, "-S", "-c", "print('the reason'); raise SystemExit(3)"],
        lambda: False,
        lambda: None,
    )
    said: list[str] = []
    with open_programs(cluster.address, 0, [tmp_path], "cpu") as programs:
        assert (programs.slots, programs.cpus, programs.has_gpus) == (2, 1, False)
        runner = Runner([*jobs, bad], programs, said.append)
        thread = threading.Thread(target=runner.run)
        thread.start()
        wait_until(lambda: all(len(lines(each.folder)) >= 10 for each in jobs))
        cluster.remove_node(second, allow_graceful=False)
        thread.join(180)
        assert not thread.is_alive()
    assert [failed.name for failed in runner.failed] == ["bad"]
    assert "bad FAILED with status 3" in "".join(said) and "the reason" in "".join(said)
    found = [lines(each.folder) for each in jobs]
    assert sorted(len({line["pid"] for line in each}) for each in found) == [1, 2]  # one of them moved
    for each in found:  # every step once, in order: the one on the dead node had saved its state
        assert [line["step"] for line in each] == list(range(1, STEPS + 1))
    assert "is gone; 1 nodes, 1 cores" in capsys.readouterr().err


DRIVER = """
import sys
from pathlib import Path
from engine.cluster.programs import open_programs
from engine.experiments.runner import Runner
from tests.cluster.test_cells import job
folder = Path(sys.argv[2])
with open_programs(sys.argv[1], 0, [folder], "cpu") as programs:
    Runner([job(folder / f"cell{number}") for number in range(2)], programs, lambda text: None).run()
"""


def test_the_cells_of_a_dead_driver_stop_and_its_next_start_goes_on(cluster_and_second, tmp_path):
    cluster, _ = cluster_and_second
    folders = [tmp_path / f"cell{number}" for number in range(2)]
    command = [sys.executable, "-c", DRIVER, cluster.address, str(tmp_path)]
    driver = subprocess.Popen(command, env=environment())
    wait_until(lambda: all(len(lines(each)) >= 10 for each in folders))
    driver.kill()
    driver.wait()
    wait_until(lambda: all((each / "state").is_file() for each in folders), 30.0)
    assert not any((each / "done").exists() for each in folders)
    subprocess.run(command, env=environment(), check=True, timeout=180)
    for each in folders:  # every step once, in order, by two processes
        assert [line["step"] for line in lines(each)] == list(range(1, STEPS + 1))
        assert len({line["pid"] for line in lines(each)}) == 2


def test_an_interrupt_stops_the_cells_which_save_their_state(cluster_and_second, tmp_path):
    from engine.cluster.programs import open_programs

    cluster, _ = cluster_and_second
    jobs = [job(tmp_path / f"cell{number}", 3000) for number in range(2)]
    with open_programs(cluster.address, 0, [tmp_path], "cpu") as programs:
        timer = threading.Timer(
            0,
            lambda: (
                wait_until(lambda: all(len(lines(each.folder)) >= 5 for each in jobs)),
                os.kill(os.getpid(), signal.SIGINT),
            ),
        )
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            Runner(jobs, programs, lambda text: None).run()
        timer.join()
        for each in jobs:
            assert int((each.folder / "state").read_text()) == len(lines(each.folder))
            assert (each.folder / "cell.log").read_text().startswith("ended at ")
