"""Bytes of objects through `fsspec`: ranges and whole files, tried again until patience ends.

An outage is no fault of a video: while a store does not answer, reads wait, and the stream stays what it is. Only when the
patience of `data.remote.patience_s` ends, `SourceGone` ends the work.
"""

import hashlib
import random
import re
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from engine.data.remote import direct, file_systems
from engine.data.remote.settings import cache_folder, is_given_up, settings
from engine.data.remote.states import State, States
from engine.errors import InputError, SourceGone
from engine.files.addresses import check_no_secrets
from engine.files.atomic_file import atomic_write
from engine.terminal.progress import say

T = TypeVar("T")
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 5.0
_TOLD_AFTER_S = 3.0  # a failure now and then is not worth a line
_FORGOTTEN_AFTER_S = 200.0  # without a failure: longer than any attempt takes (s3fs makes five, of 30 s each)
_LOOK_UP_S = 0.2  # while waiting: whether anybody still wants it
_SHORT_READS = 5  # of one range, one after the other: the object itself is too short
_NO_CREDENTIALS = ("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "GoogleAuthError")
# of botocore, before any request: somebody has to log in
_NO_LOGIN = (
    "UnauthorizedSSOTokenError",
    "SSOTokenLoadError",
    "NoAuthTokenError",
    "LoginRefreshRequired",
    "LoginTokenLoadError",
)
_EXPIRED = ("TokenRetrievalError", "RuntimeError")  # of botocore too, where their words say so
_BAD_TOKENS = ("InvalidToken", "TokenRefreshRequired")  # of S3; others, as ExpiredToken, are a PermissionError
_ADDRESS = re.compile(r"\S*(?:://|[?@])\S*")
_LONGEST_REASON = 200


class _Outage:
    """Tells once that a store does not answer, and once that it does again."""

    def __init__(self) -> None:
        self._lock, self._since, self._last, self._is_told = threading.Lock(), 0.0, 0.0, False

    def failed(self, url: str, error: Exception) -> float:
        """Take note. Returns for how many seconds nothing has been answered, where somebody has asked all the while."""
        with self._lock:
            now = time.monotonic()
            if not self._since or now - self._last > _FORGOTTEN_AFTER_S:  # whoever waited then has given up
                self._since, self._is_told = now, False
            self._last = now
            lasted = now - self._since
            if self._is_told or lasted < _TOLD_AFTER_S:
                return lasted
            self._is_told = True
        say(
            f"warning: '{url}' cannot be read ({_reason(error)}): waiting for it, for {settings().patience_s:g} s at most"
        )
        return lasted

    def answered(self) -> None:
        if not self._since:
            return
        with self._lock:
            since, is_told = self._since, self._is_told
            self._since, self._is_told = 0.0, False
        if is_told:
            say(f"the object store answers again, after {time.monotonic() - since:.0f} s")


_OUTAGES: dict[str, _Outage] = defaultdict(_Outage)  # by the bucket or server


def read_range(
    url: str, start: int, length: int, stop: threading.Event | None = None, states: States | None = None
) -> bytes:
    """These bytes of an object, fewer where it ends before; given up where they fail once `stop` is set.

    Args:
        states: the object must be the one that these have seen.

    Raises:
        FileNotFoundError: there is no such object.
        SourceGone: it cannot be read, and patience is over; or it was replaced, which is not tried again.
    """
    shorts = 0

    def attempt() -> bytes:
        nonlocal shorts
        if_match = states.if_match(url) if states else ""
        answer = direct.read(url, start, start + length, settings().reads_in_flight, if_match)
        data, state = answer or file_systems.read_range(url, start, start + length, if_match)
        if len(data) > length:
            raise InputError(
                f"the server of '{url}' does not read ranges: use one that does, or copy the store to a disk"
            )
        if states:
            states.check(url, state)
        if len(data) < length and shorts < _SHORT_READS:
            shorts += 1
            raise ConnectionError(f"{len(data)} bytes of {length}")
        return data

    return patiently(attempt, url, stop)


def answered(url: str) -> None:
    """Take note that the store of this object answers."""
    _outage(url).answered()


def _outage(url: str) -> _Outage:
    return _OUTAGES[direct.server_of(url)]


def size_of(url: str) -> int:
    """Length of an object in bytes. Raises as `read_range`."""
    return _length(url, _info(url))


def state_of(url: str) -> State:
    """Length of an object, and its ETag (of Google its generation) where the store tells it. Raises as `read_range`."""
    info = _info(url)
    return State(str(info.get("generation") or info.get("ETag") or info.get("etag") or ""), _length(url, info))


def local_copy(url: str) -> Path:
    """A whole object as a file of the local cache, fetched once in each state (its ETag, time and size). Raises as `read_range`."""
    check_no_secrets(url)
    info = _info(url)
    state = [str(info.get(key)) for key in ("size", "ETag", "etag", "mtime", "LastModified", "created", "url")]
    name = hashlib.blake2b("\0".join([url, *state]).encode(), digest_size=16).hexdigest()
    path = cache_folder() / "files" / f"{name}{Path(url).suffix}"
    if not path.exists():
        data = patiently(lambda: _whole(url, info["size"]), url)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path, durable=True) as partial:
            partial.write_bytes(data)
    return path


def upload(path: Path, url: str) -> None:
    """Put a file to an object, complete or not at all.

    Raises:
        FileNotFoundError: there is no such file.
        SourceGone: there is no such bucket, or it cannot be written to, and patience is over.
    """
    try:
        patiently(lambda: file_systems.file_system(url).put_file(str(path), file_systems.key_of(url)), url)
    except FileNotFoundError as error:
        if not path.exists():
            raise
        raise SourceGone(
            f"'{url}' cannot be put there ({_reason(error)}): see that its bucket is there, and give the same command again"
        ) from None


def patiently(attempt: Callable[[], T], url: str, stop: threading.Event | None = None) -> T:
    """What `attempt` returns, tried again after what may pass, until `stop` is set or the process wants to end.

    Raises:
        FileNotFoundError: there is no such object.
        SourceGone: it is refused, not wanted any more, or patience is over.
    """
    began, pause, outage = time.monotonic(), _FIRST_PAUSE_S, _outage(url)
    while True:
        try:
            result = attempt()
        except (FileNotFoundError, InputError):
            raise
        except Exception as error:  # every file system has errors of its own
            _check_wanted(url, stop)
            if _is_refused(error):
                raise SourceGone(
                    f"'{url}' is refused ({_reason(error)}): give credentials that may (docs/data.md)"
                ) from None
            waited = max(time.monotonic() - began, outage.failed(url, error))
            if waited + pause > settings().patience_s:
                raise SourceGone(
                    f"'{url}' cannot be read ({_reason(error)}), tried for {waited:.0f} s (data.remote.patience_s): see that the "
                    "store is there and can be reached, and give the same command again"
                ) from None
            _sleep(pause * random.uniform(0.5, 1))
            _check_wanted(url, stop)
            pause = min(2 * pause, _LONGEST_PAUSE_S)
        else:
            outage.answered()
            return result


def _check_wanted(url: str, stop: threading.Event | None) -> None:
    if is_given_up() or (stop is not None and stop.is_set()):
        raise SourceGone(f"'{url}' is not wanted any more") from None


def _sleep(seconds: float) -> None:
    until = time.monotonic() + seconds
    while not is_given_up() and (left := until - time.monotonic()) > 0:
        time.sleep(min(left, _LOOK_UP_S))


def _info(url: str) -> dict[str, Any]:
    def attempt() -> dict[str, Any]:
        fs = file_systems.file_system(url)
        fs.invalidate_cache()
        try:
            info = fs.info(file_systems.key_of(url))
        except FileNotFoundError as error:  # of HTTP: also what is refused, or does not answer
            cause = error.__cause__
            if cause is None or isinstance(cause, FileNotFoundError) or getattr(cause, "status", 0) in (404, 410):
                raise
            raise cause from None
        except OSError as error:
            if file_systems.s3_answer(error).get("ResponseMetadata", {}).get("HTTPStatusCode") == 400:
                file_systems.read_range(url, 0, 1)  # the answer to this says why; that to a HEAD has no words
            raise
        if info.get("type") == "directory":
            raise FileNotFoundError(url)
        return info

    return patiently(attempt, url)


def _length(url: str, info: dict[str, Any]) -> int:
    if info["size"] is None:
        raise InputError(
            f"the server of '{url}' does not tell its length: use one that does, or copy the store to a disk"
        )
    return int(info["size"])


def _whole(url: str, size: int | None) -> bytes:
    data = file_systems.file_system(url).cat_file(file_systems.key_of(url))
    if size is not None and len(data) != size:
        raise ConnectionError(f"{len(data)} bytes of {size}")
    return data


def _is_refused(error: Exception) -> bool:
    is_http = getattr(error, "status", None) in (401, 403)
    # gcsfs: an error of its own with a code, but for 403
    is_google = type(error).__name__ == "HttpError" and getattr(error, "code", None) == 401
    is_google = is_google or (isinstance(error, OSError) and str(error).startswith("Forbidden: "))
    is_s3 = isinstance(error, OSError) and file_systems.s3_answer(error).get("Error", {}).get("Code") in _BAD_TOKENS
    kind, words = type(error).__name__, str(error)
    is_login = kind in _NO_LOGIN or (kind in _EXPIRED and ("Token has expired" in words or "still expired" in words))
    is_local = isinstance(error, PermissionError) or kind in _NO_CREDENTIALS
    return is_http or is_google or is_s3 or is_login or is_local


def _reason(error: Exception) -> str:
    """Its kind, and its first words, of which no address, as that may be a signed one."""
    kind = type(error).__name__
    if status := getattr(error, "status", None):
        return f"{kind} {status}"
    words = str(getattr(error, "strerror", None) or error).strip() or "it says no more"
    return f"{kind}: {_ADDRESS.sub('...', words.splitlines()[0].rstrip('.'))[:_LONGEST_REASON]}"
