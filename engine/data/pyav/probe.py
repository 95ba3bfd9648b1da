"""What one video file really holds: facts a decoder needs, taken from the stream and not from the header.

Frames are numbered in presentation order as the decoder outputs them, from 0. A variable frame rate is
read frame by frame and never resampled in time: frame k is the k-th frame shown, however long it is
shown, and `fps` is the average over the file.

    packets ──▶ trusted? ──yes──▶ decode the head, try some seeks ──ok──▶ count = packets
       │            └──no, or cheap to decode──▶ decode to the end ─────▶ count = frames that came out

Counting packets is exact only where one packet is one shown frame; `packets.doubt` says when it is not.
"""

import stat
from dataclasses import replace
from pathlib import Path

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from engine.data.pyav.counting import Clock, count_frames, count_packets
from engine.data.pyav.cut_off import missing_bytes
from engine.data.pyav.findings import REASONS as REASONS  # what a user of the probe needs
from engine.data.pyav.findings import ProbeError, ProbeResult, kind_of
from engine.data.pyav.opening import MAX_PIXELS, open_video, reason_of, video_stream
from engine.data.pyav.packets import Packets, doubt, read_packets

TIME_LIMIT_S = 300.0
MAX_HOURS = 8.0  # of a file by its time stamps
_HEIC = frozenset((b"heic", b"heix", b"heim", b"heis"))  # brands of photos in tiles


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
    clock = Clock(time_limit_s)
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
                found = count_packets(container, packets, clock)
        if found is None:
            with open_video(path, time_limit_s=clock.left(), max_pixels=max_pixels) as container:
                found = count_frames(container, packets, clock)
        return _judged(found, missing_bytes(path))
    except (av.error.FFmpegError, OSError) as error:
        clock.check()  # FFmpeg's own word for time being up is an error too
        raise _failure(path, packets, error) from error


def refuse_unfit(path: Path) -> None:
    """Look at a file before it is opened.

    Raises:
        ProbeError: it is missing, empty, a HEIC photo, or no regular file.
    """
    try:
        info = path.stat()
    except OSError as error:
        kind = "missing" if isinstance(error, FileNotFoundError) else kind_of(error)
        raise ProbeError(kind, str(error.strerror)) from error
    except ValueError as error:  # Python's word for it
        raise ProbeError("missing", "its path holds a NUL, which that of no file does") from error
    if stat.S_ISDIR(info.st_mode):
        raise ProbeError(
            "unreadable",
            "a folder and not a video file: name the files in it; pictures of one video become one by "
            "`ffmpeg -framerate 25 -pattern_type glob -i 'FOLDER/*.jpg' clip.mp4`",
        )
    if not stat.S_ISREG(info.st_mode):  # opening a pipe would wait for ever
        raise ProbeError("unreadable", "not a regular file")
    if info.st_size == 0:
        raise ProbeError("empty", "the file has 0 bytes")
    if _is_heic(path):
        raise ProbeError("unreadable", "a HEIC photo, of which one tile alone would be read: save it as JPEG")


def _is_heic(path: Path) -> bool:
    """By the brands at the beginning; an AVIF may call itself a HEIF (mif1) too."""
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except OSError:  # FFmpeg or PIL will say why
        return False
    brands = [start[place : place + 4] for place in (8, *range(16, min(len(start), int.from_bytes(start[:4])), 4))]
    is_photo = start[4:8] == b"ftyp" and brands[0] in (*_HEIC, b"mif1")
    return is_photo and not _HEIC.isdisjoint(brands)


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
        raise ProbeError("too-large", f"it claims frames of {width}x{height}, the limit is {max_pixels} pixels")
    return stream


def _judged(found: ProbeResult, num_missing: int) -> ProbeResult:
    """The result, with what the size of the file says of its end."""
    damage = found.damage
    if num_missing and "its end" not in damage:
        cut = f"it is cut off: {num_missing} bytes are missing at its end, {found.num_frames} frames decode"
        damage = f"{damage}; {cut}" if damage else cut
    return replace(found, damage=damage, oddity=found.oddity or ("damaged end" if damage else ""))


def _failure(path: Path, packets: Packets, error: Exception) -> ProbeError:
    """The reason behind an error of FFmpeg, as a user would want to read it."""
    text, kind = reason_of(error), kind_of(error, "undecodable" if packets else "unreadable")
    if kind == "io-error":
        return ProbeError(kind, text)
    with path.open("rb") as file:
        head = file.read(1 << 20)
    if head.startswith(b"version https://git-lfs"):
        return ProbeError("unreadable", "a Git LFS pointer and not the video itself: fetch it with `git lfs pull`")
    if b"encv" in head and head[4:8] == b"ftyp":
        return ProbeError("encrypted", "the video stream is encrypted")
    return ProbeError(kind, text)
