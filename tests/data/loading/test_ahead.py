"""Batches that are begun before the one before them is done: the same clips in the same order, and no pause."""

import threading
import time

import pytest
import torch

from engine.data.batch import ClipFormat, DecodedClips, SnippetRequest, VideoDecoder
from engine.data.decoders import build_decoder
from engine.data.loading.ahead import Prefetcher, decode_in_order
from engine.data.pyav.decode import PyAVDecoder
from tests.data.videos import describe, write_numbered

CPU, CLIP = torch.device("cpu"), ClipFormat(num_frames=4, stride=2, short_side=40, crop=32)


@pytest.fixture(scope="module")
def requests(tmp_path_factory):
    """Of three videos; the last one is gone."""
    folder = tmp_path_factory.mktemp("videos")
    videos = [describe(write_numbered(folder / f"{index}.webm", num_frames=20)) for index in range(3)]
    videos[2].path.unlink()
    return [SnippetRequest(videos[i % 3], i % 7, 0.5, 0.5, i % 4 == 0) for i in range(30)]


class Diary(VideoDecoder):
    """Writes down when a batch is begun, and when it is waited for."""

    name = "diary"

    def __init__(self):
        self.lines = []

    def submit(self, requests):
        self.lines.append(f"begin {requests}")

        def wait():
            self.lines.append(f"wait {requests}")
            return requests

        return wait


def test_the_next_batch_is_begun_before_one_is_waited_for():
    diary = Diary()
    assert list(decode_in_order(diary, iter("abc"))) == ["a", "b", "c"]
    assert diary.lines == ["begin a", "begin b", "wait a", "begin c", "wait b", "wait c"]
    assert list(decode_in_order(diary, iter("d"))) == ["d"]
    assert list(decode_in_order(diary, [])) == []


@pytest.mark.parametrize("in_processes", [False, True])
def test_clips_and_failures_are_those_of_single_batches(requests, in_processes):
    decoder = build_decoder("pyav", CLIP, CPU, 2, 8, in_processes=in_processes)
    sizes = [5, 0, 8, 1, 12, 4]  # of twelve, more than fit at once
    batches = [requests[sum(sizes[:i]) : sum(sizes[: i + 1])] for i in range(len(sizes))]
    try:
        found = list(decode_in_order(decoder, batches))
        one_by_one = [decoder.decode(batch) for batch in batches]
    finally:
        decoder.close()
    assert [len(each.frames) for each in found] == sizes
    for each, expected in zip(found, one_by_one, strict=True):
        assert each.failures == expected.failures
        good = [row for row in range(len(each.frames)) if row not in each.failures]
        assert torch.equal(each.frames[good], expected.frames[good])
    assert sum(len(each.failures) for each in found) == 10


def test_a_thread_that_has_nothing_left_begins_the_next_batch(requests, monkeypatch):
    release, decode_file = threading.Event(), PyAVDecoder.decode_file

    def slow(self, asked, *into):
        if next(iter(asked.values())) is requests[0]:
            assert release.wait(60)
        return decode_file(self, asked, *into)

    monkeypatch.setattr(PyAVDecoder, "decode_file", slow)
    decoder = PyAVDecoder(CLIP, CPU, 2)
    try:
        first, second = decoder.submit(requests[:1]), decoder.submit(requests[3:5])
        done: DecodedClips = second()  # while the first one is still at work
        release.set()
        assert not done.failures and not first().failures
    finally:
        release.set()
        decoder.close()


def test_a_thread_makes_items_ahead_and_ends_when_it_is_told():
    made = []

    def items():
        for number in range(100):
            made.append(number)
            yield number

    ahead = Prefetcher(items(), 2, "test-ahead")
    assert [next(ahead) for _ in range(3)] == [0, 1, 2]
    deadline = time.monotonic() + 10
    while len(made) < 6 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    assert len(made) == 6  # three taken, two that wait, one in hand
    ahead.close()
    ahead.close()
    assert len(made) <= 7 and "test-ahead" not in {thread.name for thread in threading.enumerate()}


def test_items_end_and_errors_come_where_their_item_would_have():
    def items():
        yield from (1, 2)
        raise KeyError("three")

    ahead = Prefetcher(items(), 1, "test-ahead")
    assert [next(ahead), next(ahead)] == [1, 2]
    for _ in range(2):  # whoever asks again is not left waiting
        with pytest.raises(KeyError, match="three"):
            next(ahead)
    whole = Prefetcher(range(5), 1, "test-ahead")
    assert list(whole) == [0, 1, 2, 3, 4] and list(whole) == []
    for each in (ahead, whole):
        each.close()
