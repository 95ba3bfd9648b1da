"""What the packets of a video stream tell without decoding: how many frames, and where decoding can start."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.video.stream import VideoStream

from engine.data.pyav.opening import reason_of

DECODE_BUDGET = 64e6  # pixels; a file with no more than these in all its frames is always decoded to the end

# One packet is one shown frame in these (with the other checks of `doubt`). VP8 and VP9 have hidden frames,
# MPEG-4 part 2 has empty and packed ones, and the older codecs are cheap to decode.
_PACKET_IS_FRAME = frozenset({"h264", "hevc", "av1", "mjpeg", "prores"})
_COUNTED_CONTAINERS = ("mp4", "matroska")  # their packets carry true time stamps, and flags for what is not shown
MAX_STEP_S = 60.0  # between two stamps of a clock; a longer one tells that it was set anew
_SEEKABLE_CONTAINERS = (*_COUNTED_CONTAINERS, "avi")  # they have an index; the rest search and land near
_SEQUENCE_SET = {
    "h264": (7, 5, 0),
    "hevc": (33, 31, 1),
}  # type of a unit that is one; the last type of slices; its bits
_HEAD_BYTES = 16  # of a packet: all of them are zero in none that was coded
_PROGRESSIVE = (0, 1)  # AVFieldOrder unknown and progressive; two fields of one frame may be two packets


@dataclass(frozen=True, slots=True)
class KeyFrame:
    """A frame that decoding can start from: its index in presentation order and its time stamp."""

    frame: int
    pts: int


@dataclass(slots=True)
class Packets:
    """The packets of a video stream in file order; empty ones are only counted."""

    pts: list[int | None] = field(default_factory=list)
    dts: list[int | None] = field(default_factory=list)
    is_key: list[bool] = field(default_factory=list)
    is_hidden: list[bool] = field(default_factory=list)  # flagged as decoded but not shown (edit lists)
    num_odd: int = 0  # empty or damaged, or with another header than the file's
    is_cut: bool = False  # the last one is damaged: the file ends within it
    parameter_sets: set[bytes] = field(default_factory=set)  # of H.264 and HEVC, as far as key frames bring them along
    is_encrypted: bool = False  # any of them: the beginning may be clear

    def __len__(self) -> int:
        return len(self.pts)

    def hours(self, container: InputContainer, stream: VideoStream) -> float:
        """Time between the first and the last time stamp, but for jumps of a clock."""
        steps = np.diff(np.sort([pts for pts in self.pts if pts is not None])) * float(stream.time_base)
        return float(steps[steps <= (MAX_STEP_S if has_clock(container) else np.inf)].sum()) / 3600

    def expected_pts(self) -> list[int]:
        """Time stamps of the frames to be shown, in order, as far as packets tell."""
        shown = (pts for pts, hidden in zip(self.pts, self.is_hidden, strict=True) if not hidden)
        return sorted({pts for pts in shown if pts is not None})


@dataclass(slots=True)
class Lost:
    """Why packets did not decode: those at the beginning of a stream, and those at its end."""

    first: list[str] = field(default_factory=list)
    last: list[str] = field(default_factory=list)


def demux(container: InputContainer, stream: AudioStream | VideoStream) -> Iterator[av.Packet]:
    """The packets of a stream, and an empty one at the end.

    An iterator of PyAV that is left before its end is closed here: PyAV 18 loses 150 bytes with each that is not. Behind the
    last packet it may ask itself for a stream that appeared while it read (in a broadcast, or a damaged MPEG-TS), and has none.
    """
    with contextlib.closing(container.demux(stream)) as packets, contextlib.suppress(IndexError):
        yield from packets


def read_frames(
    container: InputContainer,
    stream: VideoStream,
    check_time: Callable[[], None] = lambda: None,
    lost: Lost | None = None,
) -> Iterator[av.VideoFrame]:
    """The frames of a stream, in presentation order.

    Packets that do not decode before the first key frame are skipped: a recording may begin between two. Those at the end
    cost their own frames alone: a file was cut off there. With one that decodes behind them it is damage within the file.

    Args:
        check_time: is called between packets and may raise.
        lost: gets the reasons why packets at either end did not decode.

    Raises:
        av.FFmpegError: damage that FFmpeg does not conceal.
    """
    failure, has_begun = None, False
    for packet in demux(container, stream):
        check_time()
        try:
            frames = packet.decode()
        except av.FFmpegError as error:
            if has_begun:
                failure = failure or error
            if lost is not None:
                (lost.last if has_begun else lost.first).append(reason_of(error))
            continue
        if failure is not None and packet.size:
            raise failure
        has_begun = has_begun or packet.is_keyframe or bool(frames)
        yield from frames


def read_packets(container: InputContainer, stream: VideoStream, check_time: Callable[[], None]) -> Packets:
    """Demux the whole stream; `check_time` is called between packets and may raise."""
    packets, codec = Packets(), codec_name(stream)
    for packet in demux(container, stream):
        check_time()
        if packet.size == 0:
            packets.num_odd += packet.dts is not None  # the one without a time only flushes the decoder
            continue
        packets.pts.append(packet.pts)
        packets.dts.append(packet.dts)
        packets.is_key.append(packet.is_keyframe)
        packets.is_hidden.append(packet.is_discard)
        is_blank = not any(memoryview(packet)[:_HEAD_BYTES])  # what a download left that stopped
        packets.num_odd += packet.is_corrupt or is_blank or packet.has_sidedata("new_extradata")
        if packet.is_keyframe and codec in _SEQUENCE_SET:
            packets.parameter_sets |= _sequence_sets(packet, codec)
        packets.is_cut = packet.is_corrupt
        packets.is_encrypted |= packet.has_sidedata("encryption_info")
    return packets


def _sequence_sets(packet: av.Packet, codec: str) -> set[bytes]:
    """The sequence parameter sets before a packet's first slice; of packets as MP4 and Matroska have them."""
    data, offset, found = memoryview(packet), 0, set()
    kind, last, shift = _SEQUENCE_SET[codec]
    while offset + 5 <= len(data):
        length, unit = (
            int.from_bytes(data[offset : offset + 4], "big"),
            data[offset + 4] >> shift & (63 if shift else 31),
        )
        if unit <= last:
            break
        if unit == kind:
            found.add(bytes(data[offset + 4 : offset + 4 + length]))
        offset += 4 + length
    return found


def doubt(container: InputContainer, stream: VideoStream, packets: Packets) -> str | None:
    """Why the packets should not stand for the frames; None if they may."""
    context, count = stream.codec_context, len(packets)
    if count * context.width * context.height <= DECODE_BUDGET:
        return "cheap to decode"
    if not any(name in container.format.name for name in _COUNTED_CONTAINERS):
        return "container"
    if codec_name(stream) not in _PACKET_IS_FRAME:
        return "codec"
    if context.field_order not in _PROGRESSIVE:
        return "interlaced"
    if stream.frames not in (0, count):
        return "the header has another count"
    if any(packets.is_hidden) or packets.num_odd:
        return "hidden, empty or damaged packets"
    if len(packets.parameter_sets) > 1:
        return "parameter sets that change"  # and with them the size, perhaps
    if None in packets.pts or len(set(packets.pts)) < count:
        return "time stamps"
    if not packets.is_key[0] or packets.pts[0] != min(packets.pts):
        return "frames before the first key frame"  # a decoder may drop them
    return None


def has_clock(container: InputContainer) -> bool:
    """Whether time stamps are of a clock that may be set anew within the file: of broadcasts and live streams."""
    return container.format.name in ("mpegts", "mpeg", "flv")


def codec_name(stream: VideoStream) -> str:
    """FFmpeg's name of a stream's codec, whichever decoder was chosen for it (av1, not libdav1d)."""
    return stream.codec_context.codec.canonical_name


def can_seek(container: InputContainer, packets: Packets) -> bool:
    """Whether a seek can be expected to land on the key frame asked for."""
    return None not in packets.pts and any(name in container.format.name for name in _SEEKABLE_CONTAINERS)


def key_frames(packets: Packets, shown_pts: Sequence[int]) -> list[KeyFrame]:
    """The key frames among the frames shown (time stamps ascending) that a seek to their own time stamp finds.

    An open GOP is counted right: its leading frames have smaller time stamps and so smaller
    indices, and whoever starts at the key frame drops them.
    """
    keys = [index for index, is_key in enumerate(packets.is_key) if is_key]
    following = [*(packets.dts[index] for index in keys[1:]), None][: len(keys)]  # there may be no key frame at all
    found: list[KeyFrame] = []
    for index, next_dts in zip(keys, following, strict=True):
        pts = packets.pts[index]
        if pts is None or packets.is_hidden[index]:
            continue
        # MP4 seeks by decoding time: a key frame decoded before this one is shown would be found instead.
        if next_dts is not None and next_dts <= pts:
            continue
        frame = int(np.searchsorted(shown_pts, pts))
        if frame < len(shown_pts) and shown_pts[frame] == pts and (not found or frame > found[-1].frame):
            found.append(KeyFrame(frame, pts))
    return found
