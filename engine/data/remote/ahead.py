"""Reading ahead of the decoders: the ranges of planned snippets are begun while those before them are decoded."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

from engine.data.batch import ClipFormat, SnippetRequest, VideoDecoder
from engine.data.geometry import snippet_frames
from engine.data.loading.ahead import BEGUN
from engine.data.remote.settings import settings
from engine.data.store.reader import RemoteReader, StoreError, find_entry
from engine.files.addresses import url_of

Batch = Sequence[SnippetRequest]


def read_ahead(batches: Iterable[Batch], clip: ClipFormat, num_begun: int) -> Iterator[Batch]:
    """The same batches, of which those of remote stores are being read from the moment that they are planned.

    So many batches are planned ahead that `data.remote.reads_in_flight` ranges are under way; of local files none.

    Args:
        num_begun: batches that their user has in hand: one is done when so many others have been asked for after it.
    """
    planned: deque[tuple[Batch, list[Callable[[], None]]]] = deque()  # with how its ranges are released
    in_hand: deque[list[Callable[[], None]]] = deque()
    try:
        for requests in batches:
            planned.append((requests, _begin(requests, clip)))
            while planned and (not planned[-1][1] or _num_ranges(planned) > settings().reads_in_flight):
                yield _hand_out(planned, in_hand, num_begun)
        while planned:
            yield _hand_out(planned, in_hand, num_begun)
    finally:
        for releases in (*in_hand, *(releases for _, releases in planned)):
            _release(releases)


def read_ahead_of(decoder: VideoDecoder, batches: Iterator[Batch], clip: ClipFormat) -> Iterator[Batch]:
    """`read_ahead` of what `decode_in_order` has in hand, where this process reads for the decoder; else the batches alone."""
    return read_ahead(batches, clip, BEGUN) if decoder.reads_here else batches


def _hand_out(planned: deque, in_hand: deque, num_begun: int) -> Batch:
    while len(in_hand) >= num_begun:
        _release(in_hand.popleft())
    requests, releases = planned.popleft()
    in_hand.append(releases)
    return requests


def _release(releases: list[Callable[[], None]]) -> None:
    for release in releases:
        release()


def _begin(requests: Batch, clip: ClipFormat) -> list[Callable[[], None]]:
    """Begin the reads of a batch, each video's together. Returns what releases them."""
    frames: dict[object, tuple[SnippetRequest, set[int]]] = {}
    for request in requests:
        if url_of(request.video.path) and not request.video.is_still:
            _, numbers = frames.setdefault(request.video.file, (request, set()))
            numbers.update(snippet_frames(request.video, request.start, clip))
    releases: list[Callable[[], None]] = []
    for request, numbers in frames.values():
        try:
            reader, entry = find_entry(request.video)
            begun = reader.begin(entry, sorted(numbers), motion=clip.motion) if isinstance(reader, RemoteReader) else ()
        except StoreError:  # the decoder will say so
            continue
        releases += [partial(reader.ranges.release, held) for held in begun]
    return releases


def _num_ranges(planned: deque) -> int:
    return sum(len(releases) for _, releases in planned)
