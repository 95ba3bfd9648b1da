"""The frames of an open video file, by number: seeks to key frames, counts, and checks the count.

A frame is known by its *number in the decoder's output*: a key frame is recognised by its time stamp, frames are
counted from there, and every key frame that comes by later confirms the count.
"""

import contextlib
import time
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import chain

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from engine.data.batch import Video
from engine.data.manifests.identity import change_since_index
from engine.data.pyav.opening import open_video, video_stream
from engine.data.pyav.packets import codec_name, read_frames
from engine.data.pyav.vectors import EXPORT, MotionTrack
from engine.data.store.index import is_stored

TOO_SLOW = "decoding took longer than the time limit"
_SEEK_GAIN = 4  # frames: a seek that saves fewer costs more than decoding on


class Unusable(Exception):
    """The file, or what is left of it, cannot be used; the message is meant for the user."""


class Passing(Unusable):
    """It says nothing of the file's contents, and may be over the next time: the file is missing or another one now, the disk or
    the machine failed, or time was up."""


class LostCount(Exception):
    """After a seek the frames are not those that the manifest's key frames promise."""


def start_clock(video: Video, seconds: float) -> float:
    """The deadline of reading a video from now on, on the monotonic clock; what hashing a copied file takes does not count.

    Raises:
        Passing: it is another file than the one that was indexed.
    """
    if not is_stored(video.path) and (reason := change_since_index(video.path, video)):
        raise Passing(reason)
    return time.monotonic() + seconds


class FileFrames:
    """The frames of one open file, by their number in presentation order.

    Args:
        deadline: of `start_clock`, which looks whether this is the file that was indexed.
        track: sees all frames that are decoded, with their motion vectors.
        patience_s: every frame that is decoded, wanted or not, puts the deadline off to so long after it.
    """

    def __init__(
        self, video: Video, deadline: float, track: MotionTrack | None = None, *, patience_s: float | None = None
    ) -> None:
        self._keys = () if len(set(video.key_pts)) < len(video.key_pts) else video.key_frames
        self._frame_of_pts = dict(zip(video.key_pts, video.key_frames, strict=True))
        self._pts_of_frame = dict(zip(video.key_frames, video.key_pts, strict=True))
        self._deadline, self._track, self._patience_s = deadline, track, patience_s
        with contextlib.ExitStack() as opened:
            self._container = opened.enter_context(
                open_video(
                    video.path, time_limit_s=max(deadline - time.monotonic(), 0), options=EXPORT if track else None
                )
            )
            self._stream = _select_stream(self._container)
            if video.codec and codec_name(self._stream) != video.codec:  # another file of the same size
                raise Unusable(f"it is {codec_name(self._stream)}, the manifest says {video.codec}: index it again")
            header = (self._stream.codec_context.width, self._stream.codec_context.height)
            opened.pop_all()  # it stays open, for `close`
        # A stream may change its size on the way: then the later frames are scaled to the same window.
        # The header and the first frame may differ too; one of them is what the manifest says.
        self._size_known = header == (video.width, video.height)
        self._video = video

    @property
    def start_s(self) -> float:
        """The time stamp of the container's start, seconds: what a player shows as zero."""
        return (self._container.start_time or 0) / av.time_base

    @property
    def pixel_shape(self) -> Fraction:
        """Width over height of a pixel, as stored."""
        return self._stream.sample_aspect_ratio or Fraction(1)

    def allow(self, seconds: float) -> None:
        """Put the deadline off to so long from now."""
        self._deadline = time.monotonic() + seconds

    def close(self) -> None:
        self._container.close()

    def frames(self, numbers: Iterable[int], *, seek: bool) -> Iterator[tuple[int, av.VideoFrame]]:
        """The frames of these ascending numbers, with them; a number is asked for once the frame before is dealt with.

        Raises:
            LostCount: what was yielded may be wrong; ask again with `seek=False`.
            Unusable: there are fewer frames, the frame has another size, or time is up.
        """
        output, position = self._output(), 0
        for number in numbers:
            key = _last_at_most(self._keys, number) if seek else None
            if key is not None and key >= position + _SEEK_GAIN:
                output, position = self._seek(key, number)
            for frame in output:
                if seek and self._pts_of_frame.get(position, frame.pts) != frame.pts:
                    raise LostCount
                if self._track:
                    self._track.see(position, frame)
                position += 1
                if position > number:
                    yield number, frame
                    break
            else:
                if seek:
                    raise LostCount
                raise Unusable(
                    f"only {position} frames decode, frame {number} was asked for"
                    f" (the manifest says {self._video.file_frames}): index it again"
                )

    def _seek(self, key: int, number: int) -> tuple[Iterator[av.VideoFrame], int]:
        """Go to a key frame; also gives the number of the frame that comes next."""
        pts = self._pts_of_frame[key]
        before = _last_at_most(self._keys, key - 1)
        for target in (key, before):  # without an index (MPEG-PS, MPEG-TS) a demuxer may land behind its target
            if target is None:
                break
            try:
                self._container.seek(self._pts_of_frame[target], stream=self._stream)
            except av.FFmpegError as error:
                raise LostCount from error
            output = self._output()
            for frame in output:
                # What comes before the first known key frame is thrown away: frames of an open group that
                # refer to frames before the landing.
                found = self._frame_of_pts.get(frame.pts)
                if found is not None and found <= number:
                    return chain([frame], output), found
                if frame.pts is not None and frame.pts > pts:
                    break
        raise LostCount

    def _output(self) -> Iterator[av.VideoFrame]:
        for frame in read_frames(self._container, self._stream, self._check_time):
            self._check_size(frame)
            yield frame
            if self._patience_s is not None:
                self.allow(self._patience_s)

    def _check_time(self) -> None:
        if time.monotonic() > self._deadline:
            raise Passing(TOO_SLOW)

    def _check_size(self, frame: av.VideoFrame) -> None:
        if not self._size_known and (frame.width, frame.height) != (self._video.width, self._video.height):
            raise Unusable(
                f"its frames are {frame.width}x{frame.height}, the manifest says"
                f" {self._video.width}x{self._video.height}: index it again"
            )
        self._size_known = True


def _select_stream(container: InputContainer) -> VideoStream:
    """The stream that the manifest speaks of."""
    stream = video_stream(container)
    if stream is None:
        raise Unusable("it has no video stream")
    if stream.codec_context is None:
        raise Unusable("this FFmpeg has no decoder for it")
    return stream


def _last_at_most(numbers: Sequence[int], limit: int) -> int | None:
    """The largest of ascending numbers that is not over the limit."""
    index = bisect_right(numbers, limit)
    return numbers[index - 1] if index else None
