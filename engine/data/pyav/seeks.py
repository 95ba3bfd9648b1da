"""Whether a seek to a key frame's time stamp really yields that key frame."""

import itertools
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import PictureType
from av.video.stream import VideoStream

from engine.data.pyav.packets import KeyFrame

SEEKS_TRIED = 4  # per file, spread over its key frames
SEEK_REACH = 128  # frames before its key frame that a seek may land


def seeks_to_try(keys: Sequence[KeyFrame]) -> list[int]:
    """Time stamps of some key frames, the first and the last among them."""
    indices = np.linspace(0, len(keys) - 1, min(SEEKS_TRIED, len(keys))).round().astype(int)
    return [keys[index].pts for index in indices]


def frame_sum(frame: av.VideoFrame) -> int:
    """A checksum of the brightness of a frame; padding plays no part in it."""
    return zlib.crc32(np.ascontiguousarray(frame.to_ndarray(format="gray", threads=1)))


def seeks_are_exact(
    container: InputContainer,
    stream: VideoStream,
    frames: Callable[[], Iterator[av.VideoFrame]],
    keys: Sequence[KeyFrame],
    sums: Mapping[int, int],
) -> bool:
    """Try seeks to some key frames: each must yield the very frame where it is known, else a whole one.

    Without a frame to compare, an intra frame is asked for: intra refresh marks the frame from which
    the frame *begins* to heal as a key frame too, but that one is a predicted frame.

    Args:
        frames: decodes from where the container stands.
        sums: time stamp -> `frame_sum` of a decoding in one go.

    Raises:
        av.error.FFmpegError: the seek or the decoder fails.
    """
    for pts in seeks_to_try(keys):
        container.seek(pts, stream=stream)
        reach = itertools.islice(frames(), SEEK_REACH)
        frame = next((frame for frame in reach if frame.pts is not None and frame.pts >= pts), None)
        if frame is None or frame.pts != pts:
            return False
        if pts in sums and frame_sum(frame) != sums[pts]:
            return False
        if pts not in sums and frame.pict_type != PictureType.I:
            return False
    return True
