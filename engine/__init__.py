"""unseen: trains video models end to end to recognise actions they have never seen."""

import os

__version__ = "0.1.0"

# Before torch loads OpenMP. Its threads wait for each other by spinning, by default for milliseconds; where another program
# has one of the cores, a training on two was 10 to 20 times slower for it. With short spinning it is half as fast, as it
# should be, and no slower when it is alone.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
