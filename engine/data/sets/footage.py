"""What a run remembers of its videos: their contents, so that it knows them under any name and in any order.

manifest ──▶ file identities (contents) ──▶ row identities (file, segment, class) ──▶ `Footage`, in the checkpoint
manifest, indexed again ──▶ row identities ──▶ which row is which of the remembered ones ──▶ trained, held out, unknown
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from engine.data.manifests.manifest import Manifest
from engine.data.sampling.keyed import mixed
from engine.data.store.index import StoreIndex, split_stored_name
from engine.errors import InputError, SourceGone

# Parts of the training data; LEFT_OUT: in none of the others.
TRAINED, HELD_OUT_VIDEO, HELD_OUT_CLASS, LEFT_OUT = range(4)
REARRANGED = "the manifests list the videos of this run in another order or by other names: it goes on as it was"


@dataclass(frozen=True)
class Footage:
    """The training data of a run, row by row in their order.

    rows: int64 [V], file, segment and class of each row. files: int64 [V], the contents of its file. part: uint8 [V].
    before: int64 [P], contents of the files that the weights it started from were trained on.

    Of a large manifest `rows` are digests of its files of rows, and `files` and `part` are empty: what it trained on and held
    out follows from these and the config.
    """

    rows: np.ndarray
    files: np.ndarray
    part: np.ndarray
    before: np.ndarray

    @classmethod
    def of(cls, manifest: Manifest, part: np.ndarray) -> Self:
        """As it is now; nothing is known of starting weights."""
        files = file_identities(manifest)
        return cls(row_identities(manifest, files), files, part.astype(np.uint8), np.zeros(0, np.int64))

    @classmethod
    def of_large(cls, digests: Sequence[int]) -> Self:
        """Of a large manifest, by the digests of its parts in their order."""
        return cls(np.array(digests, np.int64), np.zeros(0, np.int64), np.zeros(0, np.uint8), np.zeros(0, np.int64))

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self | None:
        """What a checkpoint remembers; None of a run from before runs did."""
        kept = state.get("videos")
        return None if kept is None else cls(**{name: tensor.numpy() for name, tensor in kept.items()})

    def to_state(self) -> dict[str, torch.Tensor]:
        """For a checkpoint."""
        return {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in vars(self).items()}

    @property
    def is_large(self) -> bool:
        """Whether it remembers files of rows, and not each row."""
        return len(self.part) < len(self.rows)

    @property
    def unit(self) -> str:
        """What its rows, and their `difference`, count."""
        return " files of rows" if self.is_large else ""

    @property
    def trained_files(self) -> np.ndarray:
        """int64, ascending: contents of all files that the weights have seen."""
        return np.unique(np.concatenate([self.files[self.part == TRAINED], self.before]))

    def only(self, *parts: int) -> "Footage":
        """Without the rows of the other parts, where it knows rows."""
        if self.is_large:
            return self
        kept = np.isin(self.part, parts)
        return Footage(self.rows[kept], self.files[kept], self.part[kept], self.before)

    def difference(self, other: "Footage") -> tuple[int, int]:
        """How many rows of this one the other has not, and how many of the other this one has not.

        Of large manifests all of them where their order is another: nothing tells which row is now where.
        """
        if self.is_large and sorted(self.rows) == sorted(other.rows) and not np.array_equal(self.rows, other.rows):
            return len(self.rows), len(other.rows)
        ours, theirs = Counter(self.rows.tolist()), Counter(other.rows.tolist())
        return (ours - theirs).total(), (theirs - ours).total()

    def is_rearranged(self, now: "Footage", *, drawn: bool) -> bool:
        """Whether a run must go by what it remembers, this, since its manifests list the same videos `now` in another way.

        Args:
            drawn: a part of the videos was drawn by their order, so that others may be there now.
        """
        if self.is_large or now.is_large:
            return False
        is_same = np.array_equal(self.rows, now.rows) and np.array_equal(self.part, now.part)
        return not is_same and (drawn or not any(self.difference(now)))

    def find(self, manifest: Manifest) -> np.ndarray:
        """int64 [V]: for each remembered row the row of `manifest` that it is now, -1 where it is gone; of equal ones in turn."""
        waiting: dict[int, list[int]] = defaultdict(list)
        for place, identity in enumerate(row_identities(manifest, file_identities(manifest)).tolist()):
            waiting[identity].append(place)
        for places in waiting.values():
            places.reverse()
        found = (waiting[identity].pop() if waiting[identity] else -1 for identity in self.rows.tolist())
        return np.fromiter(found, np.int64, len(self.rows))


def file_identities(manifest: Manifest) -> np.ndarray:
    """int64 [V]: what tells the file of each row from others: its contents.

    Where a manifest does not know them: of a store the checksum of the stored video, else where the file lies and its size.
    """
    known = manifest.table.column("content_hash")
    identities = known.fill_null(0).to_numpy().copy()
    unknown = np.flatnonzero(known.is_null().to_numpy())
    if not len(unknown):
        return identities
    part = manifest.table.select(["path", "file_bytes"]).take(unknown)
    root, indices = str(manifest.root.absolute()), {}
    for place, path, size in zip(unknown, *(column.to_pylist() for column in part.columns), strict=True):
        name = f"{root.rstrip('/')}/{path}" if not path.startswith("/") else path
        identities[place] = digest_of(_stored_bytes(name, indices) or f"file {size} {name}")
    return identities


def _stored_bytes(name: str, indices: dict[str, StoreIndex | None]) -> str | None:
    """What a store's index says of a video's bytes; None for a plain file, or without the index."""
    stored = split_stored_name(name)
    if stored is None:
        return None
    folder, number = stored
    if folder not in indices:
        indices[folder] = None
        try:
            indices[folder] = StoreIndex(Path(folder))
        except SourceGone:
            raise
        except InputError:
            pass
    index = indices[folder]
    if index is None or number >= len(index):
        return None
    entry = index[number]
    return f"store {entry.crc32} {entry.num_bytes} {entry.num_frames} {entry.width} {entry.height}"


def rows_of_files(manifest: Manifest, files: np.ndarray) -> np.ndarray:
    """int64, ascending: the rows whose files have one of these contents; of a large manifest those whose contents it tells."""
    if not len(files):
        return np.zeros(0, np.int64)
    if not manifest.is_large:
        return np.flatnonzero(np.isin(file_identities(manifest), files))
    may_be, low = np.zeros(2**20, bool), 2**20 - 1  # by the lowest bits, which rules out most rows at once
    may_be[files & low] = True
    found = []
    for first, contents in manifest.known_contents():
        places = np.flatnonzero(may_be[contents & low])
        found.append(first + places[np.isin(contents[places], files) & (contents[places] != 0)])
    return np.concatenate(found) if found else np.zeros(0, np.int64)


def digest(manifest: Manifest) -> str:
    """Of all rows in any order: equal for the same videos, segments and classes."""
    rows = np.sort(row_identities(manifest, file_identities(manifest)))
    return hashlib.blake2b(rows.astype("<i8").tobytes(), digest_size=8).hexdigest()


def row_identities(manifest: Manifest, files: np.ndarray) -> np.ndarray:
    """int64 [V]: file, segment and class of each row; equal for what shows the same under the same name of a class."""
    of_class = np.array([digest_of(name) for name in manifest.classes], np.int64)
    return mixed(footage_identities(manifest, files), of_class[manifest.class_index])


def footage_identities(manifest: Manifest, files: np.ndarray) -> np.ndarray:
    """int64 [V]: file and segment of each row; equal for what shows the same.

    A segment is named by its seconds, which a store and another frame count leave as they are, else by its frames.
    """
    column = {
        name: manifest.table.column(name).to_numpy()
        for name in ("first_frame", "num_frames", "file_frames", "segment_start", "segment_end")
    }
    in_seconds = ~(np.isnan(column["segment_start"]) & np.isnan(column["segment_end"]))
    is_whole = ~in_seconds & (column["first_frame"] == 0) & (column["num_frames"] == column["file_frames"])
    found = files
    for frames, seconds in (("first_frame", "segment_start"), ("num_frames", "segment_end")):
        bits = column[seconds].astype(np.float32).view(np.int32).astype(np.int64)
        place = np.where(in_seconds, bits + 1, -1 - column[frames].astype(np.int64))
        found = mixed(found, np.where(is_whole, 0, place))
    return found


def digest_of(text: str) -> int:
    """A text as a number of 64 bits."""
    return int.from_bytes(
        hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).digest(), "little", signed=True
    )
