"""How this process reads object storage: what the section `data.remote` of its config says, else the defaults."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from engine.data.remote.config import RemoteConfig
from engine.errors import InputError, is_interrupted
from engine.files.home import cache_home

_current = [RemoteConfig()]
_is_given_up: list[Callable[[], bool]] = []


def use(config: RemoteConfig) -> None:
    """Read as this section says, from now on in this process."""
    _current[0] = config


def settings() -> RemoteConfig:
    """What `use` was given last."""
    return _current[0]


@contextmanager
def patience(seconds: float) -> Iterator[None]:
    """While inside, no store that is away is waited for longer than so."""
    before = settings()
    use(replace(before, patience_s=min(seconds, before.patience_s)))
    try:
        yield
    finally:
        use(before)


@contextmanager
def given_up_when(asked: Callable[[], bool]) -> Iterator[None]:
    """While inside, no store that is away is waited for once `asked` says so (by a flag: a lock could meet a signal)."""
    _is_given_up.append(asked)
    try:
        yield
    finally:
        _is_given_up.remove(asked)


def is_given_up() -> bool:
    """Whether this process wants to end, and waits for no store that is away."""
    return is_interrupted() or any(asked() for asked in _is_given_up)


def cache_folder() -> Path:
    """Where copies lie on this machine.

    Raises:
        InputError: no folder is named, and the user has no home.
    """
    if folder := settings().cache_folder:
        return Path(folder)
    if home := cache_home():
        return home / "unseen"
    raise InputError(
        "no folder for copies of remote files: this user has no home; set XDG_CACHE_HOME, or data.remote.cache_folder in a config"
    )
