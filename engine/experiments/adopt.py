"""Runs that were made by hand, taken as cells where their config means the same.

An adopted run stays where it is: a link among the cells points to it.
"""

import glob
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.errors import InputError
from engine.experiments.cells import Cell, is_finished, meaning_of_run
from engine.schema import to_tree

_SHOWN = 6  # differing keys that are named


def adopt_runs(cells: Sequence[Cell], pattern: str, out: Path) -> list[str]:
    """Link the finished runs of a pattern to those of the cells that they are. Returns lines that say what came of each.

    Raises:
        InputError: no folder matches the pattern, or none of them is a run.
    """
    names = sorted(glob.glob(pattern))  # noqa: PTH207 (Path.glob takes no absolute pattern)
    folders = [Path(name) for name in names if (Path(name) / "config.yaml").is_file()]
    if not folders:
        raise InputError(f"--adopt: no run folder (with a config.yaml) matches '{pattern}'")
    lines = []
    for folder in folders:
        meaning = meaning_of_run(folder)
        match = next((cell for cell in cells if cell.meaning == meaning), None)
        if match is None:
            lines.append(f"not adopted: {folder} differs from every cell in {_nearest(meaning, cells)}")
        elif not is_finished(match, folder):
            what = "its control is missing" if (folder / "results.json").is_file() else "it is not finished"
            lines.append(f"not adopted: {folder} is {match.name}, but {what}")
        elif (place := match.folder(out)).exists():
            lines.append(f"{folder} is {match.name}, which is at {place} already")
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(folder.resolve(), target_is_directory=True)
            lines.append(f"adopted: {folder} is {match.name}")
    return lines


def _nearest(meaning: Any, cells: Sequence[Cell]) -> str:
    """The keys in which a run differs from the cell that is most like it."""
    own = _flat(to_tree(meaning))
    differing = min((_differing(own, _flat(to_tree(cell.meaning))) for cell in cells), key=len)
    more = f" and {len(differing) - _SHOWN} more" if len(differing) > _SHOWN else ""
    return ", ".join(differing[:_SHOWN]) + more


def _differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    return [
        f"{key} ({one.get(key)!r}, cell: {other.get(key)!r})"
        for key in dict.fromkeys([*one, *other])
        if one.get(key) != other.get(key)
    ]


def _flat(value: Any, where: str = "") -> dict[str, Any]:
    if isinstance(value, dict) and value:
        parts = [(str(key), part) for key, part in value.items()]
    elif isinstance(value, list) and value:
        parts = [(str(place), part) for place, part in enumerate(value)]
    else:
        return {where: value}
    return {k: v for key, part in parts for k, v in _flat(part, f"{where}.{key}" if where else key).items()}
