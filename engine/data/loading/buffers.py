"""Memory of batches that comes back to its pool when the last tensor in it is gone."""

import weakref
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

import numpy as np
import torch


class Buffer:
    """Memory of some bytes; a subclass may say by which name others know it.

    Attributes:
        memory: uint8 [num_bytes].
    """

    def __init__(self, num_bytes: int) -> None:
        self.memory = np.empty(num_bytes, np.uint8)


B = TypeVar("B", bound=Buffer)


class BufferPool(Generic[B]):
    """Buffers that are lent as tensors.

    A batch is too large for malloc to keep: it would come from the system page by page, and go back to it, every time.
    That is a sixth of the time of decoding a stored snippet.

    A tensor and all its views hold one storage, and the storage a lease: an array over the buffer that nobody else holds.
    When the lease is gone, its finalizer puts the buffer back. So a buffer is lent to one holder at a time, for as long as
    anything of the batch is held, whichever thread lets go of it, and the pool holds at most as many buffers as were
    lent at the same time.
    """

    def __init__(self, make: Callable[[int], B]) -> None:
        self._make = make
        self._free: deque[B] = (
            deque()
        )  # finalizers append, of any thread and at any time: no lock, which they might hold

    def lend(self, num_bytes: int) -> tuple[B, torch.Tensor]:
        """A buffer and its bytes as a tensor uint8 [num_bytes], with anything in them."""
        buffer = self._take(num_bytes)
        lease = buffer.memory.view()
        weakref.finalize(lease, self._free.append, buffer).atexit = False
        return buffer, torch.from_numpy(lease)

    def _take(self, num_bytes: int) -> B:
        while True:
            try:
                buffer = self._free.pop()
            except IndexError:
                return self._make(num_bytes)
            if buffer.memory.size == num_bytes:
                return buffer  # one of another size is given back to the system
