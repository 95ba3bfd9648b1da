"""Typed configuration: dataclasses as sections, trees of keys in, every error with its key.

Knows nothing of what is configured (`engine/config.py` has the sections), nor of files (`engine/schema/files.py`).
"""

import contextlib
import dataclasses
import difflib
import fnmatch
import math
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict, TypeVar, Unpack

from engine.errors import InputError
from engine.files.home import from_home

T = TypeVar("T")

MAX_SEED = 2**32 - 1  # numpy's RandomState takes no larger one
_MAX_INT = 2**31 - 1  # of whole numbers that name no maximum: what all libraries take


class Meaning(TypedDict, total=False):
    """What a key says of itself, for `option`. The keys of a section inherit the last three where they do not say."""

    choices: Sequence[str]  # or patterns of them, as timm:*
    minimum: float  # of a number, or of each of a list
    maximum: float
    needs: str  # else it cannot matter: KEY=A|B, KEY!=A, KEY (not off), or several with " or "; dotted if of another section
    unused: Mapping[str, str]  # keys that never matter in the sections that it holds -> what they need
    decides: (
        bool  # False: it changes speed, what is told or what is kept, and nothing of the result but its last digits
    )
    fixed: bool  # True: a run that resumes must have it as it was
    path: bool  # True: a file or folder, or several; the ~ or ~user that it begins with is that user's home


def option(default: Any, help: str, **meaning: Unpack[Meaning]) -> Any:
    """A config key: its default (... if it is required; a mutable one is copied), and what it means."""
    metadata = {"help": help, **meaning}
    if default is ...:
        return dataclasses.field(metadata=metadata)
    if isinstance(default, list | dict):
        return dataclasses.field(default_factory=lambda: type(default)(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def section(cls: type[T], **meaning: Unpack[Meaning]) -> T:
    """A section with all its defaults, as the default of a field."""
    return dataclasses.field(default_factory=cls, metadata=meaning)


def parse(cls: type[T], values: Any, where: str = "") -> T:
    """Build section `cls` from nested dictionaries, checking every key, type, choice and range."""
    if values is None:
        values = {}
    if not isinstance(values, Mapping):
        raise InputError(f"'{where}' must be a section (key: value lines), not {values!r}")
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    arguments = {}
    for key, value in values.items():
        dotted = f"{where}.{key}" if where else str(key)
        if key not in fields:
            raise InputError(f"unknown key '{dotted}'{_nearest(str(key), fields, where)}")
        if isinstance(value, bool) and "yes" in (fields[key].metadata.get("choices") or ()):
            value = "yes" if value else "no"  # YAML 1.1 reads yes and no as booleans
        arguments[key] = _convert(hints[key], value, dotted)
        if fields[key].metadata.get("path"):
            paths = arguments[key]
            arguments[key] = list(map(from_home, paths)) if isinstance(paths, list) else paths and from_home(paths)
        _check_range(fields[key].metadata, arguments[key], dotted)
    for name, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in arguments:
            raise InputError(
                f"key '{where + '.' if where else ''}{name}' is required: {field.metadata.get('help', '')}"
            )
    try:
        return cls(**arguments)
    except ValueError as error:  # a section's own check of how its keys fit together
        raise InputError(f"section '{where or 'config'}': {error}") from error


def _nearest(key: str, fields: Mapping[str, Any], where: str) -> str:
    close = difflib.get_close_matches(key, fields, n=1, cutoff=0.5)
    if close:
        return f": did you mean '{where + '.' if where else ''}{close[0]}'?"
    return f": {'section ' + repr(where) if where else 'the config'} has the keys {', '.join(fields)}"


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin = typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        options = [part for part in typing.get_args(hint) if part is not type(None)]
        if value is None:
            if len(options) == len(typing.get_args(hint)):
                raise InputError(f"'{where}' must not be empty")
            return None
        return _convert(options[0], value, where)
    if dataclasses.is_dataclass(hint):
        return parse(hint, value, where)
    if origin is list:
        if not isinstance(value, list):
            raise InputError(f"'{where}' must be a list, not {value!r}")
        (item,) = typing.get_args(hint)
        return [_convert(item, part, f"{where}.{index}") for index, part in enumerate(value)]
    if origin is dict:
        if not isinstance(value, dict):
            raise InputError(f"'{where}' must be a mapping, not {value!r}")
        key_type, item = typing.get_args(hint)
        return {_convert(key_type, k, where): _convert(item, v, f"{where}.{k}") for k, v in value.items()}
    if hint is float and isinstance(value, int | str) and not isinstance(value, bool):  # YAML 1.1 reads 1e-3 as text
        with contextlib.suppress(ValueError, OverflowError):
            value = float(value)
    if isinstance(value, bool) != (hint is bool) or not isinstance(value, hint):
        raise InputError(f"'{where}' must be of type {hint.__name__}, not {value!r}")
    if hint is float and not math.isfinite(value):
        raise InputError(f"'{where}' is {value}: it must be a finite number")
    return value


def _check_range(metadata: Mapping[str, Any], value: Any, where: str) -> None:
    choices, minimum, maximum = (metadata.get(name) for name in ("choices", "minimum", "maximum"))
    if value is None:
        return
    if choices and not matches(str(value), choices):
        close = difflib.get_close_matches(str(value), choices, n=1)
        hint = f"did you mean '{close[0]}'? " if close else ""
        raise InputError(f"'{where}' is {value!r}: {hint}it may be {', '.join(choices)}")
    for part in value if isinstance(value, list) else [value]:
        if minimum is not None and not part >= minimum:
            raise InputError(f"'{where}' is {part}: it must be at least {minimum:g}")
        if maximum is not None and not part <= maximum:
            raise InputError(f"'{where}' is {part}: it must be at most {maximum:g}")
        if maximum is None and isinstance(part, int) and abs(part) > _MAX_INT:
            raise InputError(f"'{where}' is {part}: it must be at most {_MAX_INT:,}")


def matches(value: str, choices: Sequence[str]) -> bool:
    """Whether a value is one of the choices, or fits one that is a pattern (timm:*)."""
    return any(fnmatch.fnmatchcase(value, choice) for choice in choices)


def to_tree(config: Any) -> dict[str, Any]:
    """A config as plain nested dictionaries, ready for YAML and for a checkpoint."""
    return dataclasses.asdict(config)
