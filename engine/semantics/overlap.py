"""Training classes that are a test class, perhaps under another name (paper Sec. 3.3, Eq. 3 and 4; Fig. 3).

    training classes ──▶ vectors ──▶ nearest test class of any test set ──▶ distance <= tau: remove, refuse or allow
    classes of pretrained weights ──▲

A classification task respects the zero-shot constraint if no class of D_s or D_p lies within `tau` of a class of
D_t. Training classes (D_s) can be left out of the training; classes that pretrained weights have seen (D_p) cannot.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from engine.errors import InputError
from engine.results.table import Table
from engine.semantics.class_lists import NamedClasses
from engine.semantics.classes import KeptVectors, build_class_embeddings
from engine.semantics.config import AVERAGED, OverlapConfig, WordsConfig, random_where_missing, sources_of
from engine.semantics.embeddings import MissingVectors
from engine.semantics.same_names import are_one_class, same_named, says_the_same, shares_words
from kernels.cosine_topk import cosine_topk, prepare_classes

Words = WordsConfig | KeptVectors  # what turns names into vectors

_ROUNDING = 1e-6  # of 1 - cosine in fp32; equal vectors are at distance 0
_NAMED = 8  # classes spelt out where a message may have many


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A training class and the test class nearest to it over all test sets; `distance` is cosine, in [0, 2]."""

    name: str
    source: str
    test_class: str
    test_set: str
    distance: float

    @property
    def is_same_name(self) -> bool:
        """Whether the two are one class by their names, however far apart their vectors lie."""
        return are_one_class(self.name, self.test_class)

    def __str__(self) -> str:
        same = "the same name, " if self.distance > 0 and self.is_same_name else ""
        return f"'{self.name}' is {self.test_set} '{self.test_class}' ({same}{self.distance:.3f})"


def nearest_test_classes(
    training: Sequence[NamedClasses], tests: Sequence[NamedClasses], words: Words
) -> list[Neighbour]:
    """The inner minimum of Eq. 3 with the distance of Eq. 4: for each training class its nearest test class.

    Args:
        training, tests: any number of sets; a class may stand in several.
        words: what turns names into vectors.

    Returns:
        A row for each class of each training set, nearest first; none if there is no test class.

    Raises:
        InputError: classes have no vector; one error for all sets, where word vectors are averaged.
    """
    labels = [(source, name) for source, names in tests for name in names]
    if not labels:
        return []
    training = [(source, names) for source, names in training if names]
    of_training, of_tests = _vectors(training, [each for each in tests if each[1]], words)
    test_classes = prepare_classes(torch.cat(of_tests))
    rows = []
    for (source, names), vectors in zip(training, of_training, strict=True):
        scores, indices = cosine_topk(vectors, test_classes, 1)
        distances = 1 - scores[:, 0]
        distances = distances.masked_fill(distances < _ROUNDING, 0.0).tolist()
        for name, distance, index in zip(names, distances, indices[:, 0].tolist(), strict=True):
            test_set, test_class = labels[index]
            rows.append(Neighbour(name, source, test_class, test_set, distance))
    return sorted(rows, key=lambda row: (row.distance, row.name))


def _vectors(
    training: Sequence[NamedClasses], tests: Sequence[NamedClasses], words: Words
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Of each set of either side, float32 [C, D]."""
    try:
        first, second = (
            [build_class_embeddings(names, words).vectors for _, names in sets] for sets in (training, tests)
        )
    except MissingVectors:
        if _is_averaged(words):  # one error for the words of all sets
            build_class_embeddings([name for _, names in (*training, *tests) for name in names], words)
        raise
    return first, second


def _section(words: Words) -> WordsConfig:
    return words.config if isinstance(words, KeptVectors) else words


def _is_averaged(words: Words) -> bool:
    return any(source.source in AVERAGED for source in sources_of(_section(words)))


def overlapping(neighbours: Sequence[Neighbour], tau: float, *, same_names: bool = False) -> list[Neighbour]:
    """Those that violate Eq. 3: no further than `tau` from a test class; with `same_names` also those of the same name."""
    return [row for row in neighbours if row.distance <= tau or (same_names and row.is_same_name)]


def preferring_same_names(
    neighbours: Sequence[Neighbour], tests: Sequence[NamedClasses], words: Words
) -> list[Neighbour]:
    """Of classes that are a test class by name that one in place of a nearer other; nearest first.

    Vectors of one name in two spellings may lie apart: those of "tai chi" and of "taichi", a word of its own.
    """
    alike = same_named((row.name for row in neighbours), (name for _, names in tests for name in names))
    kept = _kept(words)
    found = []
    for row in neighbours:
        if row.name in alike and not row.is_same_name:
            (row,) = _nearest_alike(row, tests, alike[row.name].__contains__, kept)
        found.append(row)
    return sorted(found, key=lambda row: (row.distance, row.name))


def nearest_of_any(training: Sequence[NamedClasses], tests: Sequence[NamedClasses], words: Words) -> list[Neighbour]:
    """As `nearest_test_classes`, for classes that nobody chose, as ImageNet's with their Latin names.

    Where averaged vectors lack words, these get random ones: only an equal name is near them.
    """
    try:
        return nearest_test_classes(training, tests, words)
    except MissingVectors:
        if not _is_averaged(words):
            raise
        return nearest_test_classes(training, tests, random_where_missing(_section(words)))


def remove_overlap(
    config: OverlapConfig, training: Sequence[NamedClasses], tests: Sequence[NamedClasses], words: Words
) -> tuple[list[str], list[str]]:
    """Hold the training classes (D_s of Eq. 3) against all test classes and do as `config.training` says.

    Args:
        words: of the run; `config.words` wins.

    Returns:
        The class names to leave out, and lines for the log.

    Raises:
        InputError: classes overlap and the config does not say what to do; names them. Or a class has no vector.
    """
    near = near_classes(config, training, tests, words)
    notes = _random_words(config.words or words, [*training, *tests]) if tests else []
    if not near:
        return [], notes
    if config.training == "refuse":
        raise InputError(
            f"{len(near)} training classes overlap with test classes ({_measure(config)}, paper Eq. 3): "
            f"{_list(near)}. Leave them out with train.exclude_overlap.training=remove, or train on them "
            f"all the same with =allow{_by_name_alone(config, near)}"
        )
    how = f"within {config.tau:g} of a test class" + (" or sharing its words" if config.same_words else "")
    if not config.same_words and any(row.distance > config.tau for row in near):
        how += " or of its name"
    found = f"{len(near)} classes {how}: {'; '.join(map(str, near))}"
    if config.training == "allow":
        return [], [*notes, f"NOT ZERO-SHOT, as train.exclude_overlap allows: trained on {found}"]
    return sorted({row.name for row in near}), [*notes, f"left out {found}"]


def _random_words(words: Words, sets: Sequence[NamedClasses]) -> list[str]:
    """A line that tells which words have random vectors, where that is allowed: only equal names of such words meet."""
    if not any(source.source in AVERAGED and source.missing == "random" for source in sources_of(_section(words))):
        return []
    embeddings = build_class_embeddings([name for _, names in sets for name in names], words)
    return [f"class names were compared by {embeddings.description}"]


def check_pretrained(
    config: OverlapConfig, pretrained: Sequence[str], tests: Sequence[NamedClasses], words: Words
) -> list[str]:
    """Hold the classes of pretrained weights (D_p of Eq. 3) against all test classes; lines for the log.

    Raises:
        InputError: classes overlap and `config.pretrained` does not allow it; names them. Or a class has no vector.
    """
    seen = [("pretrained weights", pretrained)]
    near = near_classes(config, seen, tests, words, nearest_of_any)
    if near and config.pretrained == "refuse":
        raise InputError(
            f"the weights were pretrained on {len(near)} classes that overlap with test classes (D_p of paper Eq. 3, "
            f"{_measure(config)}): {_list(near)}. Such a test is not zero-shot: start from other weights, leave "
            "the test classes out (data.tests.N.exclude_classes), or go on with train.exclude_overlap.pretrained=allow"
            f"{_by_name_alone(config, near)}"
        )
    if not near:
        return []
    count = len(near_classes(config, tests, seen, words, nearest_of_any))  # one class may be near several
    return [
        f"NOT ZERO-SHOT, as train.exclude_overlap allows: the weights were pretrained on {len(near)} classes near {count} "
        f"test classes: {'; '.join(map(str, near))}"
    ]


def near_classes(
    config: OverlapConfig,
    training: Sequence[NamedClasses],
    tests: Sequence[NamedClasses],
    words: Words,
    nearest: Callable[[Sequence[NamedClasses], Sequence[NamedClasses], Words], list[Neighbour]] = nearest_test_classes,
) -> list[Neighbour]:
    """The training classes that overlap with a test class as the config has it, each with that test class.

    Args:
        words: of the run; `config.words` wins.
        nearest: finds for each training class its nearest test class.

    Raises:
        InputError: a class has no vector.
    """
    vectors = config.words or words
    try:
        rows = nearest(training, tests, vectors)
        if config.same_names:
            rows = preferring_same_names(rows, tests, vectors)
        near = overlapping(rows, config.tau, same_names=config.same_names)
        if not config.same_words:
            return near
        overlap = set(near)
        return [*near, *_sharing_words([row for row in rows if row not in overlap], tests, vectors)]
    except MissingVectors as error:
        if config.words is None and nearest is nearest_test_classes:  # the run needs vectors of these very names
            raise
        raise MissingVectors(
            f"{error}\n(asked for to hold training classes against test classes: train.exclude_overlap.words may name other "
            "vectors for that alone, and its key 'missing: random' does without them)"
        ) from error


def _measure(config: OverlapConfig) -> str:
    return ("the same name, or " if config.same_names else "") + f"cosine distance of the names <= {config.tau:g}"


def _by_name_alone(config: OverlapConfig, near: Sequence[Neighbour]) -> str:
    """For an error: what had classes pass that overlap by their names alone."""
    is_one = config.same_names and any(row.distance > config.tau and row.is_same_name for row in near)
    return "; train.exclude_overlap.same_names=no takes the distance alone, as versions before did" if is_one else ""


def _sharing_words(rows: Sequence[Neighbour], tests: Sequence[NamedClasses], words: Words) -> list[Neighbour]:
    """Those of the training classes that share words with a test class, each with the nearest of these."""
    kept = _kept(words)
    return [found for row in rows for found in _nearest_alike(row, tests, partial(shares_words, row.name), kept)]


def _kept(words: Words) -> KeptVectors:
    """One look-up for all that follows."""
    return words if isinstance(words, KeptVectors) else KeptVectors(words)


def _nearest_alike(
    row: Neighbour, tests: Sequence[NamedClasses], is_alike: Callable[[str], bool], words: KeptVectors
) -> list[Neighbour]:
    """The training class with the nearest of the test classes that are alike; nothing where there is none."""
    alike = [(test, [*filter(is_alike, names)]) for test, names in tests]
    return nearest_of_any([(row.source, [row.name])], alike, words)


def seen_before(tests: Sequence[NamedClasses], known: NamedClasses, words: Words, tau: float) -> Table:
    """Test classes that a pretrained network was trained on, for people: each with the nearest name that it knows.

    A class is among them if that name lies within `tau` of it (Eq. 3), or if a known name says the same: 'playing piano' is
    no test of a network that knows 'grand piano', though 0.28 lies between the two.
    """
    rows = []
    for test_set, names in tests if known[1] else ():
        nearest = {row.name: row for row in nearest_of_any([("", names)], [known], words)}
        for name in names:
            near, alike = nearest[name], [each for each in known[1] if says_the_same(each, name)]
            if near.distance <= tau or alike:
                others = f", and {len(alike) - 3} more" if len(alike) > 3 else ""
                rows.append([name, test_set, near.test_class, near.distance, ", ".join(alike[:3]) + others or "-"])
    columns = ["class", "asked of", "nearest known", "distance", "known by the same word"]
    return Table(columns, rows, f"seen in pretraining ({known[0]}, {len(known[1]):,} names): not unseen")


def overlap_table(neighbours: Sequence[Neighbour], near: Sequence[Neighbour]) -> Table:
    """A row for each training class: its set, nearest test class, that one's set, the distance, 1 if it is among `near`."""
    columns = ["training_class", "training_set", "nearest_test_class", "test_set", "distance", "overlaps"]
    overlap = set(near)
    rows = [[n.name, n.source, n.test_class, n.test_set, n.distance, int(n in overlap)] for n in neighbours]
    return Table(columns, rows)


def _list(rows: Sequence[Neighbour]) -> str:
    rest = len(rows) - _NAMED
    return "; ".join(map(str, rows[:_NAMED])) + (f"; and {rest} more ({_names(rows[_NAMED:])})" if rest > 0 else "")


def _names(rows: Sequence[Neighbour]) -> str:
    return ", ".join(row.name for row in rows)
