"""SIGUSR1, by which schedulers ask a run to save and stop, in the seconds before it can: imports, on a cold disk many of them.

Left to its default it would kill the process: a launcher would count a failure and start it again, or a job not be queued again.
"""

import signal

_asked = [False]


def keep() -> None:
    """From now on SIGUSR1 is remembered, until `engine/preemption.py` listens."""
    signal.signal(signal.SIGUSR1, lambda *_: _asked.__setitem__(0, True))


def came() -> bool:
    """Whether it came since `keep`; told once."""
    was_asked, _asked[0] = _asked[0], False
    return was_asked
