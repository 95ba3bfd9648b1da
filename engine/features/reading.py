"""The windows of many videos, decoded beside the model: every video once, from its first frame to its last.

A video is one thread's from beginning to end, or that of the process which the thread has: processes share no lock, and a file
that crashes FFmpeg costs its own process. What waits for the model is bounded by windows, not by the length of videos. A picture
is a video of one window, which shows nothing else.
"""

import copy
import itertools
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np
import torch

from engine.data.batch import ClipFormat, SnippetRequest, Video
from engine.data.manifests.identity import content_hash
from engine.data.manifests.manifest import Manifest
from engine.data.pyav.decode import compute_alone
from engine.data.pyav.files import Passing, Unusable
from engine.data.pyav.in_order import InOrderDecoder, Picture, TimedFrame
from engine.data.pyav.times import Timeline
from engine.data.stills import StillDecoder
from engine.data.store.index import is_stored
from engine.features.files import timelines
from engine.features.windows import SECONDS, Window, WindowCutter, WindowGrid
from engine.processes.process_pool import Lost, Worker

_WAIT_S = 0.1  # between looks at whether the reader was closed
REPEATS = 32  # a piece has at most so many times as many windows as pictures were asked for
_LIMIT_S = 3600.0  # of a process for one piece: a file that yields no frame is given up long before

TimedVideo = tuple[Video, Timeline]  # and when the frames of its file are shown


@dataclass(frozen=True, slots=True)
class Piece:
    """Some windows of a video, in order; or its end.

    spans: float64 [n, 2], start and end in seconds. is_new: bool [n], whether a window shows anything else than the one before.
    frames: uint8 [m, T, H, W, 3], of the m new ones. motion: uint8 [m, T, h, w], if the clip's format asks for it.
    duration_s: of the whole video to the end of its last frame, in its last piece, which has no windows; else None.
    failure: why the video is of no use, in its last piece. may_pass: that says nothing of its contents.
    decode_s: seconds of computing that the piece took.
    video: place in the list of videos.
    """

    frames: np.ndarray
    spans: np.ndarray
    is_new: np.ndarray
    motion: np.ndarray | None = None
    duration_s: float | None = None
    failure: str | None = None
    may_pass: bool = False
    decode_s: float = 0.0
    video: int = -1

    @property
    def is_last(self) -> bool:
        return self.duration_s is not None or self.failure is not None


_END = Piece(np.empty(0, np.uint8), np.empty((0, 2)), np.empty(0, bool))


class _Waiting:
    """Windows of a video that are in no piece yet, and which of them show other frames than the one before.

    Args:
        most: new ones of a piece.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._windows: list[Window] = []
        self._is_new: list[bool] = []
        self._last: Sequence[Picture] = ()

    def __len__(self) -> int:
        return len(self._windows)

    @property
    def is_full(self) -> bool:
        return sum(self._is_new) == self._most or len(self) == REPEATS * self._most

    def add(self, window: Window) -> None:
        pairs = zip(window.frames, self._last, strict=False)
        self._is_new.append(not self._last or any(a is not b for a, b in pairs))
        self._windows.append(window)
        self._last = window.frames

    def take(self) -> Piece:
        """All of them as a piece."""
        is_new, windows = np.array(self._is_new), self._windows
        self._is_new, self._windows = [], []
        spans = np.array([(window.start_s, window.end_s) for window in windows])
        pictures = [picture for window in itertools.compress(windows, is_new) for picture in window.frames]
        if not pictures:
            return replace(_END, spans=spans, is_new=is_new)
        frames, motion = (
            None if column[0] is None else np.stack(column).reshape(is_new.sum(), -1, *column[0].shape)
            for column in zip(*pictures, strict=True)
        )
        return Piece(frames, spans, is_new, motion)


def timed_videos(manifest: Manifest, rows: Sequence[int]) -> list[TimedVideo]:
    """Rows of a manifest with the times of their files' frames."""
    return list(zip(map(manifest.video, rows), timelines(manifest, rows), strict=True))


class PieceMaker:
    """Cuts videos into pieces, in the calling thread. Not thread-safe.

    Args:
        piece_size: most windows of a piece, but for those that show the same frames as the one before.
    """

    def __init__(self, clip: ClipFormat, grid: WindowGrid, piece_size: int) -> None:
        self._clip, self._grid, self._piece_size = clip, grid, piece_size
        self._decoder: InOrderDecoder | None = None  # with the first video: a maker is sent to processes
        self._begun: Iterator[Piece] = iter(())

    def __call__(self, video: TimedVideo | None) -> Piece:
        """The first piece of a video, or (None) the next one of that video: what a process is asked."""
        if video is not None:
            torch.set_num_threads(1)  # the other cores have processes of their own
            self._begun = self.pieces(*video)
        return next(self._begun)

    def pieces(self, video: Video, timeline: Timeline) -> Iterator[Piece]:
        """The pieces of a video; what is wrong with it is said by the last one."""
        self._decoder = self._decoder or InOrderDecoder(self._clip)
        cutter, waiting = WindowCutter(self._grid, self._clip.num_frames), _Waiting(self._piece_size)
        since, end_s = time.thread_time(), 0.0
        failure, may_pass = None, False
        try:
            frames = self._still(video) if video.is_still else self._decoder.frames(video, timeline)
            for start_s, end_s, picture in frames:
                for window in cutter.add(start_s, end_s, picture):
                    waiting.add(window)
                    if waiting.is_full:
                        yield replace(waiting.take(), decode_s=time.thread_time() - since)
                        since = time.thread_time()
            for window in cutter.finish():
                waiting.add(window)
        except Unusable as error:
            failure, may_pass = str(error), isinstance(error, Passing) or not _is_read_whole(video)
        if waiting and failure is None:
            yield replace(waiting.take(), decode_s=time.thread_time() - since)
            since = time.thread_time()
        if not end_s:
            failure = failure or "it has no frames"
        last = replace(_END, duration_s=None if failure else end_s, failure=failure, may_pass=may_pass)
        yield replace(last, decode_s=time.thread_time() - since)

    def _still(self, video: Video) -> Iterator[TimedFrame]:
        """A picture as a frame that is shown as long as a window lasts (a window in frames: a second)."""
        if self._clip.motion:
            raise Unusable("it is a picture: nothing moves in it, and the model looks at motion")
        with closing(StillDecoder(self._clip, torch.device("cpu"), 1)) as decoder:
            shown = decoder.submit([SnippetRequest(video, 0, crop_y=0.5, crop_x=0.5, flip=False)])()
        if shown.failures:
            raise Unusable(shown.failures[0])
        length = self._grid.length if self._grid.unit == SECONDS else 1.0
        yield 0.0, length, lambda: Picture(shown.frames[0, 0].numpy(), None)


def _is_read_whole(video: Video) -> bool:
    """Whether a file that failed can be read and is what was indexed: if not, the failure tells nothing of that. Of a stored video
    it is not known: its store may be copied or made again under the same name."""
    if is_stored(video.path):
        return False
    if video.content_hash is None:
        return True
    try:
        return content_hash(video.path) == video.content_hash
    except OSError:
        return False


class WindowReader:
    """An iterator over the pieces of all videos; those of different videos come mixed. A context manager.

    Args:
        maker: how videos are cut.
        num_threads: videos decoded at the same time.
        in_processes: each thread has a process that decodes for it.
    """

    def __init__(
        self, videos: Sequence[TimedVideo], maker: PieceMaker, num_threads: int, *, in_processes: bool = False
    ) -> None:
        self._videos, self._maker = videos, maker
        self._ready: queue.Queue[Piece | BaseException] = queue.Queue(num_threads + 1)
        self._places, self._lock, self._closed = iter(range(len(videos))), threading.Lock(), threading.Event()
        serve = self._serve_by_process if in_processes else self._serve
        self._threads = [
            threading.Thread(target=self._run, args=(serve,), name="windows", daemon=True)
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
            num_left -= piece.is_last
            yield piece

    def __enter__(self) -> "WindowReader":
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        for thread in self._threads:
            thread.join()

    def _run(self, serve: Callable[[], None]) -> None:
        try:
            serve()
        except BaseException as error:  # a defect: it is raised where the pieces are read
            self._put(error)

    def _serve(self) -> None:
        compute_alone()
        maker = copy.copy(self._maker)
        while (place := self._next()) is not None:
            for piece in maker.pieces(*self._videos[place]):
                if not self._put(replace(piece, video=place)):
                    return

    def _serve_by_process(self) -> None:
        worker = Worker(self._maker)
        try:
            while (place := self._next()) is not None:
                video: TimedVideo | None = self._videos[place]
                while True:
                    worker.give(video)
                    piece = self._answer(worker)
                    if isinstance(piece, Lost):
                        worker.stop()
                        worker, failure = Worker(self._maker), f"FFmpeg cannot decode it ({piece.text})"
                        piece = replace(_END, failure=failure, may_pass=True)
                    if piece is None or not self._put(replace(piece, video=place)):
                        return
                    if piece.is_last:
                        break
                    video = None
        finally:
            worker.stop()

    def _answer(self, worker: Worker) -> Piece | Lost | None:
        """What the process says; None if the reader was closed meanwhile."""
        until = time.monotonic() + _LIMIT_S
        while not self._closed.is_set():
            if worker.connection.poll(_WAIT_S) or time.monotonic() > until:
                return worker.take_within(_LIMIT_S)
        return None

    def _next(self) -> int | None:
        """The place of the next video that nobody has; None if there is none or the reader was closed."""
        with self._lock:
            return None if self._closed.is_set() else next(self._places, None)

    def _put(self, piece: Piece | BaseException) -> bool:
        """Hand a piece over; False if the reader was closed meanwhile."""
        while not self._closed.is_set():
            try:
                self._ready.put(piece, timeout=_WAIT_S)
            except queue.Full:
                continue
            return True
        return False
