"""The memory that clips are decoded into, and their way from there to the GPU, beside the training step and not in line
with it.
"""

import math
import sys

import numpy as np
import torch


class DeviceCopier:
    """Copies host tensors to a device from a thread that decodes ahead.

    A copy on the stream of the training step would wait behind the kernels queued there, and they behind it. Here it has
    a stream of its own; the calling thread waits until it is done, so the result may be used on any stream at once. On a
    CPU nothing is copied.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = torch.device(device)
        self._stream = torch.cuda.Stream(self._device) if self._device.type == "cuda" else None
        self._buffers = _Buffers()

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """Host memory to decode into: pinned for a GPU, which can then read it by itself; used again once it is free."""
        if self._stream is None:
            return self._buffers.take(shape, dtype)
        return torch.empty(shape, dtype=dtype, pin_memory=True)

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


class _Buffers:
    """Memory of batches that nobody holds any more, to be filled again.

    A batch is too large for malloc to keep: it would come from the system page by page, and go back to it, every time.
    That is a sixth of the time of decoding a stored snippet.
    """

    def __init__(self) -> None:
        self._buffers: list[np.ndarray] = []

    def take(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """A tensor with anything in it. Its memory is free again when it, and all views of it, are gone."""
        num_bytes = math.prod(shape) * dtype.itemsize
        held, found = [], None
        for buffer in self._buffers:
            is_free = sys.getrefcount(buffer) == 3  # the list's, the loop's and the call's; a tensor has one more
            if is_free and found is None and buffer.size == num_bytes:
                found = buffer
            elif not is_free or buffer.size == num_bytes:
                held.append(buffer)  # free ones of another size are given back
        if found is None:
            found = np.empty(num_bytes, np.uint8)
        self._buffers = [*held, found]
        return torch.from_numpy(found).view(dtype).reshape(shape)
