"""What one video file really holds: facts a decoder needs, taken from the stream and not from the header.

Frames are numbered in presentation order as the decoder outputs them, from 0. A variable frame rate is
read frame by frame and never resampled in time: frame k is the k-th frame shown, however long it is
shown, and `fps` is the average over the file.

    packets ──▶ trusted? ──yes──▶ decode the head, try some seeks ──ok──▶ count = packets
       │            └──no, or cheap to decode──▶ decode to the end ─────▶ count = frames that came out

Counting packets is exact only where one packet is one shown frame; `packets.doubt` says when it is not.
"""

import itertools
import stat
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from engine.data.pyav.cut_off import missing_bytes
from engine.data.pyav.opening import MAX_PIXELS, open_video, reason_of, video_stream
from engine.data.pyav.packets import (
    KeyFrame,
    Packets,
    can_seek,
    codec_name,
    doubt,
    has_clock,
    key_frames,
    read_frames,
    read_packets,
)
from engine.data.pyav.seeks import frame_sum, seeks_are_exact, seeks_to_try
from engine.data.pyav.times import Timeline, timeline

TIME_LIMIT_S = 300.0
MAX_HOURS = 8.0  # of a file by its time stamps
_TAIL_FRAMES = 4  # at the end, of which a damaged one is told
HEAD_FRAMES = 16  # decoded of every file, so that one that cannot be decoded is found

REASONS = {
    "missing": "listed but not there",
    "unreadable": "not a container format that FFmpeg can open",
    "empty": "a file of 0 bytes",
    "no-video": "no video stream, only audio or less",
    "encrypted": "encrypted",
    "zero-frames": "a video stream without frames",
    "undecodable": "the decoder fails",
    "too-large": "a picture over the limit of pixels",
    "too-long": "a file over the limit of hours",
    "too-slow": "over the time limit of a file",
    "crashed": "it crashed the decoder",
}


class ProbeError(Exception):
    """A file that cannot be trained on. `kind` is one of `REASONS`, `text` says more."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(kind, text)
        self.kind, self.text = kind, text


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """Facts of a video file.

    codec: FFmpeg's name of the codec, whatever the decoder (av1, not libdav1d).
    width, height: pixels of the first frame, as stored.
    fps: average, frames per second by the time stamps where they are sound; 0 where nothing tells it.
    rotation: CLOCKWISE degrees to turn the stored frame for display: 0, 90, 180 or 270.
    duration: seconds, num_frames / fps; 0 where fps is unknown.
    num_frames: frames that come out of the decoder. header_frames: what the header says, 0 if nothing.
    key_frames: presentation indices of frames that decoding can start from and be exact, ascending.
    key_pts: their time stamps in the stream's time base: a seek to one yields its frame.
    counted_by: "decoding" or "packets".
    timed_frames, frame_times: when frames are shown, see `Timeline`.
    oddity: why another decoder than FFmpeg's, or another choice of streams, may show something else, in few words; or "".
    damage: what is wrong with the end of the file, as a sentence; or "".
    """

    codec: str
    pixel_format: str
    width: int
    height: int
    fps: float
    rotation: int
    duration: float
    num_frames: int
    header_frames: int
    key_frames: tuple[int, ...]
    key_pts: tuple[int, ...]
    counted_by: str
    timed_frames: tuple[int, ...] = ()
    frame_times: tuple[float, ...] = ()
    oddity: str = ""
    damage: str = ""

    @property
    def timeline(self) -> Timeline:
        """When the frames are shown."""
        return Timeline(self.timed_frames, self.frame_times)


def probe(
    path: Path,
    *,
    full_decode: bool = False,
    time_limit_s: float = TIME_LIMIT_S,
    max_pixels: int = MAX_PIXELS,
    max_hours: float = MAX_HOURS,
) -> ProbeResult:
    """Find out what a video file holds.

    Args:
        full_decode: decode it to its end even where packets can be trusted.
        time_limit_s: seconds for this file.
        max_pixels: of a frame; FFmpeg is told too, so that no larger one is ever allocated.
        max_hours: between the first and the last time stamp.

    Raises:
        ProbeError: with a kind of `REASONS`, for every file that cannot be trained on.
    """
    refuse_unfit(path)
    clock = _Clock(time_limit_s)
    packets = Packets()
    try:
        with open_video(path, time_limit_s=clock.left(), max_pixels=max_pixels) as container:
            stream = _checked_stream(container, max_pixels)
            packets = read_packets(container, stream, clock.check)
            if not packets:
                raise ProbeError("zero-frames", "the video stream has no packets")
            if packets.is_encrypted:
                raise ProbeError("encrypted", "packets of the video stream are encrypted")
            if (hours := packets.hours(container, stream)) > max_hours:
                raise ProbeError(
                    "too-long", f"its time stamps reach over {hours:.1f} hours, the limit is {max_hours:g}"
                )
            is_trusted = not full_decode and doubt(container, stream, packets) is None
        found = None
        if is_trusted:
            with open_video(path, time_limit_s=clock.left(), max_pixels=max_pixels) as container:
                found = _count_packets(container, packets, clock)
        if found is None:
            with open_video(path, time_limit_s=clock.left(), max_pixels=max_pixels) as container:
                found = _count_frames(container, packets, clock)
        return _judged(found, missing_bytes(path))
    except (av.error.FFmpegError, OSError) as error:
        clock.check()  # FFmpeg's own word for time being up is an error too
        raise _failure(path, packets, error) from error


def refuse_unfit(path: Path) -> None:
    """Look at a file before it is opened.

    Raises:
        ProbeError: it is missing, empty, or no regular file.
    """
    try:
        info = path.stat()
    except OSError as error:
        raise ProbeError(
            "missing" if isinstance(error, FileNotFoundError) else "unreadable", str(error.strerror)
        ) from error
    if not stat.S_ISREG(info.st_mode):  # opening a pipe would wait for ever
        raise ProbeError("unreadable", "not a regular file")
    if info.st_size == 0:
        raise ProbeError("empty", "the file has 0 bytes")


def clockwise_rotation(frame: av.VideoFrame) -> int:
    """Clockwise degrees to turn a stored frame for display; FFmpeg's display matrix counts the other way.

    A mirroring in the matrix is not followed, and odd angles go to the nearest quarter turn.
    """
    return round(-frame.rotation / 90) * 90 % 360


class _Clock:
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


def _checked_stream(container: InputContainer, max_pixels: int) -> VideoStream:
    stream = video_stream(container)
    if stream is None:
        kinds = sorted({"cover picture" if s.type == "video" else s.type for s in container.streams})
        raise ProbeError("no-video", f"only {' and '.join(kinds)}" if kinds else "no stream at all")
    if stream.codec_context is None:
        raise ProbeError("undecodable", "FFmpeg has no decoder for its codec")
    if "enc_key_id" in stream.metadata:  # Matroska's way; MP4 says it with each packet
        raise ProbeError("encrypted", "the video stream is encrypted")
    width, height = stream.codec_context.width, stream.codec_context.height
    if width * height > max_pixels:
        raise ProbeError("too-large", f"it claims pictures of {width}x{height}, the limit is {max_pixels} pixels")
    return stream


@dataclass(slots=True)
class _Frames:
    """What is noted of the frames that come out of a decoder, in their order."""

    first: av.VideoFrame | None = None
    pts: list[int | None] = field(default_factory=list)
    dts: list[int | None] = field(default_factory=list)
    sizes: set[tuple[int, int]] = field(default_factory=set)
    last_damaged: int | None = None  # the place of the last frame that FFmpeg calls corrupt
    lost: list[str] = field(default_factory=list)  # why packets at the end did not decode

    def note(self, frame: av.VideoFrame) -> None:
        self.first = self.first or frame
        if frame.is_corrupt:
            self.last_damaged = len(self.pts)
        self.pts.append(frame.pts)
        self.dts.append(frame.dts)
        self.sizes.add((frame.width, frame.height))


def _count_packets(container: InputContainer, packets: Packets, clock: _Clock) -> ProbeResult | None:
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


def _count_frames(container: InputContainer, packets: Packets, clock: _Clock) -> ProbeResult:
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
        raise ProbeError(
            "undecodable", f"after {len(frames.pts)} frames of {len(packets)} packets: {error.strerror}"
        ) from error
    if frames.first is None and frames.lost:
        raise ProbeError("undecodable", f"none of {len(packets)} packets decodes: {frames.lost[0]}")
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
    stream, tick = video_stream(container), video_stream(container).time_base
    pts, dts = ([None if stamp is None else float(stamp * tick) for stamp in each] for each in (frames.pts, frames.dts))
    first = next((dts for dts in frames.dts if dts is not None), None)
    delay = packets.dts.index(first) - frames.dts.index(first) if first is not None and first in packets.dts else 0
    is_raw = container.start_time is None  # then the average rate is no more than the demuxer's default
    return timeline(
        pts,
        dts,
        rate=float((stream.guessed_rate if is_raw else stream.average_rate) or stream.guessed_rate or 0),
        start_s=container.start_time / av.time_base if container.streams.audio and not is_raw else None,
        first_dts=float((packets.dts[0] or 0) * tick),
        delay=max(0, delay - sum(packets.is_hidden)),
        is_padded=container.format.name == "avi",
        is_clock=has_clock(container),
    )


def _oddity(container: InputContainer, frames: _Frames) -> str:
    if len(container.streams.video) > 1:
        return "several video streams"
    return "size that changes" if len(frames.sizes) > 1 else ""


def _damage(packets: Packets, frames: _Frames) -> str:
    count = len(frames.pts)
    if frames.lost:
        return f"its end is damaged: {count} of {count + len(frames.lost)} frames decode ({frames.lost[0]})"
    last = frames.last_damaged
    if packets.is_cut or (last is not None and last >= count - _TAIL_FRAMES):
        return f"its end is damaged, and so may be the last of its {count} frames"
    return ""


def _judged(found: ProbeResult, num_missing: int) -> ProbeResult:
    """The result, with what the size of the file says of its end."""
    damage = found.damage
    if num_missing and not damage:
        damage = f"it is cut off: {num_missing} bytes are missing at its end, {found.num_frames} frames decode"
    return replace(found, damage=damage, oddity=found.oddity or ("damaged end" if damage else ""))


def _failure(path: Path, packets: Packets, error: Exception) -> ProbeError:
    """The reason behind an error of FFmpeg, as a user would want to read it."""
    text = reason_of(error)
    with path.open("rb") as file:
        head = file.read(1 << 20)
    if head.startswith(b"version https://git-lfs"):
        return ProbeError("unreadable", "a Git LFS pointer and not the video itself: fetch it with `git lfs pull`")
    if b"encv" in head and head[4:8] == b"ftyp":
        return ProbeError("encrypted", "the video stream is encrypted")
    return ProbeError("undecodable" if packets else "unreadable", text)
