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
from engine.data.pyav.times import Timeline
from engine.data.store.index import is_stored
from engine.data.store.reader import StoreError

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

    def frames(self, video: Video, timeline: Timeline) -> Iterator[TimedFrame]:
        """Every frame of the file that a row is of: start and end in seconds, and a function that converts it.

        The function gives uint8 [crop, crop, 3].

        Args:
            timeline: when each frame is shown, as the manifest says.

        Raises:
            Unusable: it is not the file that was indexed, or does not decode to its end.
        """
        window = crop_window(SnippetRequest(video, 0, crop_y=0.5, crop_x=0.5, flip=False), self._clip)

        def pixels(frame: av.VideoFrame) -> np.ndarray:
            square = np.empty((1, self._clip.crop, self._clip.crop, 3), np.uint8)
            SnippetWriter(square, window, self._convert).put(0, frame, {})
            return square[0]

        try:
            with closing(self._frames(video)) as frames:
                for frame, (start_s, end_s) in zip(frames, itertools.pairwise(timeline.times().tolist()), strict=True):
                    yield start_s, end_s, functools.partial(pixels, frame)
        except FileNotFoundError as error:
            raise Unusable("the file is missing") from error
        except (av.FFmpegError, OSError, StoreError) as error:
            raise Unusable(reason_of(error)) from error

    def _frames(self, video: Video) -> Iterator[av.VideoFrame]:
        until = time.monotonic() + self._patience_s
        if is_stored(video.path):
            source = StoredFrames(video, self._gops, until)
            starts = range(0, video.file_frames, _STORED_RUN)
            runs = (source.frames(range(k, min(k + _STORED_RUN, video.file_frames))) for k in starts)
            numbered = itertools.chain.from_iterable(runs)
        else:
            source = FileFrames(video, until)
            numbered = source.frames(range(video.file_frames), seek=False)
        try:
            for _, frame in numbered:
                yield frame
                source.allow(self._patience_s)  # not counting what was waited for here
        finally:
            source.close()
