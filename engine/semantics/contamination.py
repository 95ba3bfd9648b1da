"""How much of a zero-shot test was known before: by the names of its classes, and by its files. A page that can be printed.

each test class ──▶ a training class of the same name? within tau? sharing words? ──▶ the first that is true
each test file  ──▶ the same contents among the training files?
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.data.manifests.large_manifest import read_manifest
from engine.results.table import Table
from engine.semantics.class_lists import NamedClasses, is_manifest, named
from engine.semantics.overlap import Words, nearest_of_any, preferring_same_names
from engine.semantics.same_names import says_the_same

SAME, NEAR, SHARED, CLEAR = "same name", "within tau", "shared words", "-"
_KINDS = (SAME, NEAR, SHARED)


@dataclass(frozen=True)
class ClassSet:
    """Classes as a command line names them, and the contents of their files where a manifest tells them.

    files: hash of the contents of each file, copies too; None where there is no manifest, or one of its files has no hash.
    """

    classes: NamedClasses
    files: tuple[int, ...] | None = None

    @classmethod
    def of(cls, classes: NamedClasses, text: str) -> "ClassSet":
        """Classes that `read_classes` has read from this text, with the contents of the files beside them.

        Raises:
            InputError: the manifest cannot be read.
        """
        path = Path(named(text)[1])
        if not is_manifest(path):
            return cls(classes)
        table = read_manifest(path).table
        rows = (table.column(name).to_pylist() for name in ("path", "content_hash"))
        hashes = dict(zip(*rows, strict=True))  # several segments of a file are one file
        return cls(classes, None if None in hashes.values() else tuple(hashes.values()))


@dataclass(frozen=True)
class Known:
    """A test class, and the training class nearest to it, or that of the same name; kind: the first that holds, else CLEAR."""

    name: str
    nearest: str
    distance: float
    kind: str
    alike: tuple[str, ...]  # training classes that share words with it


@dataclass(frozen=True)
class Contamination:
    """A test set held against one training set. num_files: of the test. files: how many of them have the contents of
    one of the training's. None: not known."""

    test: str
    training: str
    classes: tuple[Known, ...]
    files: int | None
    num_files: int | None

    def count(self, kind: str) -> int:
        return sum(known.kind == kind for known in self.classes)

    def sentence(self) -> str:
        """For a paper."""
        same, near, shared, clear = map(self.count, (*_KINDS, CLEAR))
        told = (
            f"Classes of {self.test} ({len(self.classes)}) that {self.training} has under the same name: {same}; others within the "
            f"threshold of one of its classes: {near}; others that share words with one: {shared}; none of these: {clear}."
        )
        if self.files is None:
            return f"{told} Files were not compared."
        return f"{told} Files of {self.test} ({self.num_files}) that are among those of {self.training}: {self.files}."


def contamination(test: ClassSet, training: ClassSet, words: Words, tau: float) -> Contamination:
    """Hold every class and file of a test against a training set (or what pretrained weights have seen).

    Raises:
        InputError: a class has no vector.
    """
    (test_name, names), (training_name, others) = test.classes, training.classes
    rows = nearest_of_any([test.classes], [training.classes], words)
    nearest = {row.name: row for row in preferring_same_names(rows, [training.classes], words)}
    found = []
    for name in names:
        near = nearest[name]
        alike = tuple(each for each in others if says_the_same(each, name))
        kind = SAME if near.is_same_name else NEAR if near.distance <= tau else SHARED if alike else CLEAR
        found.append(Known(name, near.test_class, near.distance, kind, alike))
    are_known = test.files is not None and training.files is not None
    return Contamination(
        test_name,
        training_name,
        tuple(sorted(found, key=lambda known: ((*_KINDS, CLEAR).index(known.kind), known.distance))),
        int(np.isin(test.files, training.files).sum()) if are_known else None,
        len(test.files) if test.files is not None else None,
    )


def summary(found: Sequence[Contamination]) -> Table:
    """A row for each test set and training set."""
    rows = [
        [each.test, each.training, len(each.classes), *map(each.count, (*_KINDS, CLEAR)), each.num_files, each.files]
        for each in found
    ]
    return Table(["test set", "held against", "classes", *_KINDS, "none of these", "files", "files seen"], rows)


def class_rows(found: Sequence[Contamination]) -> Table:
    """A row for each test class and training set, the worst first."""
    rows = [
        [each.test, known.name, each.training, known.kind, known.nearest, known.distance, ", ".join(known.alike)]
        for each in found
        for known in each.classes
    ]
    return Table(["test_set", "class", "held_against", "kind", "nearest", "distance", "shares_words_with"], rows)


def page(found: Sequence[Contamination], tau: float, vectors: str) -> str:
    """The report, as Markdown: what was compared and how, the counts, a sentence for each pair, and every class that is known."""
    parts = [
        "# Contamination report",
        f"Class names were compared by {vectors.partition(';')[0]}. *Same name*: the same letters, or the same words without "
        "articles in the same order, in any form of a verb. *Within tau*: cosine distance of the names' vectors at most "
        f"{tau:g} (Eq. 3 and 4 of Brattoli et al. 2020). *Shared words*: the same last word, or all words of the one in the "
        "other. Each class counts once, under the first that holds. Whether a class of shared words is the same action is for "
        "people to say. Files count as the same by a hash of their contents.",
        summary(found).markdown(),
        *(each.sentence() for each in found),
    ]
    for each in found:
        known = [row for row in each.classes if row.kind != CLEAR]
        rows = [[row.name, row.kind, row.nearest, row.distance, ", ".join(row.alike[:5]) or None] for row in known]
        if rows:
            header = ["class", "why", "nearest", "distance", "shares words with"]
            parts += [f"## {each.test}, held against {each.training}", Table(header, rows).markdown()]
    return "\n\n".join([*parts, f"Class vectors in full: {vectors}."]) + "\n"
