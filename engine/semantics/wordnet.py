"""Verbs to their lemma, by WordNet 3.0's verb list, its irregular forms and Morphy's rules of detachment.

The authors' code asks NLTK (`WordNetLemmatizer().lemmatize(word, "v")`): of all lemmas that Morphy
finds, the *shortest* wins, which is odd (riding -> rid, staring -> star, plates -> plat) but is what the
published class vectors were made with. Endings are taken off once, as Princeton's Morphy and NLTK from
3.9 do; older NLTK went on stripping, which changes none of the words of Kinetics, UCF101, HMDB51,
ActivityNet or SUN397.

`tables/wordnet30_verbs.txt.gz` holds the 8,700 single-word lemmas of WordNet 3.0's `index.verb` and the
2,321 single-word lines of its `verb.exc` (Princeton University; permissive licence, in full in
`tables/wordnet30_LICENSE.txt` and at the head of the table).
"""

import functools
import gzip
from pathlib import Path

TABLE = Path(__file__).with_name("tables") / "wordnet30_verbs.txt.gz"

# Morphy's rules of detachment for verbs, in WordNet's order (morphy(7WN)): (ending, what takes its place).
_DETACHMENTS = (("s", ""), ("ies", "y"), ("es", "e"), ("es", ""), ("ed", "e"), ("ed", ""), ("ing", "e"), ("ing", ""))


@functools.cache
def _verbs() -> tuple[frozenset[str], dict[str, tuple[str, ...]]]:
    """All verb lemmas, and irregular form -> lemmas."""
    with gzip.open(TABLE, "rt", encoding="ascii") as file:
        rows = [line.split() for line in file if not line.startswith("#")]
    lemmas = frozenset(row[0] for row in rows if len(row) == 1)
    return lemmas, {row[0]: tuple(row[1:]) for row in rows if len(row) > 1}


def verb_candidates(word: str) -> list[str]:
    """All verb lemmas that a lower-case word may be a form of, the word itself first; empty if it is no verb."""
    lemmas, irregular = _verbs()
    if word in irregular:
        forms = irregular[word]
    else:
        forms = tuple(word.removesuffix(end) + new for end, new in _DETACHMENTS if word.endswith(end))
    return [form for form in dict.fromkeys((word, *forms)) if form in lemmas]


def verb_lemma(word: str) -> str:
    """The shortest verb lemma of a lower-case word (the first of equal length); the word itself if it is no verb."""
    return min(verb_candidates(word), key=len, default=word)
