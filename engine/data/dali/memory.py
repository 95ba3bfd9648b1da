"""DALI's output as a torch tensor in place, without a copy.

DALI (by its default, dynamic executor) keeps outputs for as long as they are referred to. On a GPU it knows nothing of the
work that torch has queued on them, so they are referred to until that is done.
"""

from collections import deque

import torch
from nvidia.dali.tensors import TensorGPU, TensorListCPU, TensorListGPU


class OutputLender:
    """Lends outputs of a pipeline to torch and drops them when torch has done with them."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._returned: deque[tuple[torch.cuda.Event, TensorGPU]] = deque()

    def lend(self, clips: TensorListCPU | TensorListGPU, user: torch.cuda.Stream | None) -> torch.Tensor:
        """A batch of equal shapes as one tensor, for work on the stream `user` (None on the CPU)."""
        if user is None:
            return torch.from_dlpack(clips.as_tensor())
        return torch.as_tensor(_Lease(clips.as_tensor(), user, self._returned), device=self._device)

    def collect(self) -> None:
        """Drop what came back and is done with."""
        while self._returned and self._returned[0][0].query():
            self._returned.popleft()


class _Lease:
    """DALI's GPU memory in torch's hands; torch holds this object for as long as a tensor uses the memory.

    When the last tensor is gone, work on it may still be queued: DALI gets its memory back once that is done.
    """

    def __init__(
        self,
        clips: TensorGPU,
        user: torch.cuda.Stream,
        returned: deque[tuple[torch.cuda.Event, TensorGPU]],
    ) -> None:
        self._clips, self._user, self._returned = clips, user, returned
        self.__cuda_array_interface__ = {
            "shape": tuple(clips.shape()),
            "typestr": "|u1",
            "data": (clips.data_ptr(), False),
            "version": 3,
        }

    def __del__(self) -> None:
        self._returned.append((self._user.record_event(), self._clips))
