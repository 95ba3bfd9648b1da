"""Pictures to closed groups of `gop` coded pictures, by x264 or x265 with one thread."""

import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from av.video.frame import PictureType

from engine.data.dali.parameter_sets import coded_size, set_cropping
from engine.data.journal import Failure
from engine.data.pyav.planar import plane_rows
from engine.data.store.index import StoreSettings

ENCODERS = {"h264": "libx264", "hevc": "libx265"}  # codec of a store -> FFmpeg's encoder
# x265 with one thread. FFmpeg has it repeat the parameter sets before every key picture, as x264 does by itself.
_ALONE = "aud=1:info=0:wpp=0:pools=none:frame-threads=1:log-level=error"


@dataclass(frozen=True, slots=True)
class NormalisedVideo:
    """A normalised video.

    data: Annex B, group after group, each picture behind an access unit delimiter.
    group_bytes: length of each group; all have `gop` frames but the last, which may have fewer.
    """

    data: bytes
    group_bytes: tuple[int, ...]
    num_frames: int
    width: int
    height: int
    fps: float
    crc32: int


class Refused(Exception):
    """A video that cannot be normalised, and why."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(kind, text)
        self.failure = Failure(kind, text)


def encode_groups(pictures: Iterable[av.VideoFrame], rate: Fraction, settings: StoreSettings) -> NormalisedVideo:
    """Encode pictures of one size; each is shown for 1 / rate seconds.

    Raises:
        Refused: there are none, or the encoder does not take them.
    """
    context, groups, sizes, count, shown = None, [], [], 0, (0, 0)
    for picture in pictures:
        if context is None:
            shown = (picture.width, picture.height)
            padding = _Padding(*shown, settings.codec)
            context = build_encoder(*padding.size, rate, settings)
        picture = padding(picture)
        picture.pict_type = PictureType.NONE  # the source's types are no wish of ours
        picture.pts, picture.time_base = count, 1 / rate
        _collect(context.encode(picture), groups, sizes)
        count += 1
    if context is None:
        raise Refused("zero-frames", "no frame comes out of it")
    _collect(context.encode(None), groups, sizes)
    expected = [min(settings.gop, count - first) for first in range(0, count, settings.gop)]
    if sizes != expected:
        raise Refused("unencodable", f"the encoder made groups of {sizes[:4]}... frames, not of {settings.gop}")
    groups = [padding.mark(group) for group in groups]
    data = b"".join(groups)
    return NormalisedVideo(data, tuple(map(len, groups)), count, *shown, float(rate), zlib.crc32(data))


class _Padding:
    """Pads pictures of HEVC to what is coded of them, by their last row and column; `mark` says that it is not shown.

    x264 and x265 pad by themselves, but not up to what NVDEC wants.
    """

    def __init__(self, width: int, height: int, codec: str) -> None:
        self._codec, self._shown = codec, (width, height)
        self.size = coded_size(width, height, codec) if codec == "hevc" else self._shown

    def __call__(self, picture: av.VideoFrame) -> av.VideoFrame:
        if self.size == self._shown:
            return picture
        padded = av.VideoFrame(*self.size, "yuv420p")
        for old, new in zip(picture.planes, padded.planes, strict=True):
            beside = ((0, new.height - old.height), (0, new.width - old.width))
            plane_rows(new)[:, : new.width] = np.pad(plane_rows(old)[:, : old.width], beside, mode="edge")
        return padded

    def mark(self, group: bytes) -> bytes:
        """A coded group, the first of whose pictures says what is shown."""
        if self.size == self._shown:
            return group
        return set_cropping(
            group, self._codec, *(side - shown for side, shown in zip(self.size, self._shown, strict=True))
        )


def build_encoder(width: int, height: int, rate: Fraction, settings: StoreSettings) -> av.VideoCodecContext:
    """The encoder for closed groups of exactly `gop` frames, each picture behind an access unit delimiter, one thread."""
    context = av.CodecContext.create(ENCODERS[settings.codec], "w")
    context.width, context.height, context.pix_fmt = width, height, "yuv420p"
    context.time_base, context.framerate = 1 / rate, rate
    context.gop_size, context.max_b_frames, context.thread_count = settings.gop, settings.b_frames, 1
    context.options = encoder_options(settings)
    try:
        context.open()
    except av.FFmpegError as error:
        raise Refused(
            "unencodable", f"{ENCODERS[settings.codec]} does not take {width}x{height}: {error.strerror}"
        ) from error
    return context


def encoder_options(settings: StoreSettings) -> dict[str, str]:
    """The encoder's, for closed groups of exactly `gop` frames, each picture behind an access unit delimiter."""
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
