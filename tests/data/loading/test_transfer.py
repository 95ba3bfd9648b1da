"""The way of clips to the device; the GPU's part is in tests/training/test_step_gpu.py."""

import threading
from contextlib import ExitStack
from types import SimpleNamespace
from unittest import mock

import torch

from engine.data.loading.transfer import DeviceCopier, on_stream


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


class _Cuda(threading.local):
    """As much of torch.cuda as tells on which GPUs a thread opens a context; each thread begins at GPU 0."""

    current = 0

    def __init__(self, opened):
        self.opened = opened

    def set_stream(self, stream_id, device_index, device_type):
        self.opened.add(device_index)  # cudaSetDevice
        self.current = device_index

    def stream_of(self, device=None):
        index = self.current if device is None else torch.device(device).index
        return _stream(index)


def _stream(index):
    return SimpleNamespace(device=torch.device("cuda", index), device_index=index, stream_id=index, device_type=1)


def test_a_thread_of_another_rank_opens_nothing_on_gpu_0():
    opened: set[int] = set()
    cuda = _Cuda(opened)

    class Device:
        def __init__(self, device):
            self.index = torch.device(device).index

        def __enter__(self):  # exchanges the device, and opens a context on it
            self.before, cuda.current = cuda.current, self.index
            opened.add(self.index)

        def __exit__(self, *_):  # back without opening one
            cuda.current = self.before

    def work():
        with on_stream(_stream(1)):
            assert cuda.current == 1
        with on_stream(None):
            pass

    with ExitStack() as patched:
        for name, value in (
            ("device", Device), ("_set_stream_by_id", cuda.set_stream), ("current_stream", cuda.stream_of),
            ("Stream", SimpleNamespace),
        ):  # fmt: skip
            patched.enter_context(mock.patch.object(torch.cuda, name, value))
        patched.enter_context(mock.patch.object(torch.cuda, "_get_device_index", lambda *_, **__: cuda.current))
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert opened == {1}
