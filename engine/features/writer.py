"""Writing features so that a kill at any moment loses no video that was finished and doubles none.

    windows ──▶ spool (one for each video in hand) ──video done──▶ arrays ──then──▶ journal line     at the end ──▶ index

A video counts once its line stands in the journal; what a kill left behind it in the arrays is cut off when the folder is
opened again. Where videos were dropped or made anew, the arrays are written once more without the old ones, under new names:
who reads meanwhile keeps what the index names.
"""

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np

from engine.errors import InputError, misfit, writing
from engine.features.cache import INDEX_NAME, VERSION, CachedVideo, FailedVideo, Stamp, write_index
from engine.files.atomic_file import atomic_write
from engine.files.json_lines import JsonLines, append_json_line, read_json_lines, understood
from engine.files.locks import try_lock
from engine.terminal.command_line import output_folder

JOURNAL_NAME = "journal.jsonl"
_HEADER_BYTES = 128  # of an .npy file of two dimensions, with room for any number of rows
_BLOCK = 2**22  # bytes copied at a time


class _Array:
    """A file of rows that grows: .npy, whose header is set right at the end."""

    def __init__(self, path: Path, width: int, dtype: str) -> None:
        self.path, self._width, self._dtype = path, width, np.dtype(dtype)
        self.row_bytes = width * self._dtype.itemsize
        is_new = not path.exists() or path.stat().st_size < _HEADER_BYTES
        self.file = path.open("w+b" if is_new else "r+b")
        if is_new:
            self.write_header(0)

    @property
    def num_rows(self) -> int:
        return (os.fstat(self.file.fileno()).st_size - _HEADER_BYTES) // self.row_bytes

    def cut(self, num_rows: int) -> None:
        """Drop what lies behind so many rows, and go on there."""
        self.file.truncate(_HEADER_BYTES + num_rows * self.row_bytes)
        self.file.seek(0, os.SEEK_END)

    def append(self, source: BinaryIO, first_row: int, num_rows: int, header: int = _HEADER_BYTES) -> None:
        """Add rows of another file."""
        source.seek(header + first_row * self.row_bytes)
        left = num_rows * self.row_bytes
        while left:
            block = source.read(min(left, _BLOCK))
            if not block:
                raise OSError(f"'{source.name}' is shorter than it was")
            with writing(self.path):
                self.file.write(block)
            left -= len(block)

    def write_header(self, num_rows: int) -> None:
        self.file.seek(0)
        description = {"descr": self._dtype.str, "fortran_order": False, "shape": (num_rows, self._width)}
        np.lib.format.write_array_header_1_0(self.file, description)
        if self.file.tell() != _HEADER_BYTES:
            raise RuntimeError(f"numpy writes a header of {self.file.tell()} bytes, not {_HEADER_BYTES}")
        self.file.seek(0, os.SEEK_END)

    def close(self) -> None:
        self.file.close()


class Spool:
    """The windows of one video in hand, in nameless files: gone with the process. `close` it."""

    def __init__(self, folder: Path, dtype: str) -> None:
        self.features, self.spans = (tempfile.TemporaryFile(dir=folder) for _ in range(2))  # noqa: SIM115 (`close`)
        self._dtype = np.dtype(dtype)
        self.num_windows = 0

    def append(self, features: np.ndarray, spans: np.ndarray) -> None:
        """Add the next windows: features [n, D], spans float64 [n, 2]."""
        self.features.write(features.astype(self._dtype).tobytes())
        self.spans.write(spans.tobytes())
        self.num_windows += len(features)

    def read(self, width: int) -> tuple[np.ndarray, np.ndarray]:
        """All windows so far: features [n, width], spans float64 [n, 2]."""
        contents = []
        for file in (self.features, self.spans):
            file.seek(0)
            contents.append(file.read())
        return (
            np.frombuffer(contents[0], self._dtype).reshape(-1, width),
            np.frombuffer(contents[1]).reshape(-1, 2),
        )

    def close(self) -> None:
        self.features.close()
        self.spans.close()


class FeatureWriter:
    """Adds the features of videos to a folder, a new or a begun one; a context manager.

    Args:
        folder: of the cache.
        stamp: must be of the kind that the cache was begun with.
        option: what the user calls the folder.

    Attributes:
        records: path -> a video whose features are kept, from earlier runs too.

    Raises:
        InputError: the folder cannot be written, has features of another kind, or is being written by another process.
    """

    def __init__(self, folder: Path, stamp: Stamp, option: str = "--out") -> None:
        self.folder, self.stamp, self._option = output_folder(folder, option), stamp, option
        self._lock = os.open(folder, os.O_RDONLY)
        try:
            if not try_lock(self._lock):
                raise InputError(f"another process is writing features into '{folder}': wait for it or stop it")
            self._generation, lines = self._begun()
            self._open_arrays()
            sizes = min(array.num_rows for array in self._arrays)
            # After a power cut the disk may have the journal's line and not the arrays' bytes.
            whole = [video for video in lines if video.first_window + video.num_windows <= sizes]
        except (OSError, InputError):
            os.close(self._lock)
            raise
        self.records = {video.path: video for video in whole}
        self._num_rows = max((video.first_window + video.num_windows for video in whole), default=0)
        for array in self._arrays:
            array.cut(self._num_rows)
        self._journal = JsonLines(folder / JOURNAL_NAME)

    def spool(self) -> Spool:
        """Where the windows of a video go until it is done."""
        return Spool(self.folder, self.stamp.dtype)

    def add(self, spool: Spool, video: CachedVideo) -> None:
        """Keep a finished video (its rows are set here); it is with the operating system when this returns."""
        video = replace(video, first_window=self._num_rows, num_windows=spool.num_windows)
        for array, source in zip(self._arrays, (spool.features, spool.spans), strict=True):
            array.append(source, 0, spool.num_windows, header=0)
            array.file.flush()
        self._num_rows += spool.num_windows
        self._journal.append(asdict(video))
        self.records[video.path] = video

    def finish(self, paths: Sequence[str], failures: Mapping[str, FailedVideo], notes: Mapping[str, object]) -> None:
        """Write the index: these videos (all kept) and the failed ones; drop all others from arrays and journal."""
        videos = sorted((self.records[path] for path in paths), key=lambda video: video.first_window)
        if sum(video.num_windows for video in videos) < self._num_rows:
            videos = self._without_others(videos)
        for array in self._arrays:
            array.write_header(self._num_rows)
            array.file.flush()
            os.fsync(array.file.fileno())
        notes = {"generation": self._generation, **notes}
        write_index(self.folder / INDEX_NAME, self.stamp, videos, failures, notes)
        for name in ("features", "spans"):
            for old in self.folder.glob(f"{name}-*.npy"):
                if old.name != f"{name}-{self._generation}.npy":
                    old.unlink()

    def __enter__(self) -> "FeatureWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for array in self._arrays:
            array.close()
        self._journal.close()
        os.close(self._lock)

    def _begun(self) -> tuple[int, list[CachedVideo]]:
        """The generation and the videos of the journal; a new one gets its first line."""
        path, another = self.folder / JOURNAL_NAME, f"choose another {self._option}"
        lines = read_json_lines(path)
        head = next(lines, None)
        if head is None:
            if any(self.folder.glob("features-*.npy")):
                raise InputError(f"'{self.folder}' has features without a journal: {another}, or remove it")
            path.unlink(missing_ok=True)
            append_json_line(path, self._head(1))
            return 1, []
        if head.get("features") != VERSION:
            raise InputError(f"'{path}' is of another version or of something else: {another}, or remove it")
        try:
            stamp, generation = Stamp.of(head["stamp"]), int(head["generation"])
        except (LookupError, TypeError, ValueError) as error:
            raise InputError(f"'{path}' is damaged ({misfit(error)}): {another}, or remove it") from error
        if (difference := stamp.difference(self.stamp)) is not None:
            raise InputError(
                f"the features in '{self.folder}' are {difference}: they are not mixed: give the same, or another {self._option}"
            )
        return generation, list(understood(lines, lambda line: CachedVideo(**line)))

    def _head(self, generation: int) -> dict[str, object]:
        return {"features": VERSION, "generation": generation, "stamp": asdict(self.stamp)}

    def _open_arrays(self) -> None:
        kinds = (("features", self.stamp.width, self.stamp.dtype), ("spans", 2, "float64"))
        self._arrays = [_Array(self.folder / f"{name}-{self._generation}.npy", *kind) for name, *kind in kinds]

    def _without_others(self, videos: Sequence[CachedVideo]) -> list[CachedVideo]:
        """The arrays of a new generation with these videos alone, and its journal."""
        old, self._generation = self._arrays, self._generation + 1
        self._open_arrays()
        kept, num_rows = [], 0
        for video in videos:
            kept.append(replace(video, first_window=num_rows))
            num_rows += video.num_windows
        for array, source in zip(self._arrays, old, strict=True):
            array.cut(0)  # of an earlier try
            for video in videos:
                array.append(source.file, video.first_window, video.num_windows)
            array.file.flush()
            os.fsync(array.file.fileno())
            source.close()
        self._journal.close()
        path = self.folder / JOURNAL_NAME
        with atomic_write(path, durable=True) as partial:
            lines = JsonLines(partial)
            for line in (self._head(self._generation), *map(asdict, kept)):
                lines.append(line)
            lines.close()
        self._journal = JsonLines(path)
        self.records, self._num_rows = {video.path: video for video in kept}, num_rows
        return kept
