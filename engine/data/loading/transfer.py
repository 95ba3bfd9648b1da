"""The way of decoded clips to the GPU, beside the training step and not in line with it."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from engine.data.loading.buffers import Buffer, BufferPool


@contextmanager
def on_stream(stream: torch.cuda.Stream | None) -> Iterator[None]:
    """What is queued within goes to a stream; to the current one where there is none.

    In a thread of its own the current GPU is number 0, whatever the rank's: torch's own context manager puts it back, and so
    opens a CUDA context there, some 500 MB for every other rank.
    """
    if stream is None:
        yield
        return
    with torch.cuda.device(stream.device), torch.cuda.stream(stream):
        yield


class DeviceCopier:
    """Copies host tensors to a device from a thread that decodes ahead.

    A copy on the stream of the training step would wait behind the kernels queued there, and they behind it. Here it has
    a stream of its own; the calling thread waits until it is done, so the result may be used on any stream at once. On a
    CPU nothing is copied.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = torch.device(device)
        self._stream = torch.cuda.Stream(self._device) if self._device.type == "cuda" else None
        self._buffers = BufferPool(Buffer)

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """Host memory to decode into: pinned for a GPU, which can then read it by itself; used again once it is free."""
        if self._stream is None:
            return self._buffers.lend(math.prod(shape) * dtype.itemsize)[1].view(dtype).reshape(shape)
        return torch.empty(shape, dtype=dtype, pin_memory=True)

    def __call__(self, host: torch.Tensor) -> torch.Tensor:
        """The tensor on the device, complete."""
        if self._stream is None:
            return host.to(self._device)
        with on_stream(self._stream):
            copied = host.to(self._device, non_blocking=True)
        self._stream.synchronize()
        # Its memory must not be handed out again for the copying stream while the step's stream still reads it.
        copied.record_stream(torch.cuda.current_stream(self._device))
        return copied
