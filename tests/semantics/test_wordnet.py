"""The verb lemmas of NLTK's rule on WordNet 3.0."""

import pytest

from engine.semantics.wordnet import TABLE, _verbs, verb_candidates, verb_lemma


def test_table_is_whole_and_carries_its_licence():
    lemmas, irregular = _verbs()
    assert (len(lemmas), len(irregular)) == (8700, 2321)
    licence = TABLE.with_name("wordnet30_LICENSE.txt").read_text(encoding="utf-8")
    assert "WordNet 3.0 Copyright 2006 by Princeton University" in licence


@pytest.mark.parametrize(
    ("word", "lemma"),
    [
        # the shortest candidate wins, however odd: these are what the published class vectors were made of
        ("riding", "rid"), ("staring", "star"), ("wading", "wad"), ("dining", "din"), ("plates", "plat"), ("leaves", "leave"),
        ("shining", "shin"), ("planing", "plan"), ("pipes", "pip"), ("feed", "fee"), ("installing", "instal"),
        # irregular forms come from the exception list
        ("shot", "shoot"), ("dying", "die"), ("tying", "tie"), ("swimming", "swim"), ("written", "write"), ("singing", "sing"),
        # the plain rules
        ("carries", "carry"), ("watches", "watch"), ("clapping", "clap"), ("canoeing", "canoe"), ("baked", "bake"),
        # no verb, or already a lemma
        ("guitar", "guitar"), ("stairs", "stairs"), ("cello", "cello"), ("throw", "throw"), ("pushups", "pushups"),
        # endings come off once
        ("buildings", "buildings"),
    ],
)  # fmt: skip
def test_lemma(word, lemma):
    assert verb_lemma(word) == lemma


def test_candidates_are_all_lemmas_the_word_itself_first():
    assert verb_candidates("staring") == ["stare", "star"]
    assert verb_candidates("feed") == ["feed", "fee"]
    assert verb_candidates("guitar") == []
