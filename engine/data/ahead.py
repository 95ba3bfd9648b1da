"""Decoding batch after batch without a pause between them."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

from engine.data.batch import DecodedClips, SnippetRequest, VideoDecoder

_BEGUN = 2  # batches that a decoder has at a time: while the last files of one end, idle threads begin the next


def in_batches(requests: Iterable[SnippetRequest], size: int) -> Iterator[list[SnippetRequest]]:
    """The requests in lists of `size`; the last may be shorter. (`itertools.batched` begins with Python 3.12.)"""
    rest = iter(requests)
    while batch := list(islice(rest, size)):
        yield batch


def decode_in_order(decoder: VideoDecoder, batches: Iterable[Sequence[SnippetRequest]]) -> Iterator[DecodedClips]:
    """Decode each batch of requests; the next one is begun before a batch is waited for."""
    begun: deque[Callable[[], DecodedClips]] = deque()
    for requests in batches:
        begun.append(decoder.submit(requests))
        if len(begun) == _BEGUN:
            yield begun.popleft()()
    while begun:
        yield begun.popleft()()
