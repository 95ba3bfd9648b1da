"""All frames of a video from the first to the last, decoded once, each with the time at which a player shows it.

The counterpart of `files.py` for those who want every frame: nothing is sought, so counting needs no help, and a
long video is never held.
"""

import functools
import itertools
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import NamedTuple

import av
import numpy as np

from engine.data.batch import ClipFormat, SnippetRequest, Video
from engine.data.geometry import crop_window
from engine.data.motion import clip_cells, restore
from engine.data.pyav.convert import FrameConverter
from engine.data.pyav.files import FileFrames, Passing, Unusable, start_clock
from engine.data.pyav.findings import kind_of
from engine.data.pyav.gops import GopDecoder, StoredFrames
from engine.data.pyav.opening import reason_of
from engine.data.pyav.snippets import SnippetWriter
from engine.data.pyav.times import Timeline
from engine.data.pyav.vectors import Grid, MotionTrack
from engine.data.store.index import is_stored
from engine.data.store.reader import StoreError, find_entry

_STORED_RUN = 4096  # frames of a stored video read at once


class Picture(NamedTuple):
    """A frame as a clip shows it: uint8 [crop, crop, 3], and its motion, uint8 [h, w], if the clip's format asks for it."""

    pixels: np.ndarray
    motion: np.ndarray | None


TimedFrame = tuple[float, float, Callable[[], Picture]]  # shown from, to (seconds), and what it shows


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

        Args:
            timeline: when each frame is shown, as the manifest says.

        Raises:
            Unusable: it does not decode to its end.
            Passing: it is not there, not the file that was indexed, or cannot be read now.
        """
        window = crop_window(SnippetRequest(video, 0, crop_y=0.5, crop_x=0.5, flip=False), self._clip)

        def picture(frame: av.VideoFrame, speeds: Grid | None) -> Picture:
            square = np.empty((1, self._clip.crop, self._clip.crop, 3), np.uint8)
            SnippetWriter(square, window, self._convert).put(0, frame, {})
            cells = None if speeds is None else clip_cells(speeds[0][None], speeds[1], window, self._clip.crop)[0]
            return Picture(square[0], cells)

        try:
            with closing(self._frames(video)) as frames:
                for seen, (start_s, end_s) in zip(frames, itertools.pairwise(timeline.times().tolist()), strict=True):
                    yield start_s, end_s, functools.partial(picture, *seen)
        except FileNotFoundError as error:
            raise Passing("the file is missing") from error
        except (av.FFmpegError, OSError, StoreError) as error:
            raise (Passing if _may_pass(error) else Unusable)(reason_of(error)) from error

    def _frames(self, video: Video) -> Iterator[tuple[av.VideoFrame, Grid | None]]:
        until, track = start_clock(video, self._patience_s), None
        if is_stored(video.path):
            source = StoredFrames(video, self._gops, until)
            starts = range(0, video.file_frames, _STORED_RUN)
            runs = (source.frames(range(k, min(k + _STORED_RUN, video.file_frames))) for k in starts)
            numbered = itertools.chain.from_iterable(runs)
        else:
            track = MotionTrack(video.codec, range(video.file_frames)) if self._clip.motion else None
            source = FileFrames(video, until, track)
            numbered = source.frames(range(video.file_frames), seek=False)
        if track is not None:
            moved = _tracked(numbered, track)
        elif self._clip.motion:
            moved = zip((frame for _, frame in numbered), _stored_speeds(video), strict=True)
        else:
            moved = ((frame, None) for _, frame in numbered)
        try:
            for each in moved:
                yield each
                source.allow(self._patience_s)  # not counting what was waited for here
        finally:
            source.close()


def _may_pass(error: Exception) -> bool:
    """Whether the disk or the machine failed, or time was up: FFmpeg's errors tell by their kind, as some are the file's own."""
    is_of_system = isinstance(error, OSError) and not isinstance(error, av.FFmpegError)
    return is_of_system or isinstance(error, av.error.ExitError) or kind_of(error) == "io-error"


def _tracked(numbered: Iterator[tuple[int, av.VideoFrame]], track: MotionTrack) -> Iterator[tuple[av.VideoFrame, Grid]]:
    """Frames with their motion; each waits for the later ones whose vectors it may have."""
    waiting: deque[av.VideoFrame] = deque()
    for _, frame in numbered:
        waiting.append(frame)
        for _, speeds in track.ready():
            yield waiting.popleft(), speeds
    for _, speeds in track.ready(at_end=True):
        yield waiting.popleft(), speeds


def _stored_speeds(video: Video) -> Iterator[Grid]:
    """The motion of each frame of a stored video."""
    reader, entry = find_entry(video)
    for kept in reader.read_motion(entry, 0, entry.num_frames - 1):
        yield restore(kept), (entry.width, entry.height)
