"""The DALI video decoder: NVDEC on a GPU. The tests run the very same graph on DALI's CPU backend.

    requests ──▶ bytes (threads) ──▶ graph (`graph.py`, run by `batches.py`) ──▶ clips ──▶ turned upright

A raw file is fed whole, a stored video only the GOPs that the snippet touches (`bitstreams.py`).
DALI's own prefetching is off (queue depth 1): the loader calls `decode` ahead of time in a thread.
"""

import functools
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from engine.data import nvdec
from engine.data.batch import ClipFormat, DecodedClips, SnippetRequest, Video, VideoDecoder
from engine.data.dali.batches import BatchRunner, Sample
from engine.data.dali.bitstreams import BitstreamError, load_file, load_gops
from engine.data.dali.graph import build_clip_pipeline, window_inputs
from engine.data.geometry import crop_window, snippet_frames
from engine.data.store.index import is_stored

READ_THREADS = 4  # reading is soon bound by the disk, decoding wants the cores
_ASSERTION = re.compile(r'Assert on ".*?" failed: ')
_TOO_FEW_FRAMES = re.compile(r"out-of-bounds frame index \d+ .* with (\d+) frames")


class DaliDecoder(VideoDecoder):
    """Decodes snippets with DALI.

    Args:
        clip: the shape of a snippet.
        device: a cuda device (NVDEC; the clips never leave the GPU), or the CPU (VP8, VP9 and MJPEG), as the tests have it:
            there some damaged MJPEG files crash DALI 2.4 itself (docs/reliability.md).
        num_threads: videos decoded at the same time.
        max_batch_size: largest batch of DALI; more requests are decoded in several batches.
    """

    name = "dali"

    def __init__(self, clip: ClipFormat, device: torch.device, num_threads: int, max_batch_size: int) -> None:
        device = indexed(device)
        self.clip, self.device, self.num_threads = clip, device, num_threads
        self._readers = ThreadPoolExecutor(min(num_threads, READ_THREADS), thread_name_prefix="read")
        build = functools.partial(build_clip_pipeline, clip, device, num_threads, max_batch_size)
        self._runner = BatchRunner(build, clip, device, max_batch_size, _reason)

    @property
    def num_rebuilds(self) -> int:
        """How often the graph was built anew after a sample that DALI could not decode."""
        return self._runner.num_rebuilds

    def decode(self, requests: Sequence[SnippetRequest]) -> DecodedClips:
        """Decode the requests; the frames may be used at once on the caller's current CUDA stream."""
        return self._runner.decode(requests, self._load)

    def close(self) -> None:
        """Release DALI's memory and the threads."""
        self._readers.shutdown()
        self._runner.close()

    def _load(self, requests: Sequence[SnippetRequest]) -> list[Sample | str]:
        """What the graph is fed for each request, or why nothing can be decoded."""
        videos = [request.video for request in requests]
        files = {v.file: v for v in videos if not is_stored(v.path) and not self._row_refusal(v)}  # read once
        contents = dict(zip(files, self._readers.map(_read, files.values()), strict=True))
        return list(self._readers.map(lambda request: self._sample(request, contents), requests))

    def _sample(self, request: SnippetRequest, contents: Mapping[tuple[object, ...], np.ndarray | str]) -> Sample | str:
        """What the graph is fed, or why nothing can be decoded."""
        video = request.video
        if reason := self._row_refusal(video):
            return reason
        numbers, order = np.unique(snippet_frames(video, request.start, self.clip), return_inverse=True)
        if is_stored(video.path):
            try:
                encoded, frames, size = load_gops(video, numbers.tolist())
            except BitstreamError as error:
                return str(error)
        else:
            encoded, frames = contents[video.file], numbers.astype(np.int32)
            size = (video.width, video.height)
            if isinstance(encoded, str):
                return encoded
            if self.device.type == "cuda" and (reason := nvdec.refusal(video, memoryview(encoded))):
                return reason
        shown = np.array([video.height, video.width], np.float32)
        window = window_inputs(crop_window(request, self.clip), self.clip)
        inputs = {"encoded": encoded, "frames": frames, "order": order.astype(np.int32), "shown": shown, **window}
        return Sample(inputs, size)

    def _row_refusal(self, video: Video) -> str | None:
        reason = nvdec.row_refusal(video) if self.device.type == "cuda" else video.oddity
        return f"DALI is not given it ({reason}): set data.decoder=pyav" if reason else None


def _read(video: Video) -> np.ndarray | str:
    """All bytes of a file, or why there are none."""
    try:
        return load_file(video)
    except BitstreamError as error:
        return str(error)


def indexed(device: torch.device) -> torch.device:
    """The device, a GPU with its number."""
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device


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
