"""The way of clips to the device; the GPU's part is in tests/test_step_gpu.py."""

import torch

from engine.data.transfer import DeviceCopier


def test_on_a_cpu_nothing_is_copied_or_pinned():
    copier = DeviceCopier(torch.device("cpu"))
    host = copier.empty((2, 3), torch.uint8)
    assert (host.shape, host.dtype, host.is_pinned()) == ((2, 3), torch.uint8, False)
    assert copier(host) is host
