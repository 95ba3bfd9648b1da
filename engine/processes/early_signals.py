"""SIGUSR1, by which schedulers ask a run to save and stop, in the seconds before it can: imports, on a cold disk many of them.

Left to its default it would kill the process: a launcher would count a failure and start it again, or a job not be queued again.
Where the launcher of the ranks is gone the system asks, too.
"""

import os
import signal

from engine.processes.tied import stop_with_parent

_asked = [False]


def keep() -> None:
    """From now on SIGUSR1 is remembered, until `engine/processes/preemption.py` listens."""
    signal.signal(signal.SIGUSR1, lambda *_: _asked.__setitem__(0, True))


def stop_with_launcher() -> None:
    """From now on this rank has a SIGTERM when the torchrun (or `--ranks`) that started it is gone, by kill -9 too. On Linux."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        stop_with_parent()


def came() -> bool:
    """Whether it came since `keep`; told once."""
    was_asked, _asked[0] = _asked[0], False
    return was_asked
