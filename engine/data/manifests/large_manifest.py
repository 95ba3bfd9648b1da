"""A manifest of any number of rows: a folder of Arrow files that are mapped into memory; a row is read when it is asked for.

    Parquet manifests ──tools/join_manifests.py──▶ FOLDER/part-00000.arrow, ... ──▶ `LargeManifest` (`open_large`)

What has to look at all rows does so file by file (`large_part.py`), several at a time. Where few rows are left of it, it becomes a
manifest like any other.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from shlex import quote
from typing import TypeVar

import numpy as np
import pyarrow as pa

from engine.data.batch import Video
from engine.data.config import SourceConfig
from engine.data.manifests.large_part import Part, read_part
from engine.data.manifests.manifest import Manifest, concatenate
from engine.data.manifests.manifest_table import path_of_text, video_of
from engine.data.manifests.row_set import RowSet
from engine.data.sampling.keyed import keys
from engine.errors import InputError
from engine.files.addresses import url_of
from engine.machine import allow_files

FEW_ROWS = 200_000  # so many are taken into memory
PATTERN = "part-*.arrow"
_THREADS = 8  # that read files; more than most disks need to be busy

A = TypeVar("A")
B = TypeVar("B")


def _of_each(function: Callable[[A], B], items: Sequence[A]) -> list[B]:
    """What a function gives for each of several files, or parts; some at a time."""
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(function, items))


class LargeManifest(Manifest):
    """Manifests of any size, one after the other. What needs memory for each row (`table`, `paths`, `num_frames`, `class_index`)
    is made when it is asked for: training asks for single rows."""

    is_large = True

    def __init__(self, parts: Sequence[Part], source: Path | None) -> None:
        self.parts = tuple(part for part in parts if len(part))
        self.source = source
        self.ends = np.cumsum([len(part) for part in self.parts])  # int64 [P]: the row behind the last of each part
        self._starts = self.ends - [len(part) for part in self.parts]
        names = _of_each(lambda part: part.classes, self.parts)
        self.classes = tuple(sorted({name for each in names for name in each}))
        rank = {name: index for index, name in enumerate(self.classes)}
        self._class_of_code = [
            np.array([rank.get(name, -1) for name in part.names("class_name")], np.int64) for part in self.parts
        ]
        roots = {part.root for part in self.parts}
        self.root = roots.pop() if len(roots) == 1 else Path("/")

    def __len__(self) -> int:
        return int(self.ends[-1]) if self.parts else 0

    @functools.cached_property
    def is_remote(self) -> bool:
        """As of a manifest; of videos with absolute paths one of each kind is looked at."""
        return any(url_of(part.root) for part in self.parts) or any(url_of(each.path) for each, _ in self.kind_counts())

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
        return np.concatenate([part.taken(part.whole("num_frames").to_numpy()) for part in self.parts])

    @functools.cached_property
    def class_index(self) -> np.ndarray:
        pairs = zip(self.parts, self._class_of_code, strict=True)
        return np.concatenate([lookup[part.coded("class_name")[0]] for part, lookup in pairs])

    @functools.cached_property
    def _kept(self) -> tuple[np.ndarray, RowSet | None]:
        """Its rows as numbers, ascending, of which each part has its own: the first of each part, int64 [P], and which numbers
        are rows; None: all."""
        if all(part.kept is None for part in self.parts):
            return self._starts, None
        kept = [RowSet.of(np.ones(len(part), bool)) if part.kept is None else part.kept for part in self.parts]
        return np.cumsum([0, *(each.room for each in kept[:-1])]), RowSet.joined(kept)

    def _find(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """int64 [N] each: the part of each row, and its place in the whole file of it."""
        firsts, kept = self._kept
        numbers = rows if kept is None else kept.at(rows)
        which = np.searchsorted(firsts, numbers, side="right") - 1
        return which, numbers - firsts[which]

    def _by_part(self, rows: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Each part that has some of these rows: their places in the whole file of it, and in `rows`."""
        which, places = self._find(rows)
        order = np.argsort(which, kind="stable")
        first = np.flatnonzero(np.diff(which[order], prepend=-1))
        for mine in np.split(order, first[1:]) if len(rows) else ():
            yield int(which[mine[0]]), places[mine], mine

    def frames_of(self, rows: np.ndarray) -> np.ndarray:
        lengths, found = self._lengths, np.empty(len(rows), np.int32)
        for index, places, mine in self._by_part(rows):
            found[mine] = lengths[index][places]
        return found

    @functools.cached_property
    def _lengths(self) -> list[np.ndarray]:
        for part in self.parts:
            part.whole("num_frames")  # the disk has all to do before the first is waited for
        return [part.lengths for part in self.parts]

    def classes_of(self, rows: np.ndarray) -> np.ndarray:
        found = np.empty(len(rows), np.int64)
        for index, places, mine in self._by_part(rows):
            found[mine] = self._class_of_code[index][self.parts[index].codes[places]]
        return found

    def path(self, row: int) -> str:
        ((index, place),) = np.transpose(self._find(np.array([row]))).tolist()
        part = self.parts[index]
        path = path_of_text(part.columns["path"][place].as_py())
        return path if part.root == self.root else str(part.root / path)

    def video(self, row: int) -> Video:
        """See `Manifest`.

        Raises:
            InputError: the row is over the limits of its source, or leaves its root.
        """
        return self.videos([row])[0]

    def videos(self, rows: Sequence[int]) -> list[Video]:
        """See `Manifest`.

        Raises:
            InputError: a row is over the limits of its source, or leaves its root.
        """
        which, places = self._find(np.asarray(rows, np.int64))
        found = [(self.parts[index], place) for index, place in zip(which.tolist(), places.tolist(), strict=True)]
        for part, place in found:
            part.expect(place)
        for part, place in found:
            part.expect_lists(place)
        return [part.video(place) for part, place in found]

    def coded(self, column: str) -> Iterator[tuple[np.ndarray, list[str]]]:
        for part in self.parts:
            yield part.coded(column)

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
        spans = zip(self.parts, self._starts.tolist(), self.ends.tolist(), strict=True)
        chosen = _of_each(lambda span: span[0].select(rows[span[1] : span[2]]), list(spans))
        return LargeManifest(chosen, self.source)

    def divided(self, side_of: Callable[[Part], np.ndarray], count: int) -> list[list[Part]]:
        """For each of so many sides its share of each part, in their order; a share may have no row.

        Args:
            side_of: gives the side of each row of a part, uint8 [len(part)].
        """

        def shares(part: Part) -> list[Part]:
            sides = side_of(part)
            return [part.select(sides == side) for side in range(count)]

        return [list(side) for side in zip(*_of_each(shares, self.parts), strict=True)]

    def limited(self, limits: SourceConfig) -> "LargeManifest":
        """The same, each row held against the limits of a source when it is read."""
        return LargeManifest([dataclasses.replace(part, limits=limits) for part in self.parts], self.source)

    def known_contents(self) -> Iterator[tuple[int, np.ndarray]]:
        """Part by part its first row, and the contents of the files of its rows, int64; 0 where they are not known."""
        for first, part in zip(self._starts.tolist(), self.parts, strict=True):
            if "content_hash" in part.columns:
                yield first, part.taken(part.whole("content_hash").fill_null(0).to_numpy())

    def is_drawn(self, share: float, seed: int, purpose: int) -> np.ndarray:
        """bool [V]: true with the chance `share`, drawn for each source, so that it is the same for all rows of one.

        Args:
            seed, purpose: what the draw is a function of, see `keys`; the rows of a smaller share are among those of a larger.
        """
        (key,) = keys(seed, count=1, purpose=purpose)
        return np.concatenate(_of_each(lambda part: part.is_drawn(share, key), self.parts))


def read_manifest(path: Path, root: Path | None = None) -> Manifest:
    """A manifest of either form.

    Raises:
        InputError: as `Manifest.load` and `open_large`.
    """
    return open_large(path, root) if path.is_dir() else Manifest.load(path, root)


def open_large(folder: Path, root: Path | None = None) -> LargeManifest:
    """Open a folder that `tools/join_manifests.py` wrote.

    Args:
        root: where its videos lie now, if not where they were indexed; as of a file, relative to where the folder lies.

    Raises:
        InputError: there is no such manifest in it, or a file of it cannot be read.
    """
    files = sorted(folder.glob(PATTERN))
    if not files:
        raise InputError(f"'{folder}' is no large manifest (no {PATTERN}): {_what_to_name(folder)}")
    allow_files(2 * len(files))  # each stays open, and so does its map
    return LargeManifest(_of_each(lambda file: read_part(file, folder, root), files), folder)


def _what_to_name(folder: Path) -> str:
    if any(folder.glob("*.parquet")):
        return "name a file, or make one with tools/join_manifests.py"
    index = f"python tools/index_dataset.py {quote(str(folder))} --out NAME.parquet"
    return f"if it is a folder of videos, index them with {index}, and name that file"
