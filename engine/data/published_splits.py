"""Published zero-shot splits of the classes of a data set, by name (`data.train.N.published_split`)."""

import difflib
import functools
from collections.abc import Sequence
from pathlib import Path

from engine.data.config import PUBLISHED_SPLITS
from engine.errors import InputError
from engine.schema import read_yaml

TABLE = Path(__file__).with_name("tables") / "published_splits.yaml"


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
