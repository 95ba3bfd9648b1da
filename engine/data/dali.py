"""Decoding with NVIDIA DALI: NVDEC on a GPU, and the very same graph on its CPU backend.

    requests ──▶ file bytes ──external_source──▶ decoders.video ──▶ resize + crop ──▶ flip ──▶ repeat frames ──▶ clips
                 (threads)                       (listed frames)    (one pass)                 (past the end)

The only file that imports DALI. What was found out about DALI 2.4 and is relied on here (tests hold it):

Frames. `frames` counts decoded pictures in presentation order, whatever the time stamps say: exact on
  the CPU for hidden (alt-ref) pictures, edit lists, a variable rate and late first stamps. On the GPU it
  is exact only for what `engine.data.nvdec` lets through. Every snippet is decoded from the file's first
  byte (there is no index), so the time it takes grows with its start. A frame asked for twice is decoded
  twice from there, so frames that are repeated past the end are decoded once and copied afterwards.
  Beyond the packets of a file DALI raises (`pad_mode="none"`). Between the pictures that decode and the
  packets (hidden ones stored apart) it leaves memory as it was: `Video.file_frames` must be the decoded
  count, as the indexer makes it. A picture size that changes within a stream is not supported.
Codecs. The CPU backend decodes VP8, VP9 and MJPEG, at any size, 8 or 10 bits, 4:2:0 to 4:4:4.
Colour. Y'CbCr -> R'G'B' by BT.601 always, limited or full range as the stream is tagged; matrix tags
  (BT.709, BT.2020) are not looked at. Chroma is interpolated. The PyAV decoder follows the same rule.
Resampling. Bilinear with antialiasing (triangle filter widened by the reduction factor), rounded once. The
  `mirror` argument of `resize_crop_mirror` flips the wrong axis of a sequence, so `flip` follows it.
Errors. One bad sample fails its whole batch, by a `RuntimeError` that does not say which, and DALI calls
  the pipeline invalid: it is built anew (4 ms on a CPU) and the batch is halved until the bad ones are
  alone. Samples known to be bad beforehand never reach DALI.

DALI's own prefetching is off (queue depth 1): the loader calls `decode` ahead of time in a thread.
"""

import contextlib
import re
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from nvidia.dali import Pipeline, fn, types

from engine.data import nvdec
from engine.data.batch import ClipFormat, DecodedClips, SnippetRequest, Video
from engine.data.geometry import CropWindow, crop_window, snippet_frames
from engine.data.store.index import is_stored

CPU_CODECS = ("vp8", "vp9", "mjpeg")
_READ_THREADS = 4  # reading is soon bound by the disk, decoding wants the cores
_ASSERTION = re.compile(r'Assert on ".*?" failed: ')
_TOO_FEW_FRAMES = re.compile(r"out-of-bounds frame index \d+ .* with (\d+) frames")


def build_clip_pipeline(clip: ClipFormat, device: torch.device, num_threads: int, max_batch_size: int) -> Pipeline:
    """The graph, on either device. Inputs by name, one item a sample; outputs: clips, decoded shapes.

    Inputs: encoded uint8 [bytes]; frames int32 [F], ascending; order int32 [T], index into `frames`;
        size float32 [2], height and width to scale to; top, left float32, position of the crop as a share
        of the room there is; mirror_x, mirror_y int32, 1 to mirror left-right or top-bottom.
    Outputs: uint8 [T, crop, crop, 3] on `device`; int64 [4] on the CPU, (F, H, W, 3) as decoded.
    """
    on_gpu = device.type == "cuda"
    pipeline = Pipeline(
        batch_size=max_batch_size,
        num_threads=num_threads,
        device_id=device.index if on_gpu else None,
        prefetch_queue_depth=1,
    )
    with pipeline:
        encoded = fn.external_source(name="encoded", dtype=types.UINT8, ndim=1)
        frames = fn.external_source(name="frames", dtype=types.INT32, ndim=1)
        order = fn.external_source(name="order", dtype=types.INT32, ndim=1)
        size = fn.external_source(name="size", dtype=types.FLOAT, ndim=1)
        top = fn.external_source(name="top", dtype=types.FLOAT, ndim=0)
        left = fn.external_source(name="left", dtype=types.FLOAT, ndim=0)
        mirror_x = fn.external_source(name="mirror_x", dtype=types.INT32, ndim=0)
        mirror_y = fn.external_source(name="mirror_y", dtype=types.INT32, ndim=0)
        video = fn.decoders.video(
            encoded,
            device="mixed" if on_gpu else "cpu",
            frames=frames,
            pad_mode="none",
            affine=False,  # threads of several ranks would be pinned to the same cores
        )
        clips = fn.resize_crop_mirror(
            video,
            size=size,
            crop=(clip.crop, clip.crop),
            crop_pos_y=top,
            crop_pos_x=left,
            interp_type=types.INTERP_LINEAR,
            antialias=True,
        )
        clips = fn.flip(clips, horizontal=mirror_x, vertical=mirror_y)
        clips = fn.sequence_rearrange(clips, new_order=order)
        pipeline.set_outputs(clips, video.shape(dtype=types.INT64))
    pipeline.build()
    return pipeline


class DaliDecoder:
    """Decodes snippets with DALI; a `VideoDecoder`.

    Args:
        clip: the shape of a snippet.
        device: a cuda device (NVDEC; the clips never leave the GPU) or the CPU (VP8, VP9, MJPEG).
        num_threads: videos decoded at the same time.
        max_batch_size: largest batch of DALI; more requests are decoded in several batches.

    Attributes:
        num_rebuilds: how often the pipeline was built anew after a sample that DALI could not decode.
    """

    name = "dali"

    def __init__(self, clip: ClipFormat, device: torch.device, num_threads: int, max_batch_size: int) -> None:
        on_gpu = device.type == "cuda"
        if on_gpu and device.index is None:
            device = torch.device("cuda", torch.cuda.current_device())
        self.clip, self.device = clip, device
        self.num_threads, self.max_batch_size = num_threads, max_batch_size
        self.num_rebuilds = 0
        self._stream = torch.cuda.Stream(device) if on_gpu else None
        self._readers = ThreadPoolExecutor(min(num_threads, _READ_THREADS), thread_name_prefix="read")
        self._pipeline = build_clip_pipeline(clip, device, num_threads, max_batch_size)

    def decode(self, requests: Sequence[SnippetRequest]) -> DecodedClips:
        """Decode the requests; the frames may be used at once on the caller's current CUDA stream."""
        files = {(request.video.path, request.video.file_bytes): request.video for request in requests}
        contents = dict(zip(files, self._readers.map(self._read, files.values()), strict=True))
        encoded = [contents[request.video.path, request.video.file_bytes] for request in requests]
        failures = {place: data for place, data in enumerate(encoded) if isinstance(data, str)}
        good = [place for place in range(len(requests)) if place not in failures]
        pending = deque(good[i : i + self.max_batch_size] for i in range(0, len(good), self.max_batch_size))
        shape = (len(requests), self.clip.num_frames, self.clip.crop, self.clip.crop, 3)
        # On a stream of its own the copy out of DALI's memory waits for no training step, and DALI may
        # have its memory back as soon as the copy is done.
        with torch.cuda.stream(self._stream) if self._stream else contextlib.nullcontext():
            frames = torch.zeros(shape, dtype=torch.uint8, device=self.device)
            while pending:
                part = pending.popleft()
                failures |= self._decode_part(part, requests, encoded, frames, pending)
        if self._stream:
            self._stream.synchronize()
            frames.record_stream(torch.cuda.current_stream(self.device))
        return DecodedClips(frames, dict(sorted(failures.items())))

    def close(self) -> None:
        """Release DALI's memory and the threads."""
        self._readers.shutdown()
        self._pipeline = None

    def _read(self, video: Video) -> np.ndarray | str:
        """The file's bytes, uint8 [bytes], or why nothing can be decoded from them."""
        if is_stored(video.path):
            return "it lies in a snippet store, which DALI does not read: set data.decoder=pyav"
        if self.device.type == "cpu" and video.codec not in CPU_CODECS:
            return (
                f"DALI decodes no {video.codec} on the CPU (only {', '.join(CPU_CODECS)}): set data.decoder=pyav, "
                "or train on a GPU"
            )
        try:
            data = np.fromfile(video.path, np.uint8)
        except OSError as error:
            return f"the file cannot be read: {error.strerror}"
        if len(data) != video.file_bytes:
            return (
                f"the file has {len(data)} bytes where the manifest says {video.file_bytes}: it changed since it was "
                "indexed, index the data set again"
            )
        if self.device.type == "cuda" and (reason := nvdec.refusal(video, memoryview(data))):
            return reason
        return data

    def _decode_part(
        self,
        part: list[int],
        requests: Sequence[SnippetRequest],
        encoded: Sequence[np.ndarray | str],
        frames: torch.Tensor,
        pending: deque[list[int]],
    ) -> dict[int, str]:
        """Decode the requests at the places `part` into `frames`; halves of what fails go to `pending`."""
        windows = [crop_window(requests[place], self.clip) for place in part]
        inputs = _inputs(windows, [requests[place] for place in part], self.clip)
        try:
            clips, shapes = self._pipeline.run(encoded=[encoded[place] for place in part], **inputs)
        except RuntimeError as error:  # DALI raises it for all that goes wrong while a graph runs
            self.num_rebuilds += 1
            self._pipeline = build_clip_pipeline(self.clip, self.device, self.num_threads, self.max_batch_size)
            if len(part) == 1:
                return {part[0]: _reason(error, requests[part[0]].video)}
            pending.extendleft([part[len(part) // 2 :], part[: len(part) // 2]])
            return {}
        frames[part] = torch.from_dlpack(clips.as_tensor())
        failures = {}
        for place, window, (_, height, width, _) in zip(part, windows, np.array(shapes.as_tensor()), strict=True):
            video = requests[place].video
            if (width, height) != (video.width, video.height):
                says = f"{video.width}x{video.height}"
                failures[place] = f"it is {width}x{height} where the manifest says {says}: index the data set again"
            if window.quarter_turns:
                frames[place] = frames[place].rot90(-window.quarter_turns, dims=(1, 2))
        return failures


def _inputs(
    windows: Sequence[CropWindow], requests: Sequence[SnippetRequest], clip: ClipFormat
) -> dict[str, list[np.ndarray]]:
    """What the graph is fed beside the encoded bytes, one array a sample."""
    frames, orders = [], []
    for request in requests:
        wanted, order = np.unique(snippet_frames(request.video, request.start, clip), return_inverse=True)
        frames.append(wanted.astype(np.int32))
        orders.append(order.astype(np.int32))

    def share(anchor: int, length: int) -> np.ndarray:
        return np.array(anchor / max(length - clip.crop, 1), np.float32)

    # The displayed picture is mirrored left-right, yet it is turned only after the graph: a picture that
    # still lies on its side is mirrored top-bottom.
    sideways = [window.quarter_turns % 2 == 1 for window in windows]
    return {
        "frames": frames,
        "order": orders,
        "size": [np.array([window.height, window.width], np.float32) for window in windows],
        "top": [share(window.top, window.height) for window in windows],
        "left": [share(window.left, window.width) for window in windows],
        "mirror_x": [
            np.array(window.flip and not lies, np.int32) for window, lies in zip(windows, sideways, strict=True)
        ],
        "mirror_y": [np.array(window.flip and lies, np.int32) for window, lies in zip(windows, sideways, strict=True)],
    }


def _reason(error: RuntimeError, video: Video) -> str:
    """What DALI's many lines mean for the one sample that was decoded."""
    message = str(error).rpartition("encountered:")[2].partition("C++ context")[0]
    message = " ".join(_ASSERTION.sub("", message).split())
    if too_few := _TOO_FEW_FRAMES.search(message):
        count = too_few.group(1)
        return f"it has {count} frames where the manifest says {video.file_frames}: index the data set again"
    if "Failed to create video decoder" in message:
        message = "no video stream in it that this DALI knows"
    return f"DALI cannot decode it ({message}); data.decoder=pyav may"
