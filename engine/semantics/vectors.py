"""Words as vectors: look-up by stated case rules, the vocabulary's mean, near spellings of a missing word.

Case: an entry spelt exactly so wins; else the lower-case, the Capitalised, the UPPER-CASE entry, in this
order. GloVe-6B is all lower case. GoogleNews is cased and American (`colors`, `airplane`, and only
`Skyjet`): class names arrive in lower case, and the replacement table gives the spellings it has.
"""

import difflib
import functools
import itertools
import string
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from engine.errors import InputError
from engine.semantics.vector_files import VectorTable, read_installed_glove, read_vector_file

# Which words "the vocabulary's mean" is taken over matters. Rare words (names, numbers, foreign words) lie
# opposite to common ones in GloVe: with all 400,000 words of GloVe-6B-50d the mean cosine between two classes
# of Kinetics-700 *rises* from 0.33 to 0.48 by centring, with the most frequent 20,000 it falls to 0.18
# (100,000: 0.33, 10,000: 0.19, 1,000: 0.34).
CENTRE_WORDS = 20_000
_FREQUENT = 50_000  # near spellings are sought among so many
_NEAR = 3  # of them, at most


class WordVectors:
    """A vocabulary and its vectors.

    source: where it comes from, in a few words. matrix: float32 [V, D], perhaps memory-mapped, most
    frequent words first.
    """

    def __init__(self, source: str, table: VectorTable) -> None:
        self.source = source
        self.matrix = table.vectors
        self.row = {word: row for row, word in enumerate(table.words)}

    def __len__(self) -> int:
        return len(self.row)

    @property
    def dim(self) -> int:
        return self.matrix.shape[1]

    @functools.cached_property
    def mean(self) -> np.ndarray:
        """Mean vector of the `CENTRE_WORDS` most frequent words, float64 [D]."""
        mean = self.matrix[:CENTRE_WORDS].mean(axis=0, dtype=np.float64)
        if not np.isfinite(mean).all():
            raise InputError(
                f"{self.source}: some vectors are not finite, so there is no mean to subtract: set words.centre: no"
            )
        return mean

    def find(self, word: str) -> str | None:
        """The entry for a word by the case rules of this module, or None."""
        for spelling in (word, word.lower(), word.capitalize(), word.upper()):
            if spelling in self.row:
                return spelling
        return None

    def vectors(self, entries: Sequence[str]) -> np.ndarray:
        """Vectors of entries that `find` gave, as stored: float32 [N, D]."""
        return np.asarray(self.matrix[[self.row[entry] for entry in entries]], dtype=np.float32)

    def near_spellings(self, word: str) -> list[str]:
        """Entries one letter away and the best cut into two frequent entries; where there is neither, similar ones.

        The most frequent (or most similar) first, at most three. Takes the same time for any size of vocabulary.
        """
        word = word.lower()
        near = {edit for edit in _edits(word) if edit in self.row}
        cuts = [(word[:index], word[index:]) for index in range(3, len(word) - 2)]
        cuts = [cut for cut in cuts if all(self.row.get(part, _FREQUENT) < _FREQUENT for part in cut)]
        pairs = [" ".join(cut) for cut in sorted(cuts, key=lambda cut: max(self.row[part] for part in cut))]
        if not near and not pairs:
            frequent = itertools.islice(self.row, _FREQUENT)
            similar = [other for other in frequent if other[:1] == word[:1] and abs(len(other) - len(word)) <= 2]
            return difflib.get_close_matches(word, similar, n=_NEAR, cutoff=0.75)
        ranked = sorted(near - {word}, key=self.row.__getitem__)
        return [*ranked[: _NEAR - len(pairs[:1])], *pairs[:1]]


def _edits(word: str) -> Iterator[str]:
    """All words one insertion, deletion, swap or change of a letter away."""
    for index in range(len(word) + 1):
        head, tail = word[:index], word[index:]
        if tail:
            yield head + tail[1:]
        if len(tail) > 1:
            yield head + tail[1] + tail[0] + tail[2:]
        for letter in string.ascii_lowercase:
            yield head + letter + tail
            if tail:
                yield head + letter + tail[1:]


def load_word_vectors(path: str | None, max_words: int | None = None) -> WordVectors:
    """Vectors of a file, or (path None) the installed GloVe-6B-50d; loaded once in a process.

    Raises:
        InputError: see `read_vector_file` and `read_installed_glove`.
    """
    if path is None:
        return _load(None, max_words, 0, 0)
    file = Path(path)
    if not file.is_file():
        raise InputError(f"words.path: no file at '{file}'")
    stat = file.stat()
    return _load(file.resolve(), max_words, stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=2)
def _load(path: Path | None, max_words: int | None, _size: int, _mtime_ns: int) -> WordVectors:
    if path is None:
        return WordVectors("GloVe-6B-50d (installed)", read_installed_glove(max_words))
    table = read_vector_file(path, max_words)
    return WordVectors(f"'{path.name}'" + (f" (skipped in it: {table.note})" if table.note else ""), table)
