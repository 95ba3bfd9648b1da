"""Runs a program that is told to stop (SIGTERM, on which a training saves its state) when whoever started this one is gone.

    python tied.py COMMAND ...

Ray kills the children of its workers with SIGKILL, which would leave a training no time: this is the child, and the training is
told by the kernel. Started by its path and without the package: it must be up at once, and have no threads (`preexec_fn`).
"""

import ctypes
import os
import signal
import subprocess
import sys
import time

_PR_SET_PDEATHSIG = 1  # of <sys/prctl.h>


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


if __name__ == "__main__":
    parent = os.getppid()
    # The program inherits the lock, which is not closed.
    program = subprocess.Popen(sys.argv[1:], close_fds=False, preexec_fn=_end_with_parent)
    signal.signal(signal.SIGTERM, lambda *_: program.terminate())
    while program.poll() is None:
        if os.getppid() != parent:
            program.terminate()
            parent = os.getppid()  # once
        time.sleep(0.2)
    sys.exit(program.returncode if program.returncode >= 0 else 128 - program.returncode)
