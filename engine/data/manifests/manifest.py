"""A manifest: one Parquet file that lists every video (or labelled segment) of a data set.

Numbers are numpy columns, strings stay in Arrow (dictionary-encoded where they repeat), so half a
million rows load in well under a second. `tools/index_dataset.py` writes manifests.
"""

import functools
import json
import os
import re
import shlex
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from engine.data.batch import STILL_CODEC, Video
from engine.data.manifests.manifest_table import (
    FORMAT_VERSION,
    METADATA_KEY,
    VIDEO_COLUMNS,
    checked_table,
    composed_names,
    path_as_text,
    path_of_text,
    table_of,
    video_of,
    video_with,
)
from engine.data.remote.copied import on_disk
from engine.data.store.index import INDEX_NAME, is_stored
from engine.errors import InputError
from engine.files.addresses import BEGINNING, as_path, shown, url_of
from engine.files.parquet import read_table, write_table

MANY_ROWS = (
    2_000_000  # from here on nothing is kept, or gone over, for each row (`large_manifest`, `sampling/plans.py`)
)
_KIND_COLUMNS = ("codec", "pixel_format", "width", "height", "oddity")


class Manifest:
    """An immutable table of videos. Row order is the order of the file; `select` takes a part of it."""

    is_large = False  # whether rows are read one by one, and nothing is known of all

    def __init__(self, table: pa.Table, root: Path, source: Path | None = None) -> None:
        self.table = table = composed_names(table)
        self.root = root
        self.source = source  # the file it was read from
        names = table.column("class_name").combine_chunks()
        dictionary = names.dictionary.to_pylist()
        present = sorted({dictionary[i] for i in np.flatnonzero(np.bincount(names.indices.to_numpy()))})
        rank = {name: index for index, name in enumerate(present)}
        self.classes: tuple[str, ...] = tuple(present)
        lookup = np.array([rank.get(name, -1) for name in dictionary], dtype=np.int64)
        self.class_index = lookup[names.indices.to_numpy()]  # int64 [V], into `classes`
        self.num_frames = table.column("num_frames").to_numpy()  # int32 [V]

    def __len__(self) -> int:
        return self.table.num_rows

    @property
    def is_still(self) -> np.ndarray:
        """bool [V]: rows that are picture files, see `Video.is_still`."""
        return pc.starts_with(self.table.column("codec").cast(pa.string()), STILL_CODEC).to_numpy()

    @functools.cached_property
    def is_remote(self) -> bool:
        """Whether some of its videos lie in object storage, wherever the manifest does."""
        if url_of(self.root):
            return True
        return pc.any(pc.match_substring_regex(self.table.column("path"), BEGINNING)).as_py()

    @functools.cached_property
    def paths(self) -> list[str]:
        """The path of each row, as files are opened by it."""
        texts = self.table.column("path").to_pylist()
        return [path_of_text(text) if "\0" in text else text for text in texts]

    def strings(self, column: str) -> np.ndarray:
        """A string column as a numpy object array of length V."""
        if pa.types.is_dictionary(self.table.schema.field(column).type) and not self.table.column(column).null_count:
            ((codes, names),) = self.coded(column)
            return np.asarray(names, dtype=object)[codes]
        return np.asarray(self.paths if column == "path" else self.table.column(column).to_pylist(), dtype=object)

    def frames_of(self, rows: np.ndarray) -> np.ndarray:
        """int32 [N]: frames of some rows, int64 [N]."""
        return self.num_frames[rows]

    def classes_of(self, rows: np.ndarray) -> np.ndarray:
        """int64 [N]: the classes of some rows, int64 [N], as indices into `classes`."""
        return self.class_index[rows]

    def path(self, row: int) -> str:
        """The path of one row, as in `paths`."""
        return path_of_text(self.table.column("path")[row].as_py())

    def video(self, row: int) -> Video:
        """What a decoder needs to know of one row."""
        return video_of(self._video_columns, self.root, row)

    def videos(self, rows: Sequence[int]) -> list[Video]:
        """The same of several rows, in less time for each."""
        some = pa.array(rows, pa.int64())
        columns = [column.take(some).to_pylist() for column in self._video_columns.values()]
        return [
            video_with(dict(zip(VIDEO_COLUMNS, values, strict=True)), self.root)
            for values in zip(*columns, strict=True)
        ]

    @functools.cached_property
    def _video_columns(self) -> dict[str, pa.Array]:  # looking them up for every video would take most of its time
        return {name: self.table.column(name).combine_chunks() for name in VIDEO_COLUMNS}

    def coded(self, column: str) -> Iterator[tuple[np.ndarray, list[str]]]:
        """A column of names by parts of its rows: int32 [N] codes, and the names that they are indices into."""
        values = self.table.column(column).combine_chunks()
        yield values.indices.to_numpy(), values.dictionary.to_pylist()

    def names(self, column: str) -> set[str]:
        """The different values of a column of names."""
        parts = self.coded(column)
        return {names[code] for codes, names in parts for code in np.flatnonzero(np.bincount(codes)).tolist()}

    def is_one_of(self, column: str, names: Collection[str]) -> np.ndarray:
        """bool [V]: whether a row's value of a column of names is one of these."""
        wanted = set(names)
        parts = [np.array([name in wanted for name in known], bool)[codes] for codes, known in self.coded(column)]
        return np.concatenate([np.zeros(0, bool), *parts])

    def kind_counts(self) -> list[tuple[Video, int]]:
        """An example of each kind of video, and how many there are."""
        examples, kind = self.kinds()
        return [
            (self.video(row), count) for row, count in zip(examples.tolist(), np.bincount(kind).tolist(), strict=True)
        ]

    def kinds(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows that are examples of each kind of video, int64 [K], and the kind of each row, int64 [V].

        A kind is what a decoder may or may not take: codec, pixel format, size, oddity, and the file's suffix or the store
        that it lies in.
        """
        return self._kinds

    @functools.cached_property
    def _kinds(self) -> tuple[np.ndarray, np.ndarray]:
        columns = [pc.fill_null(self.table.column(name).cast(pa.string()), "") for name in _KIND_COLUMNS]
        path = pc.replace_substring_regex(
            self.table.column("path"), rf"(?s)^((?:.*/)?{re.escape(INDEX_NAME)}/).*$", r"\1"
        )
        is_plain = pc.invert(pc.ends_with(path, f"{INDEX_NAME}/"))
        suffix = pc.replace_substring_regex(path, r"(?s)^.*?(\.[^./]*)?$", r"\1")
        keys = pc.binary_join_element_wise(*columns, pc.if_else(is_plain, suffix, path), "\0")
        _, examples, kind = np.unique(_codes(keys), return_index=True, return_inverse=True)
        return examples, kind

    def select(self, rows: np.ndarray) -> "Manifest":
        """The rows named by an index or boolean array, in that order."""
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows
        return Manifest(self.table.take(pa.array(rows)), self.root, self.source)

    def settled(self) -> "Manifest":
        """Itself: see `LargeManifest`."""
        return self

    def save(self, path: str | Path, **metadata: str) -> None:
        """Write to `path` at once or not at all; `metadata` is kept beside the root in the file.

        Raises:
            InputError: the path is in object storage.
        """
        path = as_path(path)
        if url := url_of(path):
            raise InputError(f"'{url}': a manifest is written as a file: save it here, and copy it there")
        root = self.root
        if self.source is not None and not root.is_absolute():  # of a loaded one it is relative to the working folder
            root = Path(os.path.relpath(root, path.parent))
        notes = {"version": FORMAT_VERSION, "root": str(root), **metadata}
        table = self.table.replace_schema_metadata({METADATA_KEY: json.dumps(notes).encode()})
        path.parent.mkdir(parents=True, exist_ok=True)
        write_table(table, path)

    @classmethod
    def load(cls, path: str | Path, root: str | Path | None = None) -> "Manifest":
        """Read a manifest; `root` says where its videos lie now, if not where they were indexed.

        Raises:
            InputError: no such file, not a manifest, or one of another version.
        """
        path = as_path(path)
        if url := url_of(path):
            try:
                return cls._read(on_disk(path), path, root)
            except FileNotFoundError:
                raise InputError(f"no manifest at '{url}': make a store there with `python tools/ingest.py`") from None
        if path.is_dir():
            raise InputError(
                f"'{path}' is a folder: where it is a large manifest, name the files that it was joined of"
            )
        if not path.is_file():
            raise InputError(
                f"no manifest at '{path}': make one with `python tools/index_dataset.py FOLDER --out {shlex.quote(str(path))}`"
            )
        return cls._read(path, path, root)

    @classmethod
    def _read(cls, file: Path, path: Path, root: Path | None) -> "Manifest":
        """The manifest of a file of this machine that was found at `path`."""
        try:
            table = read_table(file)
        except (pa.ArrowException, ValueError, OSError) as error:
            raise InputError(
                f"manifest '{shown(path)}' is not a readable Parquet file ({error}): index the data set again"
            ) from error
        table, home = checked_table(table, path)
        home = as_path(root if root is not None else home)
        if not home.is_absolute():
            home = path.parent / home
        manifest = cls(table, home, path)
        if url_of(home) and (plain := next((name for name in manifest.paths if not is_stored(name)), None)):
            raise InputError(
                f"manifest '{shown(path)}' lists plain files in object storage (the first is '{plain}'), which are not read "
                "from there: ingest them into a snippet store (tools/ingest.py --out), and name its manifest"
            )
        return manifest

    @classmethod
    def from_rows(cls, rows: Sequence[dict[str, object]], root: Path) -> "Manifest":
        """Build from dictionaries keyed by the column names of `SCHEMA`; those that came later may be missing."""
        return cls(table_of(rows), root)


def _codes(values: pa.ChunkedArray) -> np.ndarray:
    """int32 [V]: equal strings have equal numbers."""
    return values.combine_chunks().dictionary_encode().indices.to_numpy()


def concatenate(manifests: Sequence[Manifest]) -> Manifest:
    """Several manifests as one; every path becomes absolute, so roots may differ."""
    tables = []
    for manifest in manifests:
        root = manifest.root.absolute()  # it may be relative to where the process runs
        paths = pa.array([path_as_text(str(root / path)) for path in manifest.paths], pa.string())
        tables.append(manifest.table.set_column(0, "path", paths))
    table = pa.concat_tables(tables).unify_dictionaries().combine_chunks()
    return Manifest(table, Path("/"))
