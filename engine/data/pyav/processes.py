"""The CPU decoder in processes, for more cores than threads of one process can keep busy.

Threads decode at the same time inside FFmpeg, but share Python's lock for what lies around it. Processes share nothing but
the memory that clips are written to; a file that crashes FFmpeg costs its own snippets and nothing else.

    requests ──a few files at a time──▶ processes ──shared memory──▶ clips (on a GPU: one copy, then pinned)
"""

import functools
import itertools
import math
import mmap
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from multiprocessing.connection import wait
from typing import TypeVar

import numpy as np
import torch

from engine.data.batch import ClipFormat, DecodedClips, SnippetRequest, VideoDecoder
from engine.data.loading.buffers import Buffer, BufferPool
from engine.data.loading.transfer import DeviceCopier
from engine.data.pyav.decode import PyAVDecoder, split_into_jobs
from engine.data.remote.ahead import read_ahead
from engine.data.remote.config import RemoteConfig
from engine.data.remote.settings import is_given_up, settings, use
from engine.errors import InputError, SourceGone
from engine.files.addresses import url_of
from engine.processes.process_pool import POLL_S, START_LIMIT_S, Lost, Worker

_PARTS = 2  # times the processes: of what waits, one part is the next share, so that shares shrink and all end together
_LEAST = 8  # requests of a share while more is behind it: nobody need end together, and asking for the next takes time

Job = dict[int, SnippetRequest]  # requests of one file, by their row
Memory = TypeVar("Memory", np.ndarray, torch.Tensor)  # uint8


class ProcessDecoder(VideoDecoder):
    """`PyAVDecoder` in processes. Each has readers of its own; what it is given from object storage it reads at the same time.

    Args:
        clip: the shape every snippet is brought to.
        device: where the clips are wanted.
        num_processes: files decoded at the same time; each holds some 20 MB, and all together 350 MB more.
        max_batch_size: requests decoded at once; more are decoded in several parts.
        time_limit_s: seconds that one snippet may take, without what a store that is away takes.
    """

    name, reads_here = "pyav", False

    def __init__(
        self,
        clip: ClipFormat,
        device: torch.device,
        num_processes: int,
        max_batch_size: int,
        *,
        time_limit_s: float = 60.0,
    ) -> None:
        if num_processes < 1:
            raise ValueError(f"num_processes must be at least 1, not {num_processes}")
        if not hasattr(os, "memfd_create"):
            raise InputError("data.decode_processes needs Linux: leave it off here")
        self._device, self._time_limit_s, self._max_batch_size = torch.device(device), time_limit_s, max_batch_size
        self._copy = DeviceCopier(device)
        self._room = _Room(clip, max_batch_size)
        self._blocks = BufferPool(_Block)
        reads = max(1, settings().reads_in_flight // num_processes)
        self._remote = replace(settings(), reads_in_flight=reads)
        self._is_remote = False  # whether anything was in object storage
        self._serve = _Serve(clip, self._room, time_limit_s, self._remote)
        self._workers: list[Worker | None] = [None] * num_processes
        self._busy: dict[int, tuple[_Part, list[Job]]] = {}  # place of a worker -> what it decodes
        self._open: list[_Part] = []  # not done, oldest first
        self._lock = threading.Lock()  # of these: a thread may submit while another waits

    def submit(self, requests: Sequence[SnippetRequest]) -> Callable[[], DecodedClips]:
        """See `VideoDecoder`."""
        self._is_remote = self._is_remote or any(url_of(request.video.path) for request in requests)
        step, parts = self._max_batch_size, []
        for first in range(0, max(1, len(requests)), step):
            asked = requests[first : first + step]
            jobs = [{row: asked[row] for row in rows} for rows in split_into_jobs(asked, len(self._workers))]
            jobs.sort(key=len, reverse=True)
            parts.append(_Part(first, len(asked), *self._blocks.lend(self._room.num_bytes), deque(jobs)))
        with self._lock:
            self._open += [part for part in parts if not part.is_done]  # of no requests
            self._give()
        return functools.partial(self._wait, parts)

    def close(self) -> None:
        """End the processes."""
        for index, worker in enumerate(self._workers):
            if worker is not None:
                worker.stop()
                self._workers[index] = None
        self._busy.clear()
        self._open.clear()

    def _wait(self, parts: Sequence["_Part"]) -> DecodedClips:
        while not all(part.is_done for part in parts):
            if not self._busy:
                raise RuntimeError("the decoder was closed before it had decoded this batch")
            if self._is_remote and is_given_up():  # the processes do not know it
                raise SourceGone("the videos are not wanted any more")
            ready = wait([self._worker(index).connection for index in tuple(self._busy)], POLL_S)
            with self._lock:
                self._take(ready)
                self._give()
        failures = {part.first + row: reason for part in parts for row, reason in part.failures.items()}
        clips, motion = zip(*(self._room.split(part.memory, part.num_requests) for part in parts), strict=True)
        clips = clips[0] if len(clips) == 1 else torch.cat(clips)
        if self._device.type == "cuda":
            pinned = self._copy.empty(clips.shape, torch.uint8)
            clips = self._copy(pinned.copy_(clips))
        motion = None if motion[0] is None else self._copy(torch.cat(motion))
        return DecodedClips(clips, dict(sorted(failures.items())), motion)

    def _give(self) -> None:
        """Give every idle worker a share of the oldest part that has something left."""
        for index in range(len(self._workers)):
            part = next((part for part in self._open if part.waiting or part.alone), None)
            if part is None:
                return
            if index not in self._busy:
                least = _LEAST if part is not self._open[-1] else 0
                parts = _PARTS * len(self._workers)
                share = [part.alone.pop()] if part.alone else take_share(part.waiting, parts, least)
                part.num_given += 1
                self._busy[index] = (part, share)
                self._worker(index).give((part.block.name, part.block.path, share))

    def _take(self, ready: Sequence[object]) -> None:
        """Note what the workers of these connections have answered, and which have taken too long."""
        for index, answer in self._answers(ready):
            part, given = self._busy.pop(index)
            part.num_given -= 1
            if not isinstance(answer, Lost):
                part.failures |= answer
            elif len(given) == 1 and len(given[0]) == 1:
                part.failures[next(iter(given[0]))] = f"FFmpeg cannot decode it ({answer.text})"
            else:
                part.alone += [{row: request} for job in given for row, request in job.items()]
            if part.is_done:
                self._open.remove(part)

    def _worker(self, index: int) -> Worker:
        worker = self._workers[index]
        if worker is None:
            worker = self._workers[index] = Worker(self._serve)
        return worker

    def _answers(self, ready: Sequence[object]) -> list[tuple[int, dict[int, str] | Lost]]:
        answers = []
        for index, (_, jobs) in self._busy.items():
            worker, limit_s = self._worker(index), self._time_limit_s * sum(map(len, jobs))
            if not worker.has_answered:
                limit_s += START_LIMIT_S
            if self._is_remote:  # it ends by itself when patience does, and an outage may come twice
                limit_s += 2 * self._remote.patience_s
            if worker.connection not in ready and time.monotonic() < worker.since + limit_s:
                continue
            answer = worker.take_within(limit_s)
            if isinstance(answer, Lost):
                worker.stop()
                self._workers[index] = None
            answers.append((index, answer))
        return answers


def take_share(waiting: deque[Job], num_parts: int, least: int = 0) -> list[Job]:
    """Take the next jobs off those that wait: of their requests one part of `num_parts`, but `least` if that is more.

    Jobs are not divided: it may be fewer requests, but always one job.
    """
    room = max(least, sum(map(len, waiting)) // num_parts)
    share = [waiting.popleft()]
    room -= len(share[0])
    while waiting and len(waiting[0]) <= room:
        room -= len(waiting[0])
        share.append(waiting.popleft())
    return share


@dataclass(eq=False, slots=True)
class _Part:
    """Requests that are decoded into one block; a batch is one of these, or several."""

    first: int  # place of its first request in the batch
    num_requests: int
    block: "_Block"
    memory: torch.Tensor  # of the block, which is lent for as long as anybody holds it
    waiting: deque[Job]
    alone: list[Job] = field(default_factory=list)  # of processes that died: whose fault it was shows one by one
    num_given: int = 0  # shares that are being decoded
    failures: dict[int, str] = field(default_factory=dict)  # row -> reason

    @property
    def is_done(self) -> bool:
        return not (self.waiting or self.alone or self.num_given)


@dataclass(frozen=True, slots=True)
class _Room:
    """What lies where in the memory of one batch: the clips, and behind them their motion, if it is wanted."""

    clip: ClipFormat
    max_batch_size: int

    @property
    def num_bytes(self) -> int:
        return self._of_clips + self.max_batch_size * math.prod(self.clip.motion_shape) * self.clip.motion

    def split(self, memory: Memory, count: int | None = None) -> tuple[Memory, Memory | None]:
        """Views of the bytes: clips [count, T, H, W, C] (default: all), and motion [count, T, h, w] or None."""
        clip = self.clip
        clips = memory[: self._of_clips].reshape(-1, clip.num_frames, clip.crop, clip.crop, 3)[:count]
        return clips, memory[self._of_clips :].reshape(-1, *clip.motion_shape)[:count] if clip.motion else None

    @property
    def _of_clips(self) -> int:
        return self.max_batch_size * self.clip.num_frames * self.clip.crop**2 * 3


class _Block(Buffer):
    """Memory for one batch that other processes can map; the system takes it back when nobody does any more."""

    _names = itertools.count()

    def __init__(self, num_bytes: int) -> None:
        self.name = next(self._names)
        self._file = os.memfd_create("clips")
        os.ftruncate(self._file, num_bytes)
        self.path = f"/proc/{os.getpid()}/fd/{self._file}"
        self.memory = _mapped(self._file)

    def __del__(self) -> None:
        os.close(self._file)  # the mapping lives as long as the tensors of it


class _Serve:
    """What a process does: decode files into shared memory. Builds its decoder with the first."""

    def __init__(self, clip: ClipFormat, room: _Room, time_limit_s: float, remote: RemoteConfig) -> None:
        self._clip, self._room, self._time_limit_s, self._remote = clip, room, time_limit_s, remote
        self._decoder: PyAVDecoder | None = None
        self._mapped: dict[int, tuple[np.ndarray, np.ndarray | None]] = {}

    def __call__(self, item: tuple[int, str, list[Job]]) -> dict[int, str]:
        name, path, jobs = item
        if self._decoder is None:
            torch.set_num_threads(1)  # the other cores have processes of their own
            use(self._remote)
            self._decoder = PyAVDecoder(self._clip, torch.device("cpu"), 1, time_limit_s=self._time_limit_s)
        if name not in self._mapped:
            file = os.open(path, os.O_RDWR)
            self._mapped[name] = self._room.split(_mapped(file))
            os.close(file)
        memory, failures = self._mapped[name], {}
        with closing(read_ahead([[request for job in jobs for request in job.values()]], self._clip, 1)) as begun:
            for _ in begun:
                for job in jobs:
                    failures |= self._decoder.decode_file(job, *memory)
        return failures


def _mapped(file: int) -> np.ndarray:
    """The bytes of a file of memory; no copy."""
    return np.frombuffer(mmap.mmap(file, 0), np.uint8)
