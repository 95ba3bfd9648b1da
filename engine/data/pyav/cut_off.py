"""Whether a file is shorter than it says: a download or a copy that stopped."""

import os
from pathlib import Path

_HEAD_BYTES = 4096
_MATROSKA_SEGMENT = b"\x18\x53\x80\x67"
_ISO_FIRST_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")
_TS_PACKET = 188
_MOST_BOXES = 100_000  # of a fragmented file


def missing_bytes(path: Path) -> int:
    """How many bytes a file lacks by the sizes that its container gives; 0 where it is whole, or does not say.

    RIFF (AVI), Matroska and WebM, MP4 and MOV give sizes; of a transport stream only the last packet is looked at.

    Raises:
        OSError: it cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
        if head[4:8] in _ISO_FIRST_BOXES:
            return max(0, _end_of_boxes(file.fileno(), size) - size)
    if head[:4] == b"RIFF":
        return max(0, 8 + int.from_bytes(head[4:8], "little") - size) if head[4:8] != b"\xff\xff\xff\xff" else 0
    if 3 < (at := head.find(_MATROSKA_SEGMENT) + 4) < len(head):
        length = 9 - head[at].bit_length()  # of its size (RFC 8794, 4)
        value = int.from_bytes(head[at : at + length], "big") & (1 << 7 * length) - 1
        is_known = value != (1 << 7 * length) - 1
        return max(0, at + length + value - size) if is_known else 0
    if head[:1] == head[_TS_PACKET : _TS_PACKET + 1] == head[2 * _TS_PACKET : 2 * _TS_PACKET + 1] == b"G":
        return -size % _TS_PACKET
    return 0


def _end_of_boxes(file: int, size: int) -> int:
    """Where the last of the boxes that follow each other in an MP4 file ends (ISO/IEC 14496-12, 4.2)."""
    offset = 0
    for _ in range(_MOST_BOXES):
        head = os.pread(file, 16, offset)
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if length < 8 or not head[4:8].isalnum():  # up to the end, or padding that is no box
            return offset
        offset += length
        if offset >= size:
            return offset
    return offset
