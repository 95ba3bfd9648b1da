"""Addresses of object storage, and the paths that stand for them within the engine."""

import re
from pathlib import Path

from engine.errors import InputError

BEGINNING = r"^/?(s3|gs|https?|memory):/"  # of whatever `url_of` finds a URL in
_ADDRESS = re.compile(BEGINNING + r"+(.*)$", re.DOTALL)


def url_of(path: str | Path) -> str | None:
    """The URL that a path stands for; None for a path of this machine.

    Args:
        path: a URL, or what `pathlib` and the engine make of it (`s3:/bucket/key`, `/s3:/bucket/key`).
    """
    text = str(path)
    if ":/" not in text[:9]:  # the longest is /memory:/
        return None
    found = _ADDRESS.match(text)
    return found and f"{found[1]}://{found[2]}"


def as_path(text: str | Path) -> Path:
    """A path, or the one that stands for a URL.

    Raises:
        InputError: the URL holds credentials, which would be written into configs and logs.
    """
    url = url_of(text)
    if url is None:
        return Path(text)
    check_no_secrets(url)
    scheme, _, rest = url.partition("://")
    return Path(f"/{scheme}:/{rest}")


def check_no_secrets(text: str) -> None:
    """Refuse a URL with a user or a signed query; it is not shown.

    Raises:
        InputError: as said.
    """
    url = url_of(text)
    if url is None:
        return
    scheme, _, rest = url.partition("://")
    host = rest.partition("/")[0]
    if "@" in host or "?" in rest:
        raise InputError(
            f"a {scheme}:// address holds a user, a password or a query (a signed URL?), which would be kept in configs and logs: "
            "leave it out, and give credentials by the environment or ~/.aws (docs/data.md)"
        )


def shown(path: str | Path) -> str:
    """A path as a user knows it."""
    return url_of(path) or str(path)
