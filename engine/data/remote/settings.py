"""How this process reads object storage: what the section `data.remote` of its config says, else the defaults."""

import os
from pathlib import Path

from engine.data.remote.config import RemoteConfig

_current = [RemoteConfig()]


def use(config: RemoteConfig) -> None:
    """Read as this section says, from now on in this process."""
    _current[0] = config


def settings() -> RemoteConfig:
    """What `use` was given last."""
    return _current[0]


def cache_folder() -> Path:
    """Where copies lie on this machine."""
    if folder := settings().cache_folder:
        return Path(folder).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "unseen"
