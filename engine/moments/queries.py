"""Queries -> tokens with vectors: words of GloVe or a word2vec file, or the token states of a sentence encoder.

"a person pours the milk" ──▶ a, person, pour, the, milk ──▶ float32 [L, D]
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np

from engine.errors import InputError
from engine.files.home import from_home
from engine.semantics.config import WordSourceConfig
from engine.semantics.embeddings import unit_rows
from engine.semantics.sentence_encoder import SentenceEncoder, load_encoder
from engine.semantics.vectors import load_word_vectors
from engine.semantics.wordnet import verb_lemma
from engine.semantics.words import word_tables, words_in

MAX_TOKENS = 128  # of a query


class QueryEncoder(Protocol):
    """Gives a query its tokens, the same query always the same.

    description: for the log and a checkpoint. dim: D.
    """

    description: str
    dim: int

    def tokens(self, query: str) -> np.ndarray:
        """float32 [L, D], 1 <= L <= `MAX_TOKENS`.

        Raises:
            InputError: the query is empty, too long, or has no known word.
        """
        ...

    def sentence(self, query: str) -> np.ndarray:
        """The whole query as one unit vector float32 [D], as the vectors of classes are made: to compare windows with.

        Raises:
            InputError: as `tokens`.
        """
        ...


def knows_a_word(source: str, path: str | None) -> Callable[[str], bool]:
    """Whether a query has a word with a vector, as --words of tools/index_moments.py names them. `source` none or sentence: any
    word.

    Raises:
        InputError: no such source, word2vec without a file, or the vectors cannot be read.
    """
    if source in ("none", "sentence"):
        return lambda query: bool(words_in(query))
    if source not in ("glove", "word2vec"):
        raise InputError(
            f"words '{source}' are not known here: take glove, glove:FILE, word2vec:FILE, sentence or none"
        )
    if source == "word2vec" and not path:
        raise InputError("words 'word2vec' need their file, of which none comes with this package: word2vec:FILE")
    file = from_home(path) if path else None
    if file is not None and not Path(file).is_file():
        raise InputError(f"--words: no file at '{file}'")
    words = load_word_vectors(file)
    return lambda query: any(words.find(word) is not None for word in words_in(query))


class WordTokens:
    """A `QueryEncoder`: a token a word, its vector at unit length, for GloVe after the vocabulary's mean is taken away."""

    def __init__(self, config: WordSourceConfig) -> None:
        self._words = load_word_vectors(config.path, config.max_words)
        self._lemmatize = config.lemmatize
        is_centred = config.centre == "yes" or (config.centre == "auto" and config.source == "glove")
        self._mean = self._words.mean if is_centred else np.zeros(self._words.dim)
        self._small = word_tables().plain.stop_words
        self.dim = self._words.dim
        self.description = f"words of {self._words.source}{', centred' if is_centred else ''}"

    def tokens(self, query: str) -> np.ndarray:
        return self._vectors(query, words_in(query)).astype(np.float32)

    def sentence(self, query: str) -> np.ndarray:
        words = words_in(query)
        telling = [word for word in words if word not in self._small]
        mean = self._vectors(query, telling if any(map(self._entry, telling)) else words).mean(axis=0)
        return unit_rows(mean[None])[0][0].astype(np.float32)

    def _vectors(self, query: str, words: list[str]) -> np.ndarray:
        found = [entry for word in words if (entry := self._entry(word)) is not None]
        _check_length(query, len(words), "words")
        if not found:
            why = f"none of its words ({', '.join(words)}) is in {self._words.source}" if words else "it has no words"
            raise InputError(f"query {query!r}: {why}: say it in other words")
        return unit_rows(self._words.vectors(found) - self._mean)[0]

    def _entry(self, word: str) -> str | None:
        lemma = self._words.find(verb_lemma(word)) if self._lemmatize else None
        return lemma or self._words.find(word)


class EncodedTokens:
    """A `QueryEncoder`: the states of a sentence encoder's tokens, which know of each other."""

    def __init__(self, config: WordSourceConfig) -> None:
        self._encoder = load_encoder(config.path)
        if not isinstance(self._encoder, SentenceEncoder):
            raise InputError(
                f"words.path: moment search reads tokens of a sentence encoder, and '{config.path}' is a CLIP"
            )
        self.dim = self.tokens("a person").shape[1]
        self.description = f"token states of {self._encoder.name}"

    def tokens(self, query: str) -> np.ndarray:
        check_query(query, self._encoder)
        states = self._encoder.token_states(query)
        _check_length(query, len(states), "tokens")
        return states

    def sentence(self, query: str) -> np.ndarray:
        return unit_rows(self._encoder([query]))[0][0].astype(np.float32)


def check_query(query: str, encoder: SentenceEncoder | None = None) -> None:
    """Refuse a query without words, or one that is too long: for all, or for the encoder that reads it.

    Raises:
        InputError: it is.
    """
    words = words_in(query)
    if not words:
        raise InputError(f"query {query!r}: it has no words")
    _check_length(query, len(words), "words")
    if encoder is not None and not encoder.reads_all(query):
        raise InputError(f"query '{query[:60]} ...': {encoder.name} does not read so many words: name one moment")


def _check_length(query: str, count: int, what: str) -> None:
    if count > MAX_TOKENS:
        raise InputError(f"query '{query[:60]} ...' has {count} {what}, a query at most {MAX_TOKENS}: name one moment")


def open_queries(config: WordSourceConfig) -> QueryEncoder:
    """What the `words` section of a config means for queries.

    Raises:
        InputError: a source that has vectors of classes only, or one that cannot be read.
    """
    if config.source in ("glove", "word2vec"):
        return WordTokens(config)
    if config.source == "sentence":
        return EncodedTokens(config)
    raise InputError(
        f"words.source is {config.source}: queries need the vectors of any word: glove, word2vec or sentence"
    )


class KeptQueries:
    """The tokens of queries that come again and again, as in training: each is made once."""

    def __init__(self, encoder: QueryEncoder) -> None:
        self.description, self.dim = encoder.description, encoder.dim
        self.tokens = functools.cache(encoder.tokens)
        self.sentence = functools.cache(encoder.sentence)
