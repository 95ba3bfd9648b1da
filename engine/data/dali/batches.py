"""Runs a DALI graph over the requests of a batch: sets aside what DALI cannot decode, hands out what it can.

Errors. One bad sample fails its whole batch, by a `RuntimeError` that does not say which, and DALI calls
  the pipeline invalid: it is built anew (4 ms on a CPU) and the batch is halved until the bad ones are
  alone. Samples known to be bad beforehand never reach DALI.
Memory. A part of a batch holds so many samples, and so many bytes, as may be in memory at once; what it is fed is read when
  its turn comes. A whole batch with nothing left to do is handed out in DALI's own memory (`memory.py`); others are put together
  in a tensor of their own.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from nvidia.dali import Pipeline
from nvidia.dali.tensors import TensorListCPU, TensorListGPU

from engine.data.batch import ClipFormat, DecodedClips, SnippetRequest, Video
from engine.data.dali.memory import OutputLender
from engine.data.loading.transfer import on_stream
from engine.data.store.index import is_stored

PART_BYTES = 2 << 30  # of the samples that are decoded at once
_FRAMES_HELD = 8  # of a decoder, beside those it gives out
# Pipelines of a process share DALI's pool of memory, each with a CUDA stream of its own. A video decoder gives its frames back
# to the pool while their last copies are still queued on its stream (read in DALI's source, video_decoder_base.h and
# frames_decoder_gpu.cc): another pipeline could write over them. So only one runs at a time; all is done when `run` returns.
_ONE_AT_A_TIME = threading.Lock()


@dataclass(frozen=True, slots=True)
class Sample:
    """The graph's inputs by name, for one request, and the (width, height) that must come out of decoding."""

    inputs: dict[str, np.ndarray]
    decoded_size: tuple[int, int]


Load = Callable[[Sequence[SnippetRequest]], Sequence[Sample | str]]


def held_bytes(video: Video, num_frames_coded: int) -> int:
    """About what decoding a sample holds: what it is fed, the decoder's own frames and those it gives out, as RGB."""
    fed = 0 if is_stored(video.path) else video.file_bytes
    return fed + 3 * video.width * video.height * (num_frames_coded + (0 if video.is_still else _FRAMES_HELD))


def split_parts(costs: Sequence[int], max_count: int, max_bytes: int) -> list[list[int]]:
    """Indices of the samples in order, in parts of at most so many, and of at most so many bytes unless one alone is more."""
    parts: list[list[int]] = []
    room = 0
    for index, cost in enumerate(costs):
        if not parts or len(parts[-1]) == max_count or cost > room:
            parts.append([])
            room = max_bytes
        parts[-1].append(index)
        room -= cost
    return parts


class BatchRunner:
    """A graph, and what it takes to live with it.

    Args:
        build: makes the graph; its outputs are clips uint8 [T, crop, crop, 3], not yet turned, and the shape
            (..., height, width, channels) in which each sample was decoded.
        clip: the shape of a snippet.
        device: where the clips are; a cuda device has an index.
        max_batch_size: largest batch of the graph; more requests are decoded in several.
        explain: what DALI's error means for the video that caused it.
        of_stills: a sample is one frame, and not the frames of a clip.

    Attributes:
        num_rebuilds: how often the graph was built anew after a sample that DALI could not decode.
    """

    def __init__(
        self,
        build: Callable[[], Pipeline],
        clip: ClipFormat,
        device: torch.device,
        max_batch_size: int,
        explain: Callable[[RuntimeError, Video], str],
        *,
        of_stills: bool = False,
    ) -> None:
        self._of_stills = of_stills
        self._build, self._explain, self._clip, self._device = build, explain, clip, device
        self._max_batch_size = max_batch_size
        self.num_rebuilds = 0
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._lender = OutputLender(device)
        self._pipeline: Pipeline | None = None  # built when there is something to decode

    def decode(self, requests: Sequence[SnippetRequest], load: Load) -> DecodedClips:
        """Clips of requests from their samples, or failures where a sample is the reason why there is none.

        Args:
            load: reads the samples of requests, or why there is none; asked for a part of the batch at a time.

        The frames may be used at once on the caller's current CUDA stream.
        """
        self._lender.collect()
        failures: dict[int, str] = {}
        upright = not any(request.video.rotation for request in requests)
        user = torch.cuda.current_stream(self._device) if self._stream else None
        frames, held = None, []  # DALI's memory is its own again once nobody holds it, whatever torch has queued on it
        # On a stream of its own the copy out of DALI's memory waits for no training step.
        with on_stream(self._stream):
            for part, clips in self._decode_parts(requests, load, failures):
                if len(part) == len(requests) and upright:
                    return DecodedClips(self._lender.lend(clips, user), dict(sorted(failures.items())))
                frames = self._no_frames(len(requests)) if frames is None else frames
                held.append(clips)
                frames[part] = torch.from_dlpack(clips.as_tensor())
                for index in part:
                    if turns := requests[index].video.rotation // 90 % 4:
                        frames[index] = frames[index].rot90(-turns, dims=(1, 2))
            frames = self._no_frames(len(requests)) if frames is None else frames
        if self._stream:
            self._stream.synchronize()
            frames.record_stream(user)
        return DecodedClips(frames, dict(sorted(failures.items())))

    def close(self) -> None:
        """Release DALI's memory."""
        with _ONE_AT_A_TIME:
            self._pipeline = None

    def _no_frames(self, count: int) -> torch.Tensor:
        shape = (count, self._clip.num_frames, self._clip.crop, self._clip.crop, 3)
        return torch.zeros(shape, dtype=torch.uint8, device=self._device)

    def _decode_parts(
        self, requests: Sequence[SnippetRequest], load: Load, failures: dict[int, str]
    ) -> Iterator[tuple[list[int], TensorListCPU | TensorListGPU]]:
        """Indices of requests and their clips, all together where possible; what fails is added to `failures`."""
        num_frames_coded = 1 if self._of_stills else self._clip.num_frames
        costs = [held_bytes(request.video, num_frames_coded) for request in requests]
        order = list(range(len(requests)))
        if len(order) > self._max_batch_size or sum(costs) > PART_BYTES:
            # Equal sizes together: NVDEC keeps a session for each. Equal files together: they are read once.
            order.sort(key=lambda index: _size_and_path(requests[index].video))
        parts = split_parts([costs[index] for index in order], self._max_batch_size, PART_BYTES)
        for part in ([order[number] for number in numbers] for numbers in parts):
            samples = dict(zip(part, load([requests[index] for index in part]), strict=True))
            failures |= {index: reason for index, reason in samples.items() if isinstance(reason, str)}
            yield from self._decode_loaded(requests, samples, failures)

    def _decode_loaded(
        self, requests: Sequence[SnippetRequest], samples: dict[int, Sample | str], failures: dict[int, str]
    ) -> Iterator[tuple[list[int], TensorListCPU | TensorListGPU]]:
        """The same for a part of them, in halves as long as a sample among them fails."""
        good = [index for index in samples if index not in failures]
        pending = deque([good] if good else [])
        while pending:
            part = pending.popleft()
            fed = {name: [samples[index].inputs[name] for index in part] for name in samples[part[0]].inputs}
            try:
                clips, shapes = self._run(fed)
            except RuntimeError as error:  # DALI raises it for all that goes wrong while a graph runs
                self.num_rebuilds += 1
                self.close()
                if len(part) == 1:
                    failures[part[0]] = self._explain(error, requests[part[0]].video)
                else:
                    pending.extendleft([part[len(part) // 2 :], part[: len(part) // 2]])
                continue
            for index, (height, width, _) in zip(part, np.array(shapes.as_tensor())[:, -3:], strict=True):
                expected = samples[index].decoded_size
                if (width, height) != expected:
                    says = "x".join(map(str, expected))
                    failures[index] = f"it is {width}x{height} where the manifest says {says}: index the data set again"
            yield part, clips

    def _run(self, fed: dict[str, list[np.ndarray]]) -> tuple[TensorListCPU | TensorListGPU, TensorListCPU]:
        """Clips and decoded shapes, complete."""
        with _ONE_AT_A_TIME:
            self._pipeline = self._pipeline or self._build()
            return self._pipeline.run(**fed)


def _size_and_path(video: Video) -> tuple[int, int, str]:
    return video.width, video.height, str(video.path)
