"""Decoding batch after batch without a pause between them, in a thread beside the one that needs them."""

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

from engine.data.batch import DecodedClips, SnippetRequest, VideoDecoder

BEGUN = 2  # batches that a decoder has at a time: while the last files of one end, idle threads begin the next

T = TypeVar("T")


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
        if len(begun) == BEGUN:
            yield begun.popleft()()
    while begun:
        yield begun.popleft()()


class Prefetcher(Generic[T]):
    """An iterator whose items a background thread makes ahead of their user. `close` it.

    An error of the thread is raised where its item would have come, and again after that.

    Args:
        items: iterated over in the thread.
        depth: items that wait for their user; one more is made, and then the thread waits.
        name: of the thread.
    """

    def __init__(self, items: Iterable[T], depth: int, name: str) -> None:
        self._items = items
        self._ready: queue.Queue[T | _End] = queue.Queue(maxsize=depth)
        self._end: _End | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def __iter__(self) -> "Prefetcher[T]":
        return self

    def __next__(self) -> T:
        item = self._end or self._ready.get()
        if isinstance(item, _End):
            self._end = item
            raise item.reason
        return item

    def close(self) -> None:
        """Let the item in hand be finished, and end the thread."""
        self._stop.set()
        while self._thread.is_alive():
            try:
                self._ready.get(timeout=0.05)
            except queue.Empty:
                continue

    def _run(self) -> None:
        try:
            for item in self._items:
                self._ready.put(item)
                del item  # its memory is its user's alone while the next is made
                if self._stop.is_set():
                    if isinstance(self._items, Generator):
                        self._items.close()  # now, and not when its memory is looked through
                    return
            reason: BaseException = StopIteration()
        except BaseException as error:
            reason = error
        self._ready.put(_End(reason))


@dataclass(frozen=True, slots=True)
class _End:
    """Of the items: why no more come."""

    reason: BaseException
