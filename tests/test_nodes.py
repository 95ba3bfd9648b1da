"""Several nodes: the scripts of docs/cluster, each node a torchrun of its own on this machine; one is lost and replaced."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import yaml

from tests import jobs

EPOCHS = 14
SECTIONS = {
    **jobs.EXACT,
    "train": {**jobs.EXACT["train"], "epochs": EPOCHS},
    "evaluate": {"every_epochs": EPOCHS, "num_snippets": 2},
    "checkpoint": {"every_steps": 1},
}
SSH = """#!/bin/bash
[[ $1 == -tt ]] && exec bash -c "cd / && $3"
"""


@pytest.fixture(scope="module")
def undisturbed(videos, tmp_path_factory):
    """The run folder of two ranks that nobody disturbed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    jobs.run(jobs.write_config(folder / "config.yaml", videos, folder / "run", **SECTIONS), ranks=2)
    return folder / "run"


@pytest.fixture
def config(videos, tmp_path):
    return jobs.write_config(tmp_path / "config.yaml", videos, tmp_path / "elsewhere", **SECTIONS)


def kubernetes() -> tuple[dict, dict]:
    """The Service and the Job."""
    service, job = yaml.safe_load_all((jobs.REPO / "docs" / "cluster" / "kubernetes.yaml").read_text())
    return service, job


def container() -> dict:
    (found,) = kubernetes()[1]["spec"]["template"]["spec"]["containers"]
    return found


def with_python(folder: Path, **more: str) -> dict[str, str]:
    """An environment in which `python` is this one."""
    (folder / "python").write_text(f'#!/bin/bash\nexec {sys.executable} "$@"\n')
    (folder / "python").chmod(0o755)
    return jobs.environment(PATH=f"{folder}:{os.environ['PATH']}", **more)


def descendants(pid: int) -> list[int]:
    """A process and all below it, as far as they are alive."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(each for child in children for each in descendants(int(child)))]


def lose(node: subprocess.Popen) -> None:
    """All that runs on a node ends at once, as when its power is cut; nobody there can start anything again."""
    for each in descendants(node.pid):
        with suppress(ProcessLookupError):
            os.kill(each, signal.SIGSTOP)
    for each in descendants(node.pid)[::-1]:
        with suppress(ProcessLookupError):
            os.kill(each, signal.SIGKILL)
    node.communicate()


def test_the_kubernetes_job_names_what_it_needs():
    service, job = kubernetes()
    pod, name = job["spec"]["template"]["spec"], job["metadata"]["name"]
    variables = {each["name"]: each["value"] for each in container()["env"]}
    assert (service["kind"], service["spec"]["clusterIP"]) == ("Service", "None")
    assert service["spec"]["publishNotReadyAddresses"] is True  # ranks look for the head before it is ready
    assert service["spec"]["selector"] == {"job-name": name}  # a label that the Job gives to its pods
    assert (job["kind"], job["apiVersion"], job["spec"]["completionMode"]) == ("Job", "batch/v1", "Indexed")
    assert job["spec"]["completions"] == job["spec"]["parallelism"] == int(variables["NODES"])
    assert pod["subdomain"] == service["metadata"]["name"] and pod["restartPolicy"] == "OnFailure"
    assert (
        variables["HEAD"] == f"{name}-0.{pod['subdomain']}"
    )  # an indexed pod's hostname is the Job's name and its number
    resources = container()["resources"]
    assert resources["requests"] == resources["limits"]  # of class Guaranteed, which has cores of its own
    assert int(resources["limits"]["cpu"]) and resources["limits"]["nvidia.com/gpu"] == variables["RANKS"]
    assert {each["name"] for each in container()["volumeMounts"]} == {each["name"] for each in pod["volumes"]}
    assert Path(variables["RUN"]).is_relative_to(container()["volumeMounts"][0]["mountPath"])
    assert container()["command"][0] == "bash" and all(
        (jobs.REPO / each).is_file() for each in container()["command"][1:]
    )


@pytest.mark.slow
@pytest.mark.distributed
@pytest.mark.parametrize(("node", "how"), [(1, "lost"), (0, "lost"), (1, "drained")])
def test_a_lost_node_is_replaced_and_the_run_ends_as_if_nothing_had_been(config, undisturbed, tmp_path, node, how):
    """The command of the Job's pods; number 0 is the head, which keeps the rendezvous."""
    command = [*container()["command"][:-1], str(config)]
    settings = {each["name"]: each["value"] for each in container()["env"]} | {
        "NODES": "2", "RANKS": "1", "HEAD": "127.0.0.1", "PORT": str(jobs.free_port()), "ADDRESS": "127.0.0.1",
        "RUN": str(tmp_path / "run"),
    }  # fmt: skip

    def start(number: int, log: str) -> subprocess.Popen:
        return subprocess.Popen(
            command, cwd=jobs.REPO, env=with_python(tmp_path, JOB_COMPLETION_INDEX=str(number), **settings),
            stdout=(tmp_path / log).open("w"), stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip

    nodes = [start(number, f"node_{number}.log") for number in range(2)]
    try:
        jobs.wait_for_step(tmp_path / "run", 3, nodes[0])
        if how == "lost":
            lose(nodes[node])
        else:
            nodes[node].send_signal(signal.SIGTERM)
            assert nodes[node].wait(timeout=60) == 143
        assert not (tmp_path / "run" / "results.json").exists()
        nodes[node] = start(node, "replacement.log")
        said = "\n".join(f"{log.name}\n{log.read_text()[-3000:]}" for log in tmp_path.glob("*.log"))
        assert [each.wait(timeout=240) for each in nodes] == [0, 0], said
    finally:
        for each in nodes:
            lose(each)
    begun = [event["step"] for event in jobs.events(tmp_path / "run", "start")]
    assert begun[0] == 0 and all(2 <= step < max(jobs.losses(undisturbed)) for step in begun[1:]) and len(begun) > 1
    assert list(jobs.losses(tmp_path / "run")) == list(jobs.losses(undisturbed))
    assert jobs.losses(tmp_path / "run") == jobs.losses(undisturbed)
    assert jobs.same_weights(undisturbed, tmp_path / "run")
    assert (tmp_path / "run" / "results.json").is_file()


@pytest.mark.slow
@pytest.mark.distributed
def test_ssh_starts_every_node_and_ends_with_them(config, undisturbed, tmp_path):
    (tmp_path / "ssh").write_text(SSH)
    (tmp_path / "ssh").chmod(0o755)
    words = {"RUN": str(tmp_path / "run"), "RANKS": "1", "PORT": str(jobs.free_port())}
    script = ["bash", "docs/cluster/ssh.sh", "127.0.0.1 localhost", str(config), "data.max_bad_share=0.02"]
    done = subprocess.run(
        script, cwd=jobs.REPO, env=with_python(tmp_path, **words), capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert jobs.losses(tmp_path / "run") == jobs.losses(undisturbed)
    again = time.monotonic()  # it is finished: nothing starts
    done = subprocess.run(script, cwd=jobs.REPO, env=with_python(tmp_path, **words), timeout=60)
    assert done.returncode == 0 and time.monotonic() - again < 5


@pytest.mark.slow
def test_a_mistake_does_not_start_for_ever(tmp_path):
    words = {"NODES": "1", "NODE": "0", "HEAD": "127.0.0.1", "RUN": str(tmp_path / "run"), "RANKS": "1", "TRIES": "2"}
    done = subprocess.run(
        ["bash", "docs/cluster/node.sh", "configs/quickstart.yaml", "train.lrr=1"], cwd=jobs.REPO, text=True,
        env=with_python(tmp_path, PORT=str(jobs.free_port()), **words), capture_output=True, timeout=120,
    )  # fmt: skip
    assert (done.returncode, done.stderr.count("engine/train.py FAILED")) == (1, 2), done.stderr
    assert "unknown key 'train.lrr'" in done.stderr
