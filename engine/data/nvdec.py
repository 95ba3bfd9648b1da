"""Which videos NVDEC decodes frame-exactly through DALI's `fn.decoders.video`, told from their first bytes.

On the GPU DALI 2.4 builds no index (its `build_index` argument is not used): it decodes from the first
byte on, takes one time stamp per packet, and gives the pictures out in the order of those stamps. Read
in its source, these therefore come out as *wrong frames without an error*, and are refused here:

- VP8, VP9 and AV1 keep pictures that are decoded but never shown, MPEG-4 may pack two pictures into one
  packet: either way later frames move. (MJPEG it does not decode at all.)
- AVI, transport, program and raw streams lack presentation stamps: B-frames would come in decoding order.
- MP4 with an edit list that cuts into a group of pictures: the pictures before the cut would be counted.
  A store is no such stream: without B-frames, and with stamps from `bitstreams.py`.
- Sessions are kept for later use under the size that is shown and looked for by the size that is coded, in whole blocks
  of 16 pixels (HEVC: 8). Videos whose height is no multiple of that, beside others that are as high as they are coded
  (360 and 368 rows), may get a session of those, and colours from the wrong rows. (A height or width that is no multiple
  also means a new session for each snippet, which is slow. Stored videos are free of both, see `dali/parameter_sets.py`.)
- Odd widths or heights: its colour kernel writes 2x2 blocks, past the picture's edge.

Nothing here imports DALI.
"""

import re
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from engine.data.batch import Video
from engine.data.manifest import Manifest
from engine.data.store.index import INDEX_NAME

_CONTAINER_NAME = r"\.(mp4|m4v|mov|mkv|webm)$"
CODECS = ("h264", "hevc")
_MP4_FIRST_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")
_MATROSKA_MAGIC = b"\x1a\x45\xdf\xa3"
_BLOCKS = {"h264": 16, "hevc": 8}  # pixels, of the sides that are coded
_MEND = "set data.decoder=pyav, or re-encode it as H.264 in MP4"


def refusal(video: Video, data: memoryview) -> str | None:
    """Why `video`, whose file holds `data`, is not decoded on the GPU; None where it is."""
    if reason := codec_refusal(video):
        return reason
    if bytes(data[4:8]) in _MP4_FIRST_BOXES:
        counts = mp4_video_samples(data) - {0}  # 0: fragmented, the samples are described elsewhere
        if counts and video.file_frames not in counts:
            return (
                f"its header lists {max(counts)} pictures where {video.file_frames} are shown (an edit list, or damage), "
                f"so DALI on the GPU would count other frames: {_MEND}"
            )
    elif bytes(data[:4]) != _MATROSKA_MAGIC:
        return (
            f"DALI on the GPU needs the time stamps of MP4, MOV, Matroska or WebM, and this is another format: {_MEND}"
        )
    return None


def codec_refusal(video: Video) -> str | None:
    """As `refusal`, of what the manifest says alone; all there is to say of a stored video."""
    if video.codec not in CODECS:
        return f"DALI on the GPU does not decode {video.codec} frame by frame (only {' and '.join(CODECS)}): {_MEND}"
    if video.width % 2 or video.height % 2:
        return f"DALI on the GPU cannot decode an odd size ({video.width}x{video.height}): {_MEND}"
    return None


def unfit_videos(manifest: Manifest) -> np.ndarray:
    """bool [V]: videos that `refusal` would surely turn away, told from the manifest alone (no file is read).

    Stills are none of them: they have a decoder of their own.
    """
    table = manifest.table
    fit = _array(pc.is_in(table.column("codec"), value_set=pa.array(CODECS)))
    fit &= _array(pc.match_substring_regex(table.column("path"), _CONTAINER_NAME, ignore_case=True)) | _is_stored(table)
    for side in ("width", "height"):
        fit &= table.column(side).to_numpy() % 2 == 0
    return ~(fit | manifest.is_still)


def mixed_up_videos(manifests: Sequence[Manifest]) -> int:
    """How many videos of a run may be decoded with the session of others, of another height."""
    count = 0
    for codec, block in _BLOCKS.items():
        sides = [_decoded_sides(manifest, codec, block) for manifest in manifests]
        shown, coded = (np.concatenate(part) for part in zip(*sides, strict=True))
        sessions = coded[(shown == coded).all(axis=1)]
        keys, known = (sizes[:, 0] << 32 | sizes[:, 1] for sizes in (coded, sessions))
        count += int(((shown[:, 1] != coded[:, 1]) & np.isin(keys, known)).sum())
    return count


def _decoded_sides(manifest: Manifest, codec: str, block: int) -> tuple[np.ndarray, np.ndarray]:
    """int64 [V, 2]: width and height as shown to NVDEC, and as coded, of the videos of a codec."""
    table = manifest.table.filter(pc.equal(manifest.table.column("codec"), codec))
    shown = np.stack([table.column(side).to_numpy().astype(np.int64) for side in ("width", "height")], axis=1)
    coded = -(-shown // block) * block
    return np.where(_is_stored(table)[:, None], coded, shown), coded


def _is_stored(table: pa.Table) -> np.ndarray:
    """bool [V]: rows that lead into a snippet store; `is_stored` of many."""
    return _array(pc.match_substring_regex(table.column("path"), rf"(^|/){re.escape(INDEX_NAME)}/"))


def _array(values: pa.ChunkedArray) -> np.ndarray:
    return values.to_numpy().astype(bool)


def mp4_video_samples(data: memoryview) -> set[int]:
    """Number of samples (coded pictures) of each video track of an MP4 or MOV file."""
    counts = set()
    for track in _boxes(data, b"moov", b"trak"):
        if any(bytes(handler[8:12]) == b"vide" for handler in _boxes(track, b"mdia", b"hdlr")):
            sizes = _boxes(track, b"mdia", b"minf", b"stbl", b"stsz")
            counts |= {int.from_bytes(table[8:12], "big") for table in sizes}
    return counts


def _boxes(data: memoryview, name: bytes, *inner: bytes) -> Iterator[memoryview]:
    """Contents of the boxes called `name`, or of those that lie `inner` to them (ISO/IEC 14496-12, 4.2)."""
    place = 0
    while place + 8 <= len(data):
        size, header = int.from_bytes(data[place : place + 4], "big"), 8
        if size == 1:
            size, header = int.from_bytes(data[place + 8 : place + 16], "big"), 16
        elif size == 0:  # up to the end
            size = len(data) - place
        if size < header:
            return
        if bytes(data[place + 4 : place + 8]) == name:
            content = data[place + header : place + size]
            if inner:
                yield from _boxes(content, *inner)
            else:
                yield content
        place += size
