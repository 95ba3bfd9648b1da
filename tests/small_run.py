"""A run folder with the checkpoint of a small untrained model, as `engine/train.py` leaves it."""

import runpy
import signal
import subprocess
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from bench.options import add_options

from engine.config import Config
from engine.models.embedder import build_embedder
from engine.schema.parser import parse, to_tree
from engine.training.checkpoint import save_checkpoint
from tests.environment import ROOT, environment
from tests.forked import Forked


def write_run(folder: Path, *, tests: Sequence[dict] = (), words: dict | None = None, embed_dim: int = 12,
              model: dict | None = None) -> Config:  # fmt: skip
    """Write `folder`/checkpoints/best.pt: r3d_18 of width 4 (or `model`), trained (it says) on the classes run, walk, red."""
    config = parse(
        Config,
        {
            "run": {"folder": str(folder), "device": "cpu"},
            "data": {"tests": list(tests), "decode_threads": 1},
            "clip": {"num_frames": 4, "short_side": 32, "crop": 32},
            "model": model or {"backbone": "r3d_18", "width": 4},
            "words": words or {"source": "random", "dim": embed_dim},
            "evaluate": {"num_snippets": 3, "batch_size": 4},
        },
    )
    torch.manual_seed(0)
    model = build_embedder(config.model, config.clip, embed_dim)
    state = {
        "model": model.state_dict(), "config": to_tree(config), "train_classes": ["run", "walk", "red"],
        "embed_dim": embed_dim, "step": 7, "epoch": 2, "position": 1,
    }  # fmt: skip
    save_checkpoint(folder / "checkpoints" / "best.pt", state)
    return config


def call_tool(name: str, *arguments: object, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run tools/`name` within this process, which saves the seconds that its imports take; returns the exit status."""
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    threads, heard = torch.get_num_threads(), signal.getsignal(signal.SIGTERM)
    try:
        runpy.run_path(str(ROOT / "tools" / name), run_name="__main__")
    except SystemExit as exit_:
        return exit_.code or 0
    finally:
        torch.set_num_threads(threads)
        signal.signal(signal.SIGTERM, heard)
    return 0


def benchmark_options(name: str, *words: str) -> Namespace:
    """The options of a benchmark as `bench_throughput.py` reads them."""
    parser = ArgumentParser()
    add_options(name, parser)
    return parser.parse_args(words)


def start_tool(name: str, *arguments: object) -> Forked:
    """Start tools/`name` in a process of its own, with its output in pipes."""
    return Forked(ROOT / "tools" / name, *arguments, variables=environment(), merged=False)


def run_tool(name: str, *arguments: object, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run tools/`name` to its end in a process of its own."""
    return Forked(ROOT / "tools" / name, *arguments, variables=environment(), merged=False, cwd=cwd).completed(180)


def kill_when(path: Path, num_lines: int, process: Forked) -> str:
    """Kill a program as soon as its journal or record has so many whole lines; returns what it printed to stdout."""
    deadline = time.monotonic() + 300
    try:
        while not (path.is_file() and path.read_bytes().count(b"\n") >= num_lines):
            assert process.poll() is None and time.monotonic() < deadline, f"{path} did not grow"
            time.sleep(0.002)
    finally:
        process.kill()
        printed, _ = process.communicate()
    assert process.returncode == -signal.SIGKILL, "it ended before it was killed"
    return printed
