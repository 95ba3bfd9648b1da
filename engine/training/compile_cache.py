"""What torch.compile keeps on disk between processes, and what a compiler that was killed leaves there."""

from pathlib import Path

from torch.utils._filelock import FileLock


def remove_unfinished() -> int:
    """Remove the libraries of no bytes, which torch would take for finished ones, and every later run would fail on.

    A linker that is killed (Ctrl-C, kill -9) leaves them. What another process is making stays: torch locks it meanwhile.
    Returns how many they were.
    """
    from torch._inductor.runtime.cache_dir_utils import cache_dir  # imports the compiler

    folder, count = Path(cache_dir()), 0
    for library in folder.glob("*/*.so"):
        lock = FileLock(str(folder / "locks" / f"{library.name.partition('.')[0]}.lock"), timeout=0)
        try:
            if library.stat().st_size:
                continue
            with lock:
                library.unlink()
                count += 1
        except (OSError, TimeoutError):  # gone meanwhile, being made, or somebody else's
            continue
    return count
