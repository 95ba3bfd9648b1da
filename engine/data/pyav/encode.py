"""Writes small video files: for tests, and for data sets that a run draws itself."""

import os
import struct
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from engine.data.pyav.convert import ACCURATE
from engine.errors import InputError
from engine.files.atomic_file import atomic_write

# Fast rather than small: these files are written by the thousand and read a few times. x264's macroblock tree is
# off because on frames of 64 pixels it makes equal frames into different bytes; x265's B-frames are off because
# in videos shorter than its delay their decoding times are taken from memory that nobody set.
_OPTIONS = {
    "libx264": {"preset": "veryfast", "crf": "20", "mbtree": "0"},
    "libx265": {
        "preset": "ultrafast",
        "crf": "20",
        "bf": "0",
        "x265-params": "log-level=none:pools=none:frame-threads=1",
    },
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "crf": "20", "b:v": "0"},
    "libvpx": {"deadline": "realtime", "cpu-used": "8", "crf": "8", "b:v": "10M"},
    "mpeg4": {"qmin": "2", "qmax": "3"},
    "mjpeg": {"qmin": "2", "qmax": "3"},
}
_MATRICES = {  # name -> (swscale's matrix, AVColorSpace tag)
    "bt601": (Colorspace.ITU601, 6),
    "bt709": (Colorspace.ITU709, 1),
    "bt2020": (Colorspace.BT2020, 9),
}
_TICKS = 90_000  # per second, where frames carry their own times
_TURNS = {0: (1, 0, 0, 1), 90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}


def write_video(
    path: Path,
    frames: Iterable[np.ndarray],
    *,
    fps: float = 25,
    codec: str = "libx264",
    gop: int = 250,
    pixel_format: str = "yuv420p",
    options: Mapping[str, str] | None = None,
    times: Sequence[float] | None = None,
    colorspace: str | None = None,
    full_range: bool = False,
    rotation: int = 0,
) -> int:
    """Encode frames into a file whose suffix names the container; it appears complete or not at all.

    Args:
        path: .mp4, .mov, .mkv, .webm, .avi, .ts and what else FFmpeg muxes.
        frames: uint8 [H, W, 3] RGB, all of one size.
        codec: FFmpeg's encoder: libx264, libx265, libvpx-vp9, libvpx, mpeg4, mjpeg ...
        gop: most frames from one key frame to the next.
        pixel_format: of the coded frames: yuv420p, yuv444p, yuv420p10le ...
        options: encoder options over the fast defaults of this file.
        times: seconds at which the frames are shown, ascending: a variable frame rate.
        colorspace: bt601, bt709 or bt2020: the matrix, and a tag that names it. None: bt601, untagged.
        full_range: code 0-255 instead of 16-235, and tag it so (always, for mjpeg).
        rotation: clockwise degrees a player is told to turn the frame (.mp4 and .mov only).

    Returns:
        How many frames were written.

    Raises:
        InputError: the encoder, the container or the frames cannot be combined; FFmpeg's reason is given.
    """
    path, frames = Path(path), iter(frames)
    first = next(frames, None)
    if first is None:
        raise InputError(f"'{path}': there are no frames to write")
    if rotation not in _TURNS or (rotation and path.suffix not in (".mp4", ".mov")):
        raise InputError(f"'{path}': rotation {rotation} cannot be written: give 0, 90, 180 or 270, and .mp4 or .mov")
    colours = _Colours(colorspace, full_range or pixel_format.startswith("yuvj") or codec == "mjpeg")
    rate = Fraction(fps).limit_denominator(1001)
    settings = {"pix_fmt": pixel_format, "gop_size": gop, "options": {**_OPTIONS.get(codec, {}), **(options or {})}}
    settings |= {"width": first.shape[1], "height": first.shape[0]}
    settings |= {"time_base": 1 / rate if times is None else Fraction(1, _TICKS)}
    try:
        with atomic_write(path) as partial:
            count = _encode(partial, chain([first], frames), codec, rate, settings, colours, times)
            if rotation:
                _write_rotation(partial, rotation)
    except (av.FFmpegError, ValueError) as error:  # PyAV: ValueError for a codec that the container cannot hold
        form = f"codec {codec}, {pixel_format}, {first.shape[1]}x{first.shape[0]}"
        raise InputError(
            f"'{path}' cannot be written with {form}: {error}; choose another codec, pixel format, size or suffix"
        ) from error
    return count


class _Colours:
    """How RGB becomes YCbCr, and what the file says about it."""

    def __init__(self, colorspace: str | None, full_range: bool) -> None:
        if colorspace is not None and colorspace not in _MATRICES:
            raise InputError(f"colorspace '{colorspace}' is not known: give one of {', '.join(_MATRICES)}")
        self.matrix, tag = _MATRICES[colorspace or "bt601"]
        self.tag = tag if colorspace else 2  # AVCOL_SPC_UNSPECIFIED
        self.range = ColorRange.JPEG if full_range else ColorRange.MPEG
        self.range_tag = self.range if full_range or colorspace else ColorRange.UNSPECIFIED


def _encode(
    path: Path,
    frames: Iterable[np.ndarray],
    codec: str,
    rate: Fraction,
    settings: dict[str, object],
    colours: _Colours,
    times: Sequence[float] | None,
) -> int:
    """Encode and mux with one thread, so that equal frames give equal bytes; returns the number of frames."""
    reformatter, count = VideoReformatter(), 0
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, **settings)
        context = stream.codec_context
        context.thread_count = 1
        context.colorspace, context.color_range = colours.tag, colours.range_tag
        for count, frame in enumerate(frames, start=1):
            if frame.shape != (context.height, context.width, 3):
                raise InputError(f"'{path}': frame {count - 1} has shape {frame.shape}, the first had another")
            if times is not None and count > len(times):
                raise InputError(f"'{path}': there are more frames than the {len(times)} times given")
            image = reformatter.reformat(
                av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), "rgb24"),
                format=context.pix_fmt,
                dst_colorspace=colours.matrix,
                dst_color_range=colours.range,
                interpolation=ACCURATE,
                threads=1,
            )
            image.colorspace, image.color_range = colours.tag, colours.range_tag
            image.pts = count - 1 if times is None else round(times[count - 1] * _TICKS)
            image.time_base = context.time_base
            container.mux(context.encode(image))
        container.mux(context.encode(None))
    return count


def _write_rotation(path: Path, degrees: int) -> None:
    """Set the display matrix of an MP4's first track (ISO/IEC 14496-12, 8.3.2), which PyAV gives no access to."""
    with path.open("r+b") as file:
        start, end = 0, file.seek(0, os.SEEK_END)
        for kind in (b"moov", b"trak", b"tkhd"):
            start, end = _find_box(file, kind, start, end)
        file.seek(start)
        version = file.read(1)[0]
        file.seek(start + (52 if version == 1 else 40))
        a, b, c, d = (value << 16 for value in _TURNS[degrees])
        file.write(struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30))


def _find_box(file: BinaryIO, kind: bytes, start: int, end: int) -> tuple[int, int]:
    """Where the content of the first box of a kind begins and ends, between two offsets."""
    while start < end:
        file.seek(start)
        size, name = struct.unpack(">I4s", file.read(8))
        header = 8
        if size == 1:
            size, header = struct.unpack(">Q", file.read(8))[0], 16
        if name == kind:
            return start + header, start + size
        start += size
    raise ValueError(f"no '{kind.decode()}' box")
