"""A video file to closed GOPs of coded frames of one size: what a snippet store holds.

    decode ──▶ scale, 8-bit 4:2:0, upright ──▶ x264 or x265 ──▶ GOPs of `gop` frames
       └──▶ constant rate, if the settings give one

Frames. Every frame once, under its number, as the decoders of raw files have it; a variable rate stays one. With a rate
  in the settings, frame k is the one that is on the screen at (k + 0.45) / rate after the first (`Timeline.at_rate`):
  frames are dropped or repeated, never blended.
Size. The *displayed* frame's shorter side becomes `short_side`, the longer one the nearest even number; smaller
  frames are enlarged. Scaled by the triangle filter of `convert.py`, on the planes. Non-square pixels and
  interlacing are left as they are, as the decoders do.
  HEVC is padded to 144 x 144 at least, and to whole blocks, which nobody is shown: see `dali/parameter_sets.py`.
Colour. The matrix is left as it is, and so is what the decoders make of it (BT.601); the range becomes 16-235.
"""

import math
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import PictureType
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from engine.data.dali.parameter_sets import coded_size, set_cropping
from engine.data.indexing.journal import Failure
from engine.data.manifests.identity import change_since_index
from engine.data.pyav.convert import ACCURATE, copy_planes
from engine.data.pyav.findings import kind_of
from engine.data.pyav.opening import open_video, reason_of, video_stream
from engine.data.pyav.packets import read_frames
from engine.data.pyav.planar import is_full_range, plane_rows
from engine.data.pyav.stored_motion import motion_of
from engine.data.pyav.times import Timeline
from engine.data.store.index import StoreSettings

NORMALISE_REASONS = {
    "changed": "it changed since it was indexed",
    "unencodable": "the encoder refuses its frames",
}
_BELIEVED_RATES = (1.0, 240.0)
_FALLBACK_RATE = Fraction(25)
ENCODERS = {"h264": "libx264", "hevc": "libx265"}  # codec of a store -> FFmpeg's encoder
# x265 with one thread. FFmpeg has it repeat the parameter sets before every key frame, as x264 does by itself.
_ALONE = "aud=1:info=0:wpp=0:pools=none:frame-threads=1:log-level=error"


@dataclass(frozen=True, slots=True)
class SourceVideo:
    """A file to normalise, with what its manifest says of it.

    timed_frames, frame_times: as in `Timeline`; empty in manifests that were written before they were noted, and where `fps` is 0.
    """

    path: str  # relative to the root
    fps: float
    rotation: int
    file_bytes: int
    num_frames: int
    mtime_ns: int | None = None
    content_hash: int | None = None
    timed_frames: Sequence[int] = ()
    frame_times: Sequence[float] = ()


@dataclass(frozen=True, slots=True)
class NormalisedVideo:
    """A normalised video.

    data: Annex B, GOP after GOP, each frame behind an access unit delimiter.
    group_bytes: length of each GOP; all have `gop` frames but the last, which may have fewer.
    motion: of its frames, as `store.motion` has it; None if nobody asked.
    """

    data: bytes
    group_bytes: tuple[int, ...]
    num_frames: int
    width: int
    height: int
    fps: float
    crc32: int
    motion: bytes | None = None


class _Refused(Exception):
    def __init__(self, kind: str, text: str) -> None:
        super().__init__(kind, text)
        self.failure = Failure(kind, text)


def normalise_file(
    source: SourceVideo, root: Path, settings: StoreSettings, time_limit_s: float, *, motion: bool = False
) -> NormalisedVideo | Failure:
    """Decode a file from its start to its end and encode it anew, with one thread; `motion`: and read that off the result."""
    deadline = time.monotonic() + time_limit_s
    path = root / source.path
    try:
        if reason := change_since_index(path, source):
            return Failure("changed", reason)
        if settings.fps and not source.timed_frames:
            return Failure("undecodable", "nothing tells when its frames are shown, which --fps needs")
        with open_video(path, time_limit_s=time_limit_s) as container:
            taken = _taken(_frames(container, source.num_frames, deadline), frames_taken(source, settings))
            pictures = map(Canvas(settings.short_side, source.rotation), taken)
            video = _encode(pictures, output_rate(source.fps, settings), settings)
        if motion:
            video = replace(video, motion=motion_of(video.data, video.group_bytes, video.num_frames, deadline))
        return video
    except _Refused as error:
        return error.failure
    except FileNotFoundError:
        return Failure("missing", "the file is gone")
    except (av.FFmpegError, OSError) as error:
        if time.monotonic() > deadline:
            return Failure("too-slow", f"stopped after {time_limit_s:g} s")
        return Failure(kind_of(error), reason_of(error))
    except ValueError as error:  # PyAV's word for a pixel format that it cannot convert
        return Failure("undecodable", str(error))


def output_rate(fps: float, settings: StoreSettings) -> Fraction:
    """Frames per second of the result: as the settings say, else the file's, if it can be believed."""
    fps = settings.fps or fps
    is_believed = settings.fps or _BELIEVED_RATES[0] <= fps <= _BELIEVED_RATES[1]
    return Fraction(fps).limit_denominator(1001) if is_believed else _FALLBACK_RATE


def frames_taken(source: SourceVideo, settings: StoreSettings) -> np.ndarray:
    """Which frames of a file become those of the store, int64 [frames of the store], ascending; some may come again."""
    if settings.fps and source.timed_frames:
        return Timeline(tuple(source.timed_frames), tuple(source.frame_times)).at_rate(settings.fps)
    return np.arange(source.num_frames)


def even_size(width: int, height: int, short_side: int) -> tuple[int, int]:
    """(width, height) with the shorter side `short_side` and the longer one scaled to the nearest even number."""
    short, long = min(width, height), max(width, height)
    scaled = max(short_side, 2 * math.floor(long * short_side / (2 * short) + 0.5))
    return (short_side, scaled) if width <= height else (scaled, short_side)


class Canvas:
    """Brings frames to the size of the first: scaled, yuv420p of limited range, turned upright."""

    def __init__(self, short_side: int, rotation: int) -> None:
        self._short_side, self._turns = short_side, rotation // 90 % 4
        self._size: tuple[int, int] | None = None
        self._reformatter = VideoReformatter()
        self._untagged: av.VideoFrame | None = None

    def __call__(self, frame: av.VideoFrame) -> av.VideoFrame:
        self._size = self._size or even_size(frame.width, frame.height, self._short_side)
        layout = frame.format
        unscaled = (frame.width, frame.height) == self._size
        if unscaled and layout.name == "yuv420p" and not is_full_range(frame) and not self._turns:
            return frame  # as it is wanted
        colour = {"dst_colorspace": Colorspace.ITU601, "dst_color_range": ColorRange.MPEG}
        if not (layout.is_rgb or layout.has_palette):
            colour["src_colorspace"] = Colorspace.ITU601
            colour["src_color_range"] = ColorRange.JPEG if is_full_range(frame) else ColorRange.MPEG
            if layout.chroma_width(8) < 8 or layout.chroma_height(8) < 8:
                # As in `convert.py`: chroma sits in the middle of its luma pixels, whatever the tag says.
                frame = self._without_tag(frame)
        frame = self._reformatter.reformat(frame, *self._size, "yuv420p", interpolation=ACCURATE, threads=1, **colour)
        return self._turned(frame) if self._turns else frame

    def _without_tag(self, frame: av.VideoFrame) -> av.VideoFrame:
        form = (frame.width, frame.height, frame.format.name.replace("yuvj", "yuv"))
        known = self._untagged
        if known is None or (known.width, known.height, known.format.name) != form:
            known = self._untagged = av.VideoFrame(*form)
        copy_planes(frame, known)
        return known

    def _turned(self, frame: av.VideoFrame) -> av.VideoFrame:
        sides = (frame.height, frame.width) if self._turns % 2 else (frame.width, frame.height)
        turned = av.VideoFrame(*sides, "yuv420p")
        for old, new in zip(frame.planes, turned.planes, strict=True):
            plane_rows(new)[:, : new.width] = np.rot90(plane_rows(old)[:, : old.width], -self._turns)
        return turned


def _frames(container: InputContainer, num_frames: int, deadline: float) -> Iterator[av.VideoFrame]:
    """All frames of the stream that the engine reads, in presentation order."""
    stream = video_stream(container)
    if stream is None or stream.codec_context is None:
        raise _Refused("no-video", "no video stream that this FFmpeg decodes")
    count = 0
    try:
        for frame in read_frames(container, stream):
            if time.monotonic() > deadline:
                raise TimeoutError
            yield frame
            count += 1
    except av.FFmpegError as error:
        if time.monotonic() > deadline:
            raise
        raise _Refused(kind_of(error, "undecodable"), f"after {count} frames: {error.strerror}") from error
    if count == 0:
        raise _Refused("zero-frames", "no frame comes out of it")
    if count != num_frames:
        text = f"{count} frames decode where the manifest says {num_frames}: index it again with --full-decode"
        raise _Refused("undecodable", text)


def _taken(frames: Iterable[av.VideoFrame], numbers: np.ndarray) -> Iterator[av.VideoFrame]:
    """The frames of these ascending numbers, in order, and as often as they are there."""
    times = np.bincount(numbers)
    for number, frame in enumerate(frames):
        for _ in range(times[number] if number < len(times) else 0):
            yield frame


def _encode(frames: Iterable[av.VideoFrame], rate: Fraction, settings: StoreSettings) -> NormalisedVideo:
    context, groups, sizes, count, shown = None, [], [], 0, (0, 0)
    for frame in frames:
        if context is None:
            shown = (frame.width, frame.height)
            padding = _Padding(*shown, settings.codec)
            context = build_encoder(*padding.size, rate, settings)
        frame = padding(frame)
        frame.pict_type = PictureType.NONE  # the source's types are no wish of ours
        frame.pts, frame.time_base = count, 1 / rate
        _collect(context.encode(frame), groups, sizes)
        count += 1
    _collect(context.encode(None), groups, sizes)
    expected = [min(settings.gop, count - first) for first in range(0, count, settings.gop)]
    if sizes != expected:
        raise _Refused("unencodable", f"the encoder made groups of {sizes[:4]}... frames, not of {settings.gop}")
    groups = [padding.mark(group) for group in groups]
    data = b"".join(groups)
    return NormalisedVideo(data, tuple(map(len, groups)), count, *shown, float(rate), zlib.crc32(data))


class _Padding:
    """Pads frames of HEVC to what is coded of them, by their last row and column; `mark` says that it is not shown.

    x264 and x265 pad by themselves, but not up to what NVDEC wants.
    """

    def __init__(self, width: int, height: int, codec: str) -> None:
        self._codec, self._shown = codec, (width, height)
        self.size = coded_size(width, height, codec) if codec == "hevc" else self._shown

    def __call__(self, frame: av.VideoFrame) -> av.VideoFrame:
        if self.size == self._shown:
            return frame
        padded = av.VideoFrame(*self.size, "yuv420p")
        for old, new in zip(frame.planes, padded.planes, strict=True):
            beside = ((0, new.height - old.height), (0, new.width - old.width))
            plane_rows(new)[:, : new.width] = np.pad(plane_rows(old)[:, : old.width], beside, mode="edge")
        return padded

    def mark(self, group: bytes) -> bytes:
        """A coded GOP, the first of whose frames says what is shown."""
        if self.size == self._shown:
            return group
        return set_cropping(
            group, self._codec, *(side - shown for side, shown in zip(self.size, self._shown, strict=True))
        )


def build_encoder(width: int, height: int, rate: Fraction, settings: StoreSettings) -> av.VideoCodecContext:
    """The encoder for closed GOPs of exactly `gop` frames, each frame behind an access unit delimiter, one thread."""
    context = av.CodecContext.create(ENCODERS[settings.codec], "w")
    context.width, context.height, context.pix_fmt = width, height, "yuv420p"
    context.time_base, context.framerate = 1 / rate, rate
    context.gop_size, context.max_b_frames, context.thread_count = settings.gop, settings.b_frames, 1
    context.options = encoder_options(settings)
    try:
        context.open()
    except av.FFmpegError as error:
        raise _Refused(
            "unencodable", f"{ENCODERS[settings.codec]} does not take {width}x{height}: {error.strerror}"
        ) from error
    return context


def encoder_options(settings: StoreSettings) -> dict[str, str]:
    """The encoder's, for closed GOPs of exactly `gop` frames, each frame behind an access unit delimiter."""
    groups = f"keyint={settings.gop}:min-keyint=1:scenecut=0:open-gop=0:bframes={settings.b_frames}"
    options = {"preset": settings.preset, "crf": str(settings.crf)}
    if settings.codec == "hevc":
        options |= {"x265-params": f"{groups}:{_ALONE}"}
    else:
        options |= {"aud": "1", "a53cc": "0", "x264-params": groups}
    return options if settings.tune == "none" else {**options, "tune": settings.tune}


def _collect(packets: Iterable[av.Packet], groups: list[bytes], sizes: list[int]) -> None:
    for packet in packets:
        if packet.is_keyframe:
            groups.append(b"")
            sizes.append(0)
        groups[-1] += bytes(packet)
        sizes[-1] += 1
