"""Runs side by side: means and spreads by hand, and what a record holds."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from engine.results.accuracy import Accuracy, SetResult
from engine.results.record import Results, replacing

TOOL = Path(__file__).resolve().parents[2] / "tools" / "compare_runs.py"


def write_run(folder: Path, unseen: float, control: float | None = None) -> Path:
    def result(name: str, top1: float) -> SetResult:
        accuracy = Accuracy(num_classes=5, num_videos=10, top1=top1, top5=1.0, mean_class=top1)
        confusion = np.zeros((5, 5), dtype=np.int64)
        return SetResult(
            name=name, all_classes=accuracy, half_classes=None, per_class=(), confusion=confusion, failures=()
        )

    folder.mkdir(parents=True)
    tests, seen = {"a": result("a", unseen)}, result("seen", 0.5)
    facts = {"checkpoint": "checkpoints/best.pt", "class_vectors": "words", "num_snippets": 2}
    with replacing(folder, Results(**facts, tests=tests, seen=seen, clips_per_second=10.0)):
        pass
    if control is not None:
        write_run(folder / "control", control)
    return folder


def run(*arguments) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, TOOL, *map(str, arguments)], capture_output=True, text=True, timeout=120)


def test_mean_and_sample_standard_deviation(tmp_path):
    folders = [write_run(tmp_path / f"split_{i}", unseen, 0.2) for i, unseen in enumerate((0.2, 0.4, 0.3))]
    printed = run(*folders).stdout.splitlines()
    mean, std = (next(line.split() for line in printed if line.startswith(name)) for name in ("mean", "std"))
    assert mean == ["mean", "0.500", "0.300", "0.200", "0.200", "10.000"]
    assert std[2] == "0.100"


def test_runs_without_control_are_shown_without(tmp_path):
    folders = [write_run(tmp_path / "a", 0.2, 0.2), write_run(tmp_path / "b", 0.4)]
    printed = run(*folders).stdout
    assert [line.split()[4] for line in printed.splitlines() if line[:2] in ("a ", "b ")] == ["0.200", "-"]


@pytest.mark.parametrize("make", [lambda path: path / "nothing", lambda path: path])
def test_a_folder_without_results_is_named(tmp_path, make):
    done = run(make(tmp_path))
    assert done.returncode == 2
    assert "no results.json in" in done.stderr


@pytest.mark.parametrize("content", ["{", "{}", "[]", '{"tests": {"a": 3}}'])
def test_results_of_something_else_are_named(tmp_path, content):
    (tmp_path / "results.json").write_text(content)
    done = run(tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: results.json of '{tmp_path}' is not what a run writes")
    assert done.stderr.count("\n") == 1
