"""Videos -> windows -> features, in this process: decoded in threads beside the network.

videos ──▶ windows of several videos ──▶ batches ──▶ encoder ──▶ spools ──▶ whoever keeps finished videos
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from engine.data.batch import Video
from engine.data.progress import Progress
from engine.data.pyav.times import Timeline
from engine.features.cache import CachedVideo, Stamp
from engine.features.encoder import Encoder
from engine.features.files import showing
from engine.features.reading import Piece, PieceMaker, TimedVideo, WindowReader
from engine.features.writer import Spool
from engine.machine import rank_cores


@dataclass(frozen=True, slots=True)
class Work:
    """How the work is done.

    batch_size: windows in one pass of the network. num_threads: videos decoded at the same time; 0: one a core.
    in_processes: by as many processes. dtype: of the features as kept.
    """

    batch_size: int = 32
    num_threads: int = 0
    in_processes: bool = False
    dtype: str = "float16"


@dataclass(slots=True)
class ExtractionReport:
    """What came of it; kept as JSON beside the features.

    num_videos, num_windows: in the cache. num_new: videos that were extracted now; num_dropped: that are gone.
    video_s: how long the new videos play. seconds: that it took; waited_s: of these the network waited for frames.
    cpu_s: of computing by all threads; decode_s: by those that decode.
    files: path and reason of each video without features.
    """

    num_videos: int = 0
    num_windows: int = 0
    num_new: int = 0
    num_dropped: int = 0
    video_s: float = 0.0
    seconds: float = 0.0
    waited_s: float = 0.0
    cpu_s: float = 0.0
    decode_s: float = 0.0
    files: list[dict[str, str]] = field(default_factory=list)

    @property
    def decode_share(self) -> float:
        """Of decoding in all that the processor's cores did."""
        return self.decode_s / max(self.cpu_s, 1e-9)


class Keeper(Protocol):
    """Who keeps the features of finished videos: a `FeatureWriter`, or what gathers them for one."""

    stamp: Stamp

    def spool(self) -> Spool:
        """Where the windows of a video go until it is done."""
        ...

    def add(self, spool: Spool, video: CachedVideo) -> None:
        """Keep a finished video."""
        ...


@dataclass(slots=True)
class _InHand:
    """A video whose windows are coming in."""

    facts: Video
    timeline: Timeline
    spool: Spool
    num_told: int = 0  # frames that the progress knows of


class Extraction:
    """One pass over videos, in this process."""

    def __init__(self, encoder: Encoder, writer: Keeper, work: Work) -> None:
        self._encoder, self._writer, self._work = encoder, writer, work
        self._paths: Sequence[str] = ()
        self._in_hand: dict[int, _InHand] = {}
        self.failures: dict[str, str] = {}
        self.report = ExtractionReport()

    def run(self, paths: Sequence[str], videos: Sequence[TimedVideo], *, is_shown: bool = True) -> None:
        """Extract the features of these files, known by these paths."""
        self._paths = paths
        num_frames = sum(video.file_frames for video, _ in videos)
        maker = PieceMaker(self._encoder.clip, self._writer.stamp.grid, self._work.batch_size)
        threads = self._work.num_threads or rank_cores()
        reading = WindowReader(videos, maker, threads, in_processes=self._work.in_processes)
        try:
            with reading, Progress(num_frames, "frame", label="features", is_shown=is_shown) as progress:
                waiting, num_windows, since = [], 0, time.monotonic()
                for piece in reading:
                    self.report.waited_s += time.monotonic() - since
                    if piece.video not in self._in_hand:
                        self._in_hand[piece.video] = _InHand(*videos[piece.video], self._writer.spool())
                    waiting.append(piece)
                    num_windows += len(piece.frames)
                    if num_windows >= self._work.batch_size:
                        self._take(waiting, progress)
                        waiting, num_windows = [], 0
                    since = time.monotonic()
                self._take(waiting, progress)
        finally:
            for video in self._in_hand.values():
                video.spool.close()

    def _take(self, pieces: Sequence[Piece], progress: Progress) -> None:
        """Compute the features of some pieces and put them where they belong, in order."""
        features = self._features([piece for piece in pieces if len(piece.frames)])
        for piece in pieces:
            self.report.decode_s += piece.decode_s
            own, features = features[: len(piece.frames)], features[len(piece.frames) :]
            path, video = self._paths[piece.video], self._in_hand[piece.video]
            if not np.isfinite(own).all():
                self.failures.setdefault(path, f"the model's features of it are not finite as {own.dtype}")
            elif len(own):
                video.spool.append(own, piece.spans)
            if piece.failure is not None:
                self.failures.setdefault(path, piece.failure)
            if piece.duration_s is not None and path not in self.failures:
                self._keep(path, video, piece.duration_s)
            is_last = piece.duration_s is not None or piece.failure is not None
            done = (
                video.facts.file_frames
                if is_last
                else min(
                    video.facts.file_frames,
                    int(np.interp(piece.spans[-1, 1], video.timeline.seconds, video.timeline.frames)),
                )
            )
            progress.advance(len(self.failures), max(0, done - video.num_told))
            video.num_told = max(done, video.num_told)
            if piece.is_last:
                self._in_hand.pop(piece.video).spool.close()

    def _features(self, pieces: Sequence[Piece]) -> np.ndarray:
        """Clips -> features [n, D], as they are kept."""
        size = self._work.batch_size
        names = ("frames", "motion") if self._encoder.clip.motion else ("frames",)
        given = [np.concatenate([getattr(piece, name) for piece in pieces]) for name in names] if pieces else [()]
        parts = [
            self._encoder(*(column[first : first + size] for column in given)).cpu().numpy()
            for first in range(0, len(given[0]), size)
        ]
        with np.errstate(over="ignore"):
            return np.concatenate(parts).astype(self._work.dtype) if parts else np.empty((0, self._encoder.width))

    def _keep(self, path: str, video: _InHand, duration_s: float) -> None:
        facts = video.facts
        file = (facts.file_bytes, facts.mtime_ns, facts.content_hash, facts.file_frames)
        shown = showing(video.timeline, facts.rotation)
        self._writer.add(video.spool, CachedVideo(path, 0, 0, duration_s, *file, shown))
        self.report.num_new += 1
        self.report.video_s += duration_s
