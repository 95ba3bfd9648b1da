"""Frames of a stored video: its GOPs go from the shard straight into a codec context.

No container is opened and nothing is searched for: frame k is in GOP k // gop, each GOP decodes by itself,
and every frame begins with an access unit delimiter, so that one `bytes.split` finds them all.
"""

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence

import av

from engine.data.batch import Video
from engine.data.pyav.files import TOO_SLOW
from engine.data.store.reader import StoreError, find_entry

_DELIMITERS = {  # start code and header of an access unit delimiter
    "h264": b"\x00\x00\x00\x01\x09",  # H.264, 7.3.2.4
    "hevc": b"\x00\x00\x00\x01\x46\x01",  # H.265, 7.3.2.5
}


def split_frames(data: bytes, codec: str = "h264") -> list[bytes]:
    """The coded frames of whole GOPs, in decoding order."""
    delimiter = _DELIMITERS[codec]
    return [delimiter + frame for frame in data.split(delimiter)[1:]]


class GopDecoder:
    """A decoder of each codec that is used again and again. Not thread-safe: one for each thread.

    Args:
        options: FFmpeg's, for the decoder.
    """

    def __init__(self, options: Mapping[str, str] | None = None) -> None:
        self._options = options or {}
        self._contexts: dict[str, av.VideoCodecContext] = {}

    def frames(self, data: bytes, codec: str = "h264") -> Iterator[av.VideoFrame]:
        """The frames of whole GOPs, in presentation order; it may be left before its end.

        Raises:
            av.FFmpegError: the bytes are damaged.
        """
        # A new context costs as much as decoding some frames; one that failed is not used again.
        context = self._contexts.pop(codec, None) or _build_context(codec, self._options)
        try:
            for frame in split_frames(data, codec):
                yield from context.decode(av.Packet(frame))
            yield from context.decode(None)
        except GeneratorExit:  # the rest is not wanted
            pass
        context.flush_buffers()
        self._contexts[codec] = context


def _build_context(codec: str, options: Mapping[str, str]) -> av.VideoCodecContext:
    context = av.CodecContext.create(codec, "r")
    context.thread_count, context.thread_type = 1, "NONE"
    context.options = {"err_detect": "explode", **options}  # damage is an error, not a grey frame
    return context


class StoredFrames:
    """The frames of one stored video by their number; the counterpart of an open file.

    Raises:
        StoreError: there is no such store, or it is not the one that the manifest was written for.
    """

    def __init__(self, video: Video, decoder: GopDecoder, deadline: float) -> None:
        self._reader, self._entry = find_entry(video)
        self._decoder, self._deadline = decoder, deadline

    def allow(self, seconds: float) -> None:
        """Put the deadline off to so long from now."""
        self._deadline = time.monotonic() + seconds

    def close(self) -> None:
        """Nothing is held."""

    def frames(self, numbers: Sequence[int], *, seek: bool = True) -> Iterator[tuple[int, av.VideoFrame]]:
        """The frames of these ascending numbers, with them; one read for each run of neighbouring GOPs.

        Raises:
            StoreError: there are fewer frames, or time is up.
            av.FFmpegError: the bytes are damaged.
        """
        gop, codec = self._reader.index.settings.gop, self._reader.index.settings.codec
        for wanted in split_runs(numbers, gop):
            if wanted[-1] >= self._entry.num_frames:
                raise StoreError(f"frame {wanted[-1]} was asked for, the store has {self._entry.num_frames}")
            waiting_since = time.monotonic()
            data = self._reader.read(self._entry, wanted[0] // gop, wanted[-1] // gop)
            self._deadline += time.monotonic() - waiting_since  # a store that is away makes no video slow
            waiting = iter(wanted)
            next_wanted = next(waiting)
            with contextlib.closing(self._decoder.frames(data, codec)) as decoded:
                for number, frame in enumerate(decoded, start=wanted[0] // gop * gop):
                    if time.monotonic() > self._deadline:
                        raise StoreError(TOO_SLOW)
                    if number == next_wanted:
                        yield number, frame
                        next_wanted = next(waiting, None)
                        if next_wanted is None:
                            break
                else:
                    raise StoreError(f"frame {next_wanted} does not decode: see tools/ingest.py --verify")


def split_runs(numbers: Sequence[int], gop: int) -> list[list[int]]:
    """Ascending frame numbers in runs whose GOPs follow each other without a gap."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number // gop <= runs[-1][-1] // gop + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return runs
