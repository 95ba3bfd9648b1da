"""Runs a DALI graph over the requests of a batch: sets aside what DALI cannot decode, hands out what it can.

Errors. One bad sample fails its whole batch, by a `RuntimeError` that does not say which, and DALI calls
  the pipeline invalid: it is built anew (4 ms on a CPU) and the batch is halved until the bad ones are
  alone. Samples known to be bad beforehand never reach DALI.
Memory. A whole batch with nothing left to do is handed out in DALI's own memory (`memory.py`); others are put together
  in a tensor of their own.
"""

import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from nvidia.dali import Pipeline
from nvidia.dali.tensors import TensorListCPU, TensorListGPU

from engine.data.batch import ClipFormat, DecodedClips, SnippetRequest, Video
from engine.data.dali.memory import OutputLender


@dataclass(frozen=True, slots=True)
class Sample:
    """The graph's inputs by name, for one request, and the (width, height) that must come out of decoding."""

    inputs: dict[str, np.ndarray]
    decoded_size: tuple[int, int]


class BatchRunner:
    """A graph, and what it takes to live with it.

    Args:
        build: makes the graph; its outputs are clips uint8 [T, crop, crop, 3], not yet turned, and the shape
            (..., height, width, channels) in which each sample was decoded.
        clip: the shape of a snippet.
        device: where the clips are; a cuda device has an index.
        max_batch_size: largest batch of the graph; more requests are decoded in several.
        explain: what DALI's error means for the video that caused it.

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
    ) -> None:
        self._build, self._explain, self._clip, self._device = build, explain, clip, device
        self._max_batch_size = max_batch_size
        self.num_rebuilds = 0
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._lender = OutputLender(device)
        self._pipeline: Pipeline | None = None  # built when there is something to decode

    def decode(self, requests: Sequence[SnippetRequest], samples: Sequence[Sample | str]) -> DecodedClips:
        """Clips of requests from their samples, or failures where a sample is the reason why there is none.

        The frames may be used at once on the caller's current CUDA stream.
        """
        self._lender.collect()
        failures = {place: reason for place, reason in enumerate(samples) if isinstance(reason, str)}
        upright = not any(request.video.rotation for request in requests)
        user = torch.cuda.current_stream(self._device) if self._stream else None
        frames, held = None, []  # DALI's memory is its own again once nobody holds it, whatever torch has queued on it
        # On a stream of its own the copy out of DALI's memory waits for no training step.
        with torch.cuda.stream(self._stream) if self._stream else contextlib.nullcontext():
            for part, clips in self._decode_parts(requests, samples, failures):
                if len(part) == len(requests) and upright:
                    return DecodedClips(self._lender.lend(clips, user), dict(sorted(failures.items())))
                frames = self._no_frames(len(requests)) if frames is None else frames
                held.append(clips)
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
        """Release DALI's memory."""
        self._pipeline = None

    def _no_frames(self, count: int) -> torch.Tensor:
        shape = (count, self._clip.num_frames, self._clip.crop, self._clip.crop, 3)
        return torch.zeros(shape, dtype=torch.uint8, device=self._device)

    def _decode_parts(
        self, requests: Sequence[SnippetRequest], samples: Sequence[Sample | str], failures: dict[int, str]
    ) -> Iterator[tuple[list[int], TensorListCPU | TensorListGPU]]:
        """Places of requests and their clips, all together where possible; what fails is added to `failures`."""
        good = [place for place in range(len(requests)) if place not in failures]
        if len(good) > self._max_batch_size:  # equal sizes together: NVDEC keeps a session for each
            good.sort(key=lambda place: (requests[place].video.width, requests[place].video.height))
        pending = deque(good[i : i + self._max_batch_size] for i in range(0, len(good), self._max_batch_size))
        while pending:
            part = pending.popleft()
            self._pipeline = self._pipeline or self._build()
            fed = {name: [samples[place].inputs[name] for place in part] for name in samples[part[0]].inputs}
            try:
                clips, shapes = self._pipeline.run(**fed)
            except RuntimeError as error:  # DALI raises it for all that goes wrong while a graph runs
                self.num_rebuilds += 1
                self._pipeline = None
                if len(part) == 1:
                    failures[part[0]] = self._explain(error, requests[part[0]].video)
                else:
                    pending.extendleft([part[len(part) // 2 :], part[: len(part) // 2]])
                continue
            for place, (height, width, _) in zip(part, np.array(shapes.as_tensor())[:, -3:], strict=True):
                expected = samples[place].decoded_size
                if (width, height) != expected:
                    says = "x".join(map(str, expected))
                    failures[place] = f"it is {width}x{height} where the manifest says {says}: index the data set again"
            yield part, clips
