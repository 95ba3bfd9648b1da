"""Class names -> class vectors: opens the source that the config names and asks it.

glove, word2vec ──▶ AveragedWords    npz ──▶ ReadyVectors    sentence ──▶ SentenceVectors    random ──▶ RandomVectors
"""

import dataclasses
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from textwrap import indent

import numpy as np

from engine.errors import InputError
from engine.semantics.averaged_words import AveragedWords
from engine.semantics.config import WordsConfig, WordSourceConfig
from engine.semantics.embeddings import ClassEmbeddings, ClassVectorSource, random_vector
from engine.semantics.ready_vectors import ReadyVectors
from engine.semantics.sentences import SentenceVectors
from engine.semantics.vectors import load_word_vectors
from engine.semantics.words import name_key
from engine.terminal.native_names import is_text
from engine.terminal.screen import plain


class RandomVectors:
    """The control: random unit vectors that know nothing of what a class means.

    A vector is a function of (seed, class name) alone, so a class has the same one in any list; names
    that differ only in case, spaces and '_' are one class.
    """

    def __init__(self, dim: int, seed: int) -> None:
        self.dim = dim
        self.seed = seed

    def embed(self, names: Sequence[str]) -> ClassEmbeddings:
        """See `ClassVectorSource`."""
        vectors = np.stack([random_vector(name_key(name), self.dim, self.seed) for name in names])
        description = f"random unit vectors: {self.dim} dimensions, seed {self.seed} (the control: no meaning)"
        return ClassEmbeddings.from_raw(names, vectors, description, [(name,) for name in names])


class SideBySide:
    """Two sources as one: their unit vectors one after the other, so that a cosine is the mean of both cosines."""

    def __init__(self, first: ClassVectorSource, second: ClassVectorSource) -> None:
        self.sources = (first, second)

    def embed(self, names: Sequence[str]) -> ClassEmbeddings:
        """See `ClassVectorSource`."""
        first = self.sources[0].embed(names)
        with _naming_also():
            second = self.sources[1].embed(names)
        words = [(*one, *other) for one, other in zip(first.words, second.words, strict=True)]
        vectors = np.concatenate([first.vectors.numpy(), second.vectors.numpy()], axis=1)
        return ClassEmbeddings.from_raw(names, vectors, f"{first.description}; and {second.description}", words)


class KeptVectors:
    """The source of a run: the vectors of a list of classes are made once and kept, whoever asks for them."""

    def __init__(self, config: WordsConfig) -> None:
        self.config = config
        self._source: ClassVectorSource | None = None  # opened when first asked, where errors have a context
        self._kept: dict[tuple[str, ...], ClassEmbeddings] = {}

    def embed(self, names: Sequence[str]) -> ClassEmbeddings:
        """See `ClassVectorSource`."""
        key = tuple(names)
        if key not in self._kept:
            self._source = self._source or open_source(self.config)
            self._kept[key] = self._source.embed(key)
        return self._kept[key]


@contextmanager
def _naming_also() -> Iterator[None]:
    """Errors of the second source name its keys, `words.also.path`, and their lines to paste stand below `words: also:`."""
    try:
        yield
    except InputError as error:
        text = _KEY.sub("words.also.", str(error))
        head, mark, lines = text.partition("\n  words:\n")
        raise type(error)(f"{head}{mark}    also:\n{indent(lines, '  ')}" if mark else text) from error


_KEY = re.compile(
    rf"(?<![\w./])words\.(?=(?:{'|'.join(field.name for field in dataclasses.fields(WordSourceConfig))})\b)"
)


def open_source(config: WordSourceConfig) -> ClassVectorSource:
    """The source that the config names. Word vectors and encoders are loaded once in a process, however often asked.

    Raises:
        InputError: the file is missing or unfit.
    """
    if isinstance(config, WordsConfig) and config.also is not None:
        first = open_source(dataclasses.replace(config, also=None))
        with _naming_also():
            return SideBySide(first, open_source(config.also))
    if config.source == "random":
        return RandomVectors(config.dim, config.seed)
    if config.source == "sentence":
        return SentenceVectors(config)
    if config.source != "glove" and config.path is None:
        raise InputError(f"words.source is {config.source}: name its file in words.path")
    if config.source == "npz":
        return ReadyVectors(config)
    return AveragedWords(load_word_vectors(config.path, config.max_words), config)


def build_class_embeddings(names: Sequence[str], words: WordsConfig | KeptVectors) -> ClassEmbeddings:
    """Unit vectors of the classes, in their order (paper Sec. 4.4).

    Args:
        names: class names, at least one; any spelling that the data sets use.
        words: the `words` section, or the run's vectors of that section.

    Returns:
        ClassEmbeddings with vectors float32 [C, D] on the CPU.

    Raises:
        InputError: no names; a file that cannot be used; one list of all words (or classes) that have no vector.
    """
    if not names:
        raise InputError("no class names to find vectors for")
    if broken := [name for name in names if not is_text(name)]:
        raise InputError(f"class '{plain(broken[0])}' holds bytes that are no text: write its name in UTF-8")
    source = words if isinstance(words, KeptVectors) else open_source(words)
    return source.embed(tuple(names))
