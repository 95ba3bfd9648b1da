"""The windows of many videos, decoded in threads beside the model: every video once, from its first frame to its last.

A video is one thread's from beginning to end. What waits for the model is bounded: by windows, not by the length of videos.
"""

import queue
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from engine.data.batch import ClipFormat, Video
from engine.data.pyav.decode import compute_alone
from engine.data.pyav.files import Unusable
from engine.data.pyav.in_order import InOrderDecoder
from engine.features.windows import Window, WindowCutter, WindowGrid

_WAIT_S = 0.1  # between looks at whether the reader was closed


@dataclass(frozen=True, slots=True)
class Piece:
    """Some windows of a video, in order; or its end.

    video: place in the list of videos. frames: uint8 [n, T, H, W, 3]. spans: float64 [n, 2], start and end in seconds.
    duration_s: of the whole video to the end of its last frame, in its last piece, which has no windows; else None.
    failure: why the video is of no use, in its last piece.
    decode_s: seconds of computing that the piece took its thread.
    """

    video: int
    frames: np.ndarray
    spans: np.ndarray
    duration_s: float | None = None
    failure: str | None = None
    decode_s: float = 0.0


class WindowReader:
    """An iterator over the pieces of all videos; those of different videos come mixed. A context manager.

    Args:
        videos: with their average frames a second (0: not known).
        piece_size: most windows of a piece.
        num_threads: videos decoded at the same time.
    """

    def __init__(
        self,
        videos: Sequence[tuple[Video, float]],
        clip: ClipFormat,
        grid: WindowGrid,
        piece_size: int,
        num_threads: int,
    ) -> None:
        self._videos, self._clip, self._grid, self._piece_size = videos, clip, grid, piece_size
        self._shape = (clip.num_frames, clip.crop, clip.crop, 3)
        self._ready: queue.Queue[Piece | BaseException] = queue.Queue(num_threads + 1)
        self._places, self._lock, self._closed = iter(range(len(videos))), threading.Lock(), threading.Event()
        self._threads = [
            threading.Thread(target=self._serve, name="windows", daemon=True)
            for _ in range(min(num_threads, len(videos)))
        ]
        for thread in self._threads:
            thread.start()

    def __iter__(self) -> Iterator[Piece]:
        num_left = len(self._videos)
        while num_left:
            piece = self._ready.get()
            if isinstance(piece, BaseException):
                raise piece
            num_left -= piece.duration_s is not None or piece.failure is not None
            yield piece

    def __enter__(self) -> "WindowReader":
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        for thread in self._threads:
            thread.join()

    def _serve(self) -> None:
        compute_alone()
        decoder = InOrderDecoder(self._clip)
        try:
            while not self._closed.is_set():
                with self._lock:
                    place = next(self._places, None)
                if place is None:
                    return
                for piece in self._pieces(place, decoder):
                    if not self._put(piece):
                        return
        except BaseException as error:  # a defect: it is raised where the pieces are read
            self._put(error)

    def _pieces(self, place: int, decoder: InOrderDecoder) -> Iterator[Piece]:
        video, rate = self._videos[place]
        cutter, waiting, end_s = WindowCutter(self._grid, self._clip.num_frames), [], 0.0
        since = time.thread_time()
        if video.is_still:
            yield self._end(place, since, failure="it is a picture: only videos have windows")
            return
        try:
            for start_s, end_s, picture in decoder.frames(video, rate):
                waiting += cutter.add(start_s, end_s, picture)
                if len(waiting) >= self._piece_size:
                    yield self._piece(place, waiting, time.thread_time() - since)
                    since, waiting = time.thread_time(), []
            waiting += cutter.finish()
        except Unusable as error:
            yield self._end(place, since, failure=str(error))
            return
        if waiting:
            yield self._piece(place, waiting, time.thread_time() - since)
            since = time.thread_time()
        if not end_s:
            yield self._end(place, since, failure="it has no frames")
        else:
            yield self._end(place, since, duration_s=end_s)

    def _piece(self, place: int, windows: Sequence[Window], decode_s: float) -> Piece:
        frames = np.stack([frame for window in windows for frame in window.frames]).reshape(-1, *self._shape)
        spans = np.array([(window.start_s, window.end_s) for window in windows])
        return Piece(place, frames, spans, decode_s=decode_s)

    def _end(self, place: int, since: float, *, duration_s: float | None = None, failure: str | None = None) -> Piece:
        decode_s = time.thread_time() - since
        return Piece(place, np.empty((0, *self._shape), np.uint8), np.empty((0, 2)), duration_s, failure, decode_s)

    def _put(self, piece: Piece | BaseException) -> bool:
        """Hand a piece over; False if the reader was closed meanwhile."""
        while not self._closed.is_set():
            try:
                self._ready.put(piece, timeout=_WAIT_S)
            except queue.Full:
                continue
            return True
        return False
