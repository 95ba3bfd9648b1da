"""The motion of stored videos, read off the vectors that the store's own H.264 has: whatever codec the source is of."""

import time
from collections.abc import Iterator, Sequence

import av

from engine.data.motion import quantise
from engine.data.pyav.gops import GopDecoder
from engine.data.pyav.vectors import EXPORT, MotionTrack

CODEC = "h264"  # of stores that have motion: FFmpeg gives out none of HEVC


def motion_of(data: bytes, group_bytes: Sequence[int], num_frames: int, deadline: float) -> bytes:
    """The motion of a stored video: uint8 [frames, rows, columns], quarter pixels, as `store.motion` has it.

    Args:
        data: of its GOPs, of these lengths, with so many frames in all.
        deadline: on the monotonic clock, seconds.

    Raises:
        av.FFmpegError: the bytes are damaged.
        TimeoutError: it takes too long.
    """
    grids: list[bytes] = []
    track, decoder = MotionTrack(CODEC, range(num_frames)), GopDecoder(EXPORT)
    for number, frame in enumerate(_frames(data, group_bytes, decoder)):
        if time.monotonic() > deadline:
            raise TimeoutError
        track.see(number, frame)
        grids += (quantise(grid).tobytes() for _, (grid, _) in track.ready())
    grids += (quantise(grid).tobytes() for _, (grid, _) in track.ready(at_end=True))
    return b"".join(grids)


def _frames(data: bytes, group_bytes: Sequence[int], decoder: GopDecoder) -> Iterator[av.VideoFrame]:
    start = 0
    for length in group_bytes:
        yield from decoder.frames(data[start : start + length], CODEC)
        start += length
