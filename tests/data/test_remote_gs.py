"""A store in Google Cloud Storage: of an emulator on this machine, and of a server that refuses."""

import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from engine.data.indexing import index_folder
from engine.data.manifest import Manifest
from engine.data.pyav.encode import write_video
from engine.data.remote.config import RemoteConfig
from engine.data.remote.objects import size_of
from engine.data.remote.settings import use
from engine.data.store import reader as reader_module
from engine.errors import InputError, SourceGone
from tests.data.videos import numbered_frame
from tests.gcs import gcs_server, point_to

pytest.importorskip("gcsfs")  # and with it aiohttp, without which the next import ends
from tests.data.test_remote import stream


@pytest.mark.slow
def test_a_store_is_written_to_and_read_from_google(tmp_path, monkeypatch):
    monkeypatch.setattr(reader_module, "_READERS", {})
    use(RemoteConfig(patience_s=20))
    root = tmp_path / "raw"
    for number in range(6):
        (root / f"class{number % 2}").mkdir(parents=True, exist_ok=True)
        frames = (numbered_frame(7 * number + frame, 96, 96) for frame in range(30))
        write_video(root / f"class{number % 2}" / f"{number}.mp4", frames, gop=30)
    index_folder(root, root / "manifest.parquet")
    with gcs_server(tmp_path, monkeypatch):
        for out in ("gs://bucket/k 1", tmp_path / "local"):
            done = subprocess.run(
                [sys.executable, "tools/ingest.py", str(root / "manifest.parquet"), "--out", str(out),
                 "--short-side", "64", "--gop", "8", "--preset", "veryfast", "--workers", "1"],
                capture_output=True, text=True, timeout=120,
            )  # fmt: skip
            assert done.returncode == 0 and "verified: all 6 byte ranges" in done.stdout, done.stderr
            assert "bucket type" not in done.stderr  # gcsfs's guess at a zonal bucket
        remote = Manifest.load("gs://bucket/k 1/manifest.parquet")
        found, expected = stream(remote, 6), stream(Manifest.load(tmp_path / "local/manifest.parquet"), 6)
        assert np.array_equal(found[0], expected[0]) and np.array_equal(found[1], expected[1])
        with pytest.raises(InputError, match=r"no manifest at 'gs://bucket/none/manifest\.parquet'"):
            Manifest.load("gs://bucket/none/manifest.parquet")


class _Refuses(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b'{"error": {"code": 403, "message": "no access for you"}}'
        self.send_response(403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def test_what_google_refuses_is_not_waited_for(tmp_path, monkeypatch):
    use(RemoteConfig(patience_s=60))
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Refuses)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    point_to(f"http://127.0.0.1:{server.server_port}", tmp_path, monkeypatch)
    began = time.monotonic()
    try:
        with pytest.raises(SourceGone, match=r"'gs://bucket/a\.bin' is refused \(.*\): give credentials"):
            size_of("gs://bucket/a.bin")
    finally:
        server.shutdown()
        server.server_close()
    assert time.monotonic() - began < 20
