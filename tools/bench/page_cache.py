"""Files out of the page cache, for what is measured cold."""

import os
from collections.abc import Iterable
from pathlib import Path

from engine.errors import InputError

_IN_MEMORY = ("tmpfs", "ramfs")  # file systems
_MOUNTS = Path("/proc/self/mountinfo")


def forget(files: Iterable[Path]) -> None:
    """Ask for the files to leave the page cache."""
    for path in files:
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def check_forgets(path: Path, mend: str) -> None:
    """Refuse a file or folder that lies in memory.

    Raises:
        InputError: it does; ends with `mend`.
    """
    if (kind := _file_system(path)) in _IN_MEMORY:
        raise InputError(f"'{path}' lies in memory ({kind}), so nothing there can be measured cold: {mend}")


def _file_system(path: Path) -> str:
    """The kind that a path lies on; "" where the system does not tell."""
    device = path.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    lines = _MOUNTS.read_text(errors="replace").splitlines() if _MOUNTS.is_file() else []
    return next((line.partition(" - ")[2].split()[0] for line in lines if line.split()[2] == number), "")
