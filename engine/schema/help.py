"""A typed configuration (`engine/schema/parser.py`) told to its user: all sections in short, or one of them whole."""

import dataclasses
import textwrap
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from engine.schema.keys import default


def sections(cls: type) -> dict[str, type]:
    """The sections of a config by dotted name, in order; N is a place in a list. A type that comes again is left out."""
    found: dict[str, type] = {}
    for field, inner in _fields(cls):
        if inner is not None and not _is_known(inner, found.values()):
            name = field.name + _place(cls, field)
            found[name] = inner
            for more, part in sections(inner).items():
                if not _is_known(part, found.values()):
                    found[f"{name}.{more}"] = part
    return found


def _fields(cls: type) -> list[tuple[dataclasses.Field[Any], type | None]]:
    """The fields of a section, each with the section that it holds, if any: itself or a list of them, optional or not."""
    hints = {name: _hints(hint) for name, hint in typing.get_type_hints(cls).items()}
    return [
        (field, next(filter(dataclasses.is_dataclass, hints[field.name]), None)) for field in dataclasses.fields(cls)
    ]


def _hints(hint: Any) -> list[Any]:
    """A type with those that it is made of."""
    return [hint, *(inner for part in typing.get_args(hint) for inner in _hints(part))]


def _place(cls: type, field: dataclasses.Field[Any]) -> str:
    is_list = any(typing.get_origin(hint) is list for hint in _hints(typing.get_type_hints(cls)[field.name]))
    return ".N" if is_list else ""


def _is_known(cls: type, known: Iterable[type]) -> bool:
    return any(issubclass(each, cls) for each in known)


def outline(cls: type) -> str:
    """All sections of a config in short, for `--help`: what each is, and its keys with their defaults."""
    lines = [
        f"{field.name}={_default(field)}: {field.metadata.get('help', '')}{_allowed(field.metadata)}"
        for field, part in _fields(cls)
        if part is None
    ]
    for name, inner in sections(cls).items():
        keys = [f"{field.name}={_default(field)}" for field, part in _fields(inner) if part is None]
        keys += [f"{field.name}: ..." for field, part in _fields(inner) if part is not None]
        unbroken = " ".join(key.replace(" ", "\0") for key in keys)
        lines += [f"{name}: {_about(inner)}", textwrap.fill(unbroken, 118, initial_indent="    ", subsequent_indent="    ",
                  break_long_words=False, break_on_hyphens=False).replace("\0", " ")]  # fmt: skip
    return "\n".join(lines)


def describe(cls: type, name: str) -> str:
    """Section `name` of a config and those within it: every key with its default and meaning, for `--section`."""
    known = sections(cls)
    lines = []
    for dotted, inner in known.items():
        if dotted != name and not dotted.startswith(f"{name}."):
            continue
        lines += ["", f"{dotted}: {_about(inner)}"]
        for field, part in _fields(inner):
            key = f"{dotted}.{field.name}"
            if part is not None and not field.metadata.get("help"):
                continue  # a section that is always there, and comes next
            meaning = field.metadata.get("help", "") + _allowed(field.metadata)
            if field.metadata.get("needs"):
                meaning += f"; needs {field.metadata['needs']}".removeprefix("; " if not meaning else "")
            if part is not None:
                meaning += f"; keys: {next(each for each, held in known.items() if issubclass(held, part))}"
            lines += [f"  {key} = {_default(field)}".rstrip(), *([f"      {meaning}"] if meaning else [])]
    return "\n".join(lines[1:])


def _about(cls: type) -> str:
    return (cls.__doc__ or "").strip().splitlines()[0]


def _default(field: dataclasses.Field[Any]) -> str:
    value = default(field)
    if value is dataclasses.MISSING:
        return "(required)"
    return "..." if dataclasses.is_dataclass(value) else str(value)


def _allowed(metadata: Mapping[str, Any]) -> str:
    return f" [{' | '.join(metadata['choices'])}]" if metadata.get("choices") else ""
