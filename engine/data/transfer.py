"""The memory that clips are decoded into, and their way from there to the GPU, beside the training step and not in line
with it.
"""

import math

import numpy as np
import torch

from engine.data.lent import MemoryPool


class DeviceCopier:
    """Copies host tensors to a device from a thread that decodes ahead.

    A copy on the stream of the training step would wait behind the kernels queued there, and they behind it. Here it has
    a stream of its own; the calling thread waits until it is done, so the result may be used on any stream at once. On a
    CPU nothing is copied.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = torch.device(device)
        self._stream = torch.cuda.Stream(self._device) if self._device.type == "cuda" else None
        self._pool: MemoryPool[np.ndarray] = MemoryPool()

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """Host memory to decode into: pinned for a GPU, which can then read it by itself; used again once nobody holds it."""
        if self._stream is not None:
            return torch.empty(shape, dtype=dtype, pin_memory=True)
        size = math.prod(shape) * dtype.itemsize
        buffer = self._pool.take(lambda free: free.size == size, lambda: np.empty(size, np.uint8))
        return torch.from_numpy(self._pool.lend(buffer, buffer)).view(dtype).reshape(shape)

    def __call__(self, host: torch.Tensor) -> torch.Tensor:
        """The tensor on the device, complete."""
        if self._stream is None:
            return host.to(self._device)
        with torch.cuda.stream(self._stream):
            copied = host.to(self._device, non_blocking=True)
        self._stream.synchronize()
        # Its memory must not be handed out again for the copying stream while the step's stream still reads it.
        copied.record_stream(torch.cuda.current_stream(self._device))
        return copied
