"""Typed configuration: dataclasses as sections, YAML and dotted overrides in, every error with its key.

Knows nothing of what is configured; `engine/config.py` has the sections.
"""

import contextlib
import dataclasses
import difflib
import fnmatch
import functools
import math
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, TypeVar, Unpack

import yaml

from engine.errors import InputError

T = TypeVar("T")

MAX_YAML_BYTES = 2**20
MAX_SEED = 2**32 - 1  # numpy's RandomState takes no larger one


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


class _UniqueKeyLoader(yaml.SafeLoader):
    """PyYAML keeps the last of two equal keys silently; this refuses them. And aliases: a few lines of them can
    stand for more values than any memory holds."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise InputError(
                f"alias '*{event.anchor}' in line {event.start_mark.line + 1}: write the values out instead"
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: dict[Any, int] = {}
        for key_node, _ in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):  # as in {{name}}, a template that nobody has filled in
                raise InputError(f"a key in line {line} is no word but a list or a mapping: write it out, or quote it")
            key = self.construct_object(key_node, deep=deep)
            if key in seen:
                raise InputError(f"key '{key}' stands twice, in lines {seen[key]} and {line}: keep one")
            seen[key] = line
        return super().construct_mapping(node, deep)


class _FileLoader(_UniqueKeyLoader):
    """A section of which nothing but its name is written (all of it is commented out) is as one that is not there: the base's,
    or the default. `null` takes away what the base has."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        found = super().construct_mapping(node, deep)
        if node.start_mark.column == 0:  # the file's sections
            for key, value in node.value:
                if isinstance(value, yaml.ScalarNode) and value.value == "" and not value.style:
                    found.pop(key.value, None)
        return found


def read_layers(path: Path, above: Sequence[Path] = ()) -> list[dict[str, Any]]:
    """What a YAML file writes, behind what the file that its key `base` names does, and so on: the last holds most.

    Raises:
        InputError: a file is missing or no valid YAML, or they name each other in a circle.
    """
    if any(path.resolve() == other.resolve() for other in above):
        circle = " -> ".join(map(str, [*above, path]))
        raise InputError(f"configs take their keys from each other in a circle: {circle}")
    try:
        own = _read_file(path)
    except InputError as error:
        raise InputError(f"{above[-1]}: its base: {error}" if above else str(error)) from None
    base = own.pop("base", None)
    if base is None:
        return [own]
    if not isinstance(base, str) or "\0" in base:
        raise InputError(f"{path}: 'base' must name another config, not {base!r}")
    return [*read_layers(path.parent / base, [*above, path]), own]


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file with the keys of its `base`, as nested dictionaries.

    Raises:
        InputError: as `read_layers`.
    """
    return functools.reduce(merged, read_layers(path))


def merged(under: Any, over: Any) -> Any:
    """Two trees as one: sections are merged key by key, any other value (a list too) is replaced."""
    if not isinstance(under, dict) or not isinstance(over, dict):
        return over
    return {**under, **{key: merged(under.get(key), value) for key, value in over.items()}}


def _read_file(path: Path) -> dict[str, Any]:
    """Safe loading, duplicate keys refused."""
    if path.is_dir():
        raise InputError(f"config '{path}' is a folder: name a YAML file in it")
    if not path.is_file():
        raise InputError(f"no config file at '{path}'")
    if path.stat().st_size > MAX_YAML_BYTES:
        raise InputError(f"{path} has {path.stat().st_size} bytes, a config at most {MAX_YAML_BYTES}: is it one?")
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_FileLoader)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except RecursionError:
        raise InputError(f"{path} is nested too deeply for a config") from None
    except (yaml.YAMLError, ValueError, OSError) as error:  # a ValueError: no text, or a date that no calendar has
        raise InputError(f"{path} is not valid YAML: {_one_line(error)}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise InputError(f"{path} must be a mapping of sections, not a {type(content).__name__}")
    return content


def _one_line(error: Exception) -> str:
    """Where a text stops being YAML and why, without PyYAML's excerpts of several lines."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}"
    return " ".join(str(error).split())


def apply_override(tree: dict[str, Any], text: str) -> None:
    """Set one `section.key=value` in the tree (value in YAML syntax; list places by number)."""
    dotted, sign, value_text = text.partition("=")
    if not sign or not dotted:
        raise InputError(f"override '{text}' is not of the form section.key=value")
    try:
        value = yaml.load(value_text, Loader=_UniqueKeyLoader)
    except InputError as error:
        raise InputError(f"override '{text}': {error}") from None
    except RecursionError:
        raise InputError(f"override '{text:.40}...' is nested too deeply for a config") from None
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"override '{text}': the value is not valid YAML ({_one_line(error)})") from error
    *parents, last = dotted.split(".")
    node: Any = tree
    for depth, name in enumerate(parents):
        where = ".".join(parents[: depth + 1])
        if isinstance(node, list):
            node = node[_list_place(node, name, text)]
        elif isinstance(node, dict):
            if node.get(name) is None:
                node[name] = {}
            node = node[name]
        if not isinstance(node, dict | list):
            raise InputError(f"override '{text}': '{where}' is a value, not a section")
    if isinstance(node, list):
        node[_list_place(node, last, text)] = value
    else:
        node[last] = value


def _list_place(items: list[Any], name: str, text: str) -> int:
    if not name.isdigit() or int(name) >= len(items):
        raise InputError(f"override '{text}': '{name}' is not a place in a list of {len(items)}")
    return int(name)


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


def matches(value: str, choices: Sequence[str]) -> bool:
    """Whether a value is one of the choices, or fits one that is a pattern (timm:*)."""
    return any(fnmatch.fnmatchcase(value, choice) for choice in choices)


def to_tree(config: Any) -> dict[str, Any]:
    """A config as plain nested dictionaries, ready for YAML and for a checkpoint."""
    return dataclasses.asdict(config)
