"""Runs a program that is told to stop (SIGTERM, on which a training saves its state) when whoever started this one is gone.

    python tied.py COMMAND ...

Ends as the program does, by the same signal where that ended it. Who started it may be killed with SIGKILL, as Ray does with the
children of its workers: the program then has its time to save, and is told by the kernel (Linux) where this one is killed too.
Started by its path and without the package: it must be up at once, and have no threads (`preexec_fn`).
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time

_PR_SET_PDEATHSIG = 1  # of <sys/prctl.h>


def stop_with_parent() -> None:
    """From now on this process has a SIGTERM when the one that started it is gone, by kill -9 too. On Linux."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _end_by(number: int) -> None:
    with contextlib.suppress(OSError):  # SIGKILL has no other meaning
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


if __name__ == "__main__":
    parent = os.getppid()
    # The program inherits the lock, which is not closed.
    program = subprocess.Popen(sys.argv[1:], close_fds=False, preexec_fn=stop_with_parent)
    signal.signal(signal.SIGTERM, lambda *_: program.terminate())
    while program.poll() is None:
        if os.getppid() != parent:
            program.terminate()
            parent = os.getppid()  # once
        time.sleep(0.2)
    if program.returncode < 0:
        _end_by(-program.returncode)
    sys.exit(program.returncode)
