"""Whether two class names mean one class, or share words, by the names alone: no vectors are looked at."""

import functools
from collections.abc import Iterable

from engine.errors import InputError
from engine.semantics.wordnet import verb_candidates
from engine.semantics.words import class_words, name_key, split_name


@functools.lru_cache(1 << 16)
def _name_keys(name: str) -> frozenset[str | tuple[str, ...]]:
    """What two names of one class share: their letters, their words, or these as verbs: "riding" is a form of "ride" here, though
    its vector is that of "rid" (the shortest, as the authors take it)."""
    try:
        verbs = (max(verb_candidates(word), key=len, default=word) for word in class_words(name, lemmatize=False))
        return frozenset((name_key(name), tuple(class_words(name)), tuple(verbs)))
    except InputError:  # a name without words (ready vectors allow any)
        return frozenset((name_key(name),))


def are_one_class(one: str, other: str) -> bool:
    """Whether two names are of one class by their letters, words or verbs."""
    return not _name_keys(one).isdisjoint(_name_keys(other))


def same_named(names: Iterable[str], others: Iterable[str]) -> dict[str, list[str]]:
    """Those of `names` that are a class of `others` by name alone, each with all that it is."""
    called: dict[str | tuple[str, ...], list[str]] = {}
    for other in dict.fromkeys(others):
        for key in _name_keys(other):
            called.setdefault(key, []).append(other)
    found = {name: dict.fromkeys(other for key in _name_keys(name) for other in called.get(key, ())) for name in names}
    return {name: list(alike) for name, alike in found.items() if alike}


def says_the_same(known: str, name: str) -> bool:
    """Whether a known class's name ends in the same word as a name, or is made of its words alone."""
    other, own = split_name(known, frozenset()), split_name(name, frozenset())
    return bool(own and other) and (other[-1] == own[-1] or set(other) <= set(own))


def shares_words(one: str, other: str) -> bool:
    """Whether either name says the same as the other."""
    return says_the_same(one, other) or says_the_same(other, one)
