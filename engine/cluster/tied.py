"""Runs a program that is told to stop (SIGTERM, on which a training saves its state) when whoever started this one is gone.

    python tied.py COMMAND ...

Started by its path and without the package: it must be up at once, and do nothing else.
"""

import os
import signal
import subprocess
import sys
import time

if __name__ == "__main__":
    parent = os.getppid()
    program = subprocess.Popen(sys.argv[1:], close_fds=False)  # it inherits the lock
    signal.signal(signal.SIGTERM, lambda *_: program.terminate())
    while program.poll() is None:
        if os.getppid() != parent:
            program.terminate()
            parent = os.getppid()  # once
        time.sleep(0.2)
    sys.exit(program.returncode if program.returncode >= 0 else 128 - program.returncode)
