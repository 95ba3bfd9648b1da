"""Lent memory: never lent twice at a time, whoever holds it, and used again afterwards."""

import gc
import threading

import numpy as np
import torch

from engine.data.lent import MemoryPool


def lend(pool, size=8):
    made = []
    owner = pool.take(lambda free: free.size == size, lambda: made.append(1) or np.zeros(size, np.uint8))
    return torch.from_numpy(pool.lend(owner, owner)), bool(made)


def test_memory_comes_back_with_the_last_view():
    pool = MemoryPool()
    first, is_new = lend(pool)
    assert is_new
    address = first.data_ptr()
    views = [first[2:], first.view(2, 4)[1].numpy(), memoryview(first.numpy())]
    del first
    while views:
        other, is_new = lend(pool)
        assert other.data_ptr() != address
        del other
        views.pop()
    found = [lend(pool)[0] for _ in range(2)]
    assert address in {tensor.data_ptr() for tensor in found}


def test_autograd_holds_what_it_has_saved():
    pool = MemoryPool()
    owner = pool.take(lambda _: True, lambda: np.ones(4, np.float32))
    x = torch.from_numpy(pool.lend(owner, owner))
    weight = torch.ones(4, requires_grad=True)
    y = (x * weight).sum()  # the backward pass reads x
    del x
    gc.collect()
    assert len(pool) == 0
    y.backward()
    assert weight.grad.tolist() == [1.0] * 4
    del y
    gc.collect()
    assert len(pool) == 1


def test_what_does_not_fit_is_dropped_and_what_fits_is_kept():
    pool = MemoryPool()
    held = [lend(pool)[0] for _ in range(3)]
    del held
    assert len(pool) == 3
    kept, is_new = lend(pool)
    assert not is_new and len(pool) == 2
    other, is_new = lend(pool, size=16)
    assert is_new and len(pool) == 0
    del kept, other
    assert len(pool) == 2


def test_a_pool_may_go_before_what_it_has_lent():
    pool = MemoryPool()
    held, _ = lend(pool)
    held.fill_(7)
    del pool
    gc.collect()
    assert held.tolist() == [7] * 8


def test_threads_never_get_the_same_memory():
    pool, wrong = MemoryPool(), []

    def work(number):
        for _ in range(300):
            tensor, _ = lend(pool, size=64)
            tensor.fill_(number)
            if not bool((tensor == number).all()):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and len(pool) <= 4
