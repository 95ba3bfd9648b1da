"""The DALI video decoder: NVDEC on a GPU, and the very same graph on DALI's CPU backend.

    requests ──▶ bytes (threads) ──▶ graph (`graph.py`) ──▶ clips ──▶ turned upright

A raw file is fed whole, a stored video only the groups that the snippet touches (`bitstreams.py`).

Errors. One bad sample fails its whole batch, by a `RuntimeError` that does not say which, and DALI calls
  the pipeline invalid: it is built anew (4 ms on a CPU) and the batch is halved until the bad ones are
  alone. Samples known to be bad beforehand never reach DALI.
Memory. A whole batch with nothing left to do is handed out in DALI's own memory (`memory.py`); others are put together
  in a tensor of their own.

DALI's own prefetching is off (queue depth 1): the loader calls `decode` ahead of time in a thread.
"""

import contextlib
import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from nvidia.dali.tensors import TensorListCPU, TensorListGPU

from engine.data import nvdec
from engine.data.batch import ClipFormat, DecodedClips, SnippetRequest, Video
from engine.data.dali.bitstreams import BitstreamError, load_file, load_groups
from engine.data.dali.graph import build_clip_pipeline, window_inputs
from engine.data.dali.memory import OutputLender
from engine.data.geometry import crop_window, snippet_frames
from engine.data.store.index import is_stored

CPU_CODECS = ("vp8", "vp9", "mjpeg")
_READ_THREADS = 4  # reading is soon bound by the disk, decoding wants the cores
_ASSERTION = re.compile(r'Assert on ".*?" failed: ')
_TOO_FEW_FRAMES = re.compile(r"out-of-bounds frame index \d+ .* with (\d+) frames")


@dataclass(frozen=True, slots=True)
class _Sample:
    """What the graph is fed for one snippet.

    encoded: uint8 [bytes]. frames: int32 [F], ascending, pictures of `encoded`. order: int32 [T], index into `frames`.
    """

    encoded: np.ndarray
    frames: np.ndarray
    order: np.ndarray


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
        self._lender = OutputLender(device)
        self._readers = ThreadPoolExecutor(min(num_threads, _READ_THREADS), thread_name_prefix="read")
        self._pipeline = build_clip_pipeline(clip, device, num_threads, max_batch_size)

    def decode(self, requests: Sequence[SnippetRequest]) -> DecodedClips:
        """Decode the requests; the frames may be used at once on the caller's current CUDA stream."""
        self._lender.collect()
        samples = self._load(requests)
        failures = {place: reason for place, reason in enumerate(samples) if isinstance(reason, str)}
        upright = not any(request.video.rotation for request in requests)
        user = torch.cuda.current_stream(self.device) if self._stream else None
        frames = None
        # On a stream of its own the copy out of DALI's memory waits for no training step.
        with torch.cuda.stream(self._stream) if self._stream else contextlib.nullcontext():
            for part, clips in self._decode_parts(requests, samples, failures):
                if len(part) == len(requests) and upright:
                    return DecodedClips(self._lender.lend(clips, user), dict(sorted(failures.items())))
                frames = self._no_frames(len(requests)) if frames is None else frames
                frames[part] = torch.from_dlpack(clips.as_tensor())
                for place in part:
                    if turns := requests[place].video.rotation // 90 % 4:
                        frames[place] = frames[place].rot90(-turns, dims=(1, 2))
            frames = self._no_frames(len(requests)) if frames is None else frames
        if self._stream:
            self._stream.synchronize()
            frames.record_stream(user)
        return DecodedClips(frames, dict(sorted(failures.items())))

    def close(self) -> None:
        """Release DALI's memory and the threads."""
        self._readers.shutdown()
        self._pipeline = None

    def _no_frames(self, count: int) -> torch.Tensor:
        shape = (count, self.clip.num_frames, self.clip.crop, self.clip.crop, 3)
        return torch.zeros(shape, dtype=torch.uint8, device=self.device)

    def _decode_parts(
        self, requests: Sequence[SnippetRequest], samples: Sequence[_Sample | str], failures: dict[int, str]
    ) -> Iterator[tuple[list[int], TensorListCPU | TensorListGPU]]:
        """Places of requests and their clips, all together where possible; what fails is added to `failures`."""
        good = [place for place in range(len(requests)) if place not in failures]
        if len(good) > self.max_batch_size:  # equal sizes together: NVDEC keeps a session for each
            good.sort(key=lambda place: (requests[place].video.width, requests[place].video.height))
        pending = deque(good[i : i + self.max_batch_size] for i in range(0, len(good), self.max_batch_size))
        while pending:
            part = pending.popleft()
            try:
                clips, wrong = self._run(part, requests, samples)
            except RuntimeError as error:  # DALI raises it for all that goes wrong while a graph runs
                self.num_rebuilds += 1
                self._pipeline = build_clip_pipeline(self.clip, self.device, self.num_threads, self.max_batch_size)
                if len(part) == 1:
                    failures[part[0]] = _reason(error, requests[part[0]].video)
                else:
                    pending.extendleft([part[len(part) // 2 :], part[: len(part) // 2]])
                continue
            failures |= wrong
            yield part, clips

    def _load(self, requests: Sequence[SnippetRequest]) -> list[_Sample | str]:
        """What is fed for each request, or why nothing can be decoded."""
        videos = (request.video for request in requests if not is_stored(request.video.path))
        files = {(video.path, video.file_bytes): video for video in videos}  # read once in a batch
        contents = dict(zip(files, self._readers.map(self._read, files.values()), strict=True))
        return list(self._readers.map(lambda request: self._sample(request, contents), requests))

    def _read(self, video: Video) -> np.ndarray | str:
        if reason := self._codec_refusal(video):
            return reason
        try:
            data = load_file(video)
        except BitstreamError as error:
            return str(error)
        if self.device.type == "cuda" and (reason := nvdec.refusal(video, memoryview(data))):
            return reason
        return data

    def _sample(
        self, request: SnippetRequest, contents: Mapping[tuple[object, int], np.ndarray | str]
    ) -> _Sample | str:
        video = request.video
        numbers, order = np.unique(snippet_frames(video, request.start, self.clip), return_inverse=True)
        if not is_stored(video.path):
            data = contents[video.path, video.file_bytes]
            return data if isinstance(data, str) else _Sample(data, numbers.astype(np.int32), order.astype(np.int32))
        if reason := self._codec_refusal(video):
            return reason
        try:
            return _Sample(*load_groups(video, numbers.tolist()), order.astype(np.int32))
        except BitstreamError as error:
            return str(error)

    def _codec_refusal(self, video: Video) -> str | None:
        if self.device.type == "cuda":
            return nvdec.codec_refusal(video)
        if video.codec in CPU_CODECS:
            return None
        return (
            f"DALI decodes no {video.codec} on the CPU (only {', '.join(CPU_CODECS)}): set data.decoder=pyav, "
            "or train on a GPU"
        )

    def _run(
        self, part: Sequence[int], requests: Sequence[SnippetRequest], samples: Sequence[_Sample | str]
    ) -> tuple[TensorListCPU | TensorListGPU, dict[int, str]]:
        """The clips of the requests at the places `part`, not yet turned, and what is wrong with which of them."""
        windows = [crop_window(requests[place], self.clip) for place in part]
        fed = [samples[place] for place in part]
        clips, shapes = self._pipeline.run(
            encoded=[sample.encoded for sample in fed],
            frames=[sample.frames for sample in fed],
            order=[sample.order for sample in fed],
            **window_inputs(windows, self.clip),
        )
        wrong = {}
        for place, (_, height, width, _) in zip(part, np.array(shapes.as_tensor()), strict=True):
            video = requests[place].video
            if (width, height) != (video.width, video.height):
                says = f"{video.width}x{video.height}"
                wrong[place] = f"it is {width}x{height} where the manifest says {says}: index the data set again"
        return clips, wrong


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
