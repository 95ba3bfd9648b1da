"""A Google Cloud Storage of its own on this machine, for this process and those it starts, with a bucket `bucket`."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def gcs_server(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """While inside, gs:// leads there; copies are kept in `folder`/cache. Skips the test where emulator or gcsfs is missing."""
    emulator = pytest.importorskip("gcp_storage_emulator.server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    point_to(f"http://127.0.0.1:{port}", folder, monkeypatch)
    with emulator.create_server("127.0.0.1", port, in_memory=True, default_bucket="bucket"):
        yield


def point_to(address: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """gs:// leads to this address. Skips the test where gcsfs is missing."""
    pytest.importorskip("gcsfs")
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    from engine.data.remote import file_systems

    file_systems._file_system.cache_clear()  # of another test's server
    file_systems.fsspec.get_filesystem_class("gs").clear_instance_cache()
