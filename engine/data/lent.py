"""Memory that is lent, and comes back by itself when its borrower has let go of it.

A batch is too large for malloc to keep: it would come from the system page by page, and go back to it, every time. That
is a sixth of the time of decoding a stored snippet.
"""

import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

import numpy as np

Owner = TypeVar("Owner")


class MemoryPool(Generic[Owner]):
    """Owners of memory that nobody uses at present; from any number of threads.

    The array that `lend` gives is the only way to the memory. Whoever needs the memory holds it: a tensor of it
    (`torch.from_numpy`) does, and so does every view of that tensor, as tensor or array. A slice of the array itself does
    not: numpy lets it refer to the owner.
    """

    def __init__(self) -> None:
        self._free: deque[Owner] = deque()  # its append, all that a returning array does, needs no lock
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._free)

    def take(self, fits: Callable[[Owner], bool], make: Callable[[], Owner]) -> Owner:
        """A free owner that fits, else a new one; free ones that do not fit are dropped. It is out until `lend` returns."""
        with self._lock:
            free = [owner for owner in (self._free.popleft() for _ in range(len(self._free))) if fits(owner)]
            taken = free.pop() if free else make()
            self._free.extend(free)
        return taken

    def lend(self, owner: Owner, memory: np.ndarray) -> np.ndarray:
        """The memory of an owner as an array of its own; when that is gone, the owner is free."""
        lent = memory.view()
        weakref.finalize(lent, self._free.append, owner).atexit = False
        return lent
