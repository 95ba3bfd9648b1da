"""Whether an object is still the one that was read first: by its ETag and length, as each answer with bytes tells them.

A process remembers what it saw first; that costs no request. What was replaced cannot be read on: bytes of two objects would
be one video.
"""

import re
import threading
from collections.abc import Mapping
from typing import NamedTuple

from engine.errors import SourceGone

_STRONG = re.compile(r'"[!#-~]*"')  # what a server compares for `If-Match`, and all clients write alike
_TOTAL = re.compile(r"/(\d+)\s*$")  # of `bytes 0-9/100` and `bytes */100`


class State(NamedTuple):
    """What an answer tells of its object.

    etag: as the server writes it, with quotes, or what else changes with the bytes; "" where it tells none.
    length: of the whole object in bytes; None where it is not told.
    """

    etag: str = ""
    length: int | None = None


class Answer(NamedTuple):
    """Bytes of an object (fewer than were asked for where it ends before), and what came with them."""

    data: bytes
    state: State


def state_in(headers: Mapping[str, str], tag: str = "etag") -> State:
    """What the headers of an answer to a range tell; a mapping that takes names in lower case. tag: which one is the ETag."""
    total = _TOTAL.search(headers.get("content-range", ""))
    return State(headers.get(tag, "").strip(), int(total[1]) if total else None)


class States:
    """The objects of a store as this process saw them first. Threads may share one."""

    def __init__(self) -> None:
        self._seen: dict[str, State] = {}
        self._lock = threading.Lock()

    def of(self, url: str) -> State | None:
        """What was seen; None before the first answer."""
        return self._seen.get(url)

    def if_match(self, url: str) -> str:
        """The ETag that a request may insist on; "" where there is none, or it is weak: then only the answer tells."""
        state = self._seen.get(url)
        return state.etag if state and _STRONG.fullmatch(state.etag) else ""

    def check(self, url: str, state: State) -> None:
        """Take note of what an answer tells.

        Raises:
            SourceGone: it is of another object than the one that was seen first.
        """
        if url in self._seen and state in (self._seen[url], State()):
            return
        with self._lock:
            seen = self._seen.get(url, State())
            if seen.etag and state.etag and _opaque(seen.etag) != _opaque(state.etag):
                raise replaced(url, "its ETag is another")
            if seen.length is not None and state.length is not None and seen.length != state.length:
                raise replaced(url, f"it has {state.length} bytes, not {seen.length}")
            length = state.length if seen.length is None else seen.length
            self._seen[url] = State(seen.etag or state.etag, length)


def replaced(url: str, why: str) -> SourceGone:
    """The error of an object that is another now."""
    return SourceGone(
        f"'{url}' was replaced while it was read ({why}): let what writes there finish, then give the same command again. Leave a "
        "store that is read as it is, and make another in a folder of its own (tools/ingest.py --out)"
    )


def _opaque(etag: str) -> str:
    return etag.removeprefix("W/")
