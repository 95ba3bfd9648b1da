"""Still pictures as moving crops (Ken Burns, paper Sec. 4.1) by DALI: on a GPU what `engine/data/stills.py` is on CPUs.

    bytes (threads) ──▶ decoders.image, once ──▶ resize of the square of each frame ──▶ flip ──▶ turned upright

Same squares, same triangle filter: the same pixels but for rounding, except the outermost ring, for which PIL also looks
at what lies past the square (where it shrinks). Of a JPEG that is much larger than needed PIL decodes a half, a quarter or
an eighth, which looks alike and is not equal. Pictures that DALI would show in another way than a viewer (transparent or
mirrored ones, most of more than 8 bits) are left to PIL; orientation (EXIF) is applied as the manifest says, by neither.
"""

import functools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from nvidia.dali import Pipeline, fn, types

from engine.data.batch import ClipFormat, DecodedClips, SnippetRequest, Video, VideoDecoder
from engine.data.dali.batches import BatchRunner, Sample
from engine.data.dali.bitstreams import BitstreamError, load_file
from engine.data.dali.decode import READ_THREADS, indexed
from engine.data.dali.graph import decoding_on, empty_pipeline, mirror_inputs
from engine.data.geometry import still_squares, stored_corner

_CODECS = ("image/jpeg", "image/mpo", "image/png", "image/webp", "image/bmp")
_PIXEL_FORMATS = ("1", "L", "RGB", "CMYK")  # and in the manifest nothing beside them, see engine/data/stills.py


def build_still_pipeline(clip: ClipFormat, device: torch.device, num_threads: int, max_batch_size: int) -> Pipeline:
    """The graph, on either device. Inputs by name, one item a sample; outputs: clips, decoded shapes.

    Inputs: encoded uint8 [bytes]; start, end float32 [T, 2], corners (y, x) of each frame's square in pixels of the
        stored picture; mirror_x, mirror_y int32, 1 to mirror left-right or top-bottom.
    Outputs: uint8 [T, crop, crop, 3] on `device`; int64 [3] on the CPU, (H, W, 3) as decoded.
    """
    pipeline = empty_pipeline(device, num_threads, max_batch_size)
    with pipeline:
        encoded = fn.external_source(name="encoded", dtype=types.UINT8, ndim=1)
        start = fn.external_source(name="start", dtype=types.FLOAT, ndim=2)
        end = fn.external_source(name="end", dtype=types.FLOAT, ndim=2)
        mirror_x = fn.external_source(name="mirror_x", dtype=types.INT32, ndim=0)
        mirror_y = fn.external_source(name="mirror_y", dtype=types.INT32, ndim=0)
        picture = fn.decoders.image(
            encoded,
            device=decoding_on(device),
            output_type=types.RGB,
            adjust_orientation=False,
            jpeg_fancy_upsampling=True,  # on a GPU too, as libjpeg does
            affine=False,  # threads of several ranks would be pinned to the same cores
        )
        # One operator a frame: of a sequence, `resize` takes one region for all frames.
        frames = [
            fn.resize(
                picture,
                size=(clip.crop, clip.crop),
                roi_start=start[index],
                roi_end=end[index],
                interp_type=types.INTERP_LINEAR,
                antialias=True,
            )
            for index in range(clip.num_frames)
        ]
        clips = fn.flip(fn.stack(*frames, axis_name="F"), horizontal=mirror_x, vertical=mirror_y)
        pipeline.set_outputs(clips, picture.shape(dtype=types.INT64))
    pipeline.build()
    return pipeline


class DaliStillDecoder(VideoDecoder):
    """Decodes snippets of still pictures with DALI.

    Args:
        clip: the shape of a snippet.
        device: a cuda device (JPEG is decoded there, other kinds are uploaded as pixels) or the CPU.
        num_threads: pictures decoded at the same time, as far as the CPU does it.
        max_batch_size: largest batch of DALI; more requests are decoded in several batches.
    """

    name = "dali stills"

    def __init__(self, clip: ClipFormat, device: torch.device, num_threads: int, max_batch_size: int) -> None:
        device = indexed(device)
        self.clip = clip
        self._readers = ThreadPoolExecutor(min(num_threads, READ_THREADS), thread_name_prefix="read")
        build = functools.partial(build_still_pipeline, clip, device, num_threads, max_batch_size)
        self._runner = BatchRunner(build, clip, device, max_batch_size, _reason, of_stills=True)

    def decode(self, requests: Sequence[SnippetRequest]) -> DecodedClips:
        """Decode the requests; the frames may be used at once on the caller's current CUDA stream."""
        return self._runner.decode(requests, lambda part: list(self._readers.map(self._sample, part)))

    def close(self) -> None:
        """Release DALI's memory and the threads."""
        self._readers.shutdown()
        self._runner.close()

    def _sample(self, request: SnippetRequest) -> Sample | str:
        """What the graph is fed, or why nothing can be decoded."""
        video = request.video
        if video.codec not in _CODECS or video.pixel_format not in _PIXEL_FORMATS:
            return f"DALI is given no {video.codec} of pixel format {video.pixel_format}: set data.decoder=pyav"
        try:
            encoded = load_file(video)
        except BitstreamError as error:
            return str(error)
        turns = video.rotation // 90 % 4
        squares = np.array(still_squares(request, self.clip), np.float32)
        corners = [stored_corner(*square, turns, video.width, video.height) for square in squares.tolist()]
        start = np.array(corners, np.float32)
        inputs = {"encoded": encoded, "start": start, "end": start + squares[:, 2:]}
        return Sample(inputs | mirror_inputs(request.flip, turns), (video.width, video.height))


def _reason(error: RuntimeError, video: Video) -> str:
    kind = video.codec.partition("/")[2]
    return f"DALI cannot decode this {kind} picture: index the data set again, or set data.decoder=pyav"
