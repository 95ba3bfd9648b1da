"""How a command line ends where the user erred, and where the user breaks off."""

import errno
import gc
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.errors import InputError, is_interrupted, read_command, run_command, told, writing
from engine.files.atomic_file import atomic_write
from engine.files.json_lines import append_json_line
from engine.results.table import Table
from tests.environment import UNFREEZE

ROOT = Path(__file__).parents[1]


def mistake() -> None:
    raise InputError("'x' is wrong: mend it")


def broken_off() -> None:
    raise KeyboardInterrupt


def without_processes() -> None:
    raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))


def without_threads() -> None:
    raise RuntimeError("can't start new thread")


LIMIT = "raise the limit on processes (ulimit -u; a container's pids.max)"


@pytest.mark.parametrize(
    ("main", "line"),
    [
        (without_processes, f"error: Resource temporarily unavailable: {LIMIT}\n"),
        (without_threads, f"error: can't start new thread: {LIMIT}\n"),
    ],
)
def test_a_machine_without_more_processes_is_no_traceback(main, line, capsys):
    with pytest.raises(SystemExit) as ended:
        run_command(main)
    assert (ended.value.code, capsys.readouterr()) == (2, ("", line))


def test_a_folder_in_the_way_of_a_file_is_no_traceback(tmp_path, capsys):
    (tmp_path / "results.json").mkdir()

    def write() -> None:
        with atomic_write(tmp_path / "results.json") as beside:
            beside.touch()

    with pytest.raises(SystemExit):
        run_command(write)
    folder = tmp_path / "results.json"
    said = f"error: Is a directory: '{folder}': a folder lies where a file is to be written: move it away\n"
    assert capsys.readouterr().err == said


def without_memory_for_numbers() -> None:
    np.empty(2**60, np.uint8)


def without_memory_for_tensors() -> None:
    torch.empty(2**60, dtype=torch.uint8)


def without_memory_of_a_gpu() -> None:
    raise torch.OutOfMemoryError(
        "CUDA out of memory. Tried to allocate 1.50 GiB. GPU 0 has a total capacity of 15.77 GiB of which 512.12 MiB is free. "
        "Including non-PyTorch memory, this process has 15.26 GiB memory in use. If reserved but unallocated memory is large "
        "try setting PYTORCH_ALLOC_CONF=expandable_segments:True to avoid fragmentation."
    )


@pytest.mark.parametrize(
    ("main", "said"),
    [
        (without_memory_for_numbers, "out of memory: Unable to allocate 1.00 EiB for an array with shape"),
        (without_memory_for_tensors, "out of memory: 1,152,921,504.6 GB were asked for at once: take smaller batches;"),
        (
            without_memory_of_a_gpu,
            "CUDA out of memory. Tried to allocate 1.50 GiB. GPU 0 has a total capacity of 15.77 GiB of which 512.12 MiB is free: "
            "take smaller batches; what else takes less stands under Memory in docs/troubleshooting.md\n",
        ),
    ],
)
def test_too_little_memory_is_no_traceback(main, said, capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")  # its own lack, which no other rank tells
    monkeypatch.setattr("engine.errors.time.sleep", None)
    with pytest.raises(SystemExit) as ended:
        run_command(main)
    out, line = capsys.readouterr()
    assert (ended.value.code, out, line.count("\n")) == (2, "", 1)
    assert line.startswith(f"error: {said}")


@pytest.mark.parametrize(
    ("main", "status", "line"), [(mistake, 2, "error: 'x' is wrong: mend it\n"), (broken_off, 130, "interrupted\n")]
)
def test_one_line_and_a_status(main, status, line, capsys, monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_ERROR_FILE", raising=False)
    with pytest.raises(SystemExit) as ended:
        run_command(main)
    assert ended.value.code == status
    assert capsys.readouterr() == ("", line)


def test_what_a_command_imports_is_not_looked_through_for_garbage():
    UNFREEZE()
    assert read_command(int, "3") == 3
    assert not gc.isenabled()
    assert run_command(gc.isenabled)
    assert gc.get_freeze_count() > 10_000


def test_the_threads_of_a_command_learn_of_ctrl_c(capsys):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(SystemExit):
            run_command(signal.raise_signal, signal.SIGINT)
        assert is_interrupted()
        run_command(int)
        assert not is_interrupted()
    finally:
        signal.signal(signal.SIGINT, before)


def test_torchrun_is_told_too(tmp_path, capsys, monkeypatch):
    """In the form that torch.distributed.elastic reads: a message, and when it was."""
    for file in (tmp_path / "error.json", tmp_path / "no" / "folder.json"):  # what cannot be written changes nothing
        monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(file))
        with pytest.raises(SystemExit):
            run_command(mistake)
    told = json.loads((tmp_path / "error.json").read_text())
    detail = told["message"]["extraInfo"]
    assert told["message"]["message"] == detail["py_callstack"] == "error: 'x' is wrong: mend it"
    assert int(detail["timestamp"]) > 0


@pytest.mark.parametrize(
    "program", ["engine/train.py", "tools/predict.py", "tools/index_dataset.py", "tools/unseen.py"]
)
def test_windows_is_refused_in_one_line(program):
    code = "import runpy, sys; sys.platform = 'win32'; sys.path.insert(0, 'tools'); runpy.run_path(sys.argv[1], None, '__main__')"
    done = subprocess.run([sys.executable, "-c", code, program], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        "error: unseen needs Linux or macOS: on Windows install and start it within WSL (wsl --install)"
    ]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a disk without room")
def test_a_full_disk_names_the_file(tmp_path):
    """Where a write fails the system tells no name."""

    def fill() -> None:
        with Path("/dev/full").open("wb", buffering=0) as file:
            file.write(b"1")

    def whole() -> None:
        with atomic_write(tmp_path / "whole.json"):
            fill()

    def lines() -> None:
        (tmp_path / "log.jsonl").symlink_to("/dev/full")
        append_json_line(tmp_path / "log.jsonl", {"a": 1})

    def table() -> None:
        Table(["a"], [[1]]).write_csv(Path("/dev/full"))

    for write, name in ((whole, "whole.json"), (lines, "log.jsonl"), (table, "full")):
        with pytest.raises(OSError, match="No space left") as caught:
            write()
        assert Path(caught.value.filename).name == name
    with pytest.raises(OSError, match="No space left") as caught:
        fill()
    assert told(caught.value) == "No space left on device"
    with pytest.raises(ValueError, match="mine"), writing(tmp_path):
        raise ValueError("mine")
    with pytest.raises(FileNotFoundError) as missing, writing(tmp_path):
        (tmp_path / "nothing").read_bytes()
    assert Path(missing.value.filename).name == "nothing"
