"""Ranges of the objects of one store: begun before they are asked for, kept in the cache if there is one.

planned snippets ──begin──▶ libcurl, else threads: cache, else one range read ──▶ held ──read──▶ decoders
"""

import functools
import os
import threading
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from engine.data.remote import direct, objects
from engine.data.remote.cache import RangeCache
from engine.data.remote.objects import read_range
from engine.data.remote.settings import cache_folder, settings
from engine.data.remote.states import Answer, States
from engine.errors import SourceGone


@dataclass(eq=False, frozen=True, slots=True)
class HeldRange:
    """Bytes of an object that are read, or being read."""

    url: str
    start: int
    end: int
    data: "Future[bytes]" = field(default_factory=Future)
    stop: threading.Event = field(default_factory=threading.Event)  # set: nobody wants them


class Ranges:
    """Reads ranges of objects, each the same from the first to the last. Threads may share one.

    Args:
        state: changes with what else tells of the objects, so that no cache gives what lay there before.
    """

    def __init__(self, state: str) -> None:
        self._state, self._states = state, States()
        self._held: dict[str, dict[HeldRange, None]] = defaultdict(dict)

    def begin(self, wanted: Iterable[tuple[str, int, int]]) -> list[HeldRange]:
        """Begin to read these bytes, (url, start, end); overlapping or adjacent ones are one read. `release` them."""
        begun = [HeldRange(*each) for each in _merged(wanted)]
        try:
            for each in begun:
                self._held[each.url][each] = None
                self._begin(each)
        except BaseException:  # else readers would wait for what nobody reads
            for each in begun:
                self.release(each)
            raise
        return begun

    def release(self, held: HeldRange) -> None:
        """Forget a range that was begun."""
        held.stop.set()
        held.data.cancel()
        self._held[held.url].pop(held, None)

    def read(self, url: str, start: int, length: int) -> bytes:
        """These bytes; fewer where the object ends before. Raises as `read_range`."""
        end = start + length
        for held in tuple(self._held[url]) if url in self._held else ():  # others begin and release meanwhile
            if held.start <= start and end <= held.end:
                try:
                    return held.data.result()[start - held.start : end - held.start]
                except (CancelledError, SourceGone):
                    if not held.stop.is_set():
                        raise
                    break  # who began it has released it meanwhile
        return self._fetch(url, start, end)

    def _begin(self, held: HeldRange) -> None:
        """Directly if that is possible; where it fails, or is not, by a thread that may wait."""

        def ended(found: Answer | Exception) -> None:
            if isinstance(found, Answer) and len(found.data) == held.end - held.start:
                self._take(held, found)
            else:
                _threads().submit(self._wait, held)

        is_direct = not settings().cache_gb and direct.begin(
            held.url, held.start, held.end, settings().reads_in_flight, ended, self._states.if_match(held.url)
        )
        if not is_direct:
            _threads().submit(self._wait, held)

    def _take(self, held: HeldRange, found: Answer) -> None:
        objects.answered(held.url)
        if not held.data.set_running_or_notify_cancel():
            return
        try:
            self._states.check(held.url, found.state)
        except SourceGone as error:
            held.data.set_exception(error)
        else:
            held.data.set_result(found.data)

    def _wait(self, held: HeldRange) -> None:
        if not held.data.set_running_or_notify_cancel():
            return
        try:
            held.data.set_result(self._fetch(held.url, held.start, held.end, held.stop))
        except BaseException as error:
            held.data.set_exception(error)

    def _fetch(self, url: str, start: int, end: int, stop: threading.Event | None = None) -> bytes:
        cache = _cache(cache_folder() / "ranges", int(settings().cache_gb * 1e9)) if settings().cache_gb else None
        is_seen = self._states.of(url) is not None  # else the first read tells what is there now
        data = cache.get(self._name(url, start, end)) if cache and is_seen else None
        if data is None:
            data = read_range(url, start, end - start, stop, self._states)
            if cache and len(data) == end - start:
                cache.put(self._name(url, start, end), data)
        return data

    def _name(self, url: str, start: int, end: int) -> str:
        """Of a range in the cache."""
        return f"{url} {self._state} {self._states.of(url)} {start} {end}"


_cache = functools.cache(RangeCache)


def _threads() -> ThreadPoolExecutor:
    return _threads_of(os.getpid(), settings().reads_in_flight)


@functools.cache
def _threads_of(_process: int, count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, thread_name_prefix="range")


def _merged(wanted: Iterable[tuple[str, int, int]]) -> list[tuple[str, int, int]]:
    merged: list[tuple[str, int, int]] = []
    for url, start, end in sorted(wanted):
        if merged and merged[-1][0] == url and start <= merged[-1][2]:
            merged[-1] = (url, merged[-1][1], max(end, merged[-1][2]))
        else:
            merged.append((url, start, end))
    return merged
