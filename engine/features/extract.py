"""From a manifest and an encoder to a feature cache: every video decoded once, in threads, beside the network.

manifest ──▶ files ──▶ features there already, of the same file? ──▶ journal ──▶ videos.parquet, report.json
                └──▶ windows of several videos ──▶ batches ──▶ encoder ──▶ spools ──▶ arrays ──▲
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from engine.data.batch import Video
from engine.data.decoders import refuse_motionless
from engine.data.identity import change_since_index
from engine.data.manifest import Manifest
from engine.data.progress import Progress, say, write_report
from engine.data.pyav.times import Timeline
from engine.data.store.index import is_stored
from engine.errors import InputError
from engine.features.cache import CachedVideo, Identity, Stamp, identities, videos_digest
from engine.features.encoder import Encoder
from engine.features.reading import Piece, PieceMaker, WindowReader, timed_videos
from engine.features.windows import WindowGrid
from engine.features.writer import FeatureWriter, Spool
from engine.machine import rank_cores

REPORT_NAME = "report.json"


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


def extract(
    manifest: Manifest, encoder: Encoder, folder: Path, grid: WindowGrid, work: Work | None = None
) -> ExtractionReport:
    """Bring the features of all video files of a manifest into the cache in `folder`, and drop those of others.

    What was finished before a kill, or in an earlier run, is kept where the file is the same. A labelled segment has no
    features of its own: its file is decoded once, whole (`FeatureCache.means` finds a segment's windows).

    Raises:
        InputError: no video can be used, the folder cannot be written, or it has features of another kind; the encoder asks for
            motion that videos have not.
    """
    if encoder.clip.motion:
        refuse_motionless([manifest])
    work, begun, computed_s = work or Work(), time.monotonic(), time.process_time()
    wanted = identities(manifest)
    stamp = Stamp(encoder.name, encoder.digest, encoder.width, encoder.normalised, grid, work.dtype)
    with FeatureWriter(folder, stamp) as writer:
        pending = [path for path in wanted if not _is_kept(writer, manifest.root, path, wanted[path])]
        if len(pending) < len(wanted):
            say(f"{len(wanted) - len(pending)} of {len(wanted)} videos have their features already")
        gone = [path for path in writer.records if path not in wanted]
        extraction = _Extraction(manifest, encoder, writer, work)
        extraction.run(pending)
        report = extraction.report
        failures = {path: extraction.failures[path] for path in wanted if path in extraction.failures}
        report.num_dropped, report.seconds = len(gone), time.monotonic() - begun
        report.cpu_s = time.process_time() - computed_s + (report.decode_s if work.in_processes else 0.0)
        report.files = [{"path": path, "text": text} for path, text in failures.items()]
        kept = [path for path in wanted if path not in failures]
        report.num_videos = len(kept)
        report.num_windows = sum(writer.records[path].num_windows for path in kept)
        write_report(report, folder / REPORT_NAME)
        if not kept:
            first = "; ".join(f"{path}: {text}" for path, text in list(failures.items())[:3])
            raise InputError(f"none of the {len(wanted)} videos can be used ({first}): see '{folder / REPORT_NAME}'")
        writer.finish(kept, failures, {"root": str(manifest.root.absolute()), "videos_digest": videos_digest(wanted)})
    return report


def _is_kept(writer: FeatureWriter, root: Path, path: str, identity: Identity) -> bool:
    """Whether the features of a file are there and it is still the same. It may be gone once they are."""
    record = writer.records.get(path)
    if record is None or record.identity != identity:
        return False
    try:
        return is_stored(path) or change_since_index(root / path, record) is None
    except OSError:
        return True


@dataclass(slots=True)
class _InHand:
    """A video whose windows are coming in."""

    facts: Video
    timeline: Timeline
    spool: Spool
    num_told: int = 0  # frames that the progress knows of


class _Extraction:
    """One pass over the videos that are to be extracted."""

    def __init__(self, manifest: Manifest, encoder: Encoder, writer: FeatureWriter, work: Work) -> None:
        self._manifest, self._encoder, self._writer, self._work = manifest, encoder, writer, work
        self._paths: Sequence[str] = ()
        self._in_hand: dict[int, _InHand] = {}
        self.failures: dict[str, str] = {}
        self.report = ExtractionReport()

    def run(self, paths: Sequence[str]) -> None:
        """Extract the features of these files of the manifest."""
        row_of = {path: row for row, path in reversed(list(enumerate(self._manifest.strings("path"))))}
        rows = [row_of[path] for path in paths]
        self._paths = paths
        videos = timed_videos(self._manifest, rows)
        num_frames = sum(video.file_frames for video, _ in videos)
        maker = PieceMaker(self._encoder.clip, self._writer.stamp.grid, self._work.batch_size)
        threads = self._work.num_threads or rank_cores()
        reading = WindowReader(videos, maker, threads, in_processes=self._work.in_processes)
        try:
            with reading, Progress(num_frames, "frame", label="features") as progress:
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
        identity = (facts.file_bytes, facts.mtime_ns, facts.content_hash, facts.file_frames)
        self._writer.add(video.spool, CachedVideo(path, 0, 0, duration_s, *identity))
        self.report.num_new += 1
        self.report.video_s += duration_s
