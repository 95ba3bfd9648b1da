"""Coded frames as a Matroska file in memory, for codecs that IVF has no name for (FFmpeg knows none for HEVC there).

The least that RFC 9559 asks for: one track, one cluster, a block for each frame. No description of the codec goes with
it: the frames keep their start codes and bring their parameter sets along, and a reader that would otherwise put start
codes in (FFmpeg's filter `hevc_mp4toannexb`, which DALI uses here) sees that, and leaves them as they are.
"""

import struct
from collections.abc import Sequence

import numpy as np

_EBML, _DOC_TYPE, _DOC_TYPE_VERSION, _DOC_TYPE_READ_VERSION = 0x1A45DFA3, 0x4282, 0x4287, 0x4285
_SEGMENT, _INFO, _TIMESTAMP_SCALE = 0x18538067, 0x1549A966, 0x2AD7B1
_TRACKS, _TRACK_ENTRY, _TRACK_NUMBER, _TRACK_UID, _TRACK_TYPE, _CODEC_ID = 0x1654AE6B, 0xAE, 0xD7, 0x73C5, 0x83, 0x86
_VIDEO, _PIXEL_WIDTH, _PIXEL_HEIGHT = 0xE0, 0xB0, 0xBA
_CLUSTER, _TIMESTAMP, _SIMPLE_BLOCK = 0x1F43B675, 0xE7, 0xA3
_MOST_FRAMES = 2**15  # a block's time is a signed number of 16 bits


def to_matroska(frames: Sequence[bytes], width: int, height: int, *, codec_id: str) -> np.ndarray:
    """Coded frames, in the order they are decoded and shown, a millisecond apart, as a Matroska file: uint8 [bytes].

    Args:
        codec_id: Matroska's name of the codec, such as V_MPEGH/ISO/HEVC.

    Raises:
        ValueError: there are more frames than one cluster has times for.
    """
    if len(frames) > _MOST_FRAMES:
        raise ValueError(f"{len(frames)} frames for one snippet: {_MOST_FRAMES} is the most")
    head = _element(_DOC_TYPE, b"matroska") + _number(_DOC_TYPE_VERSION, 2) + _number(_DOC_TYPE_READ_VERSION, 2)
    video = _element(_VIDEO, _number(_PIXEL_WIDTH, width) + _number(_PIXEL_HEIGHT, height))
    track = _number(_TRACK_NUMBER, 1) + _number(_TRACK_UID, 1) + _number(_TRACK_TYPE, 1)
    track += _element(_CODEC_ID, codec_id.encode()) + video
    cluster = [_number(_TIMESTAMP, 0)]
    for number, frame in enumerate(frames):
        key = 0x80 if number == 0 else 0
        cluster.append(_element(_SIMPLE_BLOCK, b"\x81" + struct.pack(">hB", number, key) + frame))
    info = _element(_INFO, _number(_TIMESTAMP_SCALE, 1_000_000))  # ns
    segment = info + _element(_TRACKS, _element(_TRACK_ENTRY, track)) + _element(_CLUSTER, b"".join(cluster))
    return np.frombuffer(_element(_EBML, head) + _element(_SEGMENT, segment), np.uint8)


def _element(name: int, content: bytes) -> bytes:
    """An EBML element (RFC 8794); its size always in eight bytes."""
    return name.to_bytes((name.bit_length() + 7) // 8, "big") + (len(content) | 1 << 56).to_bytes(8, "big") + content


def _number(name: int, value: int) -> bytes:
    return _element(name, value.to_bytes(4, "big"))
