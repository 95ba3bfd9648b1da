"""Real training jobs for tests: a tiny set of encoded videos, its config, and processes that train on it."""

import re
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import torch
import yaml

from engine.data.config import ProceduralConfig
from engine.data.drawn.procedural import write_procedural_dataset
from engine.files.json_lines import read_json_lines
from engine.training.checkpoint import read_checkpoint
from tests.environment import ROOT as REPO
from tests.environment import environment
from tests.forked import Forked, server_pid

TRAIN = str(REPO / "engine" / "train.py")
TORCHRUN = Path(torch.distributed.__file__).with_name("run.py")
THINGS, MOVEMENTS = ["ball", "star", "house"], ["falling", "circling", "growing"]
# C3D has no batch-norm, so its loss does not depend on how a batch is divided.
EXACT = {
    "model": {"backbone": "c3d", "width": 4, "dropout": 0.0},
    "clip": {"num_frames": 16, "short_side": 32, "crop": 32},
    "train": {"epochs": 2, "batch_size": 4, "lr": 1e-3, "milestones": []},
}


def write_videos(folder: Path) -> Path:
    """A small set of real H.264 files; returns its manifest."""
    config = ProceduralConfig(
        folder=str(folder), things=THINGS, movements=MOVEMENTS, videos_per_class=4, num_unseen=3, frames=12, size=32
    )
    return write_procedural_dataset(config)


def write_config(path: Path, manifest: Path, folder: Path, **sections: dict) -> Path:
    """A config of a run that takes seconds: 24 steps of a narrow R3D; `sections` change single keys."""
    config = {
        "run": {"folder": str(folder), "device": "cpu", "cpu_threads": 1},
        "data": {
            "train": [{"manifest": str(manifest), "splits": ["train"]}],
            "tests": [{"manifest": str(manifest), "splits": ["unseen"], "name": "combinations"}],
            "validation": {"video_share": 0.25},
            "decode_threads": 1,
        },
        "clip": {"num_frames": 4, "short_side": 32, "crop": 24},
        "model": {"backbone": "r3d_18", "width": 4},
        "train": {"epochs": 4, "batch_size": 4, "lr": 1e-3, "milestones": [3]},
        "evaluate": {"every_epochs": 2, "num_snippets": 2},
        "log": {"every_steps": 1, "report": False},
    }
    for name, values in sections.items():
        config[name] = {**config.get(name, {}), **values}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(config))
    return path


def run(*arguments: object, ranks: int = 0, check: bool = True, cwd: Path = REPO) -> subprocess.CompletedProcess[str]:
    """Run a job to its end; with `ranks` on so many, of which each must end well, and returns the first."""
    if ranks:
        return _run_ranks(Path(TRAIN), *arguments, ranks=ranks, timeout_s=3600)
    done = Forked(Path(TRAIN), *arguments, variables=environment(), merged=False, cwd=cwd).completed(3600)
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


def _run_ranks(program: Path, *arguments: object, ranks: int, timeout_s: float) -> subprocess.CompletedProcess[str]:
    """Run a Python file on so many ranks, without torchrun, to their end; returns the first rank."""
    with ThreadPoolExecutor(ranks) as waiting:
        started = fork_ranks(program, *arguments, ranks=ranks, merged=False)
        done = list(waiting.map(lambda rank: rank.completed(timeout_s), started))
    assert not any(each.returncode for each in done), "".join(each.stdout + each.stderr for each in done)
    return done[0]


def run_script(script: str, folder: Path, ranks: int, timeout_s: float) -> None:
    """Run Python code on so many ranks; its only argument is the folder."""
    path = folder / "worker.py"
    path.write_text(script)
    _run_ranks(path, folder, ranks=ranks, timeout_s=timeout_s)


def start(
    *arguments: object,
    ranks: int = 0,
    launcher: Sequence[str] = (),
    merged: bool = True,
    fresh: bool = False,
    **more: str,
) -> Forked:
    """Start a job; with `ranks` through torchrun and its own options `launcher`; `more` are variables of its environment.

    Torchrun is forked, and so are the ranks that it starts, unless they are to be `fresh` processes, as a user's are.
    """
    program, words = Path(TRAIN), arguments
    if ranks:
        program = TORCHRUN
        words = ("--standalone", "--nproc-per-node", ranks, *launcher, TRAIN, *arguments)
    return Forked(program, *words, variables=environment(**more), merged=merged, fresh=fresh)


def free_port() -> int:
    """A port that nobody listens at: a fixed one would join two runs of the tests."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def start_ranks(world_size: int, *arguments: object) -> list[Forked]:
    """Start every rank by itself, as srun does, so that each can be signalled alone."""
    return fork_ranks(Path(TRAIN), *arguments, ranks=world_size, merged=True)


def fork_ranks(program: Path, *arguments: object, ranks: int, merged: bool) -> list[Forked]:
    """Start a Python file on so many ranks, without torchrun."""
    everyone = {"WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks)}
    everyone |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    variables = [environment(RANK=str(rank), LOCAL_RANK=str(rank), **everyone) for rank in range(ranks)]
    return [Forked(program, *arguments, variables=each, merged=merged) for each in variables]


def wait_for_step(folder: Path, step: int, process: subprocess.Popen[str] | Forked, starts: int = 1) -> None:
    """Return as soon as the log shows that this step is done, by the so-many-th start of the run."""
    deadline = time.monotonic() + 600  # a busy machine takes minutes to start
    while time.monotonic() < deadline:
        has_ended = process.poll() is not None  # asked before the log, which is whole then
        if (folder / "log.jsonl").is_file():
            is_begun = len(events(folder, "start")) >= starts
            if is_begun and max(losses(folder), default=0) >= step:
                return
        if has_ended:
            break
        time.sleep(0.002)
    process.kill()
    raise AssertionError(f"step {step} was not seen: {process.communicate()[0]}")


def workers(process: Forked) -> dict[int, int]:
    """The forked ranks that a torchrun has started and that are alive: rank -> process."""
    found = {}
    for pid in Path(f"/proc/{server_pid()}/task/{server_pid()}/children").read_text().split():
        with suppress(OSError):  # it has ended
            rank = re.fullmatch(rf"rank(\d+)@{process.pid}\n", Path(f"/proc/{pid}/comm").read_text())
            if rank:
                found[int(rank[1])] = int(pid)
    return found


def stop(process: Forked, number: signal.Signals) -> tuple[int, str, float]:
    """Signal a job and wait for its end: (exit status, what it printed, seconds)."""
    asked = time.monotonic()
    process.send_signal(number)
    printed, _ = process.communicate(timeout=60)
    return process.returncode, printed, time.monotonic() - asked


def events(folder: Path, kind: str) -> list[dict]:
    """The whole lines of one kind in a run's log.jsonl, which must be there."""
    assert (folder / "log.jsonl").is_file(), f"{folder} has no log.jsonl"
    return [event for event in read_json_lines(folder / "log.jsonl") if event["event"] == kind]


def losses(folder: Path) -> dict[int, float]:
    """Step -> logged loss; of a step done twice the later one."""
    return {e["step"]: e["train/loss"] for e in events(folder, "scalars") if "train/loss" in e}


def final_weights(folder: Path) -> dict[str, torch.Tensor]:
    """The weights of the newest checkpoint."""
    return read_checkpoint(max((folder / "checkpoints").glob("step_*.pt")))["model"]


def same_weights(one: Path, other: Path) -> bool:
    """Whether two run folders end with the same weights, bit for bit."""
    expected, found = final_weights(one), final_weights(other)
    return expected.keys() == found.keys() and all(torch.equal(expected[name], found[name]) for name in expected)
