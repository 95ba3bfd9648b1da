"""The way of clips to the device; the GPU's part is in tests/test_step_gpu.py."""

import torch

from engine.data.transfer import DeviceCopier


def test_on_a_cpu_nothing_is_copied_or_pinned():
    copier = DeviceCopier(torch.device("cpu"))
    host = copier.empty((2, 3), torch.uint8)
    assert (host.shape, host.dtype, host.is_pinned()) == ((2, 3), torch.uint8, False)
    assert copier(host) is host


def test_memory_is_used_again_only_when_nobody_holds_it():
    copier = DeviceCopier(torch.device("cpu"))
    held = copier(copier.empty((4, 3), torch.uint8))
    view = held[1:].numpy()
    held.fill_(7)
    del held
    other = copier.empty((4, 3), torch.uint8)
    other.fill_(9)
    assert view.tolist() == [[7] * 3] * 3  # a view keeps it
    place = other.data_ptr()
    del other
    again = copier.empty((4, 3), torch.uint8)
    assert again.data_ptr() == place
    larger = copier.empty((5, 3), torch.int16)
    assert (larger.shape, larger.dtype, larger.data_ptr() == place) == ((5, 3), torch.int16, False)
    copier.empty((0, 3), torch.uint8)
    del again, larger, view
    copier.empty((2, 2), torch.uint8)
    assert len(copier._pool) == 1  # what is free and of another size is not kept
