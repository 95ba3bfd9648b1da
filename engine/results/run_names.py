"""What runs are called in tables: by their folders."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path


def run_names(folders: Sequence[Path]) -> list[str]:
    """The name of each run's folder, and of those of one name as much of the path as tells them apart from all others."""
    folders = [folder.absolute() for folder in folders]
    names = {folder: _name(folder) for folder in folders}
    alike: dict[str, list[Path]] = {}
    for folder, name in names.items():
        alike.setdefault(name, []).append(folder)
    depths = {name: name.count("/") + 1 for name in alike}
    while twice := {name for name, count in Counter(names.values()).items() if count > 1}:
        for first, group in alike.items():
            if any(names[folder] in twice for folder in group):
                depths[first] += 1
                names |= {folder: Path(*folder.parts[-depths[first] :]).as_posix() for folder in group}
    return [names[folder] for folder in folders]


def _name(folder: Path) -> str:
    """A folder's name; of an evaluation within a run's folder, or beside its checkpoints, also that one's."""
    if folder.parent.name == "checkpoints":
        return f"{folder.parent.parent.name}/{folder.name}"
    return "/".join(folder.parts[-2:]) if folder.name == "evaluation" else folder.name
