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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from engine.data.pyav.opening import MAX_PIXELS, open_video, reason_of, video_stream
from engine.data.pyav.packets import (
    KeyFrame,
    Packets,
    can_seek,
    codec_name,
    doubt,
    key_frames,
    read_frames,
    read_packets,
)
from engine.data.pyav.seeks import frame_sum, seeks_are_exact, seeks_to_try

TIME_LIMIT_S = 300.0
MAX_HOURS = 8.0  # of a file by its time stamps
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
            if (hours := packets.hours(stream)) > max_hours:
                raise ProbeError(
                    "too-long", f"its time stamps reach over {hours:.1f} hours, the limit is {max_hours:g}"
                )
            is_trusted = not full_decode and doubt(container, stream, packets) is None
        if is_trusted:
            with open_video(path, time_limit_s=clock.left(), max_pixels=max_pixels) as container:
                result = _count_packets(container, packets, clock)
            if result is not None:
                return result
        with open_video(path, time_limit_s=clock.left(), max_pixels=max_pixels) as container:
            return _count_frames(container, packets, clock)
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


def _count_packets(container: InputContainer, packets: Packets, clock: _Clock) -> ProbeResult | None:
    """The result with the packets' count; None where a short look shows that they cannot be trusted."""
    stream = video_stream(container)
    shown = packets.expected_pts()
    first, head = None, []
    for frame in itertools.islice(_frames(container, stream, clock), HEAD_FRAMES):
        first = first or frame
        head.append(frame.pts)
    if first is None or head != shown[:HEAD_FRAMES]:
        return None
    keys = key_frames(packets, shown)
    try:
        if not seeks_are_exact(container, stream, lambda: _frames(container, stream, clock), keys, {}):
            return None
    except av.error.FFmpegError:  # decoding from the start will tell whether the file is to blame
        clock.check()
        return None
    return _result(stream, first, len(shown), shown, keys, "packets")


def _count_frames(container: InputContainer, packets: Packets, clock: _Clock) -> ProbeResult:
    """The result of decoding to the end."""
    stream = video_stream(container)
    keys = key_frames(packets, packets.expected_pts()) if can_seek(container, packets) else []
    tried = seeks_to_try(keys)
    first, shown, frames = None, [], {}
    try:
        for frame in _frames(container, stream, clock):
            first = first or frame
            shown.append(frame.pts)
            if frame.pts in tried:
                frames[frame.pts] = frame_sum(frame)
    except av.error.FFmpegError as error:
        clock.check()
        raise ProbeError(
            "undecodable", f"after {len(shown)} frames of {len(packets)} packets: {error.strerror}"
        ) from error
    if first is None:
        raise ProbeError("zero-frames", f"no frame comes out of {len(packets)} packets")
    is_ordered = None not in shown and all(a < b for a, b in itertools.pairwise(shown))
    keys = key_frames(packets, shown) if keys and is_ordered else []
    try:
        if not seeks_are_exact(container, stream, lambda: _frames(container, stream, clock), keys, frames):
            keys = []
    except av.error.FFmpegError:  # it decodes in one go, but not from there
        clock.check()
        keys = []
    return _result(stream, first, len(shown), shown if is_ordered else None, keys, "decoding")


def _frames(container: InputContainer, stream: VideoStream, clock: _Clock) -> Iterator[av.VideoFrame]:
    for frame in read_frames(container, stream):
        clock.check()
        yield frame


def _result(
    stream: VideoStream,
    first: av.VideoFrame,
    count: int,
    shown_pts: Sequence[int] | None,
    keys: Sequence[KeyFrame],
    counted_by: str,
) -> ProbeResult:
    if shown_pts is not None and count > 1:
        fps = float((count - 1) / ((shown_pts[-1] - shown_pts[0]) * stream.time_base))
    else:
        fps = float(stream.average_rate or stream.guessed_rate or 0)
    return ProbeResult(
        codec=codec_name(stream),
        pixel_format=first.format.name,
        width=first.width,
        height=first.height,
        fps=fps,
        rotation=clockwise_rotation(first),
        duration=count / fps if fps else 0.0,
        num_frames=count,
        header_frames=stream.frames,
        key_frames=tuple(key.frame for key in keys),
        key_pts=tuple(key.pts for key in keys),
        counted_by=counted_by,
    )


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
