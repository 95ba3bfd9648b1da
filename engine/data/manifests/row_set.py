"""Some rows of many, an eighth of a byte for each of all: which of them is the first, the second, and so on."""

from collections.abc import Sequence
from typing import Self

import numpy as np

_BLOCK = 256  # rows whose bits are looked through for one


class RowSet:
    """Some of the rows 0 .. `size` - 1.

    bits: uint8 [B, 32], a row a bit, from the lowest on; 0 past the last row.
    """

    def __init__(self, bits: np.ndarray, size: int) -> None:
        self.bits, self.size = bits, size
        counts = np.bitwise_count(bits.view(np.uint64)).sum(axis=1, dtype=np.int64)
        self._ends = np.cumsum(counts)  # of the blocks: how many of the rows there are up to there
        self._starts = self._ends - counts

    @classmethod
    def of(cls, is_there: np.ndarray) -> Self:
        """The rows where bool [V] is true."""
        bits = np.zeros((-(-len(is_there) // _BLOCK), _BLOCK // 8), np.uint8)
        packed = np.packbits(is_there, bitorder="little")
        bits.reshape(-1)[: len(packed)] = packed
        return cls(bits, len(is_there))

    @classmethod
    def joined(cls, sets: Sequence[Self]) -> Self:
        """Several sets one after the other; each begins with a block, after the `room` of those before it."""
        return cls(np.concatenate([each.bits for each in sets]), sum(each.room for each in sets))

    @property
    def room(self) -> int:
        """Rows with those that fill the last block."""
        return len(self.bits) * _BLOCK

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def mask(self) -> np.ndarray:
        """bool [V]: which rows are in it."""
        return np.unpackbits(self.bits.reshape(-1), count=self.size, bitorder="little").view(bool)

    def at(self, places: np.ndarray) -> np.ndarray:
        """int64 [N]: the rows at some places among its own, int64 [N], each below `len`."""
        block, each = np.searchsorted(self._ends, places, side="right"), np.arange(len(places))
        words, left = self.bits.view(np.uint64)[block], places - self._starts[block]
        counts = np.bitwise_count(words).astype(np.int64)
        ends = np.cumsum(counts, axis=1)
        word = (ends > left[:, None]).argmax(axis=1)
        left -= (ends - counts)[each, word]
        bits = np.unpackbits(words[each, word][:, None].view(np.uint8), axis=1, bitorder="little")
        bit = (np.cumsum(bits, axis=1, dtype=np.uint8) > left[:, None]).argmax(axis=1)
        return block * _BLOCK + word * 64 + bit
