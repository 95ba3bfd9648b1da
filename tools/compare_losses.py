"""Compare the loss curves of two commits, configs or run folders, and say where they differ.

    python tools/compare_losses.py HEAD~1:configs/quickstart.yaml configs/quickstart.yaml --set train.epochs=2
    python tools/compare_losses.py configs/ucf15.yaml my.yaml --ranks 2
    python tools/compare_losses.py runs/before runs/after

A side is a run folder, a config (trained with the checkout as it is), or COMMIT:CONFIG (trained with that commit, in a
copy of its own, and with that commit's config if it has the file). The loss of every step is logged. Compared are the
loss and every other curve except speed and memory, step by step, and the weights of the last checkpoint. Exit status 0
if all are equal (bit for bit, unless --tolerance allows more), else 1. A run folder that was resumed between two logged
steps has at the second the mean of fewer steps: log every step to compare it.

In this project a change "does not change results" if this finds all equal on a config that uses the changed code.
"""

import subprocess
import sys

import options

from engine.errors import InputError, read_command, run_command

if __name__ == "__main__":  # before the imports below, which take seconds
    ARGUMENTS = read_command(options.compare_losses, __doc__)

import argparse
import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch

from engine.files.json_lines import read_json_lines
from engine.processes.parts import running, stop_on_sigterm
from engine.results.table import Table
from engine.terminal.command_line import check_shown
from engine.training.checkpoint import list_checkpoints, read_checkpoint

CHECKOUT = Path(__file__).resolve().parent.parent
_NOT_COMPARED = ("speed/", "memory/")
Curve = Mapping[int, float]  # step -> value


def main(arguments: argparse.Namespace) -> None:
    """Train what is not trained yet, compare, print. Exits with status 1 where the two sides part."""
    stop_on_sigterm()
    folders = [
        side if (side / "log.jsonl").is_file() else train_side(str(side), arguments.out / name, arguments)
        for side, name in zip(arguments.sides, "ab", strict=True)
    ]
    for side, name, folder in zip(arguments.sides, "AB", folders, strict=True):
        print(f"{name}  {side}" + ("" if side == folder else f"  (in {folder})"))
    parts = [*compare_curves(*map(read_curves, folders), arguments.tolerance)]
    parts += compare_weights(*map(last_weights, folders), arguments.tolerance)
    print(Table(["what", "A against B"], [[name, told] for name, told, _ in parts]).text())
    num_apart = sum(is_apart for _, _, is_apart in parts)
    print(f"\n{num_apart} of {len(parts)} part" if num_apart else "\nall equal" + _within(arguments.tolerance))
    check_shown()
    if num_apart:
        sys.exit(1)


def train_side(side: str, folder: Path, arguments: argparse.Namespace) -> Path:
    """Train [COMMIT:]CONFIG into `folder`, with every step's loss logged. Returns `folder`.

    Raises:
        InputError: the folder has a run already, git knows no such commit, there is no such config, the training fails.
    """
    if folder.exists():
        raise InputError(f"'{folder}' is there already: name another folder with --out, or remove it")
    commit, _, config = side.rpartition(":")
    with checkout_of(commit) as code:
        places = (code / config, Path(config).absolute())  # of a commit its own config; else that of where one is
        path = next((place for place in (places if commit else places[::-1]) if place.is_file()), places[1])
        if not path.is_file():
            raise InputError(f"'{side}' is no run folder, and there is no config '{config}'")
        start = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={arguments.ranks}"]
        command = [*(start if arguments.ranks > 1 else start[:1]), code / "engine" / "train.py", path,
                   *arguments.set, f"run.folder={folder.absolute()}", "log.every_steps=1"]  # fmt: skip
        print(f"training {side}", flush=True)
        environment = os.environ | {"PYTHONPATH": str(code)}  # the commit's engine, not the one that is installed
        with running(list(map(str, command)), env=environment) as training:
            status = training.wait()
        if status:
            raise InputError(f"'{side}': its training ended with status {status}, see above")
    return folder


@contextmanager
def checkout_of(commit: str) -> Iterator[Path]:
    """The code of a commit in a folder of its own, until the block ends; without a commit this very checkout."""
    if not commit:
        yield CHECKOUT
        return
    with tempfile.TemporaryDirectory(prefix="compare_losses-") as parent:
        code = Path(parent) / "code"
        git = ["git", "-C", str(CHECKOUT), "worktree"]
        add = [*git, "add", "--detach", str(code), commit]
        try:
            done = subprocess.run(add, capture_output=True, text=True, check=False)
            if done.returncode:
                raise InputError(f"git cannot check out '{commit}': {done.stderr.strip().splitlines()[-1]}")
            yield code
        finally:
            subprocess.run([*git, "remove", "--force", str(code)], capture_output=True, check=False)


def read_curves(folder: Path) -> dict[str, Curve]:
    """Name -> curve, of all that a run has logged but speed and memory; of a step done twice the later value."""
    curves: dict[str, dict[int, float]] = {}
    for event in read_json_lines(folder / "log.jsonl"):
        if event.get("event") == "scalars":
            for name in event.keys() - {"time", "event", "step"}:
                if not name.startswith(_NOT_COMPARED):
                    curves.setdefault(name, {})[event["step"]] = event[name]
    if "train/loss" not in curves:
        raise InputError(f"'{folder}/log.jsonl' has no loss of any step: is this the folder of a run?")
    return curves


def compare_curves(a: Mapping[str, Curve], b: Mapping[str, Curve], tolerance: float) -> Iterator[tuple[str, str, bool]]:
    """For each curve: its name, what is to be said of it, whether the two sides part."""
    for name in sorted(a.keys() | b.keys(), key=lambda name: (name != "train/loss", name)):
        if name not in a or name not in b:
            yield name, f"only {'A' if name in a else 'B'} has it", True
        elif a[name].keys() != b[name].keys():
            odd = sorted(a[name].keys() ^ b[name].keys())
            yield name, f"{len(odd)} steps only one side has, the first is step {odd[0]}", True
        else:
            yield name, *_compare_curve(a[name], b[name], tolerance)


def _compare_curve(a: Curve, b: Curve, tolerance: float) -> tuple[str, bool]:
    apart = {step: _difference(a[step], b[step]) for step in sorted(a)}
    over = [step for step, difference in apart.items() if difference > tolerance]
    if not over:
        return f"equal in {len(a)} steps" + _within(tolerance), False
    first, worst = over[0], max(over, key=apart.__getitem__)
    told = f"parts at step {first}: {a[first]!r} against {b[first]!r}"
    return f"{told}; largest relative difference {apart[worst]:.2g}, at step {worst}", True


def _difference(a: float, b: float) -> float:
    """Relative to the larger of both; 0 where they are the same, two NaN too."""
    if a == b or (math.isnan(a) and math.isnan(b)):
        return 0.0
    difference = abs(a - b) / max(abs(a), abs(b))
    return difference if math.isfinite(difference) else math.inf


def last_weights(folder: Path) -> dict[str, torch.Tensor]:
    """The weights of a run's newest checkpoint, by name.

    Raises:
        InputError: it has none, or it cannot be read.
    """
    found = list_checkpoints(folder)
    if not found:
        raise InputError(f"'{folder}' has no checkpoint: has the run come to its end?")
    return read_checkpoint(found[0])["model"]


def compare_weights(
    a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor], tolerance: float
) -> list[tuple[str, str, bool]]:
    """As `compare_curves`, one entry: a tensor's difference is relative to its largest element."""
    name = "weights"
    if odd := sorted(a.keys() ^ b.keys()):
        return [(name, f"{len(odd)} tensors only one side has, the first is {odd[0]}", True)]
    apart = {}
    for key in a:
        if a[key].shape != b[key].shape:
            return [(name, f"{key} is {list(a[key].shape)} against {list(b[key].shape)}", True)]
        one, other = a[key].double(), b[key].double()
        if not torch.equal(one, other):
            share = ((one - other).abs().max() / torch.maximum(one.abs().max(), other.abs().max())).item()
            apart[key] = share if math.isfinite(share) else math.inf
    over = [key for key, difference in apart.items() if difference > tolerance]
    if not over:
        return [(name, f"equal in {len(a)} tensors" + _within(tolerance), False)]
    worst = max(over, key=apart.__getitem__)
    return [
        (name, f"{len(over)} of {len(a)} tensors part; the most {worst}, by {apart[worst]:.2g} of its largest", True)
    ]


def _within(tolerance: float) -> str:
    return f" within {tolerance:g}" if tolerance else ", bit for bit"


if __name__ == "__main__":
    run_command(main, ARGUMENTS)
