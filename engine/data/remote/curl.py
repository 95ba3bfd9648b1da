"""Ranges by libcurl: many at a time in one thread, over connections that stay open.

Only the answer that was asked for is taken. Whatever else comes is one of two errors: `Unanswered` may pass, and is for
who waits (`objects.patiently`); after `Declined` the file system is asked, which knows what to make of it.
"""

import os
import select
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import pycurl

from engine.data.remote.states import Answer, State, state_in

_PASSING = (408, 425, 429, 500, 502, 503, 504)  # statuses
_OF_THE_OBJECT = (200, 404, 410, 412, 416)  # of which nothing follows for others
_FINAL = (  # errors that time does not mend
    pycurl.E_FILESIZE_EXCEEDED, pycurl.E_TOO_MANY_REDIRECTS, pycurl.E_UNSUPPORTED_PROTOCOL, pycurl.E_URL_MALFORMAT,
    pycurl.E_SSL_CONNECT_ERROR, pycurl.E_PEER_FAILED_VERIFICATION, pycurl.E_SSL_CACERT_BADFILE,
)  # fmt: skip
_BUFFER = 256 * 1024  # bytes


class Unanswered(ConnectionError):
    """No answer, or one that says to come again."""


class Declined(Exception):
    """Not the bytes that were asked for.

    rests: the server will give none in this way.
    """

    def __init__(self, status: int, what: str = "") -> None:
        super().__init__(what or f"status {status}")
        self.status, self.rests = status, status not in _OF_THE_OBJECT


@dataclass(slots=True)
class Range:
    """Bytes `first` to `last` of an address.

    ended: called once in the thread, with the bytes (fewer where the object ends before), `Unanswered` or `Declined`.
    if_match: if not "", the ETag that the object must have.
    tells_state: whether the answer has a `State`, which takes time: a callback a line of its headers.
    """

    address: str
    first: int
    last: int
    ended: Callable[[Answer | Exception], None]
    if_match: str = ""
    tells_state: bool = True
    body: BytesIO = field(default_factory=BytesIO)
    headers: BytesIO = field(default_factory=BytesIO)  # of all answers, where one led elsewhere


class Connections:
    """A thread that reads over so many connections."""

    def __init__(self, count: int) -> None:
        self._waiting: deque[Range] = deque()
        self._read: dict[Any, Range] = {}  # by the handle that reads it
        self._count, self._idle = count, {tells_state: list[Any]() for tells_state in (True, False)}
        self._is_awake, self._broken = False, ""
        self._wakes, self._woken = socket.socketpair()
        self._poll, self._due = select.poll(), None
        self._poll.register(self._woken, select.POLLIN)
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._watch)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._set_timer)
        self._multi.setopt(pycurl.M_MAXCONNECTS, count)
        threading.Thread(target=self._run, name="ranges", daemon=True).start()

    def begin(self, wanted: Range) -> None:
        """Read as soon as a connection is idle."""
        self._waiting.append(wanted)
        if self._broken:
            self._decline_all()
        elif not self._is_awake:
            self._is_awake = True
            self._wakes.send(b"\0")

    def _run(self) -> None:
        try:
            while True:
                self._go_on()
        except Exception as error:  # a defect: nobody may wait for this thread
            self._broken = repr(error)
            self._decline_all()

    def _decline_all(self) -> None:
        for wanted in (*self._read.values(), *self._waiting):
            wanted.ended(Declined(0, self._broken))
        self._read.clear()
        self._waiting.clear()

    def _go_on(self) -> None:
        waits = None if self._due is None else max(0.0, 1000 * (self._due - time.monotonic()))
        for file, events in self._poll.poll(waits):
            if file == self._woken.fileno():
                self._woken.recv(4096)
                self._is_awake = False
            elif events & select.POLLNVAL:  # closed: it would be told again and again
                self._poll.unregister(file)
            else:
                reads = pycurl.CSELECT_IN if events & ~select.POLLOUT else 0  # what is broken, it sees by reading
                writes = pycurl.CSELECT_OUT if events & select.POLLOUT else 0
                self._multi.socket_action(file, reads | writes)
        if self._due is not None and self._due <= time.monotonic():
            self._due = None
            self._multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)
        self._collect()
        while self._waiting and len(self._read) < self._count:
            self._start(self._waiting.popleft())

    def _watch(self, what: int, file: int, multi: object, data: object) -> None:
        """libcurl says what it waits for."""
        if what == pycurl.POLL_REMOVE:
            with suppress(KeyError):
                self._poll.unregister(file)
        else:
            reads = select.POLLIN if what & pycurl.POLL_IN else 0
            self._poll.register(file, reads | (select.POLLOUT if what & pycurl.POLL_OUT else 0))

    def _set_timer(self, milliseconds: int) -> None:
        """libcurl says when it wants to be called."""
        self._due = None if milliseconds < 0 else time.monotonic() + milliseconds / 1000

    def _start(self, wanted: Range) -> None:
        idle = self._idle[wanted.tells_state]
        handle = idle.pop() if idle else _handle()
        handle.setopt(pycurl.URL, wanted.address)
        handle.setopt(pycurl.RANGE, f"{wanted.first}-{wanted.last}")
        handle.setopt(pycurl.MAXFILESIZE, wanted.last + 1 - wanted.first)  # a server may send the whole object
        handle.setopt(pycurl.WRITEDATA, wanted.body)
        if wanted.tells_state:  # to unset it would break the handle
            handle.setopt(pycurl.WRITEHEADER, wanted.headers)
        handle.unsetopt(pycurl.HTTPHEADER)  # an empty list would leave what was set before
        if wanted.if_match:
            handle.setopt(pycurl.HTTPHEADER, [f"If-Match: {wanted.if_match}"])
        self._read[handle] = wanted
        self._multi.add_handle(handle)

    def _collect(self) -> None:
        left = 1
        while left:
            left, ended, failed = self._multi.info_read()
            for handle, error in (
                *((handle, 0) for handle in ended),
                *((handle, error) for handle, error, _ in failed),
            ):
                self._multi.remove_handle(handle)
                wanted = self._read.pop(handle)
                self._idle[wanted.tells_state].append(handle)
                wanted.ended(_found(wanted, error, handle.getinfo(pycurl.RESPONSE_CODE)))


def _handle() -> pycurl.Curl:
    handle, trusted = pycurl.Curl(), ssl.get_default_verify_paths()
    for option, value in (
        (pycurl.NOSIGNAL, 1), (pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1), (pycurl.BUFFERSIZE, _BUFFER),
        (pycurl.FOLLOWLOCATION, 1), (pycurl.MAXREDIRS, 5), (pycurl.USERAGENT, "unseen"),
        (pycurl.CONNECTTIMEOUT, 10), (pycurl.LOW_SPEED_LIMIT, 1), (pycurl.LOW_SPEED_TIME, 30),  # seconds without a byte
        (pycurl.CAINFO, os.environ.get("AWS_CA_BUNDLE") or trusted.cafile), (pycurl.CAPATH, trusted.capath),
    ):  # fmt: skip
        if value is not None:
            handle.setopt(option, value)
    return handle


def _found(wanted: Range, error: int, status: int) -> Answer | Exception:
    data = wanted.body.getvalue()
    if not error and status == 206 and len(data) <= wanted.last + 1 - wanted.first:
        return Answer(data, _state(wanted.headers.getvalue()) if wanted.tells_state else State())
    if status in _PASSING:
        return Unanswered(f"status {status}")
    if error and error not in _FINAL:
        return Unanswered(f"libcurl's error {error}")
    return Declined(status)


def _state(headers: bytes) -> State:
    """What the last answer tells."""
    last = headers.rstrip().rpartition(b"\r\n\r\n")[2].decode("latin-1")
    lines = (line.partition(":") for line in last.splitlines())
    return state_in({name.lower(): value.strip() for name, _, value in lines})
