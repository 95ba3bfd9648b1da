"""A manifest of any number of rows: a folder of Arrow files that are mapped into memory; a row is read when it is asked for.

    Parquet manifests ──tools/join_manifests.py──▶ FOLDER/part-00000.arrow, ... ──▶ `LargeManifest` (`open_large`)

Each file holds up to a million rows in the columns of a manifest, with what would else be found by reading them all: the
names that there are, the kinds of its videos, and a digest of its rows. Where few rows are left of it, it becomes a manifest
like any other.
"""

import dataclasses
import functools
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa

from engine.data.batch import Video
from engine.data.config import SourceConfig
from engine.data.keyed import keys, mixed
from engine.data.manifest import LATER, METADATA_KEY, SCHEMA, Manifest, concatenate, path_of_text, video_of
from engine.data.trust import check_inside, check_limits, check_row
from engine.errors import InputError

FEW_ROWS = 200_000  # so many are taken into memory
FORMAT = "large manifest 1"
PATTERN = "part-*.arrow"
SOURCE = "source_hash"  # int64: equal for rows of one source of videos: its group, or else the contents of its file


@dataclass(frozen=True)
class Part:
    """Some rows of one file of a large manifest.

    table: all of its rows, a chunk a column. digest: of them. kinds: a row of each kind of video, and how many there are.
    places: uint32, ascending: the rows that are taken; None: all. limits: what each row is held against when it is read.
    """

    table: pa.Table
    root: Path
    source: Path
    digest: int
    kinds: tuple[tuple[int, int], ...]
    places: np.ndarray | None = None
    limits: SourceConfig | None = None

    def __len__(self) -> int:
        return self.table.num_rows if self.places is None else len(self.places)

    @functools.cached_property
    def columns(self) -> dict[str, pa.Array]:
        """The columns of the whole file; those that no row had are missing."""
        return {name: self.table.column(name).chunk(0) for name in self.table.column_names}

    def numbers(self, name: str) -> np.ndarray:
        """A column of numbers of the whole file, without a copy."""
        return self.columns[name].to_numpy()

    def names(self, name: str) -> list[str]:
        """The different values of a column of names."""
        return self.columns[name].dictionary.to_pylist()

    @functools.cached_property
    def codes(self) -> np.ndarray:
        """int32: the class of each row of the whole file, as an index into its `names`."""
        return self.columns["class_name"].indices.to_numpy()

    @functools.cached_property
    def classes(self) -> list[str]:
        """Of the rows that are taken."""
        names = self.names("class_name")
        if self.places is None:
            return names
        return [names[index] for index in np.flatnonzero(np.bincount(self.taken(self.codes), minlength=len(names)))]

    def taken(self, values: np.ndarray) -> np.ndarray:
        """Of values of the whole file those of the rows that are taken."""
        return values if self.places is None else values[self.places]

    def select(self, is_kept: np.ndarray) -> Self:
        """Those of its rows where bool [len(self)] is true."""
        if is_kept.all():
            return self
        places = np.flatnonzero(is_kept).astype(np.uint32)
        return dataclasses.replace(self, places=places if self.places is None else self.places[places])

    def video(self, place: int) -> Video:
        """A row of the whole file.

        Raises:
            InputError: it is over the limits, or leaves its root.
        """
        video = video_of(self.columns, self.root, place)
        if self.limits is not None:
            check_row(video, self.columns["duration"][place].as_py(), self.source, self.root, self.limits)
        return video

    def loaded(self) -> Manifest:
        """The rows that are taken, in memory; checked where they are to be."""
        table = self.table if self.places is None else self.table.take(pa.array(self.places))
        table = pa.table([_column(table, field) for field in SCHEMA], schema=SCHEMA)
        manifest = Manifest(table.combine_chunks(), self.root, self.source)
        if self.limits is not None:
            check_limits(manifest, self.limits)
            if not self.limits.allow_outside:
                check_inside(manifest)
        return manifest


def _column(table: pa.Table, field: pa.Field) -> pa.ChunkedArray | pa.Array:
    return table.column(field.name) if field.name in table.column_names else pa.nulls(table.num_rows, field.type)


class LargeManifest(Manifest):
    """Manifests of any size, one after the other. What needs memory for each row (`table`, `paths`, `num_frames`, `class_index`)
    is made when it is asked for: training asks for single rows."""

    is_large = True

    def __init__(self, parts: Sequence[Part], source: Path | None) -> None:
        self.parts = tuple(part for part in parts if len(part))
        self.source = source
        self._ends = np.cumsum([len(part) for part in self.parts])
        self._starts = self._ends - [len(part) for part in self.parts]
        self.classes = tuple(sorted({name for part in self.parts for name in part.classes}))
        rank = {name: index for index, name in enumerate(self.classes)}
        self._class_of_code = [
            np.array([rank.get(name, -1) for name in part.names("class_name")], np.int64) for part in self.parts
        ]
        roots = {part.root for part in self.parts}
        self.root = roots.pop() if len(roots) == 1 else Path("/")

    def __len__(self) -> int:
        return int(self._ends[-1]) if self.parts else 0

    def settled(self) -> Manifest:
        """Itself, or where few rows are left a manifest in memory.

        Raises:
            InputError: those are over their limits, or leave their root.
        """
        return self if len(self) >= FEW_ROWS else self._loaded

    @functools.cached_property
    def _loaded(self) -> Manifest:
        loaded = [part.loaded() for part in self.parts]
        if len({each.root for each in loaded}) > 1:
            return concatenate(loaded)
        table = pa.concat_tables([each.table for each in loaded]).unify_dictionaries().combine_chunks()
        return Manifest(table, self.root, self.source)

    @property
    def table(self) -> pa.Table:
        return self._loaded.table

    @functools.cached_property
    def num_frames(self) -> np.ndarray:
        return np.concatenate([part.taken(part.numbers("num_frames")) for part in self.parts])

    @functools.cached_property
    def class_index(self) -> np.ndarray:
        pairs = zip(self.parts, self._class_of_code, strict=True)
        return np.concatenate([lookup[part.taken(part.codes)] for part, lookup in pairs])

    def _places(self, rows: np.ndarray) -> Iterator[tuple[int, int]]:
        """The part of each row, and its place in the whole file of it."""
        which = np.searchsorted(self._ends, rows, side="right")
        for index, place in zip(which.tolist(), (rows - self._starts[which]).tolist(), strict=True):
            places = self.parts[index].places
            yield index, place if places is None else int(places[place])

    def frames_of(self, rows: np.ndarray) -> np.ndarray:
        views = self._frames
        return np.array([views[index][place] for index, place in self._places(rows)], np.int32)

    @functools.cached_property
    def _frames(self) -> list[np.ndarray]:
        return [part.numbers("num_frames") for part in self.parts]

    def classes_of(self, rows: np.ndarray) -> np.ndarray:
        found = [self._class_of_code[index][self.parts[index].codes[place]] for index, place in self._places(rows)]
        return np.array(found, np.int64)

    def path(self, row: int) -> str:
        ((index, place),) = self._places(np.array([row]))
        part = self.parts[index]
        path = path_of_text(part.columns["path"][place].as_py())
        return path if part.root == self.root else str(part.root / path)

    def video(self, row: int) -> Video:
        """See `Manifest`.

        Raises:
            InputError: the row is over the limits of its source, or leaves its root.
        """
        ((index, place),) = self._places(np.array([row]))
        return self.parts[index].video(place)

    def coded(self, column: str) -> Iterator[tuple[np.ndarray, list[str]]]:
        for part in self.parts:
            yield part.taken(part.columns[column].indices.to_numpy()), part.names(column)

    def kind_counts(self) -> list[tuple[Video, int]]:
        """As of a manifest; of a part of which not all rows are taken, the counts are those of all."""
        return [(video_of(part.columns, part.root, place), count) for part in self.parts for place, count in part.kinds]

    def select(self, rows: np.ndarray) -> "LargeManifest":
        """The rows named by a boolean array, or by ascending indices."""
        if rows.dtype != bool:
            if len(rows) and (np.diff(rows) <= 0).any():
                raise ValueError("rows of a large manifest are taken in their order")
            indices, rows = rows, np.zeros(len(self), bool)
            rows[indices] = True
        spans = zip(self.parts, self._starts.tolist(), self._ends.tolist(), strict=True)
        return LargeManifest([part.select(rows[start:end]) for part, start, end in spans], self.source)

    def limited(self, limits: SourceConfig) -> "LargeManifest":
        """The same, each row held against the limits of a source when it is read."""
        return LargeManifest([dataclasses.replace(part, limits=limits) for part in self.parts], self.source)

    def known_contents(self) -> Iterator[tuple[int, np.ndarray]]:
        """Part by part its first row, and the contents of the files of its rows, int64; 0 where they are not known."""
        for first, part in zip(self._starts.tolist(), self.parts, strict=True):
            if "content_hash" in part.columns:
                yield first, part.taken(part.columns["content_hash"].fill_null(0).to_numpy())

    def shares(self, seed: int, purpose: int) -> np.ndarray:
        """float32 [V] in [0, 1): a number for each row, drawn for its source, so that rows of one have the same."""
        (key,) = keys(seed, count=1, purpose=purpose)
        drawn = (mixed(part.taken(part.numbers(SOURCE)), key).view(np.uint64) for part in self.parts)
        return np.concatenate([(each >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24) for each in drawn])


def read_manifest(path: Path, root: Path | None = None) -> Manifest:
    """A manifest of either form.

    Raises:
        InputError: as `Manifest.load` and `open_large`.
    """
    return open_large(path, root) if path.is_dir() else Manifest.load(path, root)


def open_large(folder: Path, root: Path | None = None) -> LargeManifest:
    """Open a folder that `tools/join_manifests.py` wrote.

    Args:
        root: where its videos lie now, if not where they were indexed.

    Raises:
        InputError: there is no such manifest in it, or a file of it cannot be read.
    """
    files = sorted(folder.glob(PATTERN))
    if not files:
        raise InputError(
            f"'{folder}' is no large manifest (no {PATTERN}): name a file, or make one with tools/join_manifests.py"
        )
    return LargeManifest([read_part(file, folder, root) for file in files], folder)


def read_part(file: Path, folder: Path, root: Path | None = None) -> Part:
    """One file of a large manifest, mapped into memory.

    Raises:
        InputError: it cannot be read, or is something else.
    """
    try:
        table = pa.ipc.open_file(pa.memory_map(str(file))).read_all()
        notes = json.loads((table.schema.metadata or {}).get(METADATA_KEY, b"{}"))
        if notes.get("version") != FORMAT:
            raise ValueError("another tool or version wrote it")
        found = dict(zip(table.column_names, table.schema.types, strict=True))
        wanted = {field.name: field.type for field in SCHEMA if field.name in found or field.name not in LATER}
        wrong = [name for name, kind in (wanted | {SOURCE: pa.int64()}).items() if found.get(name) != kind]
        if wrong:
            raise ValueError(f"missing or wrong columns: {', '.join(wrong)}")
        kinds = tuple((int(place), int(count)) for place, count in notes["kinds"])
        digest, home = int(notes["digest"]), Path(root or notes["root"])
    except (ValueError, KeyError, TypeError, pa.ArrowException, OSError) as error:
        raise InputError(f"'{file}' is no part of a large manifest ({error}): join the manifests again") from error
    return Part(table, Path(os.path.normpath(folder.resolve() / home)), folder, digest, kinds)
