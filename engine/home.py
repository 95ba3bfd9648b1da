"""Paths that begin with ~, wherever no shell has replaced it: in configs, behind the `=` of an override or of an option."""

from pathlib import Path


def from_home(path: str) -> str:
    """The path with the ~ or ~user that it begins with replaced by that user's home; any other, and an address, as it stands."""
    if not path.startswith("~"):
        return path
    try:
        return str(Path(path).expanduser())
    except RuntimeError:  # no such user: a file is called so
        return path
