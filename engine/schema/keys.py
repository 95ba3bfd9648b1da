"""What the keys of a config say of themselves beyond their type (`option` in `engine/schema/parser.py`), read off a whole config.

A key can be idle (nothing uses it, for what another key is), decide nothing of the result, or be fixed once a run has begun.
"""

import dataclasses
import functools
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from engine.errors import InputError
from engine.schema.parser import matches

T = TypeVar("T")
_INHERITED = (
    "decides",
    "fixed",
    "unused",
)  # by the keys of a section from the key that holds it, where they do not say


@dataclass(frozen=True)
class Key:
    """A key of a config. name: dotted. section: that it is in. metadata: its own and what it inherits."""

    name: str
    section: Any
    field: dataclasses.Field[Any]
    metadata: Mapping[str, Any]

    @property
    def value(self) -> Any:
        return getattr(self.section, self.field.name)


@dataclass(frozen=True)
class Change:
    """A key that a config has at another value than an older one. is_fixed: it may not, once a run has begun."""

    name: str
    old: Any
    new: Any
    is_fixed: bool

    def told(self, between: str) -> str:
        """The old value and the new, for people."""
        return f"{_short(self.old)}{between}{_short(self.new)}"


def idle(config: Any) -> dict[str, str]:
    """The keys of a config that cannot matter, by dotted name, each with what it would need."""
    needs = {
        key.name: key.metadata.get("unused", {}).get(key.field.name) or _unmet(config, key) for key in _keys(config)
    }
    return {name: need for name, need in needs.items() if need}


def refuse_idle(config: Any, written: Mapping[str, Any], also_idle: Collection[str] | None = None) -> None:
    """Refuse keys that somebody wrote and that cannot matter.

    Args:
        written: the tree of what was written. also_idle: only those of these names, if given.

    Raises:
        InputError: naming each key and what it needs.
    """
    needs = idle(config)
    names = [name for name in _names(written) if name in needs and (also_idle is None or name in also_idle)]
    if names:
        listed = "; ".join(f"'{name}' needs {needs[name]}" for name in names)
        raise InputError(f"{listed}: else it cannot matter, so leave it out")


def without_idle(config: T) -> T:
    """The config with every idle key at its default."""
    names = idle(config)
    return with_keys(config, {key.name: default(key.field) for key in _keys(config) if key.name in names})


def decisive(config: T) -> T:
    """The config with every key at its default that is idle, or that decides nothing of the result but its last digits."""
    config = without_idle(config)
    indecisive = [key for key in _keys(config) if not key.metadata.get("decides", True) and not _parts(key.value)]
    return with_keys(config, {key.name: default(key.field) for key in indecisive})


def with_keys(config: T, values: Mapping[str, Any]) -> T:
    """The config with other values of some keys, by their dotted names, set in this order."""
    for name, value in values.items():
        config = _with_key(config, name.split("."), value)
    return config


def _with_key(section: Any, path: Sequence[str], value: Any) -> Any:
    first, *rest = path
    if isinstance(section, list):
        return [_with_key(part, rest, value) if index == int(first) else part for index, part in enumerate(section)]
    new = _with_key(getattr(section, first), rest, value) if rest else value
    return dataclasses.replace(section, **{first: new})


def changes(old: Any, new: Any, fixed: Collection[str] = ()) -> list[Change]:
    """The keys in which two configs differ; a section or list that is not in both is a single change.

    Args:
        fixed: sections of which all is fixed, beside the keys that say so themselves.
    """
    before, after = ({key.name: key for key in _keys(config)} for config in (old, new))
    found: list[Change] = []
    for name, key in after.items():
        other = before.get(name)
        if other is None or other.value == key.value or len(_parts(other.value)) == len(_parts(key.value)) > 0:
            continue  # it is in a section of which all is new, or has keys of its own
        is_fixed = key.metadata.get("fixed", False) or name.partition(".")[0] in fixed
        found.append(Change(name, other.value, key.value, is_fixed))
    return found


def _names(tree: Any, where: str = "") -> Iterator[str]:
    """The dotted names of all keys that a tree of YAML values writes."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield f"{where}{key}"
        yield from _names(value, f"{where}{key}.")


def default(field: dataclasses.Field[Any]) -> Any:
    """The default of a key; `dataclasses.MISSING` if it is required."""
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default


def _keys(section: Any, where: str = "", inherited: Mapping[str, Any] = {}) -> Iterator[Key]:
    """All keys, each section's own before those within it."""
    for field in dataclasses.fields(section):
        key = Key(where + field.name, section, field, {**inherited, **field.metadata})
        yield key
        passed_on = {name: key.metadata[name] for name in _INHERITED if name in key.metadata}
        for index, part in _parts(key.value):
            yield from _keys(part, f"{key.name}{index}.", passed_on)


def _parts(value: Any) -> list[tuple[str, Any]]:
    """The sections that a key holds (itself, or a list of them), each with what its place adds to the key's name."""
    if dataclasses.is_dataclass(value):
        return [("", value)]
    listed = enumerate(value) if isinstance(value, list) else ()
    return [(f".{index}", part) for index, part in listed if dataclasses.is_dataclass(part)]


def _short(value: Any) -> str:
    if _parts(value):
        return f"{len(value)} of them" if isinstance(value, list) else "a section"
    return "none" if value is None else str(value)


def _unmet(config: Any, key: Key) -> str | None:
    """What a key needs and has not; None: it can matter."""
    needs = key.metadata.get("needs")
    missing = [_missing(config, key, need) for need in needs.split(" or ")] if needs else [None]
    return None if None in missing else " or ".join(missing)


def _missing(config: Any, key: Key, need: str) -> str | None:
    named, sign, values = re.fullmatch(r"([\w.]+)(!?=)?(.*)", need).groups()
    *parents, last = named.split(".")
    section = functools.reduce(getattr, parents, config) if parents else key.section
    field = next(field for field in dataclasses.fields(section) if field.name == last)
    other = Key(
        named if parents else f"{key.name.rpartition('.')[0]}.{last}".lstrip("."), section, field, field.metadata
    )
    value = str(other.value)
    if matches(value, values.split("|")) if sign == "=" else value != values if sign else other.value:
        return _unmet(config, other)
    wanted = f"{values.replace('|', ' or ')} (here {value})" if sign == "=" else f"other than {values or value}"
    return f"{other.name} {wanted}"
