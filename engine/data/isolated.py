"""A decoder in a process of its own: native code that crashes or hangs on a damaged file costs one sample, not the run.

    requests ──pipe──▶ process with the decoder ──shared memory──▶ frames
                       └ dies or hangs: a new one; the batch is halved until the bad sample is alone

For decoders on the CPU; frames on a GPU are not handed between processes.
"""

import ctypes
import math
import multiprocessing
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from engine.data.batch import ClipFormat, DecodedClips, SnippetRequest, VideoDecoder
from engine.data.process_pool import START_LIMIT_S, Lost, Worker


class IsolatedDecoder(VideoDecoder):
    """Another decoder, in a process of its own.

    Args:
        name: of the decoder.
        build: makes it; importable by name, as it is called in the other process.
        clip: the shape of a snippet.
        max_batch_size: requests decoded at once; more are decoded in several parts.
        time_limit_s: seconds for one snippet.

    Attributes:
        num_crashes: how often the process was replaced.
    """

    device = torch.device("cpu")

    def __init__(
        self,
        name: str,
        build: Callable[[], VideoDecoder],
        clip: ClipFormat,
        max_batch_size: int,
        time_limit_s: float = 60.0,
    ) -> None:
        self.name, self.num_crashes = name, 0
        self._max_batch_size, self._time_limit_s = max_batch_size, time_limit_s
        self._shape = (clip.num_frames, clip.crop, clip.crop, 3)
        num_bytes = max_batch_size * math.prod(self._shape)
        shared = multiprocessing.get_context("spawn").RawArray(ctypes.c_uint8, num_bytes)
        self._frames = torch.from_numpy(_as_frames(shared, self._shape))
        self._serve = _Serve(build, shared, self._shape)
        self._worker: Worker | None = None

    def decode(self, requests: Sequence[SnippetRequest]) -> DecodedClips:
        """Decode all requests; a file that kills the decoder is a failure with its reason."""
        frames = torch.zeros((len(requests), *self._shape), dtype=torch.uint8)
        failures: dict[int, str] = {}
        step = self._max_batch_size
        pending = deque(list(range(i, min(i + step, len(requests)))) for i in range(0, len(requests), step))
        while pending:
            part = pending.popleft()
            answer = self._ask([requests[place] for place in part])
            if not isinstance(answer, Lost):
                frames[part] = self._frames[: len(part)]
                failures |= {part[place]: reason for place, reason in answer.items()}
            elif len(part) == 1:
                failures[part[0]] = f"{self.name} cannot decode it ({answer.text}); data.decoder=pyav may"
            else:
                pending.extendleft([part[len(part) // 2 :], part[: len(part) // 2]])
        return DecodedClips(frames, dict(sorted(failures.items())))

    def close(self) -> None:
        """End the process."""
        if self._worker is not None:
            self._worker.stop()
            self._worker = None

    def _ask(self, requests: list[SnippetRequest]) -> dict[int, str] | Lost:
        limit_s = self._time_limit_s * len(requests)
        if self._worker is None:
            self._worker = Worker(self._serve)
            limit_s += START_LIMIT_S
        self._worker.give(requests)
        answer = self._worker.take_within(limit_s)
        if isinstance(answer, Lost):
            self.close()
            self.num_crashes += 1
        return answer


class _Serve:
    """What the other process does: decode into the shared memory. Builds its decoder with the first requests."""

    def __init__(self, build: Callable[[], VideoDecoder], shared: Any, shape: tuple[int, ...]) -> None:
        self._build, self._shared, self._shape = build, shared, shape
        self._decoder: VideoDecoder | None = None

    def __call__(self, requests: list[SnippetRequest]) -> dict[int, str]:
        if self._decoder is None:
            self._decoder = self._build()
        decoded = self._decoder.decode(requests)
        _as_frames(self._shared, self._shape)[: len(requests)] = decoded.frames.numpy()
        return decoded.failures


def _as_frames(shared: Any, shape: tuple[int, ...]) -> np.ndarray:
    """The shared bytes as uint8 [N, T, H, W, C]; no copy."""
    return np.frombuffer(shared, np.uint8).reshape(-1, *shape)
