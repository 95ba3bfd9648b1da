"""A Parquet file is read whatever its name, and a process that has read one may end at once."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from engine.files.parquet import read_table, write_table

READ_AND_END = "import pathlib, sys; from engine.files.parquet import read_table; read_table(pathlib.Path(sys.argv[1]))"


def table(num_rows: int) -> pa.Table:
    values = np.random.default_rng(0).normal(size=(12, num_rows))
    return pa.table({f"column {number}": pa.array(column) for number, column in enumerate(values)})


@pytest.mark.parametrize("name", [b"caf\xe9", "日本".encode(), b"s3:clips", b"a%20b#c?d"])
def test_a_name_is_a_name(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = Path(os.fsdecode(name))
    for rows in (3, 5):
        write_table(table(rows), path)
        assert read_table(path).equals(table(rows))
    assert read_table(path, columns=["column 3"]).equals(table(5).select(["column 3"]))
    assert [os.fsencode(file.name) for file in tmp_path.iterdir()] == [name]


def test_a_process_that_has_read_may_end_at_once(tmp_path):
    """Half of such processes are aborted where Python opens the file."""
    path = tmp_path / "file.parquet"
    write_table(table(20_000), path)
    ends = [
        subprocess.run([sys.executable, "-c", READ_AND_END, path], stderr=subprocess.PIPE, text=True) for _ in range(12)
    ]
    assert [(end.returncode, end.stderr) for end in ends] == [(0, "")] * 12


def test_a_file_that_is_none_is_an_error(tmp_path):
    path = tmp_path / "file.parquet"
    path.write_bytes(b"PAR1 no")
    for wrong, error in ((path, pa.ArrowInvalid), (tmp_path, OSError), (tmp_path / "none", FileNotFoundError)):
        with pytest.raises(error):
            read_table(wrong)


def test_a_column_that_is_not_there_is_named(tmp_path):
    write_table(table(3), tmp_path / "t")
    with pytest.raises(KeyError, match="none"):
        read_table(tmp_path / "t", columns=["column 1", "none"])
    assert read_table(tmp_path / "t", columns=["column 2", "column 1"]).column_names == ["column 2", "column 1"]


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs Linux's /proc")
def test_reading_starts_no_threads(tmp_path):
    """Where they are limited, Arrow waited for those that it could not start."""
    write_table(table(100_000), tmp_path / "t")
    count = "import os; before = len(os.listdir('/proc/self/task'))"
    read = f"read_table(Path({str(tmp_path / 't')!r}))"
    code = f"from engine.files.parquet import *; {count}; {read}; {count.replace('before', 'after')}"
    subprocess.run([sys.executable, "-c", f"{code}; assert after == before, (before, after)"], check=True)
