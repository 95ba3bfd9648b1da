"""The snippets that videos are looked at by outside of training: evenly spaced, in the centre, never mirrored (paper Sec. 4.4)."""

from collections.abc import Iterable, Iterator, Sequence

import torch

from engine.data.batch import ClipFormat, DecodedClips, SnippetRequest, VideoDecoder
from engine.data.decoders import build_decoder
from engine.data.loading.ahead import Prefetcher, decode_in_order, in_batches
from engine.data.manifests.manifest import Manifest
from engine.data.remote.ahead import read_ahead_of
from engine.data.sampling.sampler import evaluation_motions, evaluation_starts
from engine.data.sets.sources import DataSet
from engine.errors import InputError

DECODE_AHEAD = 1  # decoded batches that wait while the model works on another; one more is finished, and one begun


def video_requests(
    manifest: Manifest, rows: Iterable[int], clip: ClipFormat, num_snippets: int
) -> Iterator[SnippetRequest]:
    """Evenly spaced snippets of some videos; those of one video follow each other, so that its file is opened once."""
    motions = evaluation_motions(num_snippets)
    for row in rows:
        video = manifest.video(int(row))
        if video.is_still:
            yield from (SnippetRequest(video, 0, 0.5, 0.5, flip=False, motion=motion) for motion in motions)
            continue
        for start in evaluation_starts(video.num_frames, num_snippets, clip.span):
            yield SnippetRequest(video, int(start), crop_y=0.5, crop_x=0.5, flip=False)


def middle_snippets(
    manifest: Manifest, rows: Sequence[int], decoder: VideoDecoder, clip: ClipFormat
) -> tuple[torch.Tensor, list[int]]:
    """The middle snippet of some videos, for pictures: uint8 [N, T, H, W, C] on the CPU, and which rows they are of.

    Videos that cannot be decoded are not among them.
    """
    videos = manifest.videos([int(row) for row in rows])
    starts = [int(evaluation_starts(video.num_frames, 1, clip.span)[0]) for video in videos]
    requests = [SnippetRequest(v, start, 0.5, 0.5, flip=False) for v, start in zip(videos, starts, strict=True)]
    decoded = decoder.decode(requests)
    good = [index for index in range(len(rows)) if index not in decoded.failures]
    return decoded.frames[good].cpu(), [int(rows[index]) for index in good]


def decode_ahead(
    decoder: VideoDecoder, requests: Iterator[SnippetRequest], batch_size: int, clip: ClipFormat
) -> Iterator[DecodedClips]:
    """The snippets in batches, decoded while the one before is in use."""
    batches = read_ahead_of(decoder, in_batches(requests, batch_size), clip)
    decoded = Prefetcher(decode_in_order(decoder, batches), DECODE_AHEAD, "evaluate-decode")
    try:
        yield from decoded
    finally:
        decoded.close()
        batches.close()


def check_readable(measured: Sequence[DataSet], clip: ClipFormat) -> None:
    """Decode a frame of each set, of the first of its videos that can be decoded.

    Raises:
        InputError: a set has none.
    """
    decoder = build_decoder("pyav", clip, torch.device("cpu"), 1, 1)
    try:
        for data in measured:
            first = ""
            for row in range(len(data.manifest)):
                failures = decoder.decode(list(video_requests(data.manifest, [row], clip, 1))).failures
                if not failures:
                    break
                first = first or f"'{data.manifest.video(row).path}': {failures[0]}"
            else:
                raise InputError(
                    f"set '{data.name}' can measure nothing: none of its {len(data.manifest)} videos can be decoded; {first}"
                )
    finally:
        decoder.close()
