"""Videos -> windows -> features, in this process: decoded in threads beside the network.

videos ──▶ windows of several videos ──▶ batches ──▶ encoder ──▶ spools ──▶ whoever keeps finished videos
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from engine.data.batch import Video
from engine.data.pyav.times import Timeline
from engine.features.cache import CachedVideo, Stamp
from engine.features.encoder import Encoder
from engine.features.files import showing
from engine.features.reading import REPEATS, Piece, PieceMaker, TimedVideo, WindowReader
from engine.features.windows import FRAMES, WindowGrid
from engine.features.writer import Spool
from engine.machine import rank_cores
from engine.terminal.progress import Progress


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


class Course:
    """How far the work on a video is, in what most of it goes by: frames where the windows are in frames, else seconds. A frame
    that is held for long counts as so many seconds as windows can show it with another.

    Attributes:
        total: of the whole video.
    """

    def __init__(self, timeline: Timeline, grid: WindowGrid) -> None:
        self._seconds = timeline.seconds
        if grid.unit == FRAMES:
            self._done = np.array(timeline.frames, float)
        else:
            held = np.minimum(np.diff(timeline.seconds), np.diff(timeline.frames) * 2 * grid.length)
            self._done = np.concatenate([[0.0], np.cumsum(held)])
        self.total = math.ceil(self._done[-1])

    def at(self, seconds: float) -> int:
        """How much is done once the windows up to there are."""
        return min(self.total, int(np.interp(seconds, self._seconds, self._done)))


def unit_of(grid: WindowGrid) -> str:
    """What `Course` counts."""
    return "frame" if grid.unit == FRAMES else "second"


@dataclass(slots=True)
class _InHand:
    """A video whose windows are coming in. last: the feature of the last window so far, [1, D]."""

    facts: Video
    timeline: Timeline
    course: Course
    spool: Spool
    last: np.ndarray
    num_told: int = 0  # that the progress knows of


class Extraction:
    """One pass over videos, in this process."""

    def __init__(self, encoder: Encoder, writer: Keeper, work: Work) -> None:
        self._encoder, self._writer, self._work = encoder, writer, work
        self._paths: Sequence[str] = ()
        self._in_hand: dict[int, _InHand] = {}
        self.failures: dict[str, str] = {}
        self.passing: set[str] = set()  # of the failures those that say nothing of the file's contents
        self.report = ExtractionReport()

    def run(self, paths: Sequence[str], videos: Sequence[TimedVideo], *, is_shown: bool = True) -> None:
        """Extract the features of these files, known by these paths."""
        self._paths = paths
        stamp, size = self._writer.stamp, self._work.batch_size
        courses = [Course(timeline, stamp.grid) for _, timeline in videos]
        total, unit = sum(course.total for course in courses), unit_of(stamp.grid)
        maker = PieceMaker(self._encoder.clip, stamp.grid, size)
        threads = self._work.num_threads or rank_cores()
        reading = WindowReader(videos, maker, threads, in_processes=self._work.in_processes)
        try:
            with reading, Progress(total, unit, label="features", is_shown=is_shown) as progress:
                waiting, num_new, num_windows, since = [], 0, 0, time.monotonic()
                for piece in reading:
                    self.report.waited_s += time.monotonic() - since
                    if piece.video not in self._in_hand:
                        last, course = np.zeros((1, stamp.width), stamp.dtype), courses[piece.video]
                        in_hand = _InHand(*videos[piece.video], course, self._writer.spool(), last)
                        self._in_hand[piece.video] = in_hand
                    waiting.append(piece)
                    num_new += len(piece.frames)
                    num_windows += len(piece.spans)
                    if num_new >= size or num_windows >= REPEATS * size:
                        self._take(waiting, progress)
                        waiting, num_new, num_windows = [], 0, 0
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
            elif len(piece.spans):
                of_windows = np.concatenate([video.last, own])[np.cumsum(piece.is_new)]
                video.spool.append(of_windows, piece.spans)
                video.last = of_windows[-1:]
            if piece.failure is not None and path not in self.failures:
                self.failures[path] = piece.failure
                self.passing.update([path] if piece.may_pass else [])
            if piece.duration_s is not None and path not in self.failures:
                self._keep(path, video, piece.duration_s)
            done = video.course.total if piece.is_last else video.course.at(piece.spans[-1, 1])
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
