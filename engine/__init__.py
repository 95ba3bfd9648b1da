"""unseen: trains video models end to end to recognise actions they have never seen."""

import os
import sys

__version__ = "0.1.0"

if sys.platform == "win32":
    print(
        "error: unseen needs Linux or macOS: on Windows install and start it within WSL (wsl --install)",
        file=sys.stderr,
    )
    sys.exit(2)

# Before torch loads OpenMP. Its threads wait for each other by spinning, by default for milliseconds: with another program on
# one of two cores, the quickstart fell from about 90 clips/s to 3 to 26; with short spinning to 23 to 39. Alone it makes no
# difference.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
