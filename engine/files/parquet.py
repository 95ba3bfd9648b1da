"""Parquet files: read so that a process can end at once, written whole or not at all."""

import os
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from engine.files.atomic_file import atomic_write


def read_table(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """All of a file, or the columns named.

    Arrow starts no threads for it: where the system refuses them, it would wait for ever. The file is opened by Arrow and not
    by Python: a thread of Arrow's that still has a buffer of Python's aborts a process that is about to end
    (apache/arrow#34314). It is opened by its bytes, since Arrow takes a path such as `s3:clips` for an address and refuses
    one that is not UTF-8.

    Raises:
        OSError: it cannot be opened or read.
        pa.ArrowException, ValueError: it is not a Parquet file, or a damaged one.
        KeyError: a column is not in it.
    """
    with pa.OSFile(os.fsencode(path)) as file:
        table = pq.ParquetFile(file, pre_buffer=False).read(columns, use_threads=False)
    return table if columns is None else table.select(columns)


def write_table(table: pa.Table, path: Path) -> None:
    """Write a file (zstd), and have it on the disk, at once or not at all; its folder is there.

    Raises:
        OSError: it cannot be written; what was there before still is.
    """
    with atomic_write(path, durable=True) as partial, partial.open("wb") as file:
        pq.write_table(table, file, compression="zstd")
