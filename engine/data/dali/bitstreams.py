"""What the GPU's decoders are fed: a file as it is, or only the GOPs of a store that a snippet needs.

    store: one read ──▶ GOPs ──▶ coded frames up to the last one needed, uncropped ──▶ IVF or Matroska in memory

IVF (of H.264) is 32 bytes of header (codec, size) and 12 bytes before each coded frame (length, time stamp): enough for a demuxer
to know at once what it has, where each frame ends and in which order they are shown, none of which an elementary
stream says. Nothing is encoded or searched again. DALI's libavformat takes it from memory; its GPU decoder hands the
frames to NVDEC as they are, start codes and all (only for MP4, Matroska and raw streams it converts them).
"""

import functools
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from engine.data.batch import Video
from engine.data.dali.matroska import to_matroska
from engine.data.dali.parameter_sets import coded_size, drop_cropping
from engine.data.manifests.identity import change_since_index
from engine.data.pyav.gops import split_frames, split_runs
from engine.data.store.reader import StoreError, find_entry
from engine.machine import OUT_OF_FILES

IVF_MAGIC = b"DKIF"


@dataclass(frozen=True, slots=True)
class StoredCodec:
    """A codec of stores.

    split: takes whole GOPs apart into coded frames in decoding order, uncropped.
    coded_size: (width, height) that these decode to, of those shown.
    wrap: the file that a demuxer is given, uint8 [bytes], of frames, the width and the height they decode to.
    """

    split: Callable[[bytes], list[bytes]]
    coded_size: Callable[[int, int], tuple[int, int]]
    wrap: Callable[[Sequence[bytes], int, int], np.ndarray]


class BitstreamError(Exception):
    """There is nothing to decode; the message is meant for the user."""


def load_file(video: Video) -> np.ndarray:
    """All bytes of a video file, uint8 [bytes].

    Raises:
        BitstreamError: the file is missing, or not the one that was indexed.
        OSError: this process may open no more files.
    """
    try:
        data = np.fromfile(video.path, np.uint8)
        reason = change_since_index(video.path, video)  # after reading, so that what is decoded is what was looked at
    except OSError as error:
        if error.errno in OUT_OF_FILES:
            raise
        raise BitstreamError(f"the file cannot be read: {error.strerror}") from error
    if reason:
        raise BitstreamError(reason)
    return data


def load_gops(video: Video, numbers: Sequence[int]) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    """The GOPs of a stored video in which frames lie, for a demuxer.

    Args:
        numbers: of the frames, ascending.

    Returns:
        IVF or Matroska, uint8 [bytes]; where in it the frames are, int32 [len(numbers)], counted in frames; (width, height) that
        they decode to, of which the upper left part is shown.

    Raises:
        BitstreamError: as `load_frames`.
    """
    frames, offsets = load_frames(video, numbers)
    codec = STORED_CODECS[video.codec]
    size = codec.coded_size(video.width, video.height)
    return codec.wrap(frames, *size), np.array(offsets, np.int32), size


def load_frames(video: Video, numbers: Sequence[int]) -> tuple[list[bytes], list[int]]:
    """The coded frames from which frames of a stored video decode; one read for each run of neighbouring GOPs.

    Returns:
        The frames from the first of each run's first GOP to the last one needed of it; where among them the frames
        of these ascending `numbers` are.

    Raises:
        BitstreamError: the store is damaged, or made in a way that cannot be decoded from its bytes alone.
    """
    if video.codec not in STORED_CODECS:
        raise BitstreamError(
            f"the store holds {video.codec}, which a GPU is not fed from stores: set data.decoder=pyav"
        )
    split = STORED_CODECS[video.codec].split
    try:
        reader, entry = find_entry(video)
        settings, frames, offsets = reader.index.settings, [], []
        if settings.b_frames:  # frames would be numbered in decoding order
            raise BitstreamError(
                "its store has B-frames, which a GPU would not be fed in the order they are shown: set data.decoder=pyav, "
                "or ingest without"
            )
        if (entry.width, entry.height) != (video.width, video.height):
            says = f"{video.width}x{video.height}"
            raise BitstreamError(f"it is {entry.width}x{entry.height} where the manifest says {says}: ingest it again")
        for run in split_runs(numbers, settings.gop):
            first = run[0] // settings.gop
            count = run[-1] + 1 - first * settings.gop
            found = split(reader.read(entry, first, run[-1] // settings.gop))[:count]
            if len(found) < count:
                raise BitstreamError(f"frame {run[-1]} is not in its group: see tools/ingest.py --verify")
            offsets += [len(frames) + number - first * settings.gop for number in run]
            frames += found
    except (StoreError, ValueError) as error:  # ValueError: a stream that no x264 or x265 wrote
        raise BitstreamError(str(error)) from error
    return frames, offsets


def to_ivf(frames: Sequence[bytes], width: int, height: int, *, fourcc: bytes) -> np.ndarray:
    """Coded frames, in the order they are decoded and shown, as an IVF file: uint8 [bytes]."""
    parts = [struct.pack("<4sHH4sHHIIII", IVF_MAGIC, 0, 32, fourcc, width, height, 25, 1, len(frames), 0)]
    for number, frame in enumerate(frames):
        parts += (struct.pack("<IQ", len(frame), number), frame)
    return np.frombuffer(b"".join(parts), np.uint8)


def _stored_codec(codec: str, wrap: Callable[[Sequence[bytes], int, int], np.ndarray]) -> StoredCodec:
    return StoredCodec(
        lambda data: [drop_cropping(each, codec) for each in split_frames(data, codec)],
        functools.partial(coded_size, codec=codec),
        wrap,
    )


STORED_CODECS = {
    "h264": _stored_codec("h264", functools.partial(to_ivf, fourcc=b"H264")),
    "hevc": _stored_codec("hevc", functools.partial(to_matroska, codec_id="V_MPEGH/ISO/HEVC")),
}
