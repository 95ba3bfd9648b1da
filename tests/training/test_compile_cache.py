"""What a killed compiler leaves in torch's cache stops no later run."""

import subprocess
import sys

import pytest
import torch
from torch.utils._filelock import FileLock

from engine.training.compile_cache import remove_unfinished
from tests.environment import environment

TRAINED = """
import torch
from engine.training.compile_cache import remove_unfinished
print(remove_unfinished())
print(torch.compile(lambda x: (x.sin() + 1).cos())(torch.ones(9)).sum())
"""


def test_libraries_of_no_bytes_are_removed_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    (tmp_path / "ab").mkdir()
    for name, content in (
        ("cab1.main.so", b""),
        ("cab2.so", b""),
        ("cab3.main.so", b"ELF"),
        ("cab1.main.cpp", b""),
        ("cab4.so", b""),
    ):
        (tmp_path / "ab" / name).write_bytes(content)
    (tmp_path / "locks").mkdir()
    with FileLock(str(tmp_path / "locks" / "cab4.lock")):  # another process is making it
        assert remove_unfinished() == 2
    assert sorted(path.name for path in (tmp_path / "ab").iterdir()) == ["cab1.main.cpp", "cab3.main.so", "cab4.so"]


@pytest.mark.slow
def test_a_compiled_function_runs_where_its_library_was_left_empty(tmp_path):
    variables = environment(TORCHINDUCTOR_CACHE_DIR=str(tmp_path), TORCHINDUCTOR_FX_GRAPH_CACHE="0")
    run = [sys.executable, "-c", TRAINED]
    first = subprocess.run(run, env=variables, capture_output=True, text=True, check=True).stdout.split()
    made = [path for path in tmp_path.glob("*/*.so") if path.stat().st_size]
    assert made and first[0] == "0"
    for path in made:
        path.write_bytes(b"")
    again = subprocess.run(run, env=variables, capture_output=True, text=True, check=True).stdout.split()
    assert again == [str(len(made)), *first[1:]]
    assert torch.tensor([path.stat().st_size for path in made]).all()
