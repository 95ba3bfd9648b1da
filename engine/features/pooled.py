"""Features of many videos by a pool: some videos a piece, the network loaded once a worker; this process alone writes."""

import dataclasses
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from engine.cluster.pool import LONG_PIECE_S, Pool
from engine.errors import InputError
from engine.features.cache import CachedVideo, Stamp
from engine.features.encoder import Encoder, build_encoder
from engine.features.extraction import Course, Extraction, ExtractionReport, Work, unit_of
from engine.features.reading import TimedVideo
from engine.features.writer import FeatureWriter, Spool
from engine.processes.distributed import choose_device
from engine.processes.process_pool import Lost
from engine.terminal.progress import Progress

# Of a piece: enough to fill the network's batches, few enough to share out evenly.
_MOST_VIDEOS, _MOST_FRAMES = 16, 20_000

Chunk = tuple[tuple[str, TimedVideo], ...]  # videos by the manifest's paths


def encoder_on(model: str, device: str) -> Encoder:
    """The encoder that --model and --device name, in a worker."""
    return build_encoder(model, choose_device(device))


@dataclass(slots=True)
class Gathered:
    """What a `FeatureWriter` is to `Extraction`, in memory: videos with their features [n, D] and spans [n, 2].

    failures: path -> why a video has none; passing: see `Extraction`.
    """

    stamp: Stamp
    videos: list[tuple[CachedVideo, np.ndarray, np.ndarray]] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    passing: set[str] = field(default_factory=set)
    report: ExtractionReport = field(default_factory=ExtractionReport)

    def spool(self) -> Spool:
        """See `FeatureWriter`."""
        return Spool(Path(tempfile.gettempdir()), self.stamp.dtype)

    def add(self, spool: Spool, video: CachedVideo) -> None:
        """See `FeatureWriter`."""
        self.videos.append((video, *spool.read(self.stamp.width)))


class PieceOfFeatures:
    """Features of some videos; called in a worker, which keeps the network.

    Args:
        build: the encoder, importable by name.
        cpus: cores that a worker has.
    """

    def __init__(self, build: Callable[[], Encoder], stamp: Stamp, work: Work, cpus: int) -> None:
        self._build, self._stamp = build, stamp
        self._work = dataclasses.replace(work, num_threads=cpus, in_processes=False)
        self._encoder: Encoder | None = None

    def __call__(self, chunk: Chunk) -> Gathered:
        """What came of them."""
        if self._encoder is None:
            torch.set_num_threads(self._work.num_threads)
            self._encoder = self._build()
        begun = time.process_time()
        gathered = Gathered(dataclasses.replace(self._stamp, digest=self._encoder.digest))
        extraction = Extraction(self._encoder, gathered, self._work)
        extraction.run([path for path, _ in chunk], [video for _, video in chunk], is_shown=False)
        gathered.failures, gathered.passing = extraction.failures, extraction.passing
        gathered.report = extraction.report
        gathered.report.cpu_s = time.process_time() - begun
        return gathered


class PooledExtraction:
    """One pass over videos, by a pool. A piece that crashes is done once more, each of its videos alone."""

    def __init__(self, pool: Pool, build: Callable[[], Encoder], writer: FeatureWriter, work: Work) -> None:
        self._pool, self._writer = pool, writer
        self._piece = PieceOfFeatures(build, writer.stamp, work, pool.cpus)
        self.failures: dict[str, str] = {}
        self.passing: set[str] = set()
        self.report = ExtractionReport()

    def run(self, paths: Sequence[str], videos: Sequence[TimedVideo]) -> None:
        """Extract the features of these files, known by these paths."""
        chunks = list(_chunks(zip(paths, videos, strict=True)))
        grid = self._writer.stamp.grid
        totals = {path: Course(timeline, grid).total for path, (_, timeline) in zip(paths, videos, strict=True)}
        with Progress(sum(totals.values()), unit_of(grid), label="features") as progress:
            while chunks:
                alone: list[Chunk] = []
                for chunk, done in self._pool.run(self._piece, chunks, LONG_PIECE_S):
                    if not isinstance(done, Lost):
                        self._keep(done)
                    elif len(chunk) > 1:
                        alone += [(each,) for each in chunk]
                        continue
                    else:
                        self.failures[chunk[0][0]] = f"it cannot be decoded ({done.text})"
                        self.passing.add(chunk[0][0])
                    progress.advance(len(self.failures), sum(totals[path] for path, _ in chunk))
                chunks = alone

    def _keep(self, done: Gathered) -> None:
        if done.stamp != self._writer.stamp:
            raise InputError("--cluster: a node's model has other weights under the same name: put the same there")
        for video, features, spans in done.videos:
            spool = self._writer.spool()
            try:
                spool.append(features, spans)
                self._writer.add(spool, video)
            finally:
                spool.close()
        self.failures |= done.failures
        self.passing |= done.passing
        for name in ("num_new", "video_s", "decode_s", "cpu_s"):
            setattr(self.report, name, getattr(self.report, name) + getattr(done.report, name))


def _chunks(videos: Iterable[tuple[str, TimedVideo]]) -> Iterator[Chunk]:
    """Neighbours together, of at most so many frames, or a longer video alone."""
    waiting: list[tuple[str, TimedVideo]] = []
    num_frames = 0
    for path, (video, timeline) in videos:
        if waiting and (len(waiting) == _MOST_VIDEOS or num_frames + video.file_frames > _MOST_FRAMES):
            yield tuple(waiting)
            waiting, num_frames = [], 0
        waiting.append((path, (video, timeline)))
        num_frames += video.file_frames
    if waiting:
        yield tuple(waiting)
