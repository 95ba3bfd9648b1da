"""A part of a video as a small file that plays everywhere: H.264 and AAC in MP4, from the first frame to the last exactly.

    frames of the part, by number ──▶ upright, 8-bit 4:2:0, even size ──▶ x264 ──┐
    sound of its seconds ──▶ 48 kHz, mono or stereo ──▶ AAC ─────────────────────┴──▶ .mp4

Copied packets could begin at key frames only, seconds before the moment. Frames keep their times: a variable rate stays one.
"""

import itertools
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.stream import Discard, Disposition
from av.video.stream import VideoStream

from engine.data.batch import Video
from engine.data.pyav.files import FileFrames, LostCount, Unusable, start_clock
from engine.data.pyav.gops import GopDecoder, StoredFrames
from engine.data.pyav.normalise import Canvas
from engine.data.pyav.opening import open_container, reason_of
from engine.data.pyav.packets import demux
from engine.data.pyav.times import Timeline
from engine.data.store.index import is_stored
from engine.data.store.reader import StoreError
from engine.files.atomic_file import atomic_write

_TICKS = 90_000  # a second
_SHORTEST = 90  # ticks: of what lasts less, an MP4 shows nothing, as it tells lengths in milliseconds
_RATE = 48_000  # of sound
_LOST_S = 0.05  # of sound: a gap that is filled with silence; less is a rounding of time stamps
_PATIENCE_S = 60.0  # without a frame
_X264 = {"preset": "veryfast", "crf": "20", "mbtree": "0"}  # with mbtree small equal frames may become other bytes
_BT601 = 6  # AVColorSpace: what RGB is made into


def write_excerpt(video: Video, timeline: Timeline, start_s: float, end_s: float, path: Path) -> bool:
    """Write the frames that are shown from `start_s` to `end_s`, at least one; the file appears complete or not at all.

    Args:
        video: a whole file, or a whole video of a store (which has no sound).
        timeline: when its frames are shown.

    Returns:
        Whether it has sound.

    Raises:
        Unusable: it does not decode, is another file than the one described, or the place cannot be written.
    """
    first, behind = timeline.between(start_s, end_s)
    first = min(first, video.file_frames - 1)
    behind = min(max(behind, first + 1), video.file_frames)
    times = timeline.times()[first : behind + 1]
    try:
        with atomic_write(path) as partial:
            try:
                return _write(video, first, times, partial, seek=True)
            except LostCount:
                return _write(video, first, times, partial, seek=False)
    except (av.FFmpegError, OSError, StoreError, ValueError) as error:
        is_gone = not is_stored(video.path) and not video.path.exists()
        raise Unusable("the file is missing" if is_gone else reason_of(error)) from error


def _write(video: Video, first: int, times: np.ndarray, path: Path, *, seek: bool) -> bool:
    """times: float64 [frames + 1], seconds: when each frame is shown, and the end."""
    count = len(times) - 1
    stamps = np.round((times - times[0]) * _TICKS).astype(np.int64)
    if stamps[-1] < _SHORTEST or not np.diff(stamps).all():  # of a broken rate
        stamps = _SHORTEST * np.arange(len(times))
    with (
        _frames(video, range(first, first + count), seek=seek) as (frames, pixel_shape),
        _sound(video, times[0], times[-1]) as (blocks, layout),
        av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container,
    ):
        canvas = Canvas(max(2, min(video.width, video.height) // 2 * 2), video.rotation)
        picture, sound = None, None
        for frame, (shown, gone) in zip(frames, itertools.pairwise(stamps.tolist()), strict=True):
            upright = canvas(frame)
            if picture is None:
                shape = 1 / pixel_shape if video.rotation % 180 else pixel_shape
                picture = _picture_stream(container, frame, upright, count * Fraction(_TICKS, int(stamps[-1])), shape)
                sound = _sound_stream(container, layout) if layout else None
            upright.pict_type = 0  # the source's types are no wish of ours
            upright.pts, upright.time_base, upright.duration = shown, Fraction(1, _TICKS), gone - shown
            container.mux(picture.encode(upright))
            for block in blocks:
                container.mux(sound.encode(block))
                if block.time >= gone / _TICKS:
                    break
        for stream in filter(None, (picture, sound)):
            container.mux(stream.encode(None))
        return sound is not None


def _picture_stream(
    container: OutputContainer, source: av.VideoFrame, upright: av.VideoFrame, rate: Fraction, shape: Fraction
) -> VideoStream:
    rate = rate.limit_denominator(1001) or Fraction(1)
    stream = container.add_stream("libx264", rate=rate, width=upright.width, height=upright.height, options=_X264)
    context = stream.codec_context
    context.pix_fmt, context.time_base, context.sample_aspect_ratio = "yuv420p", Fraction(1, _TICKS), shape
    is_rgb = source.format.is_rgb or source.format.has_palette
    context.colorspace = _BT601 if is_rgb else source.colorspace
    context.color_primaries, context.color_trc = source.color_primaries, source.color_trc
    return stream


def _sound_stream(container: OutputContainer, layout: str) -> AudioStream:
    return container.add_stream("aac", rate=_RATE, layout=layout)


@contextmanager
def _frames(video: Video, numbers: range, *, seek: bool) -> Iterator[tuple[Iterator[av.VideoFrame], Fraction]]:
    """The frames of these numbers, and the shape of their pixels."""
    until = start_clock(video, _PATIENCE_S)
    is_inside = is_stored(video.path)
    source = StoredFrames(video, GopDecoder(), until) if is_inside else FileFrames(video, until, patience_s=_PATIENCE_S)

    def read() -> Iterator[av.VideoFrame]:
        for _, frame in source.frames(numbers, seek=seek):
            yield frame
            source.allow(_PATIENCE_S)

    with closing(source), closing(read()) as frames:
        yield frames, Fraction(1) if is_inside else source.pixel_shape


@contextmanager
def _sound(video: Video, start_s: float, end_s: float) -> Iterator[tuple[Iterator[av.AudioFrame], str | None]]:
    """The sound of some seconds in blocks, and its layout; None where there is none."""
    if is_stored(video.path):
        yield iter(()), None
        return
    with open_container(video.path, time_limit_s=_PATIENCE_S) as container:
        streams = [stream for stream in container.streams.audio if stream.codec_context is not None]
        wanted = max(streams, key=lambda stream: bool(stream.disposition & Disposition.default), default=None)
        if wanted is None:
            yield iter(()), None
            return
        for stream in container.streams:
            if stream is not wanted:
                stream.discard = Discard.all
        layout = "mono" if wanted.channels == 1 else "stereo"
        blocks = _blocks(container, wanted, start_s, end_s, layout)
        first = next(blocks, None)
        yield (iter(()), None) if first is None else (itertools.chain([first], blocks), layout)


def _blocks(
    container: InputContainer, stream: AudioStream, start_s: float, end_s: float, layout: str
) -> Iterator[av.AudioFrame]:
    """Sound from `start_s` to `end_s`, silent where there is a gap. Their times count from `start_s`."""
    origin_s = (container.start_time or 0) / av.time_base
    length, position = round((end_s - start_s) * _RATE), 0
    for at_s, samples in _samples(container, stream, origin_s + start_s, layout):
        due = round((at_s - origin_s - start_s) * _RATE)
        if due >= length:
            return
        lost = due - position if not position or abs(due - position) > _LOST_S * _RATE else 0
        silence = np.zeros((len(samples), max(0, lost)), np.float32)
        block = np.concatenate([silence, samples[:, max(0, -lost) :]], axis=1)[:, : length - position]
        if block.shape[1]:
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block), format="fltp", layout=layout)
            frame.sample_rate, frame.pts, frame.time_base = _RATE, position, Fraction(1, _RATE)
            position += block.shape[1]
            yield frame
        if position >= length:
            return


def _samples(
    container: InputContainer, stream: AudioStream, from_s: float, layout: str
) -> Iterator[tuple[float, np.ndarray]]:
    """(seconds of the container, float32 [channels, n]) from a little before `from_s` on, as far as it decodes."""
    resampler, form = AudioResampler(format="fltp", layout=layout, rate=_RATE), None
    with suppress(av.FFmpegError):  # what cannot be sought is read from its beginning; what ends damaged ends there
        if from_s > 1:
            with suppress(av.FFmpegError):
                container.seek(int((from_s - 1) * av.time_base))
        for packet in demux(container, stream):
            for frame in _decoded(packet):
                if frame.pts is None or frame.time + frame.samples / frame.sample_rate <= from_s:
                    continue
                held, known, form = [], form, (frame.format.name, frame.layout.name, frame.sample_rate)
                if known not in (None, form):  # a broadcast changes it where an advertisement begins
                    held = [part.to_ndarray() for part in resampler.resample(None)]
                    resampler = AudioResampler(format="fltp", layout=layout, rate=_RATE)
                samples = held + [part.to_ndarray() for part in resampler.resample(frame)]
                if samples:
                    yield frame.time - sum(part.shape[1] for part in held) / _RATE, np.concatenate(samples, axis=1)


def _decoded(packet: av.Packet) -> list[av.AudioFrame]:
    """Its frames; none of a damaged packet, or of the rest of one, where a seek may land."""
    try:
        return packet.decode()
    except av.error.InvalidDataError:
        return []
