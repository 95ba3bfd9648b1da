"""Servers of objects that answer late and fail now and then, for the benchmark `storage`; each for a process of its own.

`RangeServer` costs little: one thread, no framework, and waiting costs nothing. S3's way of naming objects (/BUCKET/KEY) is a
path like another, and signatures are not looked at, so that s3:// reads here too. `MotoServer` is moto's S3.
"""

import asyncio
import functools
import os
import random
import re
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path
from typing import Any
from urllib.parse import unquote

_RANGE = re.compile(rb"\r\nrange: *bytes=(\d+)-(\d*)", re.IGNORECASE)
_IF_MATCH = re.compile(rb"\r\nif-match: *([^\r]+)", re.IGNORECASE)
_REASONS = {
    200: "OK",
    206: "Partial Content",
    404: "Not Found",
    405: "Method Not Allowed",
    412: "Precondition Failed",
    416: "Range Not Satisfiable",
    503: "Slow Down",
}


@dataclass(frozen=True, slots=True)
class Manners:
    """How it answers. latency_s: before every answer. failures: share of the requests answered by 503."""

    latency_s: float = 0.0
    failures: float = 0.0


class RangeServer:
    """Serves `folder` on 127.0.0.1 from a thread of this process, which should have little else to do (`bench.apart`).

    Attributes:
        port: where.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.manners, self.chance = folder, Manners(), random.Random(0)
        self.num_failed = 0
        self._files: dict[str, tuple[int, os.stat_result]] = {}
        self._loop = asyncio.new_event_loop()
        listening = self._loop.run_until_complete(
            self._loop.create_server(lambda: _Connection(self), "127.0.0.1", 0, backlog=1024)
        )
        self.port = listening.sockets[0].getsockname()[1]
        threading.Thread(target=self._loop.run_forever, daemon=True).start()

    def where(self) -> int:
        """Its port."""
        return self.port

    def behave(self, manners: Manners) -> None:
        """Answer so from now on; which requests fail is drawn anew."""
        self.manners, self.chance = manners, random.Random(0)

    def cpu_s(self) -> float:
        """Seconds of computing of this process so far."""
        return time.process_time()

    def file(self, name: str) -> tuple[int, os.stat_result] | None:
        """Number and facts of an open file below the folder; None where there is none."""
        if name not in self._files:
            path = self.folder / unquote(name).lstrip("/")
            if not path.is_file() or ".." in path.parts:
                return None
            number = os.open(path, os.O_RDONLY)
            self._files[name] = number, os.fstat(number)
        return self._files[name]


class _Connection(asyncio.Protocol):
    """One client, request after request."""

    def __init__(self, server: RangeServer) -> None:
        self._server, self._received = server, b""

    def connection_made(self, transport: asyncio.Transport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._received += data
        head, end, rest = self._received.partition(b"\r\n\r\n")
        if end:
            self._received = rest
            latency_s = self._server.manners.latency_s
            if latency_s:
                asyncio.get_running_loop().call_later(latency_s, self._answer, head)
            else:
                self._answer(head)

    def _answer(self, head: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(self._made(head))

    def _made(self, head: bytes) -> bytes:
        server = self._server
        method, name = head.split(b" ", 2)[:2]
        if server.chance.random() < server.manners.failures:
            server.num_failed += 1
            return _head(503, 0)
        found = server.file(name.partition(b"?")[0].decode())
        if method not in (b"GET", b"HEAD") or found is None:
            return _head(404 if found is None else 405, 0)
        number, facts = found
        first, last, asked = 0, facts.st_size - 1, _RANGE.search(head)
        if asked:
            first, last = int(asked[1]), min(last, int(asked[2] or last))
            if first > last:
                return _head(416, 0)
        more, wanted = _facts(facts.st_mtime_ns, facts.st_size), _IF_MATCH.search(head)
        if wanted and f"ETag: {wanted[1].decode()}\r\n" not in more:
            return _head(412, 0)
        if asked:
            more += f"Content-Range: bytes {first}-{last}/{facts.st_size}\r\n"
        answer = _head(206 if asked else 200, last + 1 - first, more)
        return answer if method == b"HEAD" else answer + os.pread(number, last + 1 - first, first)


@functools.cache
def _facts(changed_ns: int, size: int) -> str:
    changed = formatdate(changed_ns // 10**9, usegmt=True)
    return f'ETag: "{changed_ns:x}-{size:x}"\r\nLast-Modified: {changed}\r\nAccept-Ranges: bytes\r\n'


def _head(status: int, length: int, more: str = "") -> bytes:
    return f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Length: {length}\r\n{more}\r\n".encode()


class MotoServer:
    """moto's S3 on 127.0.0.1, in a thread for each connection."""

    def __init__(self) -> None:
        from moto.server import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import WSGIRequestHandler, make_server

        class Quiet(WSGIRequestHandler):
            def log(self, *_: object) -> None:
                """Nothing is told."""

        self._app, self._manners, self._chance = (
            DomainDispatcherApplication(create_backend_app),
            Manners(),
            random.Random(0),
        )
        self._server = make_server("127.0.0.1", 0, self._late, threaded=True, request_handler=Quiet)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def where(self) -> int:
        """Its port."""
        return self._server.server_port

    def behave(self, manners: Manners) -> None:
        """Answer so from now on; which requests fail is drawn anew."""
        self._manners, self._chance = manners, random.Random(0)

    def cpu_s(self) -> float:
        """Seconds of computing of this process so far."""
        return time.process_time()

    def fill(self, folder: Path, bucket: str) -> None:
        """Put the files of a folder into a new bucket."""
        import boto3

        keys = {"aws_access_key_id": "none", "aws_secret_access_key": "none", "region_name": "us-east-1"}
        client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{self.where()}", **keys)
        client.create_bucket(Bucket=bucket)
        for path in sorted(folder.iterdir()):
            client.upload_file(str(path), bucket, path.name)

    def _late(self, request: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        time.sleep(self._manners.latency_s)
        if self._chance.random() < self._manners.failures:
            start("503 Slow Down", [("Content-Length", "0")])
            return [b""]
        return self._app(request, start)
