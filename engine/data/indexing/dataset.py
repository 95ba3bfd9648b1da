"""From the list of a data set's videos to its manifest: probe every file, keep the sound ones, name the rest.

    listing ──▶ files ──▶ known and unchanged? ──▶ journal ──▶ rows ──▶ manifest.parquet
                   └──▶ probe, in parallel ──────────▲           └──▶ manifest.parquet.report.json

Files are probed by processes rather than threads: measured on short clips both are as fast, and a file
that crashes or hangs FFmpeg costs one process and is reported, where it would take all threads with it.
"""

import errno
import math
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from engine.cluster.pool import LocalPool, Pool
from engine.data.indexing.copies import candidates, choose_copies, same_contents
from engine.data.indexing.journal import Failure, FileState, Journal, Record
from engine.data.indexing.probing import probe_file
from engine.data.layouts import LISTING_REASONS, Entry, Listing, Problem, read_layout
from engine.data.layouts.listing import printable
from engine.data.manifests.identity import content_hash
from engine.data.pyav.findings import kind_of
from engine.data.pyav.opening import MAX_PIXELS
from engine.data.pyav.probe import (
    MAX_HOURS,
    REASONS,
    TIME_LIMIT_S,
    ProbeError,
    ProbeResult,
    refuse_unfit,
)
from engine.errors import InputError
from engine.processes.process_pool import Lost
from engine.terminal.progress import Progress, say, tally, write_report
from engine.terminal.wording import counted

INDEX_REASONS = {"outside": "the labelled segment lies outside the file"}
ALL_REASONS = {**LISTING_REASONS, **REASONS, **INDEX_REASONS}
TRY_AGAIN = ("io-error", "too-slow", "crashed", "too-large", "too-long")  # time, or another limit, may mend it
_NO_THREAD = os.strerror(errno.EAGAIN)  # a journal of before may have it as a file's own failure
_SHOWN = 3  # of files that a warning names
_KILL_MARGIN_S = 30.0  # a process is killed only if the probe's own limit did not work


@dataclass(frozen=True, slots=True)
class IndexSettings:
    """How files are probed.

    num_workers: processes; 0 probes in this process, without protection against crashes and hangs.
    full_decode: decode every file to its end, also where its packets can be trusted.
    time_limit_s: seconds for one file.
    max_pixels, max_hours: a file with larger frames, or a longer one, is not used.
    """

    num_workers: int = 0
    full_decode: bool = False
    time_limit_s: float = TIME_LIMIT_S
    max_pixels: int = MAX_PIXELS
    max_hours: float = MAX_HOURS


@dataclass(frozen=True, slots=True)
class IndexReport:
    """What came of indexing; kept as JSON next to the manifest.

    num_frames, hours: of all rows (segments, where the layout has them).
    bad: reason -> how many. files: each file or listed video that is not in the manifest, and why.
    damaged: each file that is in it without what is damaged or missing at its beginning or end, and what that is.
    unused: each file below the folder that is no part of the data set, and why.
    """

    layout: str
    notes: list[str]
    num_videos: int
    num_files: int
    num_classes: int
    num_frames: int
    hours: float
    bad: dict[str, int]
    files: list[Problem]
    damaged: list[Problem]
    unused: list[Problem]


def index_dataset(
    listing: Listing, root: Path, out: Path, settings: IndexSettings, pool: Pool | None = None
) -> IndexReport:
    """Write the manifest of a listed data set to `out`, and a report to `out` + ".report.json".

    What is found out is kept in `out` + ".journal": after a kill, and when a data set is indexed again,
    only files that are new or changed are probed. The manifest is written at once or not at all, and is the
    same whatever the number of workers and however often the run was interrupted.

    Args:
        pool: where files are probed; default: by `settings.num_workers` processes of this machine.

    Raises:
        InputError: no file can be used, or `out` cannot be written.
    """
    if out.is_dir():
        raise InputError(f"'{out}' is a folder: name the manifest's file")
    # torch comes with the manifest; the processes that import this module to probe do not need it.
    from engine.data.manifests.manifest import Manifest

    told_before = len(listing.notes)
    with Journal(out.with_name(out.name + ".journal")) as journal:
        records = probe_files(candidates(listing), root, journal, settings, pool)
    listing = choose_copies(listing, records)
    rows, problems = [], listing.problems
    for entry in listing.entries:
        try:
            rows.append(build_row(entry, records[entry.path]))
        except ProbeError as error:
            problems.append(Problem(entry.path, error.kind, error.text))
    damaged = _damaged(rows, records)
    listing.notes += same_contents(rows)
    if damaged:
        listing.notes.append(
            f"warning: {counted(len(damaged), 'file')} damaged or cut off at the end or the beginning, taken as far as they decode "
            f"(each is in the report): {'; '.join(f'{each.path} ({each.text})' for each in damaged[:_SHOWN])}"
        )
    listing.notes[told_before:] = map(printable, listing.notes[told_before:])
    for note in listing.notes[told_before:]:
        say(note)
    report = summarise(listing, rows, problems, damaged)
    report_path = out.with_name(out.name + ".report.json")
    write_report(report, report_path)
    if not rows:
        raise InputError(
            f"none of the {len(problems)} listed videos can be used ({tally(report.bad)}): see '{report_path}'"
        )
    Manifest.from_rows(rows, _kept_root(root, out)).save(out)
    return report


def index_folder(folder: Path, out: Path) -> IndexReport:
    """Index a small folder of trusted videos in this process: a folder per class, or per split and class."""
    return index_dataset(read_layout("folder", folder), folder, out, IndexSettings())


def probe_files(
    paths: Sequence[str],
    root: Path,
    journal: Journal,
    settings: IndexSettings,
    pool: Pool | None = None,
    tell: Callable[[str], None] = say,
) -> dict[str, Record]:
    """Path -> what is known of it, for all paths in their order; what is not known yet is probed.

    Args:
        tell: hears how many files are known.

    Raises:
        InputError: another process adds to the journal.
    """
    states = {path: FileState.of(root / path) for path in paths}
    known = _known(states, journal, settings)
    if len(known) < len(states):
        journal.lock()
        known = _known(states, journal, settings)
    pending = [path for path in paths if path not in known]
    if known:
        tell(f"{len(known)} of {len(paths)} files are known and unchanged")
    work = partial(_probe_one, root=root, settings=settings)
    pool = pool or LocalPool(settings.num_workers)
    outcomes = pool.run(work, pending, settings.time_limit_s + _KILL_MARGIN_S)
    num_bad = 0
    with Progress(len(pending), "file", log=journal.path.with_suffix(".log.jsonl")) as progress:
        for path, outcome in outcomes:
            found, digest = (Failure.of(outcome), None) if isinstance(outcome, Lost) else outcome
            known[path] = Record(states[path], found, digest)
            journal.add(path, known[path])
            num_bad += isinstance(found, Failure)
            progress.advance(num_bad)
    return {path: known[path] for path in paths}


def _known(states: Mapping[str, FileState], journal: Journal, settings: IndexSettings) -> dict[str, Record]:
    records = journal.records
    return {path: records[path] for path, state in states.items() if _holds(records.get(path), state, settings)}


def _probe_one(path: str, root: Path, settings: IndexSettings) -> tuple[ProbeResult, int] | tuple[Failure, None]:
    """What is found in a file, and the hash of its contents."""
    try:
        refuse_unfit(root / path)
        digest = content_hash(root / path)  # before the probe: a file that changes in between is refused later
        found = probe_file(
            root / path,
            full_decode=settings.full_decode,
            time_limit_s=settings.time_limit_s,
            max_pixels=settings.max_pixels,
            max_hours=settings.max_hours,
        )
        return found, digest
    except ProbeError as error:
        return Failure(error.kind, error.text), None
    except OSError as error:
        return Failure(kind_of(error), error.strerror or str(error)), None


def _holds(record: Record | None, state: FileState, settings: IndexSettings) -> bool:
    if record is None or record.state != state or state.num_bytes < 0:
        return False
    if isinstance(record.found, Failure):
        return record.found.kind not in TRY_AGAIN and not record.found.text.endswith(_NO_THREAD)
    if record.content_hash is None:  # a journal of before
        return False
    if (
        record.found.width * record.found.height > settings.max_pixels
        or record.found.duration > settings.max_hours * 3600
    ):
        return False
    return record.found.counted_by == "decoding" or not settings.full_decode


def build_row(entry: Entry, record: Record) -> dict[str, object]:
    """A row of the manifest, by its column names, of a file that can be used.

    Raises:
        ProbeError: ("outside") the segment and the file have no frame in common.
    """
    found = record.found
    first, count = _segment_frames(entry, found)
    has_segment = (first, count) != (0, found.num_frames)
    return {
        "path": entry.path,
        "class_name": entry.class_name,
        "split": entry.split,
        "group": entry.group,
        "num_frames": count,
        "first_frame": first,
        "file_frames": found.num_frames,
        "fps": found.fps,
        "width": found.width,
        "height": found.height,
        "rotation": found.rotation,
        "codec": found.codec,
        "pixel_format": found.pixel_format,
        "duration": found.duration,
        "segment_start": entry.segment_start if has_segment else math.nan,
        "segment_end": entry.segment_end if has_segment else math.nan,
        "file_bytes": record.state.num_bytes,
        "key_frames": found.key_frames,
        "key_pts": found.key_pts,
        "mtime_ns": record.state.mtime_ns,
        "content_hash": record.content_hash,
        "timed_frames": found.timed_frames,
        "frame_times": found.frame_times,
        "oddity": found.oddity,
    }


def _segment_frames(entry: Entry, found: ProbeResult) -> tuple[int, int]:
    """(first frame, number of frames): every frame that is on the screen during the segment.

    Its seconds count from the container's start, as a player shows them: a video may begin later than its sound.
    """
    whole = (0, found.num_frames)
    if not entry.has_segment:
        return whole
    length = entry.segment_end - entry.segment_start
    end_s = found.frame_times[-1] if found.frame_times else 0.0
    if entry.may_be_cut and (found.duration < 1.5 * length or end_s < entry.segment_end - 1):
        return whole  # about as long as the segment, or too short to hold it: it was cut out already
    if not found.frame_times:
        raise ProbeError("outside", "the file has no frame rate to place the segment by")
    first, behind = found.timeline.between(entry.segment_start, entry.segment_end)
    if first >= behind:
        segment = f"{entry.segment_start:g}-{entry.segment_end:g} s of '{entry.class_name}'"
        raise ProbeError(
            "outside", f"{segment}, but the video is shown from {found.frame_times[0]:.1f} to {end_s:.1f} s"
        )
    return first, behind - first


def _damaged(rows: Sequence[dict[str, object]], records: Mapping[str, Record]) -> list[Problem]:
    """The files of the rows that do not decode from end to end."""
    found = {row["path"]: records[row["path"]].found.damage for row in rows}
    return [Problem(path, "damaged", damage) for path, damage in found.items() if damage]


def summarise(
    listing: Listing, rows: Sequence[dict[str, object]], problems: Sequence[Problem], damaged: Sequence[Problem]
) -> IndexReport:
    """The report of a finished run."""
    seconds = sum(row["num_frames"] / row["fps"] for row in rows if row["fps"])
    return IndexReport(
        layout=listing.layout,
        notes=listing.notes,
        num_videos=len(rows),
        num_files=len({row["path"] for row in rows}),
        num_classes=len({row["class_name"] for row in rows}),
        num_frames=sum(row["num_frames"] for row in rows),
        hours=round(seconds / 3600, 4),
        bad=dict(Counter(problem.kind for problem in problems).most_common()),
        files=list(problems),
        damaged=list(damaged),
        unused=listing.unused,
    )


def _kept_root(root: Path, out: Path) -> Path:
    """The root as the manifest keeps it: relative where both can be moved together, else absolute."""
    root, home = root.resolve(), out.resolve().parent
    if root == home or home in root.parents or root in home.parents:
        return Path(os.path.relpath(root, home))
    return root
