"""The user's home, and users who have none."""

from pathlib import Path

import pytest

from engine.data.remote import settings
from engine.data.remote.config import RemoteConfig
from engine.errors import InputError
from engine.files.home import cache_home, from_home


@pytest.fixture
def homeless(monkeypatch):
    """Neither HOME nor a user of this number, as in many a container."""
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)


def test_caches_lie_where_the_user_says_or_in_the_home(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_home() == Path("/home/somebody/.cache")
    monkeypatch.setenv("XDG_CACHE_HOME", "/scratch")
    assert cache_home() == Path("/scratch")
    monkeypatch.setenv("XDG_CACHE_HOME", "~/caches")
    assert cache_home() == Path("/home/somebody/caches")


def test_a_user_without_home_has_no_caches(homeless, monkeypatch):
    assert cache_home() is None
    assert from_home("~/x") == "~/x"
    monkeypatch.setenv("XDG_CACHE_HOME", "/scratch")
    assert cache_home() == Path("/scratch")


def test_copies_of_remote_files_need_a_place(homeless, monkeypatch):
    with pytest.raises(InputError, match=r"this user has no home; set XDG_CACHE_HOME"):
        settings.cache_folder()
    monkeypatch.setenv("XDG_CACHE_HOME", "/scratch")
    assert settings.cache_folder() == Path("/scratch/unseen")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(settings, "_current", [RemoteConfig(cache_folder="/copies")])
    assert settings.cache_folder() == Path("/copies")
