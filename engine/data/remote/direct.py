"""Ranges of `https://` and `s3://` without a file system between, where libcurl is installed (extra `remote`).

A range through `fsspec` costs the processor some 0.7 ms, of S3 2 ms and more, where decoding the snippet takes 2.2; this costs
about a tenth of it. An object of S3 is read by an address that its file system has signed, the same for all its ranges.
"""

import functools
import os
import queue
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import quote

from engine.data.remote import file_systems
from engine.data.remote.states import Answer

if TYPE_CHECKING:
    from engine.data.remote.curl import Connections

_SIGNED_FOR_S, _KEPT_FOR_S = 3600, 600  # what a signature allows, and how long it is used
_RESTS_FOR_S = 600.0  # a bucket or server, after it has declined
_NO_ETAG = '"of-nothing"'
_AS_IT_IS = "/:%~!$&'()*+,;=@[]"  # in an address, beside letters and digits
_RESTING: dict[str, float] = {}  # buckets and servers, until when
_SIGNED: dict[str, tuple[str, float]] = {}  # of objects of S3 the address, and until when it is used
_OPEN: dict[tuple[int, int], "Connections"] = {}  # by the process and how many
_OPENING = threading.Lock()  # once, whichever threads read first
_INSISTS: dict[str, bool] = {}  # buckets and servers: whether they refuse what `If-Match` does not name


def begin(
    url: str, start: int, end: int, connections: int, ended: Callable[[Answer | Exception], None], if_match: str = ""
) -> bool:
    """Begin to read these bytes, start < end, and call `ended` with what came, as `curl.Range` does, but in any thread.

    `If-Match` is no part of what is signed for S3: host and `x-amz-` headers must be, others need not. Where the server insists
    on it, the answer tells no state: there is no other than `if_match` says.

    Returns whether it was begun; else the file system is to be asked.
    """
    address = _address(url)
    if address is None:
        return False
    from engine.data.remote.curl import Declined, Range

    def tell(found: Answer | Exception) -> None:
        if isinstance(found, Declined) and found.rests:
            _rest(url)
        ended(found)

    reads = _connections(os.getpid(), connections)
    tells_state = not (if_match and _insists(url, address, reads))
    reads.begin(Range(address, start, end - 1, tell, if_match, tells_state))
    return True


def read(url: str, start: int, end: int, connections: int, if_match: str = "") -> Answer | None:
    """The same, waited for; None where the file system is to be asked.

    Raises:
        ConnectionError: no answer, or one that says to come again.
    """
    done: queue.SimpleQueue[Answer | Exception] = queue.SimpleQueue()
    if start >= end or not begin(url, start, end, connections, done.put, if_match):
        return None
    found = done.get()
    if isinstance(found, ConnectionError):
        raise found
    return found if isinstance(found, Answer) else None


def server_of(url: str) -> str:
    """The server or bucket of an address."""
    return "/".join(url.split("/", 3)[:3])


def _insists(url: str, address: str, reads: "Connections") -> bool:
    """Whether the server has shown that it refuses an object with another ETag; asked once, beside the reading."""
    from engine.data.remote.curl import Declined, Range

    server = server_of(url)
    if server not in _INSISTS:
        _INSISTS[server] = False  # until it answers

        def told(found: Answer | Exception) -> None:
            if isinstance(found, Declined) and found.status == 412:
                _INSISTS[server] = True
            elif not isinstance(found, Answer):
                _INSISTS.pop(server, None)  # no answer to this: it is asked again

        reads.begin(Range(address, 0, 0, told, if_match=_NO_ETAG))
    return _INSISTS.get(server, False)


def _rest(url: str) -> None:
    """Leave a server alone for a while; what was signed for it may be out of date."""
    _RESTING[server_of(url)] = time.monotonic() + _RESTS_FOR_S
    _SIGNED.pop(url, None)


def _address(url: str) -> str | None:
    """Where libcurl finds an object; None where it should not look."""
    scheme = url.partition("://")[0]
    if scheme not in ("http", "https", "s3") or not _has_curl() or "#" in url:
        return None
    if _RESTING.get(server_of(url), 0.0) > time.monotonic():
        return None
    return _signed(url) if scheme == "s3" else _quoted(url)


@functools.lru_cache(4096)  # shards
def _quoted(url: str) -> str:
    return quote(url, safe=_AS_IT_IS)


def _signed(url: str) -> str | None:
    address, until = _SIGNED.get(url, ("", 0.0))
    if time.monotonic() >= until:
        try:
            address = file_systems.file_system(url).sign(url.partition("://")[2], expiration=_SIGNED_FOR_S)
        except Exception:  # in botocore's own words: the file system will say so, where it is asked
            _rest(url)
            return None
        _SIGNED[url] = address, time.monotonic() + _KEPT_FOR_S
    return address


@functools.cache
def _has_curl() -> bool:
    try:
        import pycurl  # noqa: F401
    except ImportError:
        return False
    return True


def _connections(process: int, count: int) -> "Connections":
    from engine.data.remote.curl import Connections

    found = _OPEN.get((process, count))
    if found is None:
        with _OPENING:
            found = _OPEN.get((process, count))
            if found is None:
                found = _OPEN[process, count] = Connections(count)
    return found
