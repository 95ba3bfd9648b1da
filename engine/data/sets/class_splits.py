"""The classes of a data set in two: those that train and those that are unseen.

At random (`data.train.N.class_split`), or as a publication did (`data.train.N.published_split`).
"""

import difflib
import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from engine.data.config import PUBLISHED_SPLITS, ClassSplitConfig
from engine.errors import InputError
from engine.schema.files import read_yaml

TABLE = Path(__file__).with_name("tables") / "published_splits.yaml"


def split_classes(classes: Sequence[str], split: ClassSplitConfig) -> dict[str, list[str]]:
    """Class names of both sides: a RandomState permutation of the sorted names, the first num_train train."""
    names = sorted(classes)
    if split.num_train >= len(names):
        raise InputError(
            f"class_split.num_train is {split.num_train} but there are {len(names)} classes: none would be unseen"
        )
    order = np.random.RandomState(split.seed).permutation(len(names))
    return {
        "train": [names[i] for i in order[: split.num_train]],
        "unseen": [names[i] for i in order[split.num_train :]],
    }


def check_measurable(classes: Sequence[str], num_train: int) -> None:
    """Whether splits with so many training classes leave two candidates to name videos among.

    Raises:
        InputError: one class would be unseen, of which every answer is right, or none.
    """
    split_classes(classes, ClassSplitConfig(0, num_train))
    if num_train == len(classes) - 1:
        raise InputError(
            f"{num_train} of {len(classes)} classes as training classes can measure nothing: with one unseen class every answer is "
            "right. Leave at least two classes unseen"
        )


def draw_classes(names: Sequence[str], count: int, key: tuple[int, ...]) -> list[str]:
    """`count` of the names at random; of one key fewer are part of more."""
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))
    order = generator.permutation(len(names))
    return sorted(sorted(names)[index] for index in order[:count])


@functools.cache
def published_tests() -> dict[str, tuple[str, ...]]:
    """The test classes of each split, as their data set spells them."""
    table = read_yaml(TABLE)
    return {name: tuple(table[name]) for name in PUBLISHED_SPLITS}


def published_split(classes: Sequence[str], name: str) -> dict[str, list[str]]:
    """The class names of both sides: `unseen`, those that the split tests, and `train`, all others.

    Case, spaces and signs do not count: `HorseRace` is `horse race`.

    Raises:
        InputError: a test class of the split is not among the classes.
    """
    own = {_letters(each): each for each in classes}
    tests = published_tests()[name]
    missing = [each for each in tests if _letters(each) not in own]
    if missing:
        near = difflib.get_close_matches(missing[0], classes, n=3)
        told = f"; near it: {', '.join(map(repr, near))}" if near else ""
        raise InputError(
            f"published_split {name} tests {len(tests)} classes, and {len(missing)} of them are not here, the first "
            f"'{missing[0]}'{told}. It takes a manifest of that whole data set"
        )
    unseen = {own[_letters(each)] for each in tests}
    return {"train": sorted(set(classes) - unseen), "unseen": sorted(unseen)}


def _letters(name: str) -> str:
    return "".join(filter(str.isalnum, name.lower()))
