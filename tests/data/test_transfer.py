"""The way of clips to the device; the GPU's part is in tests/test_step_gpu.py."""

import torch

from engine.data.transfer import DeviceCopier


def test_on_a_cpu_nothing_is_copied_or_pinned():
    copier = DeviceCopier(torch.device("cpu"))
    host = copier.empty((2, 3), torch.uint8)
    assert (host.shape, host.dtype, host.is_pinned()) == ((2, 3), torch.uint8, False)
    assert copier(host) is host


def test_its_memory_is_that_of_a_pool():
    copier = DeviceCopier(torch.device("cpu"))
    first = copier(copier.empty((5, 3), torch.int16))
    address = first.data_ptr()
    del first
    again = copier.empty((3, 5), torch.float16)
    assert (again.shape, again.dtype, again.data_ptr()) == ((3, 5), torch.float16, address)
    assert copier.empty((0, 3), torch.uint8).shape == (0, 3)
