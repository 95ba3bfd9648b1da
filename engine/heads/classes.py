"""Classes as heads are told of them: a vector of the whole, and the words one by one."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from engine.heads.sequences import Sequences
from engine.semantics.classes import KeptVectors
from engine.semantics.config import WordsConfig, each_source, random_where_missing, sources_of
from engine.semantics.words import words_in

RANDOM_DIM = WordsConfig.dim
_RANDOM_WORDS = 2  # of every class in the control: how many words a class has is a piece of meaning too


@dataclass(frozen=True)
class Classes:
    """C classes.

    vectors: unit float32 [C, D]. read: makes `words`, when a head asks for them. source: what made the vectors.
    """

    names: tuple[str, ...]
    vectors: torch.Tensor
    read: Callable[[], Sequences]
    source: KeptVectors

    @functools.cached_property
    def words(self) -> Sequences:
        """Of each class a sequence of unit vectors [L, D]; InputError where the source has none of single words."""
        return self.read()

    def __len__(self) -> int:
        return len(self.names)


class WordClasses:
    """Class names -> `Classes`, the words in the order in which names (or definitions) have them, each by itself."""

    def __init__(self, config: WordsConfig) -> None:
        self.source = KeptVectors(config)
        by_name = each_source(config, lambda source: dataclasses.replace(source, text="name", definitions=[]))
        self._of_words = KeptVectors(random_where_missing(by_name))  # of a definition of another source

    def __call__(self, names: Sequence[str]) -> Classes:
        """Raises InputError for a class without a vector."""
        whole = self.source.embed(names)
        words = [words_in(" ".join(texts)) or [name] for name, texts in zip(names, whole.words, strict=True)]
        return Classes(tuple(names), whole.vectors, lambda: self._read(words), self.source)

    def _read(self, words: Sequence[Sequence[str]]) -> Sequences:
        listed = tuple(sorted({word for each in words for word in each}))
        vectors = dict(zip(listed, self._of_words.embed(listed).vectors, strict=True))
        return Sequences.of([torch.stack([vectors[word] for word in each]) for each in words])


def has_words(config: WordsConfig) -> bool:
    """Whether single words have vectors: ready ones are of whole classes alone."""
    return all(source.source != "npz" for source in sources_of(config))


class RandomClasses:
    """The control: random vectors of classes and of their words, which no two classes share."""

    def __init__(self, seed: int, dim: int = RANDOM_DIM) -> None:
        self.source = KeptVectors(WordsConfig(source="random", seed=seed, dim=dim))

    def __call__(self, names: Sequence[str]) -> Classes:
        """Of any names."""
        return Classes(tuple(names), self.source.embed(names).vectors, lambda: self._read(names), self.source)

    def _read(self, names: Sequence[str]) -> Sequences:
        words = [[f"{name}: {index}" for index in range(_RANDOM_WORDS)] for name in names]
        return Sequences.of([self.source.embed(each).vectors for each in words])
