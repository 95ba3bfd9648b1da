"""The user's home: its caches, and paths that begin with ~ where no shell has replaced it (in configs, behind an `=`)."""

import os
from pathlib import Path


def from_home(path: str) -> str:
    """The path with the ~ or ~user that it begins with replaced by that user's home; any other, and an address, as it stands."""
    if not path.startswith("~"):
        return path
    try:
        return str(Path(path).expanduser())
    except RuntimeError:  # no such user: a file is called so
        return path


def cache_home() -> Path | None:
    """Where this user's caches lie: XDG_CACHE_HOME, else ~/.cache; None for a user without home."""
    path = from_home(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    return None if path.startswith("~") else Path(path)
