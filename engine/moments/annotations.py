"""Queries with their true moments, as one Parquet table beside the manifest.

files ──readers──▶ rows ──checked against videos and words──▶ Annotations + Report ──▶ NAME.moments.parquet
"""

import functools
import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

import numpy as np
import pyarrow as pa

from engine.data.layouts.finder import nfc
from engine.data.manifests.manifest import Manifest
from engine.errors import InputError
from engine.files.atomic_file import atomic_write
from engine.files.parquet import read_table, write_table
from engine.moments.readers import Noted, Row, Unreadable

FORMAT_VERSION = 1
_METADATA_KEY = b"unseen moments"
_NAMES = pa.dictionary(pa.int32(), pa.string())
SCHEMA = pa.schema(
    [
        ("video", _NAMES),  # the manifest's path, or the file's own name of it where there is no manifest
        ("query", pa.string()),
        ("split", _NAMES),
        ("duration", pa.float64()),  # seconds of the video; NaN: not known
        ("starts", pa.list_(pa.float64())),  # of every true window, seconds
        ("ends", pa.list_(pa.float64())),
    ]
)
ROUNDING_S = 1e-3  # a window that ends so little after its video is not told

KINDS: Mapping[str, str] = {
    "unreadable": "not of the form of its file",
    "missing_video": "no such video in the manifest",
    "several_videos": "the manifest has several videos of that name",
    "no_query": "no text",
    "no_known_word": "none of its words has a vector",
    "no_window": "no moment is given",
    "not_a_time": "start or end is no number of seconds",
    "ends_before_start": "left out",
    "no_length": "starts where it ends: left out",
    "after_video": "starts after the video's end: left out",
    "ends_after_video": "cut at the video's end",
    "starts_before_video": "cut at 0",
    "stands_twice": "is the same as one before: left out",
}


@dataclass(frozen=True)
class Annotations:
    """N queries; columns of that length.

    durations: float64 [N], seconds, NaN where unknown. windows: float64 [K, 2] each, K >= 1 true (start, end) in seconds.
    """

    videos: Sequence[str]
    queries: Sequence[str]
    splits: Sequence[str]
    durations: np.ndarray
    windows: Sequence[np.ndarray]

    def __len__(self) -> int:
        return len(self.queries)

    @functools.cached_property
    def digest(self) -> str:
        """Of what is asked and what is true, in their order; not of what the videos are called."""
        return digest_of([list(self.queries), [each.tolist() for each in self.windows]])

    def select(self, rows: np.ndarray) -> "Annotations":
        """The rows named by an index or boolean array, in that order."""
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows

        def take(column: Sequence) -> list:
            return [column[row] for row in rows]

        return Annotations(
            take(self.videos), take(self.queries), take(self.splits), self.durations[rows], take(self.windows)
        )

    def of_splits(self, splits: Collection[str]) -> "Annotations":
        """The rows of some splits; none named: all."""
        return self.select(np.array([not splits or split in splits for split in self.splits], dtype=bool))

    def save(self, path: Path) -> None:
        """Write to `path` at once or not at all."""
        columns = [
            self.videos, self.queries, self.splits, self.durations,
            [w[:, 0].tolist() for w in self.windows], [w[:, 1].tolist() for w in self.windows],
        ]  # fmt: skip
        arrays = [
            pa.array(column, pa.string()).dictionary_encode() if of.type == _NAMES else pa.array(column, of.type)
            for of, column in zip(SCHEMA, columns, strict=True)
        ]
        notes = {_METADATA_KEY: json.dumps({"version": FORMAT_VERSION}).encode()}
        path.parent.mkdir(parents=True, exist_ok=True)
        write_table(pa.Table.from_arrays(arrays, schema=SCHEMA.with_metadata(notes)), path)

    @classmethod
    def load(cls, path: Path) -> "Annotations":
        """Read a table.

        Raises:
            InputError: no such file, or not such a table.
        """
        path, again = Path(path), "make it with `python tools/index_moments.py`"
        if not path.is_file():
            raise InputError(f"no moments at '{path}': {again}")
        try:
            table = read_table(path)
            notes = json.loads((table.schema.metadata or {}).get(_METADATA_KEY, b"{}"))
            table = table.select(SCHEMA.names).cast(SCHEMA)
            columns = {name: table.column(name).to_pylist() for name in SCHEMA.names}
            version = notes.get("version")
        except (ValueError, KeyError, AttributeError, OSError, pa.ArrowException) as error:
            raise InputError(f"'{path}' is no table of moments ({error}): {again}") from error
        pairs = list(zip(columns["starts"], columns["ends"], strict=True))
        if version != FORMAT_VERSION or any(not s or not e or len(s) != len(e) for s, e in pairs):
            raise InputError(f"'{path}' is no table of moments of version {FORMAT_VERSION}: {again}")
        windows = [np.stack([s, e], axis=1).astype(np.float64) for s, e in pairs]
        durations = np.array(columns["duration"], dtype=np.float64)
        return cls(columns["video"], columns["query"], columns["split"], durations, windows)


def digest_of(values: Sequence) -> str:
    """64 bits of what JSON can say, in its order."""
    return hashlib.blake2b(json.dumps(values).encode(), digest_size=8).hexdigest()


@dataclass
class Report:
    """What was wrong: (place, kind of `KINDS`, what it says), in the order of the files."""

    rows: list[tuple[str, str, str]] = field(default_factory=list)

    def add(self, place: str, kind: str, text: str = "") -> None:
        self.rows.append((place, kind, text))

    @property
    def counts(self) -> dict[str, int]:
        """Kind -> how many, in the order of `KINDS`."""
        found = Counter(kind for _, kind, _ in self.rows)
        return {kind: found[kind] for kind in KINDS if kind in found}

    def save(self, path: Path) -> None:
        rows = [{"place": place, "kind": kind, "says": text} for place, kind, text in self.rows]
        with atomic_write(path) as partial:
            partial.write_text(json.dumps({"counts": self.counts, "rows": rows}, indent=1) + "\n", encoding="utf-8")


class VideoNames:
    """Which of some videos a file of annotations means: by its path, its file's name, or that without the suffix. Where none is
    called so to the sign, accents that are written otherwise make no other name."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._known: dict[str, set[str]] = {}
        self._composed: dict[str, set[str]] = {}
        for path in paths:
            name = PurePosixPath(path).name
            for key in {path, name, name.rpartition(".")[0] or name, str(PurePosixPath(path).with_suffix(""))}:
                self._known.setdefault(key, set()).add(path)
                self._composed.setdefault(nfc(key), set()).add(path)

    def find(self, name: str) -> set[str]:
        """The paths that it may mean: one, none, or several. A name with the suffix of another copy finds it too."""
        stem, dot, suffix = name.rpartition(".")
        tries = [name, stem] if dot and suffix.isalnum() and not suffix.isdigit() else [name]
        places = [*((self._known, key) for key in tries), *((self._composed, nfc(key)) for key in tries)]
        return next((names[key] for names, key in places if key in names), set())


def check(
    rows: Sequence[Row], split: str, manifest: Manifest | None, knows: Callable[[str], bool], report: Report
) -> Annotations:
    """Keep what is right of a file's rows; tell the rest in `report`. The ends of the manifest's videos count before the file's
    durations.

    Args:
        manifest: the videos there are; None: any. knows: whether any word of a query has a vector.
    """
    paths = manifest.table.column("path").to_pylist() if manifest else []
    lengths = dict(zip(paths, _ends_s(manifest), strict=True)) if manifest else {}
    names = VideoNames(paths)
    kept: list[tuple[str, str, float, np.ndarray]] = []
    for row in rows:
        if isinstance(row, Unreadable):
            report.add(row.place, "unreadable", row.reason)
            continue
        query, found = " ".join(row.query.split()), names.find(row.video) if manifest else {row.video}
        if len(found) != 1:
            report.add(row.place, "several_videos" if found else "missing_video", ", ".join(sorted(found)) or row.video)
        elif not query or not knows(query):
            report.add(row.place, "no_known_word" if query else "no_query", query)
        else:
            (video,) = found
            duration = lengths.get(video, row.duration)
            windows = _right_windows(row, duration, report)
            if windows:
                kept.append((video, query, duration, np.array(windows, dtype=np.float64)))
    videos, queries, durations, windows = zip(*kept, strict=True) if kept else ((), (), (), ())
    return Annotations(videos, queries, [split] * len(kept), np.array(durations, dtype=np.float64), windows)


def _ends_s(manifest: Manifest) -> list[float]:
    """When the last frame of each row's file is gone, in seconds as a player counts them. `duration` counts from the first frame,
    and as if the rate were constant: it is for manifests that note no times."""
    columns = (manifest.table.column(name).to_pylist() for name in ("frame_times", "duration"))
    return [times[-1] if times else duration for times, duration in zip(*columns, strict=True)]


def joined(parts: Sequence[Annotations]) -> Annotations:
    """Several tables as one."""
    columns = [[value for part in parts for value in getattr(part, name)] for name in ("videos", "queries", "splits")]
    durations = np.concatenate([part.durations for part in parts])
    return Annotations(*columns, durations, [window for part in parts for window in part.windows])


def within_videos(annotations: Annotations, report: Report) -> Annotations:
    """What is right by durations that `check` may not have known, as it judges; the rest is told in `report`, by the videos."""
    kept, windows = [], []
    for row, (video, duration, given) in enumerate(
        zip(annotations.videos, annotations.durations.tolist(), annotations.windows, strict=True)
    ):
        if given.max() > duration + ROUNDING_S:
            noted = Noted(video, video, annotations.queries[row], given.tolist(), duration)
            given = np.array(_right_windows(noted, duration, report), dtype=np.float64)
        if len(given):
            kept.append(row)
            windows.append(given)
    return replace(annotations.select(np.array(kept, dtype=np.int64)), windows=windows)


def _right_windows(row: Noted, duration: float, report: Report) -> list[tuple[float, float]]:
    if not row.windows:
        report.add(row.place, "no_window")
    right: dict[tuple[float, float], None] = {}  # in their order
    for number, (start, end) in enumerate(row.windows):
        place, said = row.said[number] if row.said else (row.place, "no time")
        told = f"{start:g} to {end:g} s of {duration:g} s" if math.isfinite(duration) else f"{start:g} to {end:g} s"
        if not (math.isfinite(start) and math.isfinite(end)):
            report.add(place, "not_a_time", said)
        elif end == start:
            report.add(place, "no_length", told)
        elif end < start or end <= 0:
            report.add(place, "ends_before_start", told)
        elif max(start, 0.0) >= duration:
            report.add(place, "after_video", told)
        else:
            if start < 0:
                report.add(place, "starts_before_video", told)
            if end > duration + ROUNDING_S:
                report.add(place, "ends_after_video", told)
            window = (max(start, 0.0), min(end, duration) if math.isfinite(duration) else end)
            if window in right:
                report.add(place, "stands_twice", told)
            right[window] = None
    return list(right)
