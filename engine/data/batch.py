"""The contract at the middle of the engine: what is asked of a decoder and what it yields.

    sampler ──▶ SnippetRequest ──▶ VideoDecoder.decode ──▶ DecodedClips ──▶ loader ──▶ ClipBatch ──▶ model

Every decoder (PyAV, DALI, later ones) takes the same requests and yields the same clips; everything
after the loader sees nothing but `ClipBatch`, which is the `Batch` of tasks that train on labelled videos.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch

from engine.data.config import ClipFormat as ClipFormat  # the shape of the clips: a part of the contract

STILL_CODEC = "image/"  # what the codec of a frame file begins with, in manifests


@dataclass(frozen=True, slots=True)
class Video:
    """One row of a manifest: a video file, or a labelled segment of one.

    Frames are numbered in presentation order as they come out of the decoder, from 0, whatever the
    header or the time stamps say (so a variable frame rate is read frame by frame, not resampled).
    """

    path: Path
    num_frames: int  # frames of this row (the segment, or the whole file)
    first_frame: int  # index in the file of the row's first frame
    file_frames: int  # frames that decode from the whole file
    width: int  # as stored, before rotation, pixels
    height: int
    rotation: int  # clockwise degrees to turn the stored frame for display: 0, 90, 180 or 270
    codec: str
    file_bytes: int  # size when it was indexed: a file that changed since is refused
    key_frames: tuple[int, ...]  # frame indices a decoder can start from, ascending; empty: decode from the start
    key_pts: tuple[int, ...]  # presentation time stamp of each key frame, in the stream's time base
    mtime_ns: int | None = None  # time of modification when it was indexed, ns since 1970; None: not known
    content_hash: int | None = (
        None  # of the file as it was indexed, see `engine/data/manifests/identity.py`; None: not known
    )
    pixel_format: str | None = None  # FFmpeg's name of what its frames decode to (a still's: PIL's); None: not known
    oddity: str | None = None  # why only FFmpeg is sure to show what was indexed, in few words; "" or None: no reason

    @property
    def is_still(self) -> bool:
        """A frame file rather than a video: snippets of it are moving crops (`engine/data/stills.py`)."""
        return self.codec.startswith(STILL_CODEC)

    @property
    def file(self) -> tuple[Path, int, int | None]:
        """The file as it was indexed: equal for rows that are decoded from one."""
        return self.path, self.file_bytes, self.content_hash

    @property
    def displayed_size(self) -> tuple[int, int]:
        """(width, height) after rotation, pixels."""
        return (self.height, self.width) if self.rotation % 180 else (self.width, self.height)


@dataclass(frozen=True, slots=True)
class CropMotion:
    """A crop of a still that moves from a start to an end (Ken Burns effect, paper Sec. 4.1); each value in [0, 1].

    size: 0 the smallest crop that the clip's format allows, 1 the largest. y, x: position within the room there is.
    """

    start_size: float
    start_y: float
    start_x: float
    end_size: float
    end_y: float
    end_x: float


@dataclass(frozen=True, slots=True)
class SnippetRequest:
    """One snippet to decode: which frames of which video, and which part of the frame."""

    video: Video
    start: int  # first frame, counted from the row's first frame
    crop_y: float  # 0 top, 0.5 centre, 1 bottom: position of the crop within the room there is
    crop_x: float  # 0 left, 0.5 centre, 1 right
    flip: bool  # mirror left-right
    motion: CropMotion | None = None  # of a still; takes the place of crop_y and crop_x


@dataclass(slots=True)
class DecodedClips:
    """What a decoder returns for a list of requests, in their order.

    frames: uint8 [N, T, H, W, C] RGB, contiguous, on the decoder's device; rows named in `failures`
        hold no meaning.
    failures: index into the requests -> reason, for each request that could not be decoded.
    motion: uint8 [N, T, h, w] as in `ClipBatch`, if the clip's format asks for it; None from a decoder that leaves it to others.
    """

    frames: torch.Tensor
    failures: dict[int, str] = field(default_factory=dict)
    motion: torch.Tensor | None = None


class VideoDecoder(Protocol):
    """Decodes snippets. Never raises for a bad video (that is a failure in the result).

    One thread submits; what it was given may be waited for in another one, in order, while it submits more.

    A decoder defines one of `decode` and `submit`, and has the other from here.

    reads_here: whether this process reads for it, so that what is planned can be read ahead of it.
    """

    name: str
    reads_here: bool = True

    def decode(self, requests: Sequence[SnippetRequest]) -> DecodedClips:
        """Decode all requests.

        Returns:
            Clips uint8 [N, T, H, W, C] on the device, in the order of the requests.
        """
        return self.submit(requests)()

    def submit(self, requests: Sequence[SnippetRequest]) -> Callable[[], DecodedClips]:
        """Begin to decode, behind what was submitted before; calling what is returned waits for the clips."""
        return functools.partial(self.decode, requests)  # all is done then

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class SampleFailure:
    """A sample that could not be decoded and was replaced by another of the same epoch."""

    path: Path
    reason: str


class Batch(Protocol):
    """What the loop asks of one rank's batch. `ClipBatch` is one.

    video, start: int64 [N] on the CPU, where each sample came from, told again if the step goes wrong.
    failures: what could not be read while it was made.
    """

    video: torch.Tensor
    start: torch.Tensor
    failures: list[SampleFailure]

    def __len__(self) -> int:
        """N, the samples."""
        ...

    def chunk(self, parts: int) -> Sequence["Batch"]:
        """The batch in so many micro-batches (`train.accumulate`), of N / parts samples, in order."""
        ...


@dataclass(slots=True)
class ClipBatch:
    """A batch of snippets on the training device.

    frames: uint8 [N, T, H, W, C], contiguous: permuted to [N, C, T, H, W] it *is* channels_last_3d.
    class_index: int64 [N], index into the training set's classes.
    video: int64 [N] on the CPU, row of the data set each snippet came from.
    start: int64 [N] on the CPU, its first frame, counted from the row's first frame.
    failures: what did not decode while this batch was made, stand-ins included.
    num_replaced: samples of the batch that have a stand-in.
    motion: uint8 [N, T, h, w] on the training device, if `clip.motion` asks for it: how fast each block of 16 x 16 pixels of
        the clip (h, w: sides over 16, rounded up) moves against the camera; see `engine/data/motion.py`.
    visible: int64 [N, K] on the training device, the tokens that the network is shown, if `model.tokens` selects some.
    """

    frames: torch.Tensor
    class_index: torch.Tensor
    video: torch.Tensor
    start: torch.Tensor
    failures: list[SampleFailure] = field(default_factory=list)
    num_replaced: int = 0
    motion: torch.Tensor | None = None
    visible: torch.Tensor | None = None

    def __len__(self) -> int:
        return self.frames.shape[0]

    def chunk(self, parts: int) -> list["ClipBatch"]:
        """Micro-batches of N / parts snippets (views, in order); what failed is told of the whole batch alone."""
        columns = (self.frames, self.class_index, self.video, self.start)
        chunks = [ClipBatch(*part) for part in zip(*(column.chunk(parts) for column in columns), strict=True)]
        for name in ("motion", "visible"):
            if (column := getattr(self, name)) is not None:
                for chunk, part in zip(chunks, column.chunk(parts), strict=True):
                    setattr(chunk, name, part)
        return chunks
