"""One file of a large manifest: up to a million rows in the columns of a manifest, with what would else be found by reading them
all, which is the names that there are, the kinds of its videos, and a digest of its rows."""

import dataclasses
import functools
import json
import os
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa

from engine.data.batch import Video
from engine.data.config import SourceConfig
from engine.data.manifests.manifest import Manifest
from engine.data.manifests.manifest_table import LATER, METADATA_KEY, SCHEMA, VIDEO_COLUMNS, video_of
from engine.data.manifests.mapped_file import MappedFile
from engine.data.manifests.row_set import RowSet
from engine.data.manifests.trust import check_inside, check_limits, check_row
from engine.data.sampling.keyed import mixed
from engine.errors import InputError
from engine.files.addresses import as_path
from engine.semantics.words import composed

_AT_ONCE = 2**16  # rows that are gone over at a time, so that they stay in the processor's cache
_ENDS = 2**16  # bytes at either end of a file, where its schema, names and the places of its columns are
FORMAT = "large manifest 1"
SOURCE = "source_hash"  # int64: equal for rows of one source of videos, see `video_sources.py`


@dataclass(frozen=True)
class Part:
    """Some rows of one file of a large manifest.

    table: all of its rows, a chunk a column. digest: of them. kinds: a row of each kind of video, and how many there are.
    kept: the rows that are taken; None: all. limits: what each row is held against when it is read. file: what the table is
    mapped from; None: it is in memory.
    """

    table: pa.Table
    root: Path
    source: Path
    digest: int
    kinds: tuple[tuple[int, int], ...]
    kept: RowSet | None = None
    limits: SourceConfig | None = None
    file: MappedFile | None = None

    def __len__(self) -> int:
        return self.table.num_rows if self.kept is None else len(self.kept)

    @functools.cached_property
    def columns(self) -> dict[str, pa.Array]:
        """The columns of the whole file, for single rows; those that no row had are missing."""
        return {name: self.table.column(name).chunk(0) for name in self.table.column_names}

    def whole(self, name: str) -> pa.Array:
        """A column of the whole file, for all rows: they are read ahead."""
        column = self.columns[name]
        if self.file is not None:
            for buffer in filter(None, column.buffers()):
                self.file.expect(self.file.place_of(buffer), buffer.size)
        return column

    def names(self, name: str) -> list[str]:
        """The values of a column of names, by their codes; of classes as `composed` has them, so that two may be equal."""
        names = self.columns[name].dictionary.to_pylist()
        return list(map(composed, names)) if name == "class_name" else names

    def coded(self, name: str) -> tuple[np.ndarray, list[str]]:
        """A column of names: int32 [len(self)] codes of the rows that are taken, and the names that they are indices into."""
        return self.taken(self.whole(name).indices.to_numpy()), self.names(name)

    @functools.cached_property
    def codes(self) -> np.ndarray:
        """int32: the class of each row of the whole file, as an index into its `names`."""
        return self.columns["class_name"].indices.to_numpy()

    @functools.cached_property
    def classes(self) -> list[str]:
        """Of the rows that are taken."""
        names = self.names("class_name")
        if self.kept is None:
            return names
        is_there = np.zeros(len(names), bool)
        for codes in self.blocks("class_name"):
            is_there[codes] = True
            if is_there.all():  # as after the first thousands of most
                break
        return [name for name, found in zip(names, is_there.tolist(), strict=True) if found]

    def taken(self, values: np.ndarray) -> np.ndarray:
        """Of values of the whole file those of the rows that are taken."""
        return values if self.kept is None else values[self.kept.mask()]

    def blocks(self, name: str) -> Iterator[np.ndarray]:
        """A column of numbers, or of codes, of the rows that are taken, some thousands at a time: read, and not mapped."""
        column = self.columns[name]
        column = column.indices if pa.types.is_dictionary(column.type) else column
        mask = None if self.kept is None else self.kept.mask()
        for first in range(0, len(column), _AT_ONCE):
            values = column[first : first + _AT_ONCE].to_numpy()
            if self.file is not None:
                start, values = self.file.place_of(column.buffers()[1]) + first * values.itemsize, np.empty_like(values)
                self.file.read(start, values)
            yield values if mask is None else values[mask[first : first + _AT_ONCE]]

    @functools.cached_property
    def lengths(self) -> np.ndarray:
        """int32: frames of each row of the whole file; all of them are read and mapped, since an epoch comes to each page."""
        column = self.whole("num_frames")
        if self.file is not None:
            values = column.buffers()[1]
            self.file.touch(self.file.place_of(values), values.size)
        return column.to_numpy()

    def select(self, is_kept: np.ndarray) -> Self:
        """Those of its rows where bool [len(self)] is true."""
        if is_kept.all():
            return self
        if self.kept is not None:
            of_file = self.kept.mask()
            of_file[of_file] = is_kept
            is_kept = of_file
        return dataclasses.replace(self, kept=RowSet.of(is_kept))

    def is_drawn(self, share: float, key: np.uint64) -> np.ndarray:
        """bool [len(self)]: see `LargeManifest.is_drawn`."""
        found, first = np.empty(len(self), bool), 0
        for sources in self.blocks(SOURCE):
            drawn = mixed(sources, key).view(np.uint64)
            found[first : first + len(drawn)] = drawn < round(share * 2**53) * 2**11  # of each its highest 53 bits
            first += len(drawn)
        return found

    def video(self, place: int) -> Video:
        """A row of the whole file.

        Raises:
            InputError: it is over the limits, or leaves its root.
        """
        video = video_of(self.columns, self.root, place)
        if self.limits is not None:
            check_row(video, self.columns["duration"][place].as_py(), self.source, self.root, self.limits)
        return video

    def expect(self, place: int) -> None:
        """Let the system read what `video` and `codes` are going to ask of a row of the whole file, but for its texts and lists."""
        if self.file is not None:
            for start, bits in self._layout[0]:
                self.file.expect_page(start + place * bits // 8)

    def expect_lists(self, place: int) -> None:
        """The same for its texts and lists, whose places are in the pages that `expect` asked for."""
        if self.file is not None:
            for offsets, start, size in self._layout[1]:
                first, end = offsets[place : place + 2].tolist()
                if first < end:
                    self.file.expect_page(start + first * size)
                    self.file.expect_page(start + end * size - 1)

    @functools.cached_property
    def _layout(self) -> tuple[list[tuple[int, int]], list[tuple[np.ndarray, int, int]]]:
        """What a row is read from: where in the file, and how many bits a row; and of texts and lists the int32 offsets, the
        place of what they point into, and the bytes of each of that."""
        fixed, lists = [], []
        for name in (*VIDEO_COLUMNS, "class_name", "duration"):
            if name not in self.columns:
                continue
            column = self.columns[name]
            valid, values, *rest = column.buffers()
            is_list = pa.types.is_list(column.type)
            has_offsets = is_list or pa.types.is_string(column.type)
            bits = 32 if has_offsets or pa.types.is_dictionary(column.type) else column.type.bit_width
            fixed += [(self.file.place_of(buffer), width) for buffer, width in ((valid, 1), (values, bits)) if buffer]
            if has_offsets:
                size = column.type.value_type.bit_width // 8 if is_list else 1
                lists.append((np.frombuffer(values, np.int32), self.file.place_of(rest[-1]), size))
        return fixed, lists

    def loaded(self) -> Manifest:
        """The rows that are taken, in memory; checked where they are to be."""
        with self.file.gone_over() if self.file is not None else nullcontext():
            table = self.table if self.kept is None else self.table.take(pa.array(np.flatnonzero(self.kept.mask())))
            table = pa.table([_column(table, field) for field in SCHEMA], schema=SCHEMA)
            manifest = Manifest(table.combine_chunks(), self.root, self.source)
        if self.limits is not None:
            check_limits(manifest, self.limits)
            if not self.limits.allow_outside:
                check_inside(manifest)
        return manifest


def _column(table: pa.Table, field: pa.Field) -> pa.ChunkedArray | pa.Array:
    return table.column(field.name) if field.name in table.column_names else pa.nulls(table.num_rows, field.type)


def read_part(path: Path, folder: Path, root: Path | None = None) -> Part:
    """One file of a large manifest, mapped into memory.

    Args:
        root: where its videos lie, relative to where `folder` lies; default: as it says, relative to `folder`.

    Raises:
        InputError: it cannot be read, or is something else.
    """
    try:
        file = MappedFile(path)
        for first in (0, max(0, file.buffer.size - _ENDS)):
            file.expect(first, _ENDS)
        table = pa.ipc.open_file(pa.BufferReader(file.buffer)).read_all()
        table.validate()
        if table.num_rows == 0 or table.column(0).num_chunks != 1:
            raise ValueError("it is not one batch of rows")
        notes = json.loads((table.schema.metadata or {}).get(METADATA_KEY, b"{}"))
        if notes.get("version") != FORMAT:
            raise ValueError("another tool or version wrote it")
        found = dict(zip(table.column_names, table.schema.types, strict=True))
        wanted = {field.name: field.type for field in SCHEMA if field.name in found or field.name not in LATER}
        wrong = [name for name, kind in (wanted | {SOURCE: pa.int64()}).items() if found.get(name) != kind]
        wrong += [name for name in found if name not in LATER and table.column(name).null_count]
        if wrong:
            raise ValueError(f"missing or wrong columns: {', '.join(wrong)}")
        kinds = tuple((int(place), int(count)) for place, count in notes["kinds"])
        digest, noted = int(notes["digest"]), folder.resolve() / notes["root"]
    except (ValueError, KeyError, TypeError, pa.ArrowException, OSError) as error:
        raise InputError(f"'{path}' is no part of a large manifest ({error}): join the manifests again") from error
    home = Path(os.path.normpath(noted)) if root is None else folder.absolute().parent / as_path(root)
    return Part(table, home, folder, digest, kinds, file=file)
