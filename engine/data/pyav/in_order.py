"""All frames of a video from the first to the last, decoded once, each with the time at which a player shows it.

The counterpart of `files.py` for those who want every frame: nothing is sought, so counting needs no help, and a
long video is never held.
"""

import functools
import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import av
import numpy as np

from engine.data.batch import ClipFormat, SnippetRequest, Video
from engine.data.geometry import crop_window
from engine.data.pyav.convert import FrameConverter
from engine.data.pyav.files import FileFrames, Unusable
from engine.data.pyav.gops import GopDecoder, StoredFrames
from engine.data.pyav.opening import reason_of
from engine.data.pyav.snippets import SnippetWriter
from engine.data.store.index import is_stored
from engine.data.store.reader import StoreError

_FALLBACK_RATE = 25.0  # frames a second, where nothing tells it
_MAX_STEP_S = 60.0  # between two frames; a longer one is a clock that was set anew
_STORED_RUN = 4096  # frames of a stored video read at once

TimedFrame = tuple[float, float, Callable[[], np.ndarray]]  # shown from, to (seconds), and its pixels


class InOrderDecoder:
    """Decodes whole videos. Not thread-safe: one for each thread.

    Args:
        clip: says how the centre of a frame is scaled and cut.
        patience_s: seconds that may pass without a frame.
    """

    def __init__(self, clip: ClipFormat, *, patience_s: float = 60.0) -> None:
        self._clip, self._patience_s = clip, patience_s
        self._gops, self._convert = GopDecoder(), FrameConverter()

    def frames(self, video: Video, rate: float) -> Iterator[TimedFrame]:
        """Every frame of the file that a row is of: start and end in seconds, and a function that converts it.

        Seconds count from the container's start, as a player shows them; of a store, which has made the rate constant,
        from the first frame. The function gives uint8 [crop, crop, 3].

        Args:
            rate: average frames a second, for frames without a sound time stamp; 0 if nobody knows.

        Raises:
            Unusable: it is not the file that was indexed, or does not decode to its end.
        """
        window = crop_window(SnippetRequest(video, 0, crop_y=0.5, crop_x=0.5, flip=False), self._clip)

        def pixels(frame: av.VideoFrame) -> np.ndarray:
            square = np.empty((1, self._clip.crop, self._clip.crop, 3), np.uint8)
            SnippetWriter(square, window, self._convert).put(0, frame, {})
            return square[0]

        try:
            with closing(self._timed(video, rate or _FALLBACK_RATE)) as timed:
                last, period = next(timed, None), 1 / (rate or _FALLBACK_RATE)
                for start_s, frame in timed:
                    period = start_s - last[0]
                    yield last[0], start_s, functools.partial(pixels, last[1])
                    last = start_s, frame
                if last is not None:  # it stays as long as the one before it
                    yield last[0], last[0] + period, functools.partial(pixels, last[1])
        except FileNotFoundError as error:
            raise Unusable("the file is missing") from error
        except (av.FFmpegError, OSError, StoreError) as error:
            raise Unusable(reason_of(error)) from error

    def _timed(self, video: Video, rate: float) -> Iterator[tuple[float, av.VideoFrame]]:
        """Frames with the seconds at which they appear, ascending."""
        until = time.monotonic() + self._patience_s
        if is_stored(video.path):
            source, clock = StoredFrames(video, self._gops, until), None
            starts = range(0, video.file_frames, _STORED_RUN)
            runs = (source.frames(range(k, min(k + _STORED_RUN, video.file_frames))) for k in starts)
            frames = itertools.chain.from_iterable(runs)
        else:
            source = FileFrames(video, until)
            clock, frames = Clock(rate, source.start_s), source.frames(range(video.file_frames), seek=False)
        try:
            for number, frame in frames:
                yield (number / rate if clock is None else clock(frame)), frame
                source.allow(self._patience_s)  # not counting what was waited for here
        finally:
            source.close()


class Clock:
    """When the frames of a file are shown, in seconds after the container's start. The only place that reads time stamps.

    A stamp that is missing, does not ascend, or jumps by more than a minute counts as one period after the one before.

    Args:
        rate: frames a second.
        start_s: time stamp of the container's start, seconds.
    """

    def __init__(self, rate: float, start_s: float) -> None:
        self._period, self._offset_s = 1 / rate, -start_s
        self._last_s: float | None = None

    def __call__(self, frame: av.VideoFrame) -> float:
        """The time of the next frame."""
        stamp = None if frame.pts is None else float(frame.pts * frame.time_base) + self._offset_s
        if self._last_s is None:
            self._last_s = 0.0 if stamp is None else stamp
            return self._last_s
        expected = self._last_s + self._period
        if stamp is not None and abs(stamp - self._last_s) > _MAX_STEP_S:
            self._offset_s += expected - stamp
            stamp = expected
        self._last_s = expected if stamp is None or stamp <= self._last_s else stamp
        return self._last_s
