"""An S3 of its own on this machine, for this process and those it starts, with a bucket `bucket`."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

SECRET = "HIDDEN"  # must not be printed


@contextmanager
def s3_server(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """While inside, s3:// leads there; copies are kept in `folder`/cache. Skips the test where moto or s3fs is missing."""
    pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    point_to(f"http://127.0.0.1:{port}", folder, monkeypatch)
    from engine.data.remote import file_systems

    files = file_systems.file_system("s3://bucket")
    if files.exists("bucket"):  # all servers of a process keep their buckets in one place
        files.rm("bucket", recursive=True)
    files.mkdir("bucket")
    try:
        yield
    finally:
        server.stop()


def point_to(address: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """s3:// leads to this address. Skips the test where s3fs is missing."""
    pytest.importorskip("s3fs")
    for name, value in {
        "AWS_ENDPOINT_URL": address, "AWS_ACCESS_KEY_ID": "name", "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1", "XDG_CACHE_HOME": str(folder / "cache"),
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    from engine.data.remote import direct, file_systems

    file_systems._file_system.cache_clear()  # of another test's server
    file_systems.fsspec.get_filesystem_class("s3").clear_instance_cache()
    monkeypatch.setattr(direct, "_SIGNED", {})
    monkeypatch.setattr(direct, "_RESTING", {})
