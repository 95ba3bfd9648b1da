"""From a manifest and an encoder to a feature cache: every video decoded once, in threads, beside the network.

manifest ──▶ files ──▶ features there already, of the same file? ──▶ journal ──▶ videos.parquet, report.json
                └──▶ windows of several videos ──▶ batches ──▶ encoder ──▶ spools ──▶ arrays ──▲
"""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from engine.cluster.pool import Pool
from engine.data.decoders import refuse_motionless
from engine.data.manifests.identity import change_since_index
from engine.data.manifests.manifest import Manifest
from engine.data.store.index import is_stored
from engine.errors import InputError
from engine.features.cache import FailedVideo, Stamp
from engine.features.encoder import Encoder
from engine.features.extraction import Extraction, ExtractionReport, Work
from engine.features.files import Identity, identities, videos_digest
from engine.features.pooled import PooledExtraction
from engine.features.reading import TimedVideo, timed_videos
from engine.features.windows import WindowGrid
from engine.features.writer import FeatureWriter
from engine.files.addresses import shown
from engine.terminal.progress import say, write_report

REPORT_NAME = "report.json"


def extract(
    manifest: Manifest,
    encoder: Encoder,
    folder: Path,
    grid: WindowGrid,
    work: Work | None = None,
    pool: tuple[Pool, Callable[[], Encoder]] | None = None,
    *,
    held: Mapping[str, Identity] | None = None,
    failed: Mapping[str, str] | None = None,
    option: str = "--out",
) -> ExtractionReport:
    """Bring the features of all video files of a manifest into the cache in `folder`, and drop those of others.

    What was finished before a kill, or in an earlier run, is kept where the file is the same. A labelled segment has no
    features of its own: its file is decoded once, whole (`FeatureCache.means` finds a segment's windows).

    Args:
        pool: where else than in this process the work is done, and what builds the encoder there (importable by name).
        held: files of the cache that are not in the manifest, as they cannot be looked at now: their features stay.
        failed: other files that cannot be used, and why; noted with those of the manifest.
        option: what the user calls the folder.

    Raises:
        InputError: no video can be used, the folder cannot be written, or it has features of another kind; the encoder asks for
            motion that videos have not.
    """
    if encoder.clip.motion:
        refuse_motionless([manifest])
    work, begun, computed_s = work or Work(), time.monotonic(), time.process_time()
    wanted = identities(manifest)
    stamp = Stamp(encoder.name, encoder.digest, encoder.width, encoder.normalised, grid, work.dtype)
    with FeatureWriter(folder, stamp, option) as writer:
        pending = [path for path in wanted if not _is_kept(writer, manifest.root, path, wanted[path])]
        if len(pending) < len(wanted):
            say(f"{len(wanted) - len(pending)} of {len(wanted)} videos have their features already")
        held = {path: identity for path, identity in (held or {}).items() if path in writer.records}
        gone = [path for path in writer.records if path not in wanted and path not in held]
        extraction = Extraction(encoder, writer, work) if pool is None else PooledExtraction(*pool, writer, work)
        extraction.run(pending, _videos(manifest, pending))
        report = extraction.report
        failures = {path: extraction.failures[path] for path in wanted if path in extraction.failures}
        report.num_dropped, report.seconds = len(gone), time.monotonic() - begun
        report.cpu_s += time.process_time() - computed_s + (report.decode_s if work.in_processes else 0.0)
        report.files = [{"path": path, "text": text} for path, text in failures.items()]
        kept = [path for path in (*wanted, *held) if path not in failures]
        report.num_videos = len(kept)
        report.num_windows = sum(writer.records[path].num_windows for path in kept)
        write_report(report, folder / REPORT_NAME)
        if not kept:
            first = "; ".join(f"{shown(path)}: {text}" for path, text in list(failures.items())[:3])
            raise InputError(f"none of the {len(wanted)} videos can be used ({first}): see '{folder / REPORT_NAME}'")
        noted = {path: FailedVideo(text, wanted.get(path)) for path, text in ((failed or {}) | failures).items()}
        notes = {"videos_digest": videos_digest(wanted | held), "num_passing": len(extraction.passing)}
        writer.finish(kept, noted, {"root": str(manifest.root.absolute()), **notes})
    return report


def _videos(manifest: Manifest, paths: Sequence[str]) -> list[TimedVideo]:
    """The video files of these paths."""
    row_of = {path: row for row, path in reversed(list(enumerate(manifest.strings("path"))))}
    return timed_videos(manifest, [row_of[path] for path in paths])


def _is_kept(writer: FeatureWriter, root: Path, path: str, identity: Identity) -> bool:
    """Whether the features of a file are there and it is still the same. It may be gone once they are."""
    record = writer.records.get(path)
    if record is None or not record.identity.is_same(identity):
        return False
    try:
        return is_stored(path) or change_since_index(root / path, record) is None
    except OSError:
        return True
