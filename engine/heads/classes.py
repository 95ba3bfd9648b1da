"""Classes as heads are told of them: a vector of the whole, and the words one by one."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from engine.heads.sequences import Sequences
from engine.moments.queries import query_words
from engine.semantics.classes import KeptVectors
from engine.semantics.config import WordsConfig

RANDOM_DIM = WordsConfig.dim
_RANDOM_WORDS = 2  # of every class in the control: how many words a class has is a piece of meaning too


@dataclass(frozen=True, slots=True)
class Classes:
    """C classes.

    vectors: unit float32 [C, D]. words: of each class a sequence of unit vectors [L, D]. source: what made the vectors.
    """

    names: tuple[str, ...]
    vectors: torch.Tensor
    words: Sequences
    source: KeptVectors

    def __len__(self) -> int:
        return len(self.names)


class NamedClasses:
    """Class names -> `Classes`, the words in the order in which names (or definitions) have them, each by itself."""

    def __init__(self, config: WordsConfig) -> None:
        self.source = KeptVectors(config)
        self._of_words = KeptVectors(dataclasses.replace(config, text="name", definitions=[]))

    def __call__(self, names: Sequence[str]) -> Classes:
        """Raises InputError for a class without a vector."""
        whole = self.source.embed(names)
        words = [query_words(" ".join(texts)) or [name] for name, texts in zip(names, whole.words, strict=True)]
        listed = tuple(sorted({word for each in words for word in each}))
        vectors = dict(zip(listed, self._of_words.embed(listed).vectors, strict=True))
        sequences = [torch.stack([vectors[word] for word in each]) for each in words]
        return Classes(tuple(names), whole.vectors, Sequences.of(sequences), self.source)


class RandomClasses:
    """The control: random vectors of classes and of their words, which no two classes share."""

    def __init__(self, seed: int, dim: int = RANDOM_DIM) -> None:
        self.source = KeptVectors(WordsConfig(source="random", seed=seed, dim=dim))

    def __call__(self, names: Sequence[str]) -> Classes:
        """Of any names."""
        words = [self.source.embed([f"{name}: {index}" for index in range(_RANDOM_WORDS)]).vectors for name in names]
        return Classes(tuple(names), self.source.embed(names).vectors, Sequences.of(words), self.source)
