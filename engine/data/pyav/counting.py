"""The facts of an open video file: its frames counted by a short look, or by decoding to the end, and timed."""

import itertools
import math
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import av
from av.container import InputContainer

from engine.data.pyav.findings import ProbeError, ProbeResult, kind_of
from engine.data.pyav.opening import video_stream
from engine.data.pyav.packets import KeyFrame, Lost, Packets, can_seek, codec_name, has_clock, key_frames, read_frames
from engine.data.pyav.seeks import frame_sum, seeks_are_exact, seeks_to_try
from engine.data.pyav.side_data import side_data
from engine.data.pyav.times import Timeline, timeline

HEAD_FRAMES = 16  # decoded of every file, so that one that cannot be decoded is found
_TAIL_FRAMES = 4  # at the end, of which a damaged one is told


class Clock:
    """The time limit of one file."""

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        self.deadline = time.monotonic() + limit_s

    def check(self) -> None:
        if time.monotonic() > self.deadline:
            raise ProbeError("too-slow", f"stopped after {self.limit_s:g} s")

    def left(self) -> float:
        self.check()
        return max(self.deadline - time.monotonic(), 0.1)


def clockwise_rotation(frame: av.VideoFrame) -> int:
    """Clockwise degrees to turn a stored frame so that up is up; odd angles go to the nearest quarter turn.

    A mirroring in its display matrix is not followed: the picture stands upright, left and right are as stored.
    """
    try:
        matrix = side_data(frame).get("DISPLAYMATRIX")
    except ValueError:
        return round(-frame.rotation / 90) * 90 % 360  # FFmpeg counts the other way; 180 degrees wrong where mirrored
    if matrix is None:
        return 0
    _, b, _, _, d = struct.unpack("=5i", bytes(matrix)[:20])  # a point goes to (ax + cy, bx + dy)
    return round(math.degrees(math.atan2(b, d)) / 90) * 90 % 360


@dataclass(slots=True)
class _Frames:
    """What is noted of the frames that come out of a decoder, in their order."""

    first: av.VideoFrame | None = None
    pts: list[int | None] = field(default_factory=list)
    dts: list[int | None] = field(default_factory=list)
    sizes: set[tuple[int, int]] = field(default_factory=set)
    last_damaged: int | None = None  # the place of the last frame that FFmpeg calls corrupt
    lost: Lost = field(default_factory=Lost)

    def note(self, frame: av.VideoFrame) -> None:
        self.first = self.first or frame
        if frame.is_corrupt:
            self.last_damaged = len(self.pts)
        self.pts.append(frame.pts)
        self.dts.append(frame.dts)
        self.sizes.add((frame.width, frame.height))


def count_packets(container: InputContainer, packets: Packets, clock: Clock) -> ProbeResult | None:
    """The result with the packets' count; None where a short look shows that they cannot be trusted."""
    stream = video_stream(container)
    shown, head = packets.expected_pts(), _Frames()
    for frame in itertools.islice(read_frames(container, stream, clock.check), HEAD_FRAMES):
        head.note(frame)
    if head.first is None or head.pts != shown[:HEAD_FRAMES]:
        return None
    keys = key_frames(packets, shown)
    try:
        if not seeks_are_exact(container, stream, lambda: read_frames(container, stream, clock.check), keys, {}):
            return None
    except av.error.FFmpegError:  # decoding from the start will tell whether the file is to blame
        clock.check()
        return None
    head.pts, head.dts = shown, []
    return _result(container, packets, head, keys, "packets")


def count_frames(container: InputContainer, packets: Packets, clock: Clock) -> ProbeResult:
    """The result of decoding to the end."""
    stream = video_stream(container)
    keys = key_frames(packets, packets.expected_pts()) if can_seek(container, packets) else []
    tried = seeks_to_try(keys)
    frames, sums = _Frames(), {}
    try:
        for frame in read_frames(container, stream, clock.check, frames.lost):
            frames.note(frame)
            if frame.pts in tried:
                sums[frame.pts] = frame_sum(frame)
    except av.error.FFmpegError as error:
        clock.check()
        text = f"after {len(frames.pts)} frames of {len(packets)} packets: {error.strerror}"
        raise ProbeError(kind_of(error, "undecodable"), text) from error
    if frames.first is None and (reasons := frames.lost.first + frames.lost.last):
        raise ProbeError("undecodable", f"none of {len(packets)} packets decodes: {reasons[0]}")
    if frames.first is None:
        raise ProbeError("zero-frames", f"no frame comes out of {len(packets)} packets")
    is_ordered = None not in frames.pts and all(a < b for a, b in itertools.pairwise(frames.pts))
    keys = key_frames(packets, frames.pts) if keys and is_ordered else []
    try:
        if not seeks_are_exact(container, stream, lambda: read_frames(container, stream, clock.check), keys, sums):
            keys = []
    except av.error.FFmpegError:  # it decodes in one go, but not from there
        clock.check()
        keys = []
    return _result(container, packets, frames, keys, "decoding")


def _result(
    container: InputContainer, packets: Packets, frames: _Frames, keys: Sequence[KeyFrame], counted_by: str
) -> ProbeResult:
    stream, first = video_stream(container), frames.first
    lines = _timeline(container, packets, frames)
    return ProbeResult(
        codec=codec_name(stream),
        pixel_format=first.format.name,
        width=first.width,
        height=first.height,
        fps=lines.rate,
        rotation=clockwise_rotation(first),
        duration=len(frames.pts) / lines.rate if lines.rate else 0.0,
        num_frames=len(frames.pts),
        header_frames=stream.frames,
        key_frames=tuple(key.frame for key in keys),
        key_pts=tuple(key.pts for key in keys),
        counted_by=counted_by,
        timed_frames=lines.frames,
        frame_times=lines.seconds,
        oddity=_oddity(container, frames),
        damage=_damage(packets, frames),
    )


def _timeline(container: InputContainer, packets: Packets, frames: _Frames) -> Timeline:
    stream = video_stream(container)
    tick = float(stream.time_base)
    pts, dts = ([None if stamp is None else stamp * tick for stamp in each] for each in (frames.pts, frames.dts))
    first = next((dts for dts in frames.dts if dts is not None), None)
    delay = packets.dts.index(first) - frames.dts.index(first) if first is not None and first in packets.dts else 0
    skipped = min(len(frames.lost.first), len(packets) - 1)
    is_raw = container.start_time is None  # then the average rate is no more than the demuxer's default
    return timeline(
        pts,
        dts,
        rate=float((stream.guessed_rate if is_raw else stream.average_rate) or stream.guessed_rate or 0),
        start_s=container.start_time / av.time_base if container.streams.audio and not is_raw else None,
        first_dts=(packets.dts[skipped] or 0) * tick,
        delay=max(0, delay - skipped - sum(packets.is_hidden)),
        is_padded=container.format.name == "avi",
        is_clock=has_clock(container),
    )


def _oddity(container: InputContainer, frames: _Frames) -> str:
    if len(container.streams.video) > 1:
        return "several video streams"
    if frames.lost.first:
        return "damaged beginning"
    return "size that changes" if len(frames.sizes) > 1 else ""


def _damage(packets: Packets, frames: _Frames) -> str:
    count, lost, last, found = len(frames.pts), frames.lost, frames.last_damaged, []
    if lost.first:
        found.append(
            f"its beginning does not decode: {len(lost.first)} of {len(packets)} packets skipped ({lost.first[0]})"
        )
    if lost.last:
        found.append(f"its end is damaged: {count} of {count + len(lost.last)} frames decode ({lost.last[0]})")
    elif packets.is_cut or (last is not None and last >= count - _TAIL_FRAMES):
        found.append(f"its end is damaged, and so may be the last of its {count} frames")
    return "; ".join(found)
