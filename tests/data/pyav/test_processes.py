"""The CPU decoder in processes gives what it gives in threads, whatever happens to a process."""

import os
import signal
from collections import deque

import numpy as np
import pytest
import torch

from engine.data.batch import ClipFormat, SnippetRequest
from engine.data.decoders import build_decoder
from engine.data.pyav.decode import PyAVDecoder
from engine.data.pyav.processes import ProcessDecoder, take_share
from tests.data.videos import describe, write_numbered

CPU, CLIP = torch.device("cpu"), ClipFormat(num_frames=4, stride=2, short_side=40, crop=32)


@pytest.fixture(scope="module")
def requests(tmp_path_factory):
    """Of six videos, several of each, in no order; the third is damaged, the fifth gone."""
    folder = tmp_path_factory.mktemp("videos")
    videos = [
        describe(write_numbered(folder / f"{index}.webm", num_frames=20, size=(64 + 8 * index, 48)))
        for index in range(6)
    ]
    data = bytearray(videos[2].path.read_bytes())
    data[300:] = os.urandom(len(data) - 300)
    videos[2].path.write_bytes(data)
    videos[4].path.unlink()
    draw = np.random.RandomState(0)
    return [
        SnippetRequest(videos[draw.randint(6)], draw.randint(12), draw.rand(), draw.rand(), bool(draw.randint(2)))
        for _ in range(40)
    ]


@pytest.fixture(scope="module")
def decoder():
    decoder = ProcessDecoder(CLIP, CPU, 2, max_batch_size=24)
    yield decoder
    decoder.close()


def assert_same(found, expected):
    assert found.failures.keys() == expected.failures.keys()
    good = [row for row in range(len(expected.frames)) if row not in expected.failures]
    assert good and torch.equal(found.frames[good], expected.frames[good])


def test_clips_and_failures_are_those_of_threads(decoder, requests):
    expected = PyAVDecoder(CLIP, CPU, 2).decode(requests)
    assert {"the file is missing"} < set(expected.failures.values())
    for _ in range(2):  # the second time from processes that live
        found = decoder.decode(requests)  # more than fit at once
        assert_same(found, expected)
        assert found.failures == expected.failures
    assert decoder.decode([]).frames.shape == (0, 4, 32, 32, 3)


def test_clips_stay_as_they_are_while_they_are_held(decoder, requests):
    first = decoder.decode(requests[:8])
    copy = first.frames.clone()
    decoder.decode(requests[8:16])
    assert torch.equal(first.frames, copy)
    del first
    files = {decoder.decode(requests[start : start + 8]).frames.data_ptr() for start in range(0, 40, 8)}
    assert len(files) <= 2  # memory is used again


def test_shares_stay_large_while_more_is_behind():
    waiting = deque({(job, row): None for row in range(2)} for job in range(20))
    shares = []
    while waiting:
        shares.append(sum(map(len, take_share(waiting, 4, least=8))))
    assert shares == [10, 8, 8, 8, 6]
    assert take_share(deque([dict.fromkeys(range(9))]), 4, least=8) == [dict.fromkeys(range(9))]


def test_several_batches_at_a_time_and_a_killed_process(decoder, requests):
    expected = [PyAVDecoder(CLIP, CPU, 2).decode(requests[start : start + 10]) for start in (0, 10, 20)]
    begun = [decoder.submit(requests[start : start + 10]) for start in (0, 10, 20)]
    os.kill(decoder._workers[0].process.pid, signal.SIGKILL)
    for wait, each in zip(begun, expected, strict=True):
        assert_same(wait(), each)


def test_a_batch_that_nobody_waits_for_is_in_nobody_s_way(decoder, requests):
    expected = PyAVDecoder(CLIP, CPU, 2).decode(requests[:10])
    decoder.submit(requests[10:20])
    assert_same(decoder.decode(requests[:10]), expected)
    decoder.submit(requests[20:])
    decoder.close()  # with work at hand
    assert_same(decoder.decode(requests[:10]), expected)


@pytest.mark.parametrize("sizes", [[1] * 40, [5, 3, 2] + [1] * 30, [16], [9, 9, 1]])
def test_shares_shrink_to_single_files(sizes):
    waiting = deque({(job, row): None for row in range(size)} for job, size in enumerate(sizes))
    jobs, shares = list(waiting), []
    while waiting:
        shares.append(take_share(waiting, 4))
    assert [job for share in shares for job in share] == jobs
    assert all(len(share) > 0 for share in shares) and len(shares[-1]) == 1
    left = sum(sizes)
    for share in shares:
        num_requests = sum(map(len, share))
        assert len(share) == 1 or num_requests <= left // 4
        left -= num_requests
    assert len(shares) < 20 or len(sizes) < 20


def test_a_killed_process_costs_nothing(decoder, requests):
    expected = PyAVDecoder(CLIP, CPU, 2).decode(requests)
    decoder.decode(requests[:8])
    for worker in decoder._workers:
        os.kill(worker.process.pid, signal.SIGKILL)
    assert_same(decoder.decode(requests), expected)


def test_the_config_s_key_chooses_it(requests):
    decoder = build_decoder("pyav", CLIP, CPU, 1, 8, in_processes=True)
    try:
        assert_same(decoder.decode(requests[:8]), PyAVDecoder(CLIP, CPU, 1).decode(requests[:8]))
        assert isinstance(decoder.decoders["pyav"], ProcessDecoder)
    finally:
        decoder.close()
