"""Memory of batches: never overwritten while anybody holds it, and no more of it than is held."""

import gc
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from engine.data.loading.buffers import Buffer, BufferPool

SIZE = 12


def counted() -> tuple[BufferPool, weakref.WeakSet]:
    """A pool, and all buffers of it that are alive."""
    living = weakref.WeakSet()

    def make(num_bytes: int) -> Buffer:
        buffer = Buffer(num_bytes)
        living.add(buffer)
        return buffer

    return BufferPool(make), living


HOLDERS = {
    "the tensor": lambda clips: clips,
    "a slice": lambda clips: clips[3:5],
    "another shape and type": lambda clips: clips.view(torch.int32).reshape(3, 1).T,
    "an array": lambda clips: clips.numpy(),
    "a view of an array": lambda clips: clips.numpy()[2:].reshape(2, 5).view(np.int8),
    "the storage": lambda clips: clips.untyped_storage(),
    "DLPack": lambda clips: torch.from_dlpack(clips[2:]),
    "what a graph keeps for its backward pass": lambda clips: (
        torch.ones(SIZE, requires_grad=True) * clips.view_as(clips)
    ),
}


@pytest.mark.parametrize("holder", HOLDERS)
def test_what_is_held_is_not_overwritten_and_comes_back(holder):
    pool, living = counted()
    clips = pool.lend(SIZE)[1].fill_(7)
    address = clips.data_ptr()
    held = HOLDERS[holder](clips)
    del clips
    others = [pool.lend(SIZE)[1].fill_(9) for _ in range(3)]
    assert address not in {other.data_ptr() for other in others}
    assert len(living) == 4
    del held, others
    lent = [pool.lend(SIZE)[1] for _ in range(4)]
    assert address in {one.data_ptr() for one in lent} and len(living) == 4


def test_buffers_are_no_more_than_were_held_at_a_time():
    pool, living = counted()
    held = []
    for step in range(100):
        clips = pool.lend(SIZE)[1].fill_(step)
        held = [*held[-2:], clips[1:]]
        assert [int(clip[0]) for clip in held] == list(range(max(0, step - 2), step + 1))
    assert len(living) <= 5
    del clips
    held.clear()
    pool.lend(2 * SIZE)
    assert len(living) == 1  # those of another size are given back
    del pool
    gc.collect()
    assert not living


def test_a_batch_outlives_its_pool():
    pool, living = counted()
    clips = pool.lend(SIZE)[1].fill_(7)
    del pool
    gc.collect()
    assert clips.tolist() == [7] * SIZE and len(living) == 1
    del clips
    assert not living


def test_threads_borrow_and_let_go_at_the_same_time():
    pool, living = counted()

    def work(number: int) -> bool:
        for _ in range(300):
            clips = pool.lend(SIZE)[1].fill_(number)
            if not (clips == number).all():
                return False
        return True

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(work, range(4)))
    assert len(living) <= 8
