"""A store in S3 and in Google's, of servers on this machine: written by ingest, checked, and read as the files it was made of."""

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from engine.data.indexing.dataset import index_folder
from engine.data.manifests.manifest import Manifest
from engine.data.pyav.encode import write_video
from engine.data.remote.config import RemoteConfig
from engine.data.remote.objects import patiently, size_of
from engine.data.remote.settings import patience, use
from engine.data.store import reader as reader_module
from engine.errors import InputError, SourceGone
from tests import gcs, s3
from tests.data.videos import numbered_frame
from tests.gcs import gcs_server
from tests.s3 import SECRET, s3_server

pytest.importorskip("aiohttp")  # without which the next import ends
from tests.data.remote.test_remote import stream

SERVERS = {"s3": s3_server, "gs": gcs_server}


@pytest.fixture(params=SERVERS)
def scheme(request, tmp_path, monkeypatch):
    """Of a server with a bucket `bucket`."""
    monkeypatch.setattr(reader_module, "_READERS", {})
    use(RemoteConfig(patience_s=20))
    with SERVERS[request.param](tmp_path, monkeypatch):
        yield request.param


def run_ingest(*arguments):
    done = subprocess.run(
        [sys.executable, "tools/ingest.py", *map(str, arguments)], capture_output=True, text=True, timeout=120
    )
    assert SECRET not in done.stdout + done.stderr
    assert "bucket type" not in done.stderr  # gcsfs's guess at a zonal bucket
    return done


@pytest.mark.slow
def test_a_store_is_written_to_and_read_from_object_storage(scheme, tmp_path):
    root = tmp_path / "raw"
    for number in range(6):
        (root / f"class{number % 2}").mkdir(parents=True, exist_ok=True)
        frames = (numbered_frame(7 * number + frame, 96, 96) for frame in range(30))
        write_video(root / f"class{number % 2}" / f"{number}.mp4", frames, gop=30)
    index_folder(root, root / "manifest.parquet")
    options = ("--short-side", 64, "--gop", 8, "--preset", "veryfast", "--workers", 1)
    done = run_ingest(root / "manifest.parquet", "--out", f"{scheme}://bucket/k 1", *options)
    assert done.returncode == 0, done.stderr
    assert "verified: all 6 byte ranges" in done.stdout and f"{scheme}://bucket/k 1" in done.stdout
    assert run_ingest(root / "manifest.parquet", "--out", tmp_path / "local", *options).returncode == 0
    remote, local = (
        Manifest.load(f"{scheme}://bucket/k 1/manifest.parquet"),
        Manifest.load(tmp_path / "local/manifest.parquet"),
    )
    found, expected = stream(remote, 6), stream(local, 6)
    assert np.array_equal(found[0], expected[0]) and np.array_equal(found[1], expected[1])
    with pytest.raises(InputError, match=rf"no manifest at '{scheme}://bucket/none/manifest\.parquet'"):
        Manifest.load(f"{scheme}://bucket/none/manifest.parquet")
    with pytest.raises(InputError, match=f"{scheme}://absent/"):
        Manifest.load(f"{scheme}://absent/manifest.parquet")


@contextmanager
def answering(status: int, body: bytes) -> Iterator[str]:
    """The address of a server that answers each GET so, and a HEAD by the status alone."""

    class Answers(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.do_GET(b"")

        def do_GET(self, said: bytes = body) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("status", [401, 403])
def test_what_google_refuses_is_not_waited_for(tmp_path, monkeypatch, status):
    use(RemoteConfig(patience_s=60))
    sleep = asyncio.sleep
    with answering(status, b'{"error": {"code": %d, "message": "no access for you"}}' % status) as address:
        gcs.point_to(address, tmp_path, monkeypatch)
        monkeypatch.setattr(asyncio, "sleep", lambda _seconds: sleep(0))  # gcsfs tries 401 six times, half a minute
        began = time.monotonic()
        with pytest.raises(SourceGone, match=r"'gs://bucket/a\.bin' is refused \(.*\): give credentials"):
            size_of("gs://bucket/a.bin")
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("code", ["ExpiredToken", "InvalidToken"])
def test_credentials_of_s3_that_have_expired_are_not_waited_for(tmp_path, monkeypatch, code):
    use(RemoteConfig(patience_s=60))
    body = f"<Error><Code>{code}</Code><Message>It has expired.</Message></Error>"
    refused = r"'s3://bucket/a\.bin' is refused \(\w+: It has expired\): give credentials"
    with answering(400, body.encode()) as address:
        s3.point_to(address, tmp_path, monkeypatch)
        began = time.monotonic()
        with pytest.raises(SourceGone, match=refused):
            size_of("s3://bucket/a.bin")
    assert time.monotonic() - began < 20


KEY = '{"Version": 1, "AccessKeyId": "a", "SecretAccessKey": "b", "Expiration": "2020-01-01T00:00:00Z"}'
PROCESS = f"credential_process=echo '{KEY}'"
SSO = "sso_start_url=https://a.awsapps.com/start\nsso_region=us-east-1\nsso_account_id=111122223333\nsso_role_name=R"


@pytest.mark.parametrize(("login", "says"), [(PROCESS, "RuntimeError: .* still expired"), (SSO, r"\w*SSO\w*Error: .*")])
def test_a_login_of_aws_that_has_expired_is_not_waited_for(tmp_path, monkeypatch, caplog, login, says):
    use(RemoteConfig(patience_s=60))
    s3.point_to("http://127.0.0.1:9", tmp_path, monkeypatch)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    (tmp_path / "config").write_text(f"[default]\n{login}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("HOME", str(tmp_path))
    began = time.monotonic()
    with pytest.raises(SourceGone, match=rf"'s3://bucket/a\.bin' is refused \({says}\): give credentials"):
        size_of("s3://bucket/a.bin")
    assert time.monotonic() - began < 20
    assert not caplog.records


@pytest.mark.parametrize(
    ("kind", "words", "is_refused"),
    [
        ("LoginRefreshRequired", "Your session has expired", True),
        ("LoginTokenLoadError", "Error loading login session token", True),
        ("NoAuthTokenError", "", True),
        ("TokenRetrievalError", "Error when retrieving token from sso: Token has expired and refresh failed", True),
        ("TokenRetrievalError", "Error when retrieving token from sso: it does not answer", False),
        ("CredentialRetrievalError", "Error when retrieving credentials from custom-process: session expired", False),
        ("RuntimeError", "Session is closed", False),
    ],
)
def test_which_of_botocores_errors_may_pass(kind, words, is_refused):
    def attempt() -> None:
        raise type(kind, (Exception,), {})(words)

    with patience(0), pytest.raises(SourceGone, match="is refused" if is_refused else "cannot be read"):
        patiently(attempt, "s3://bucket/a.bin")
