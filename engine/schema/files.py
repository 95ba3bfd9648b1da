"""Trees of keys from YAML files, each over the one that its `base` names, and from `section.key=value` overrides.

Plain nested dictionaries, unchecked but for what makes a YAML file unfit; `engine/schema/parser.py` checks them.
"""

import functools
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import ConstructorError

from engine.errors import InputError
from engine.files.home import from_home

MAX_YAML_BYTES = 2**20


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

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (LookupError, AttributeError) as error:  # PyYAML's, of a value such as !!bool x
            raise ConstructorError(None, None, f"that is no value of its tag {node.tag}", node.start_mark) from error

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: dict[Any, int] = {}
        for key_node, _ in node.value if isinstance(node, yaml.MappingNode) else ():  # !!map [1] is none
            line = key_node.start_mark.line + 1
            is_word = isinstance(key_node, yaml.ScalarNode)  # unlike {{name}}, a template that nobody has filled in
            key = self.construct_object(key_node, deep=deep) if is_word else None
            if not is_word or not isinstance(key, Hashable):  # !!map x is none either
                raise InputError(f"a key in line {line} is no word but a list or a mapping: write it out, or quote it")
            if key in seen:
                raise InputError(f"key '{key}' stands twice, in lines {seen[key]} and {line}: keep one")
            seen[key] = line
        return super().construct_mapping(node, deep)


class _FileLoader(_UniqueKeyLoader):
    """A section of which nothing but its name is written (all of it is commented out) is as one that is not there: the base's,
    or the default. `null` takes away what the base has."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        found = super().construct_mapping(node, deep)
        for key, value in node.value:
            if isinstance(value, yaml.ScalarNode) and value.value == "" and not value.style:
                found[self.construct_object(key)] = _BLANK
        return found


_BLANK = object()  # what stands behind `key:`


def _settled(own: Any, under: Any) -> Any:
    """What a file writes, given what its base has: a blank is the base's section where there is one, else null."""
    if isinstance(own, list):
        return [_settled(part, None) for part in own]
    if not isinstance(own, dict):
        return None if own is _BLANK else own
    held = under if isinstance(under, dict) else {}
    return {
        key: _settled(value, held.get(key))
        for key, value in own.items()
        if value is not _BLANK or not isinstance(held.get(key), dict)
    }


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
        return [_settled(own, None)]
    if not isinstance(base, str) or "\0" in base:
        raise InputError(f"{path}: 'base' must name another config, not {base!r}")
    layers = read_layers(path.parent / from_home(base), [*above, path])
    return [*layers, _settled(own, functools.reduce(merged, layers))]


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
    return {key: value for key, value in content.items() if value is not _BLANK}  # sections that are not there


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
    if not name.isdecimal() or int(name) >= len(items):
        raise InputError(f"override '{text}': '{name}' is not a place in a list of {len(items)}")
    return int(name)
