"""Joining a Ray cluster, and which nodes it has: how many pieces they can do at a time, and who comes and goes."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.cluster.remote import Look, code_digest, look_around
from engine.errors import InputError
from engine.terminal.progress import say

try:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
except ImportError as error:
    raise InputError(f"--cluster needs Ray, which cannot be imported ({error}): pip install -e '.[cluster]'") from error

_ANSWER_LIMIT_S = 30.0  # for a cluster to answer; Ray itself would wait for minutes
_LOOK_LIMIT_S = 120.0  # for a node to start a worker and to look around
_NEWS_EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class Share:
    """What a piece of work takes of a node."""

    cpus: int
    gpus: int

    @property
    def options(self) -> dict[str, int]:
        """As Ray calls it."""
        return {"num_cpus": self.cpus, "num_gpus": self.gpus}


class Nodes:
    """The nodes of the cluster that was joined.

    Attributes:
        share: what a piece takes: a GPU with its part of the node's cores, or a core where there is no GPU (or none is asked for).
    """

    def __init__(self, device: str) -> None:
        self._known = self._alive()
        self._next_look = 0.0
        with_gpu = [each for each in self._known.values() if each["Resources"].get("GPU", 0) >= 1]
        self.share = Share(1, 0)
        if device == "cuda" and not with_gpu:
            raise InputError(f"--cluster: no node has a GPU ({self}): leave --device out, or start Ray with --num-gpus")
        if device != "cpu" and with_gpu:
            per_gpu = min(_count(each, "CPU") // _count(each, "GPU") for each in with_gpu)
            self.share = Share(max(1, per_gpu), 1)

    def __str__(self) -> str:
        totals = {name: sum(_count(each, name) for each in self._known.values()) for name in ("CPU", "GPU")}
        gpus = f", {totals['GPU']} GPUs" if totals["GPU"] else ""
        return f"{len(self._known)} nodes, {totals['CPU']} cores{gpus}"

    @property
    def slots(self) -> int:
        """Pieces that the nodes can do at a time."""
        return sum(self._slots(each) for each in self._known.values())

    def _slots(self, node: dict[str, Any]) -> int:
        by_cpus = _count(node, "CPU") // self.share.cpus
        return min(by_cpus, _count(node, "GPU")) if self.share.gpus else by_cpus

    @staticmethod
    def _alive() -> dict[str, dict[str, Any]]:
        return {each["NodeID"]: each for each in ray.nodes() if each["Alive"]}

    def tell_news(self, *, now: bool = False) -> None:
        """Say which nodes have come or gone since the last look; it looks once a second at most, or now."""
        if not now and time.monotonic() < self._next_look:
            return
        before, self._known = self._known, self._alive()
        for node in before.keys() - self._known.keys():
            say(f"cluster: {_name(before[node])} is gone; {self}; what it had in hand is done by others")
        for node in self._known.keys() - before.keys():
            say(f"cluster: {_name(self._known[node])} has come; {self}")
        self._next_look = time.monotonic() + _NEWS_EVERY_S

    def check(self, paths: Sequence[Path]) -> None:
        """Every node must have this version of the code and see the paths.

        Raises:
            InputError: a node does not, or none can do a piece.
        """
        if not self.slots:
            raise InputError(f"--cluster: no node has {self.share.cpus} free core(s) for a piece of work ({self})")
        wanted = sorted({os.path.abspath(path) for path in (*paths, Path.cwd())})  # noqa: PTH100 (links stay)
        looks = {
            node: ray.remote(look_around)
            .options(num_cpus=0, max_retries=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False))
            .remote(wanted)
            for node in self._known
        }
        ours, problems = code_digest(), []
        ready, _ = ray.wait(list(looks.values()), num_returns=len(looks), timeout=_LOOK_LIMIT_S)
        for node, look in looks.items():
            problem = _problem(look, ours) if look in ready else f"has not answered in {_LOOK_LIMIT_S:g} s"
            if problem:
                problems.append(f"{_name(self._known[node])} {problem}")
        if problems:
            raise InputError(f"--cluster: {'; '.join(problems)}")


def _problem(look: "ray.ObjectRef", ours: str) -> str | None:
    try:
        found: Look = ray.get(look)
    except ray.exceptions.RayError as error:
        return f"cannot run this package, install it there too ({str(error).strip().splitlines()[-1]})"
    if found.missing:
        return f"does not see '{found.missing[0]}': all nodes need the same folders under the same names"
    return None if found.code == ours else "has another version of this package: install the same on all nodes"


def _count(node: dict[str, Any], resource: str) -> int:
    return int(node["Resources"].get(resource, 0))


def _name(node: dict[str, Any]) -> str:
    return f"node {node['NodeManagerAddress']} ({node['NodeID'][:6]})"


@contextlib.contextmanager
def joined(cluster: str, paths: Sequence[Path], device: str) -> Iterator[Nodes]:
    """The nodes of a cluster while this program is part of it.

    Args:
        cluster: `auto` (the variable RAY_ADDRESS, or the cluster that runs on this machine) or HOST:PORT.
        paths: what every node must see under the same names.
        device: auto, cpu or cuda: a piece takes a GPU where there are any, none, or always.

    Raises:
        InputError: it does not answer, or a node is not fit.
    """
    is_ours = not ray.is_initialized()  # who calls from Python may have joined it before
    if is_ours:
        _join(cluster)
    try:
        nodes = Nodes(device)
        say(f"cluster: {nodes} at {ray.get_runtime_context().gcs_address}, {nodes.slots} pieces at a time")
        nodes.check(paths)
        yield nodes
    finally:
        if is_ours:
            ray.shutdown()


def _join(cluster: str) -> None:
    if "://" in cluster or (cluster != "auto" and not cluster.rpartition(":")[2].isdigit()):
        raise InputError(
            f"--cluster is '{cluster}': it is auto or HOST:PORT, on a machine that is a node of the cluster itself"
        )
    # A process of its own tries: Ray waits for minutes for a cluster that is gone, and then ends the process that asked.
    code = f"import ray; ray.init(address={cluster!r}, log_to_driver=False, logging_level='ERROR')"
    try:
        tried = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=_ANSWER_LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired:
        named = os.environ.get("RAY_ADDRESS", cluster) if cluster == "auto" else cluster
        raise InputError(
            f"--cluster: no Ray cluster answers at {named} within {_ANSWER_LIMIT_S:g} s: is it up (`ray status`)?"
        ) from None
    if tried.returncode:
        if "Could not find any running Ray instance" in tried.stderr:
            raise InputError(
                "--cluster auto: no Ray cluster runs on this machine and RAY_ADDRESS is not set: start one with "
                "`ray start --head`, or leave --cluster out for the processes of this machine"
            )
        last = (tried.stderr.strip() or "no reason is told").splitlines()[-1]
        raise InputError(f"--cluster: cannot join the cluster '{cluster}': {last}")
    ray.init(address=cluster, log_to_driver=False, logging_level="ERROR")
