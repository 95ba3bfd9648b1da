"""What a process may use of its machine, and what it uses: CPU cores, files, resident memory. Imports nothing that takes time."""

import errno
import os
import resource
from collections.abc import Sequence, Set
from fractions import Fraction
from math import ceil
from pathlib import Path

from engine.errors import InputError

_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # of a container: "QUOTA PERIOD" in microseconds, or "max PERIOD" (cgroup v2)
_masks: Sequence[Set[int]] | None = None  # of the ranks of this machine
OUT_OF_FILES = (errno.EMFILE, errno.ENFILE)  # what the system says to a process that has opened too many


def file_limit() -> int:
    """Files that this process may have open at once (`ulimit -n`)."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 2**20 if soft == resource.RLIM_INFINITY else soft


def allow_files(count: int) -> None:
    """Raise `ulimit -n` by so many, as far as the system lets this process: for files that stay open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY:
        wanted = soft + count if hard == resource.RLIM_INFINITY else min(soft + count, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def core_mask() -> frozenset[int]:
    """The CPU cores that this process may run on, by number."""
    return frozenset(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1))


def usable_cores() -> int:
    """CPU cores this process may keep busy: what its affinity mask and its container's CPU quota leave of the machine."""
    cores = len(core_mask())
    try:
        quota, period = _QUOTA.read_text().split()
    except (OSError, ValueError):  # no such limit here
        return cores
    return cores if quota == "max" else max(1, min(cores, ceil(int(quota) / int(period))))


def share_cores(masks: Sequence[Set[int]] | None) -> None:
    """Tell this process the core masks of all ranks of its machine, its own among them; None: they are not known (any more)."""
    global _masks
    _masks = masks


def rank_variable(name: str, least: int) -> int:
    """What torchrun tells each of its ranks in an environment variable; `least` where it is not set, or empty.

    Raises:
        InputError: it is no number, or a smaller one.
    """
    text = os.environ.get(name) or str(least)
    if not (text.isascii() and text.isdecimal()) or int(text) < least:
        raise InputError(f"the environment variable {name} is '{text}': unset it, or start the ranks with torchrun")
    return int(text)


def rank_cores() -> int:
    """The usable cores of this rank, at least 1: each core of its mask divided among the ranks whose masks have it, and a quota
    among all of this machine. Before the ranks know each other's masks, the usable cores over `LOCAL_WORLD_SIZE`."""
    if _masks is None:
        return max(1, usable_cores() // rank_variable("LOCAL_WORLD_SIZE", 1))
    own = core_mask()
    share = sum(Fraction(1, max(1, sum(core in mask for mask in _masks))) for core in own)
    usable = usable_cores()
    return max(1, int(share if usable == len(own) else min(share, Fraction(usable, len(_masks)))))


def resident_bytes(field: str = "VmRSS", pid: int | str = "self") -> int:
    """Memory of a process by Linux's account of it; 0 if it has ended.

    Args:
        field: of /proc/PID/status: VmRSS (now), VmHWM (the most so far), RssAnon, RssShmem. getrusage would give the peak
            of the process that started this one too.
    """
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:")), 0)
