"""Whether two class names mean one class, or share words, by the names alone: no vectors are looked at."""

import functools
import re
from collections.abc import Iterable, Sequence

from engine.semantics.wordnet import verb_candidates
from engine.semantics.words import composed, split_name

_NAMED = 8  # classes spelt out of those that have changed
_ARTICLES = ("a", "an", "the")
_PLAIN = re.compile(
    r"[\w\s'’/,.-]*"
)  # "C" and "C++", "open door (not car)" and "open door" differ by other signs alone
_BETWEEN = re.compile(r"(?<!\d)[\s_]+|[\s_]+(?!\d)")  # 1_12 is not 11_2
_TAKES_E = re.compile(
    r".*[^aeiou][aeiou][^aeiouwxy]"
)  # would double its last letter: tapping is of tap, taping of tape


@functools.lru_cache(1 << 16)
def _name_keys(name: str) -> frozenset[str]:
    """What two names of one class share: their letters, or those of their words without articles, verbs as lemmas.

    No other word is left out, and no table of a data set is used: "put in" is not "put on".
    """
    letters = _BETWEEN.sub("", composed(name).strip()).casefold()
    words = _words(name) if _PLAIN.fullmatch(name) else ()
    lemmas = _BETWEEN.sub("", "_".join(_verb(word) for word in words if word not in _ARTICLES))
    return frozenset(filter(None, (letters, lemmas)))


@functools.lru_cache(1 << 16)
def _words(name: str) -> tuple[str, ...]:
    """All words of a name, the small ones too; kept, for each is held against all names of another set."""
    return tuple(split_name(name, frozenset()))


def _verb(word: str) -> str:
    """The verb that a word is a form of, as English spells it ("riding" is of "ride", though its vector is that of "rid": the
    shortest, as the authors take it); else the word."""
    forms = verb_candidates(word)
    if word in forms or not forms:
        return word
    stem = min(forms, key=len)
    return f"{stem}e" if f"{stem}e" in forms and _TAKES_E.fullmatch(stem) else stem


def are_one_class(one: str, other: str) -> bool:
    """Whether two names are of one class by their letters or words, in any form of a verb."""
    return not _name_keys(one).isdisjoint(_name_keys(other))


def same_named(names: Iterable[str], others: Iterable[str]) -> dict[str, list[str]]:
    """Those of `names` that are a class of `others` by name alone, each with all that it is."""
    called: dict[str, list[str]] = {}
    for other in dict.fromkeys(others):
        for key in _name_keys(other):
            called.setdefault(key, []).append(other)
    found = {name: dict.fromkeys(other for key in _name_keys(name) for other in called.get(key, ())) for name in names}
    return {name: list(alike) for name, alike in found.items() if alike}


def says_the_same(known: str, name: str) -> bool:
    """Whether a known class's name ends in the same word as a name, or is made of its words alone."""
    other, own = _words(known), _words(name)
    return bool(own and other) and (other[-1] == own[-1] or set(other) <= set(own))


def shares_words(one: str, other: str) -> bool:
    """Whether either name says the same as the other."""
    return says_the_same(one, other) or says_the_same(other, one)


def changed_classes(before: Sequence[str], now: Sequence[str], of_tests: Sequence[str]) -> str:
    """How training classes differ from those of a run of before, in words; "" where they do not.

    Args:
        of_tests: the classes of all test sets.
    """
    if list(now) == list(before):
        return ""
    gone, new = ([name for name in one if name not in other] for one, other in ((before, now), (now, before)))
    told = [
        f"{how} {', '.join(map(repr, names[:_NAMED]))}" + ", ..." * (len(names) > _NAMED)
        for how, names in (("without", gone), ("with", new))
        if names
    ]
    if gone and gone == list(same_named(gone, of_tests)):
        told.append(
            "names of test classes, which earlier versions left in, as train.exclude_overlap.same_names=no does"
        )
    return f"training classes ({'; '.join(told)})" if told else "order of training classes"
