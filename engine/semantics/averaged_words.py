"""Class vectors as averaged word vectors: the paper's W2V(c) (Sec. 4.4).

    class name ──class_words──▶ words ──▶ word vectors ──(- vocabulary mean)──▶ unit ──mean──▶ unit

Each word vector is scaled to unit length before the mean, as the authors' code does. Subtracting the
vocabulary's mean first (`WordVectors.mean`) is for GloVe, whose vectors share a large common direction.

A word that the vocabulary lacks is looked up once more as it stands in the name (`cheerlead` ->
`cheerleading`), then among the stand-ins of `tables/class_words.yaml` (not under `rules: none`); what was
replaced in this way is named in the description. What is still missing is one error for all classes, or
(`words.missing: random`) gets a random unit vector that depends on the word alone: such a word means nothing,
but the same words are still the same class. These words too are named in the description.
"""

import difflib
import json
from collections.abc import Sequence

import numpy as np
import yaml

from engine.errors import InputError
from engine.semantics.config import WordSourceConfig
from engine.semantics.embeddings import ClassEmbeddings, MissingVectors, random_vector, unit_rows
from engine.semantics.vectors import CENTRE_WORDS, WordVectors
from engine.semantics.words import class_words, user_replacement, word_tables


class AveragedWords:
    """A `ClassVectorSource` over a vocabulary of word vectors."""

    def __init__(self, vocabulary: WordVectors, config: WordSourceConfig) -> None:
        self.vocabulary = vocabulary
        self.config = config
        self.centred = config.centre == "yes" or (config.centre == "auto" and config.source == "glove")

    def embed(self, names: Sequence[str]) -> ClassEmbeddings:
        """See `ClassVectorSource`."""
        entries: list[list[str]] = []  # of each class
        substitutes: dict[str, str] = {}
        missing: dict[str, list[str | None]] = {}  # class -> its words, None where one is missing
        wanted: dict[str, list[str]] = {}
        for name in names:
            words, found = self._look_up(name, substitutes)
            entries.append([entry for word, part in zip(words, found, strict=True) for entry in part or (word,)])
            if None in found:
                wanted[name] = words
                missing[name] = [word if part else None for word, part in zip(words, found, strict=True)]
        if missing and self.config.missing == "error":
            raise MissingVectors(self._missing_message(wanted, missing))
        return self._average(names, entries, substitutes)

    def _look_up(self, name: str, substitutes: dict[str, str]) -> tuple[list[str], list[tuple[str, ...] | None]]:
        """The words of a class, and for each its vocabulary entries (None where there is none)."""
        config = self.config
        words = class_words(name, config.rules, config.lemmatize, config.replace)
        as_named = class_words(name, config.rules, False, config.replace)
        given = user_replacement(name, config.replace) is not None
        found = []
        for word, surface in zip(words, as_named, strict=True):
            entry = self.vocabulary.find(word)
            part = (entry,) if entry is not None else None
            if part is None and not given:
                part = self._substitute(word, surface)
                if part is not None:
                    substitutes[word] = " ".join(part)
            found.append(part)
        return words, found

    def _substitute(self, word: str, surface: str) -> tuple[str, ...] | None:
        stand_ins = {} if self.config.rules == "none" else word_tables().stand_ins
        for words in ((surface,), stand_ins.get(word.lower()), stand_ins.get(surface.lower())):
            found = tuple(self.vocabulary.find(part) for part in words or ())
            if found and None not in found:
                return found
        return None

    def _average(self, names: Sequence[str], entries: list[list[str]], substitutes: dict[str, str]) -> ClassEmbeddings:
        flat = [entry for part in entries for entry in part]
        units, bad = unit_rows(self._vectors(flat))
        if bad.any():
            words = ", ".join(sorted({repr(entry) for entry, is_bad in zip(flat, bad, strict=True) if is_bad}))
            raise InputError(
                f"{self.vocabulary.source}: the vector of {words} is zero or not finite, so it has no direction"
            )
        rows, start = [], 0
        for part in entries:
            rows.append(units[start : start + len(part)].mean(axis=0))
            start += len(part)
        unknown = sorted({entry for entry in flat if entry not in self.vocabulary.row})
        return ClassEmbeddings.from_raw(names, rows, self._describe(substitutes, unknown), entries)

    def _vectors(self, entries: Sequence[str]) -> np.ndarray:
        """float64 [N, D]: of entries of the vocabulary theirs, centred where asked; of other words random ones."""
        known = np.array([entry in self.vocabulary.row for entry in entries])
        raw = np.empty((len(entries), self.vocabulary.dim))
        raw[known] = self.vocabulary.vectors(
            [entry for entry, is_known in zip(entries, known, strict=True) if is_known]
        )
        if self.centred:
            raw[known] -= self.vocabulary.mean
        for index in np.flatnonzero(~known):
            raw[index] = random_vector(entries[index].casefold(), self.vocabulary.dim, self.config.seed)
        return raw

    def _describe(self, substitutes: dict[str, str], unknown: Sequence[str]) -> str:
        config, vocabulary = self.config, self.vocabulary
        centring = (
            f"centred on its {min(CENTRE_WORDS, len(vocabulary)):,} most frequent words"
            if self.centred
            else "not centred"
        )
        text = (
            f"averaged word vectors of {vocabulary.source}: {len(vocabulary):,} words, {vocabulary.dim} dimensions, "
            f"{centring}, rules {config.rules}, "
            f"{'verbs as lemmas' if config.lemmatize else 'not lemmatised'}"
        )
        if substitutes:
            pairs = ", ".join(f"{word} -> {words}" for word, words in sorted(substitutes.items()))
            text += f"; in place of words the vocabulary lacks: {pairs}"
        if unknown:
            text += f"; random vectors for {len(unknown)} words it lacks: {', '.join(unknown)}"
        return text

    def _missing_message(self, wanted: dict[str, list[str]], missing: dict[str, list[str | None]]) -> str:
        """All missing words of all classes, entries spelt like them, and lines to paste into the config."""
        classes_of: dict[str, list[str]] = {}
        for name, kept in missing.items():
            for word, part in zip(wanted[name], kept, strict=True):
                if part is None:
                    classes_of.setdefault(word, []).append(name)
        near = {word: self.vocabulary.near_spellings(word) for word in classes_of}
        read = f", the first {self.config.max_words} of the file (words.max_words)" if self.config.max_words else ""
        lines = [
            f"no vector for these words ({len(classes_of)}, in {len(missing)} classes) among the {len(self.vocabulary):,} words "
            f"of {self.vocabulary.source}{read}:"
        ]
        for word, names in classes_of.items():
            hint = f"near: {', '.join(near[word])}" if near[word] else "nothing near"
            lines.append(f"  {word} ({hint}) in {', '.join(repr(name) for name in dict.fromkeys(names))}")
        lines += [
            "Give these classes other words in the config (or such words random vectors: words.missing: random), for",
            "example (check the choice):",
            "  words:",
            "    replace:",
        ]
        for name, kept in missing.items():
            guess = [part or _guess(word, near[word]) for word, part in zip(wanted[name], kept, strict=True)]
            lines.append(f"      {_yaml(name)}: {_yaml(' '.join(guess))}")
        return "\n".join(lines)


def _guess(word: str, near: list[str]) -> str:
    """The word cut in two, or an entry nearly like it, where there is such; else dots for the user to fill in."""
    likely = [entry for entry in near if " " in entry] + difflib.get_close_matches(word, near, n=1, cutoff=0.85)
    return likely[0] if likely else "..."


def _yaml(text: str) -> str:
    """A text as YAML has it, in quotes unless it is read as itself without them: `no`, `10_000` and `a: b` are not."""
    try:
        is_plain = yaml.safe_load(f"{text}: {text}") == {text: text}
    except (yaml.YAMLError, ValueError):  # a ValueError: a date that no calendar has
        is_plain = False
    return text if is_plain else json.dumps(text, ensure_ascii=not text.isprintable())
