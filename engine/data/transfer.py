"""The way of decoded clips to the GPU, beside the training step and not in line with it."""

import math

import torch

from engine.data.buffers import Buffer, BufferPool


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
        with torch.cuda.stream(self._stream):
            copied = host.to(self._device, non_blocking=True)
        self._stream.synchronize()
        # Its memory must not be handed out again for the copying stream while the step's stream still reads it.
        copied.record_stream(torch.cuda.current_stream(self._device))
        return copied
