"""What a run remembers of its videos: their contents, so that it knows them under any name and in any order.

manifest ──▶ row identities (`engine/data/manifests/contents.py`) ──▶ `Footage`, in the checkpoint
manifest, indexed again ──▶ row identities ──▶ which row is which of the remembered ones ──▶ trained, held out, unknown
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch

from engine.data.manifests.contents import file_identities, row_identities
from engine.data.manifests.manifest import Manifest

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
