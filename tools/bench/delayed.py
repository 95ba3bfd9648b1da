"""The engine's own reading and decoding behind a store that answers late, beside a step of fixed length: what is measured
of the simulation (`bench.simulation`)."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from unittest import mock

import numpy as np
import torch

from bench.simulation import Cluster, Latency
from engine.data.batch import ClipFormat
from engine.data.config import DataConfig
from engine.data.decoders import build_decoder
from engine.data.indexing.dataset import index_folder
from engine.data.loading.loader import ClipLoader, StreamPlan
from engine.data.manifests.manifest import Manifest
from engine.data.pyav.encode import write_video
from engine.data.store.index import MANIFEST_NAME, StoreSettings
from engine.data.store.ingest import WorkSettings, ingest
from engine.data.store.reader import StoreReader

_SIDE, _FRAMES, _VIDEOS = 64, 32, 64  # of the drawn videos
_CLIP = ClipFormat(num_frames=8, short_side=_SIDE, crop=56)


def drawn_store(folder: Path) -> Manifest:
    """A store of small videos whose decoding takes little beside a read's latency."""
    random, raw = np.random.default_rng(0), folder / "raw" / "drawn"
    raw.mkdir(parents=True)
    for number in range(_VIDEOS):
        texture = np.kron(random.integers(0, 256, (8, 8, 3), np.uint8), np.ones((8, 8, 1), np.uint8))
        write_video(raw / f"{number}.mp4", (np.roll(texture, 2 * frame, 1) for frame in range(_FRAMES)))
    index_folder(folder / "raw", folder / "raw.parquet")
    ingest(Manifest.load(folder / "raw.parquet"), folder / "store", StoreSettings(short_side=_SIDE), WorkSettings())
    return Manifest.load(folder / "store" / MANIFEST_NAME)


def measure(store: Manifest, setting: Cluster, steps: int, seed: int = 0) -> float:
    """Clips/s of one rank with the setting's threads, latency, batch and step, over so many steps after those read ahead."""
    data = DataConfig(prefetch_batches=setting.prefetch)
    decoder = build_decoder("pyav", _CLIP, torch.device("cpu"), setting.in_flight, setting.batch)
    stream = StreamPlan(seed, setting.batch, 0, 1, flip=False)
    with _late(setting.latency, seed):
        loader = ClipLoader(store, np.zeros(len(store), np.int64), decoder, _CLIP, stream, data)
        try:
            for step in range(-setting.prefetch - 2, steps):
                if step == 0:
                    begun = time.perf_counter()
                next(loader)
                time.sleep(setting.step_s)
            return steps * setting.batch / (time.perf_counter() - begun)
        finally:
            loader.close()


@contextmanager
def _late(latency: Latency, seed: int) -> Iterator[None]:
    """Every read of a store waits first."""
    read, random = StoreReader._pread, Random(seed)

    def late(reader: StoreReader, shard: int | None, length: int, offset: int) -> bytes:
        time.sleep(latency.draw(random))
        return read(reader, shard, length, offset)

    with mock.patch.object(StoreReader, "_pread", late):
        yield
