"""Who reads in the benchmark `storage`: the engine's loader over a store, in a process of its own."""

import hashlib
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from engine.data.batch import ClipFormat
from engine.data.config import DataConfig
from engine.data.decoders import build_decoder
from engine.data.loading.ahead import BEGUN
from engine.data.loading.loader import ClipLoader, StreamPlan
from engine.data.manifests.manifest import Manifest
from engine.data.remote.config import RemoteConfig
from engine.data.remote.settings import use
from engine.machine import resident_bytes
from engine.training.garbage import collected_by_hand


@dataclass(frozen=True, slots=True)
class Turn:
    """A timed stretch.

    cpu_s: of all threads of the process. untimed: clips that were taken before.
    """

    clips: int
    seconds: float
    cpu_s: float
    untimed: int = 0


class Reader:
    """Reads the training stream of a store by `threads` decoding threads.

    Args:
        manifest: path or address.
        cache: folder for copies of manifest and index.
        reads: in flight.
        environment: variables to set first.
    """

    def __init__(
        self, manifest: str, cache: str, reads: int, batch: int, threads: int, environment: Mapping[str, str]
    ) -> None:
        os.environ.update(environment)
        use(RemoteConfig(reads_in_flight=reads, cache_folder=cache))
        self._manifest, self._batch, self._threads = Manifest.load(manifest), batch, threads
        self._clip, self._data = ClipFormat(), DataConfig()

    def digest(self, batches: int) -> str:
        """Of frames, classes, videos and starts of the first batches."""
        found = hashlib.blake2b()
        with self._loader() as loader:
            for _ in range(batches):
                batch = next(loader)
                for part in (batch.frames, batch.class_index, batch.video, batch.start):
                    found.update(part.numpy().tobytes())
        return found.hexdigest()

    def turn(self, batches: int) -> Turn:
        """Time so many batches, after those that are read ahead; garbage is collected as in a training, not meanwhile."""
        with collected_by_hand(), self._loader() as loader:
            untimed = self._data.prefetch_batches + BEGUN + 1
            for _ in range(untimed):
                next(loader)
            begun, cpu = time.perf_counter(), time.process_time()
            for _ in range(batches):
                next(loader)
            seconds, cpu_s = time.perf_counter() - begun, time.process_time() - cpu
            return Turn(batches * self._batch, seconds, cpu_s, untimed * self._batch)

    def memory_mb(self, batches: int) -> float:
        """MB resident after so many batches more."""
        with self._loader() as loader:
            for _ in range(batches):
                next(loader)
        return resident_bytes() / 1e6

    @contextmanager
    def _loader(self) -> Iterator[ClipLoader]:
        decoder = build_decoder("pyav", self._clip, torch.device("cpu"), self._threads, self._batch)
        stream = StreamPlan(0, self._batch, 0, 1, flip=True)
        loader = ClipLoader(self._manifest, np.zeros(1, np.int64), decoder, self._clip, stream, self._data)
        try:
            yield loader
            if loader.num_replaced:
                raise ValueError(f"{loader.num_replaced} samples were replaced")
        finally:
            loader.close()
