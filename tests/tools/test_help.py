"""Every program answers --help at once: it reads its command line before it imports what takes seconds."""

import subprocess
import sys

import pytest
from bench.options import BENCHMARKS

from tests.environment import ROOT, environment
from tests.small_run import call_tool

PROGRAMS = [
    ROOT / "engine" / "train.py",
    *(path for path in sorted((ROOT / "tools").glob("*.py")) if "__main__" in path.read_text(encoding="utf-8")),
]
HEAVY = {"torch", "torchvision", "numba", "matplotlib", "av", "cv2", "pyarrow", "sklearn", "tensorboard", "gensim"}


def imported_by(*command):
    """Status, output and top-level imports of a Python program."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *map(str, command)],
        env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return done.returncode, done.stdout, {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.name)
def test_help_comes_before_heavy_imports(program):
    status, out, imports = imported_by(program, "--help")
    assert status == 0 and out.startswith("usage: ") and program.name in out.partition("\n")[0]
    assert "argparse" in imports and not imports & HEAVY


def test_there_are_programs():
    assert {path.name for path in PROGRAMS} >= {
        "train.py",
        "evaluate.py",
        "predict.py",
        "bench_throughput.py",
        "soak.py",
    }


@pytest.mark.parametrize(
    "words", [["--section", "words"], ["configs/quickstart.yaml", "train.epcohs=4"], ["--sektion"]]
)
def test_a_section_and_a_mistake_are_told_before_heavy_imports(words):
    status, out, imports = imported_by(ROOT / "engine" / "train.py", *words)
    assert status == (0 if words[0] == "--section" else 2)
    assert out.startswith("words: ") if status == 0 else not out
    assert not imports & HEAVY


def test_the_help_of_training_is_short_and_says_nothing_twice():
    _, out, _ = imported_by(ROOT / "engine" / "train.py", "--help")
    lines = [line for line in out.splitlines() if line]
    assert len(lines) < 100
    assert len(set(lines)) == len(lines)
    for text in (
        "torchrun engine/train.py CONFIG",
        "train: The optimisation",
        " epochs=150 ",
        "run: ",
        " resume=auto ",
    ):
        assert text in out


def test_every_benchmark_has_a_help_of_its_own(monkeypatch, capsys):
    for name in BENCHMARKS:
        module = (ROOT / "tools" / "bench" / f"{name}.py").read_text(encoding="utf-8")
        assert "\ndef run(arguments: argparse.Namespace) -> None:" in module
        assert call_tool("bench_throughput.py", name, "--help", monkeypatch=monkeypatch) == 0
        assert module.splitlines()[0].removeprefix('"""') in capsys.readouterr().out
