"""Sets of classes as a user names them: a list of names in a file, a manifest, or the classes of published weights."""

import re
from collections.abc import Sequence
from pathlib import Path

from engine.data.manifests.large_manifest import read_manifest
from engine.errors import InputError
from engine.models.image_weights import IMAGENET, imagenet_names
from engine.models.weights import KINETICS400, kinetics400_classes
from engine.semantics.words import composed

NamedClasses = tuple[str, Sequence[str]]  # a set of classes: what it is called, its class names


def read_class_names(path: Path) -> tuple[str, ...]:
    """Class names of a text file, one a line; empty lines and lines that begin with # do not count.

    Raises:
        InputError: no such file, not text, or no names in it.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")  # a name may hold U+2028
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"class names cannot be read from '{path}' ({error}): give a text file, one name a line"
        ) from error
    names = dict.fromkeys(composed(line.strip()) for line in lines if line.strip() and not line.startswith("#"))
    if not names:
        raise InputError(f"'{path}' holds no class names: it needs one a line")
    found = [match.groups() for name in names if (match := re.match(r"(\d+)\s*[,;\t ]\s*(\S.*)", name))]
    numbers, texts = ({each[place] for each in found} for place in (0, 1))
    is_meant = len(texts) < len(found)  # "100 metres" beside "200 metres"
    if len(names) > 2 and len(numbers) >= len(names) - 1 and not is_meant:  # but for a header
        raise InputError(
            f"'{path}' numbers its class names ('{next(iter(names))}', ...), and the numbers would count as words: leave them out"
        )
    return tuple(names)


def named(text: str) -> tuple[str | None, str]:
    """NAME=FILE in two; the name is None where there is none, or where a file is called so."""
    called, equals, file = text.partition("=")
    return (called, file) if equals and not Path(text).exists() else (None, text)


def is_manifest(path: Path) -> bool:
    """Whether a file of classes is a manifest, or a folder, which only a large one can be."""
    return path.suffix == ".parquet" or path.is_dir()


def read_classes(text: str) -> NamedClasses:
    """A set of classes as a command line names it: (what it is called, class names).

    Args:
        text: a manifest of either form, a text file with a class name a line, kinetics400 or imagenet; before it, if wanted, NAME=.

    Raises:
        InputError: it cannot be read.
    """
    called, file = named(text)
    if called is not None:
        return called, read_classes(file)[1]
    path = Path(text)
    if text == KINETICS400 and not path.exists():
        return KINETICS400, kinetics400_classes()
    if text == IMAGENET and not path.exists():
        return IMAGENET, imagenet_names()
    if is_manifest(path):
        name = path.resolve().parent.name if path.stem == "manifest" else path.absolute().name.removesuffix(".parquet")
        return name, read_manifest(path).classes
    return path.stem, read_class_names(path)
