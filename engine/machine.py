"""What a process may use of its machine, and what it uses: CPU cores, files, resident memory. Imports nothing that takes time."""

import errno
import os
import resource
from math import ceil
from pathlib import Path

_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # of a container: "QUOTA PERIOD" in microseconds, or "max PERIOD" (cgroup v2)
OUT_OF_FILES = (errno.EMFILE, errno.ENFILE)  # what the system says to a process that has opened too many


def file_limit() -> int:
    """Files that this process may have open at once (`ulimit -n`)."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 2**20 if soft == resource.RLIM_INFINITY else soft


def usable_cores() -> int:
    """CPU cores this process may keep busy: what its affinity mask and its container's CPU quota leave of the machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = _QUOTA.read_text().split()
    except (OSError, ValueError):  # no such limit here
        return cores
    return cores if quota == "max" else max(1, min(cores, ceil(int(quota) / int(period))))


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
