"""A web server of a folder that reads ranges, is slow, fails now and then, and can be away, on 127.0.0.1."""

import os
import random
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote


class ObjectServer:
    """Serves `folder` at `url`; a context manager.

    Args:
        latency_s: before every answer. failures: share of the requests that are answered by 503.

    Attributes:
        status: if set, the answer to every request.
        reads_ranges: else it sends whole files.
        etags: "strong" (and heeds If-Match), "ignored" (the same, and does not), "weak" or "none".
        num_gets: ranges and files that were asked for. num_refused: of them, for another ETag.
    """

    def __init__(self, folder: Path, *, latency_s: float = 0.0, failures: float = 0.0) -> None:
        self.folder, self.latency_s, self.failures = folder, latency_s, failures
        self.status: int | None = None
        self.reads_ranges = True
        self.etags = "strong"
        self.num_gets = self.num_refused = 0
        self.port = 0
        self._chance = random.Random(0)
        self._server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def replace(self, name: str, data: bytes) -> None:
        """Put other bytes in the place of a file, at once."""
        beside = self.folder / "put"
        beside.write_bytes(data)
        info = (self.folder / name).stat()
        os.utime(beside, ns=(info.st_atime_ns, info.st_mtime_ns + 10**9))
        beside.replace(self.folder / name)

    def start(self) -> None:
        """Be there, at the port of before."""
        ThreadingHTTPServer.request_queue_size = 128
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), self._handler())
        self._server.daemon_threads, self._server.block_on_close = True, False
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Be away: connections are refused."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def __enter__(self) -> "ObjectServer":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def log_message(self, *_: object) -> None:
                """Nothing is told."""

            def do_HEAD(self) -> None:
                self._answer(with_body=False)

            def do_GET(self) -> None:
                outer.num_gets += 1
                self._answer(with_body=True)

            def _answer(self, *, with_body: bool) -> None:
                time.sleep(outer.latency_s)
                if outer._server is None:  # away: also for those that are connected
                    self.close_connection = True
                    return
                path = outer.folder / unquote(self.path.partition("?")[0]).lstrip("/")
                if outer.status or outer._chance.random() < outer.failures:
                    self._send(outer.status or 503, b"", {})
                elif not path.is_file():
                    self._send(404, b"", {})
                else:
                    self._send_file(path, with_body)

            def _send_file(self, path: Path, with_body: bool) -> None:
                with path.open("rb") as file:
                    info = os.fstat(file.fileno())
                    size, asked = info.st_size, self.headers.get("Range")
                    headers = _headers(outer.etags, info)
                    must = self.headers.get("If-Match") if outer.etags in ("strong", "weak") else None
                    if must not in (None, headers.get("ETag") if outer.etags == "strong" else ""):
                        outer.num_refused += 1
                        return self._send(412, 20 * b"<Error/>", headers)  # S3 says so at length
                    first, last, status = 0, size - 1, 200
                    if asked and outer.reads_ranges:
                        first, last = (int(text) for text in asked.removeprefix("bytes=").split("-"))
                        last, status = min(last, size - 1), 206
                        headers["Content-Range"] = f"bytes {first}-{last}/{size}"
                        if first >= size:
                            return self._send(416, b"", {"Content-Range": f"bytes */{size}"})
                    file.seek(first)
                    return self._send(status, file.read(last + 1 - first), headers, with_body=with_body)

            def _send(self, status: int, data: bytes, headers: dict[str, str], *, with_body: bool = True) -> None:
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(data))}.items():
                    self.send_header(name, value)
                self.end_headers()
                if with_body:
                    self.wfile.write(data)

        return Handler


def _headers(etags: str, info: os.stat_result) -> dict[str, str]:
    tag = f'"{info.st_mtime_ns:x}-{info.st_size:x}"'
    headers = {"Accept-Ranges": "bytes", "X-Goog-Generation": str(info.st_mtime_ns)}
    return headers if etags == "none" else {"ETag": f"W/{tag}" if etags == "weak" else tag, **headers}
