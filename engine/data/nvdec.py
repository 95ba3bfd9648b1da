"""Which videos NVDEC decodes frame-exactly through DALI's `fn.decoders.video`.

On the GPU DALI 2.4 builds no index (its `build_index` argument is not used): it decodes from the first
byte on, takes one time stamp per packet, and gives the frames out in the order of those stamps. Read
in its source, these therefore come out as *wrong frames without an error*. They are refused here and go to PyAV (`routing.py`):

- VP8, VP9 and AV1 keep frames that are decoded but never shown, MPEG-4 may pack two frames into one
  packet: either way later frames move. (MJPEG it does not decode at all.)
- AVI, transport, program and raw streams lack presentation stamps: B-frames would come in decoding order.
- MP4 with an edit list that cuts into a GOP: the frames before the cut would be counted.
  A store is no such stream: without B-frames, and with stamps from `bitstreams.py`.
- Sessions are kept for later use under the size that is shown and looked for by the size that is coded, in whole blocks
  of 16 pixels (HEVC: 8). Videos whose height is no multiple of that, beside others that are as high as they are coded
  (360 and 368 rows), may get a session of those, and colours from the wrong rows. (A height or width that is no multiple
  also means a new session for each snippet, which is slow. Stored videos are free of both, see `dali/parameter_sets.py`.)
- Odd widths or heights: its colour kernel writes 2x2 blocks, past the frame's edge.
- Interlaced H.264: a frame may be coded as two fields, which would be counted as two frames.
- Pixel formats that NVDEC does not decode: H.264 of more than 8 bits, all but 4:2:0.
- Several video streams (DALI takes the one that FFmpeg finds best by its header, players another), sizes that change, and
  damaged beginnings and ends: what indexing has found odd, see `oddity` in `engine/data/pyav/probe.py`.
- Stores with B-frames: their frames are fed in decoding order, with stamps in that order.

What a manifest's row tells is in `NvdecRule`; what only the file tells, in `refusal`. Nothing here imports DALI.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.data.batch import Video
from engine.data.dali.parameter_sets import BLOCKS, coded_size, read_configuration
from engine.data.manifests.manifest import Manifest
from engine.data.store.index import StoreIndex, is_stored, split_stored_path

CONTAINERS = (".mp4", ".m4v", ".mov", ".mkv", ".webm")
PIXEL_FORMATS = {"h264": ("yuv420p", "yuvj420p"), "hevc": ("yuv420p", "yuvj420p", "yuv420p10le")}
# (width, height), least and most. H.264: as cuvidGetDecoderCaps answers on a newer card (philipl/nv-video-info, pull request 7);
# HEVC: as is commonly said. What lies outside fails its whole batch in DALI, which then is decoded again without it.
_SIZES = {"h264": ((48, 16), (4096, 4096)), "hevc": ((144, 144), (8192, 8192))}
_BIT_DEPTHS = {"h264": (8,), "hevc": (8, 10)}
_MP4_FIRST_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")
_MATROSKA_MAGIC = b"\x1a\x45\xdf\xa3"
_MATROSKA_HEAD = 1 << 20  # bytes in which its tracks are described: before the first frame
# Matroska's CodecPrivate: its name, its length in one to three bytes, a record that begins with its version, 1.
_CODEC_PRIVATE = re.compile(rb"\x63\xa2(?:[\x80-\xff]|[\x40-\x7f].|[\x20-\x3f]..)(?=\x01)", re.DOTALL)
_MP4_CONFIGURATION = {"h264": re.compile(b"avcC"), "hevc": re.compile(b"hvcC")}
_RECORD_BYTES = 1024  # of a configuration record that are looked at
_MEND = "set data.decoder=pyav, or re-encode it as H.264 in MP4"

Rule = Callable[[Video], str | None]  # why a decoder is not given a video, in few words; None: it takes it


@dataclass(frozen=True)
class NvdecRule:
    """Which videos of a run DALI is given on a GPU, told from their rows alone. A `Rule`.

    sessions: (codec, width, height) of those that are shown as large as they are coded: NVDEC's sessions that may be found
        for others. unordered: indices of the stores with B-frames.
    """

    sessions: frozenset[tuple[str, int, int]] = frozenset()
    unordered: frozenset[Path] = frozenset()

    @classmethod
    def of(cls, manifests: Sequence[Manifest]) -> "NvdecRule":
        """The rule for all videos of a run.

        Raises:
            InputError: a store that a manifest names is not there.
        """
        kinds = [video for manifest in manifests for video, _ in manifest.kind_counts()]
        kinds = [video for video in kinds if row_refusal(video) is None]  # which no still is
        stores = {split_stored_path(video.path)[0] for video in kinds if is_stored(video.path)}
        unordered = frozenset(index for index in sorted(stores) if StoreIndex(index).settings.b_frames)
        whole = {(video.codec, *_coded(video)) for video in kinds if _decoded(video) == _coded(video)}
        return cls(frozenset(whole), unordered)

    def __call__(self, video: Video) -> str | None:
        """Why DALI is not given this video, in few words; None where it is."""
        if reason := row_refusal(video):
            return reason
        if is_stored(video.path):
            return (
                "store with B-frames" if self.unordered and split_stored_path(video.path)[0] in self.unordered else None
            )
        coded = _coded(video)
        is_mixed_up = video.height != coded[1] and (video.codec, *coded) in self.sessions
        return "height that DALI may mix up with another" if is_mixed_up else None


def row_refusal(video: Video) -> str | None:
    """Why NVDEC is given this video by no decoder of ours, in few words, told from its row alone; None where it is."""
    if video.oddity:
        return video.oddity
    if video.codec not in PIXEL_FORMATS:
        return f"codec {video.codec}"
    if video.pixel_format is not None and video.pixel_format not in PIXEL_FORMATS[video.codec]:
        return f"pixel format {video.pixel_format}"
    if video.width % 2 or video.height % 2:
        return "odd size"
    least, most = _SIZES[video.codec]
    width, height = _decoded(video)
    if not (least[0] <= width <= most[0] and least[1] <= height <= most[1]):
        return "size that NVDEC has not"
    if not is_stored(video.path) and video.path.suffix.lower() not in CONTAINERS:
        return "container without time stamps"
    return None


def refusal(video: Video, data: memoryview) -> str | None:
    """Why DALI does not decode `video`, whose row is fit and whose file holds `data`, on the GPU; None where it does."""
    if bytes(data[4:8]) in _MP4_FIRST_BOXES:
        counts = mp4_video_samples(data) - {0}  # 0: fragmented, the samples are described elsewhere
        if counts and video.file_frames not in counts:
            return (
                f"its header lists {max(counts)} frames where {video.file_frames} are shown (an edit list, or damage), "
                f"so DALI on the GPU would count other frames: {_MEND}"
            )
        parts = [(box, _MP4_CONFIGURATION[video.codec]) for box in _boxes(data, b"moov")]
    elif bytes(data[:4]) == _MATROSKA_MAGIC:
        parts = [(data[:_MATROSKA_HEAD], _CODEC_PRIVATE)]
    else:
        return (
            f"DALI on the GPU needs the time stamps of MP4, MOV, Matroska or WebM, and this is another format: {_MEND}"
        )
    ends = [(part, found.end()) for part, marks in parts for found in marks.finditer(part)]
    return _coding_refusal(video.codec, [bytes(part[end : end + _RECORD_BYTES]) for part, end in ends])


def _coding_refusal(codec: str, records: Sequence[bytes]) -> str | None:
    """Why NVDEC does not decode what these configuration records describe; None where it does."""
    known = []
    for record in records:
        try:
            known.append(read_configuration(codec, record))
        except ValueError:
            continue  # of another track, or bytes that only look like one
    if not known:
        return f"its header does not say how its frames are coded, which DALI on the GPU must know: {_MEND}"
    for facts in known:
        if facts.chroma_format != 1 or facts.bit_depth not in _BIT_DEPTHS[codec]:
            chroma = ("no chroma", "4:2:0", "4:2:2", "4:4:4")[facts.chroma_format]
            return f"NVDEC does not decode {codec} of {facts.bit_depth} bits and {chroma}: {_MEND}"
        if not facts.is_progressive:
            return f"it is interlaced, and DALI on the GPU may count a frame as two: {_MEND}"
    return None


def unfit_videos(manifest: Manifest) -> np.ndarray:
    """bool [V]: videos that `NvdecRule` turns away where these are all there are. Stills are none of them."""
    return np.array([reason is not None for reason in refusals(NvdecRule.of([manifest]), manifest)], bool)


def refusal_counts(rule: Rule, manifests: Sequence[Manifest]) -> Counter[str]:
    """Why a decoder with this rule is not given so many videos; none are counted that it is given, and no stills."""
    found: Counter[str] = Counter()
    for manifest in manifests:
        for video, count in manifest.kind_counts():
            reason = None if video.is_still else rule(video)
            found.update({reason: count} if reason else {})
    return found


def refusals(rule: Rule, manifest: Manifest) -> np.ndarray:
    """object [V]: why a decoder with this rule is not given each video; None where it is, and for stills.

    The rule is asked once for each kind of video, so that half a million rows take no time.
    """
    examples, kind = manifest.kinds()
    videos = [manifest.video(row) for row in examples.tolist()]
    return np.array([None if video.is_still else rule(video) for video in videos], object)[kind]


def _coded(video: Video) -> tuple[int, int]:
    """(width, height) as coded: in whole blocks."""
    if is_stored(video.path):
        return coded_size(video.width, video.height, video.codec)
    block = BLOCKS[video.codec]
    return -(-video.width // block) * block, -(-video.height // block) * block


def _decoded(video: Video) -> tuple[int, int]:
    """(width, height) as shown to NVDEC: stored videos are fed uncropped."""
    return _coded(video) if is_stored(video.path) else (video.width, video.height)


def mp4_video_samples(data: memoryview) -> set[int]:
    """Number of samples (coded frames) of each video track of an MP4 or MOV file."""
    counts = set()
    for track in _boxes(data, b"moov", b"trak"):
        if any(bytes(handler[8:12]) == b"vide" for handler in _boxes(track, b"mdia", b"hdlr")):
            sizes = _boxes(track, b"mdia", b"minf", b"stbl", b"stsz")
            counts |= {int.from_bytes(table[8:12], "big") for table in sizes}
    return counts


def _boxes(data: memoryview, name: bytes, *inner: bytes) -> Iterator[memoryview]:
    """Contents of the boxes called `name`, or of those that lie `inner` to them (ISO/IEC 14496-12, 4.2)."""
    offset = 0
    while offset + 8 <= len(data):
        size, header = int.from_bytes(data[offset : offset + 4], "big"), 8
        if size == 1:
            size, header = int.from_bytes(data[offset + 8 : offset + 16], "big"), 16
        elif size == 0:  # up to the end
            size = len(data) - offset
        if size < header:
            return
        if bytes(data[offset + 4 : offset + 8]) == name:
            content = data[offset + header : offset + size]
            if inner:
                yield from _boxes(content, *inner)
            else:
                yield content
        offset += size
