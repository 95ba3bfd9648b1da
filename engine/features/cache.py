"""The features of all windows of all videos in one memory-mapped array, and when each window is shown.

    videos.parquet      a row for each video: its windows, its length, the file as it was; or why it has none. And the stamp
    features-N.npy      float16 or float32 [windows of all videos, D]
    spans-N.npy         float64 [windows of all videos, 2]: start and end in seconds
    journal.jsonl       what `writer.py` goes on from;  report.json  what came of it

Anything reads the arrays with `numpy.load(..., mmap_mode="r")`. N counts how often they were written anew without what is gone.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from engine.data.manifests.identity import change_since_index
from engine.data.manifests.manifest import Manifest
from engine.data.manifests.manifest_table import path_as_text, path_of_text
from engine.data.store.index import is_stored
from engine.errors import InputError
from engine.features.files import Identity, identities, videos_digest
from engine.features.windows import WindowGrid
from engine.files.arrays import mapped_array
from engine.files.parquet import read_table, write_table

VERSION = 1
INDEX_NAME = "videos.parquet"
_METADATA_KEY = b"unseen features"
_AGAIN = "run tools/extract_features.py again"
_SHOWN = 3  # videos named in a message


@dataclass(frozen=True, slots=True)
class Stamp:
    """What made the features. All but `model` must be equal for two features to be of one kind.

    model: what it was called. digest: of its weights and clip format. dtype: as kept, "float16" or "float32".
    """

    model: str
    digest: str
    width: int
    normalised: bool
    grid: WindowGrid
    dtype: str

    @classmethod
    def of(cls, values: dict) -> "Stamp":
        """From what `asdict` made."""
        return cls(**{**values, "grid": WindowGrid(**values["grid"])})

    def difference(self, other: "Stamp") -> str | None:
        """In what the other is another kind, for the user; None if in nothing."""
        for name, shown in (("digest", "model"), ("grid", "windows"), ("dtype", "dtype")):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs and name == "digest":
                return f"of the model {self.model}, digest {mine[:12]} (now {other.model}, {theirs[:12]})"
            if mine != theirs:
                return f"of {shown} {mine} (now {theirs})"
        return None


@dataclass(frozen=True, slots=True)
class CachedVideo:
    """A video file whose features are kept: `num_windows` rows of the arrays from `first_window` on.

    path: relative to the root, as in the manifest. duration_s: to the end of its last frame. The rest: the file as it was;
    shown: see `Identity`.
    """

    path: str
    first_window: int
    num_windows: int
    duration_s: float
    file_bytes: int
    mtime_ns: int | None
    content_hash: int | None
    file_frames: int
    shown: int | None = None

    @property
    def identity(self) -> Identity:
        """What tells that the file is the same."""
        return Identity(self.file_bytes, self.content_hash, self.file_frames, self.shown)


@dataclass(frozen=True, slots=True)
class FailedVideo:
    """A video file without features: why, and the file as the manifest had it (None: not noted, by versions of before)."""

    reason: str
    identity: Identity | None = None


@dataclass(frozen=True, slots=True)
class VideoFeatures:
    """What is read of one video: features [W, D], start_s and end_s float64 [W], and its length in seconds."""

    features: np.ndarray
    start_s: np.ndarray
    end_s: np.ndarray
    duration_s: float


class FeatureCache:
    """The features that tools/extract_features.py has written, read-only.

    Args:
        folder: of the cache.
        digest: of the encoder that the features must be of.
        manifest: whose videos they must be of; all of its files must be there, in the same state, or known to be bad.

    Attributes:
        stamp: what made them. videos: paths in the order of the array. failures: path -> why a video has no features.
        features: [windows of all videos, D]. spans: float64 [windows, 2], seconds. video_of: int64 [windows], into `videos`.
        root: what the paths are relative to.

    Raises:
        InputError: there is no finished cache, or it is of another model or of other videos.
    """

    def __init__(self, folder: str | Path, *, digest: str | None = None, manifest: Manifest | None = None) -> None:
        self.folder = Path(folder)
        (self.stamp, self._index, self._failed, notes), (self.features, self.spans) = _opened(self.folder)
        self.failures = {path: failed.reason for path, failed in self._failed.items()}
        self.root = Path(notes["root"])
        self.videos = tuple(self._index)
        if digest is not None and digest != self.stamp.digest:
            raise InputError(
                f"the features in '{folder}' are of the model {self.stamp.model}, digest {self.stamp.digest[:12]}, not of "
                f"{digest[:12]}: take that model, or extract features with this one into another folder"
            )
        if manifest is not None:
            self._check_videos(manifest, notes["videos_digest"])
        counts = [video.num_windows for video in self._index.values()]
        self.video_of = np.repeat(np.arange(len(counts)), counts)

    def __len__(self) -> int:
        return len(self.videos)

    def __contains__(self, video: str) -> bool:
        return video in self._index

    def __getitem__(self, video: str) -> VideoFeatures:
        """Of a video by its path; nothing is copied.

        Raises:
            InputError: it is not there, with the reason if that is known.
        """
        found = self._index.get(video)
        if found is None:
            reason = self.failures.get(video, f"not among the {len(self)} videos that it has: {_AGAIN}")
            raise InputError(f"the features in '{self.folder}' have nothing of '{video}': {reason}")
        rows = slice(found.first_window, found.first_window + found.num_windows)
        return VideoFeatures(self.features[rows], self.spans[rows, 0], self.spans[rows, 1], found.duration_s)

    def contents(self, video: str) -> int | str:
        """What tells the file of a video from others: a hash of its contents; its path where that is not known."""
        known = self._index[video].content_hash
        return video if known is None else known

    def change(self, video: str) -> str | None:
        """In what way the file is no longer the one whose features these are; None if it still is.

        Raises:
            OSError: the file is missing.
        """
        path = self.root / video
        return None if is_stored(path) else change_since_index(path, self._index[video])

    def windows(self, manifest: Manifest) -> tuple[np.ndarray, list[np.ndarray]]:
        """The windows of each row of a manifest in order, for heads that classify videos.

        Of a labelled segment those whose middle lies within it (or the nearest one).

        Returns:
            rows: int64 [V], those rows that have features. windows: of each float32 [W, D], W at least 1.
        """
        rows, windows = [], []
        segments = (manifest.table.column(f"segment_{end}").to_pylist() for end in ("start", "end"))
        for row, (path, start_s, end_s) in enumerate(zip(manifest.strings("path"), *segments, strict=True)):
            if path not in self:
                continue
            found = self[path]
            middle = (found.start_s + found.end_s) / 2
            chosen = np.ones(len(middle), bool)
            if start_s == start_s:  # not NaN: a segment
                chosen = (middle >= start_s) & (middle < end_s)
                chosen[np.abs(middle - (start_s + end_s) / 2).argmin()] = True
            windows.append(found.features[chosen].astype(np.float32))
            rows.append(row)
        return np.array(rows, np.int64), windows

    def means(self, manifest: Manifest) -> tuple[np.ndarray, np.ndarray]:
        """Those rows of a manifest that have features, int64 [V], and of each the mean of its `windows`, float32 [V, D]."""
        rows, windows = self.windows(manifest)
        means = [each.mean(axis=0) for each in windows] or np.empty((0, self.stamp.width))
        return rows, np.array(means, np.float32)

    def _check_videos(self, manifest: Manifest, digest: str) -> None:
        wanted = identities(manifest)
        if videos_digest(wanted) == digest:
            return
        unknown = [path for path in wanted if path not in self._index and path not in self._failed]
        kept = {path: each.identity for path, each in (self._index | self._failed).items() if each.identity is not None}
        changed = [path for path, now in wanted.items() if path in kept and not kept[path].is_same(now)]
        for paths, what in ((changed, "have changed since"), (unknown, "are not among them")):
            if paths:
                raise InputError(
                    f"the features in '{self.folder}' are not those of '{manifest.source}': {len(paths)} of its videos {what} "
                    f"({', '.join(paths[:_SHOWN])}{', ...' if len(paths) > _SHOWN else ''}): {_AGAIN}"
                )


def write_index(
    path: Path,
    stamp: Stamp,
    videos: Sequence[CachedVideo],
    failures: Mapping[str, FailedVideo],
    notes: Mapping[str, object],
) -> None:
    """Write the index at `path`, complete or not at all.

    Args:
        failures: path -> why it has no features, and the file.
    """
    fields = CachedVideo.__dataclass_fields__
    columns = {name: [getattr(video, name) for video in videos] for name in fields}
    for name, values in columns.items():
        values += [getattr(failed.identity, name, None) for failed in failures.values()]
    columns["path"] = [path_as_text(path) for path in (*(video.path for video in videos), *failures)]
    columns["failure"] = [None] * len(videos) + [failed.reason for failed in failures.values()]
    types = {"path": pa.string(), "duration_s": pa.float64(), "failure": pa.string()}
    arrays = {name: pa.array(values, types.get(name, pa.int64())) for name, values in columns.items()}
    metadata = {"version": VERSION, "stamp": asdict(stamp), **notes}
    table = pa.table(arrays).replace_schema_metadata({_METADATA_KEY: json.dumps(metadata).encode()})
    write_table(table, path)


Index = tuple[Stamp, dict[str, CachedVideo], dict[str, FailedVideo], dict]


def read_index(folder: Path) -> Index:
    """The stamp, the videos by path in the order of the array, the failures by path, and the notes of `write_index`.

    Raises:
        InputError: there is no index, or none of this version.
    """
    path = folder / INDEX_NAME
    if not path.is_file():
        begun = (folder / "journal.jsonl").is_file()
        why = "their extraction has not come to its end" if begun else "it has no videos.parquet"
        raise InputError(f"no features in '{folder}' ({why}): run tools/extract_features.py{' again' if begun else ''}")
    try:
        table = read_table(path)
        notes = json.loads((table.schema.metadata or {})[_METADATA_KEY])
        if notes["version"] != VERSION:
            raise ValueError(f"version {notes['version']}")
        stamp = Stamp.of(notes["stamp"])
        if lacking := {"root", "videos_digest", "generation"} - notes.keys():
            raise ValueError(f"it lacks {', '.join(sorted(lacking))}")
        rows = list(_rows(table))
        videos = {row["path"]: CachedVideo(**row) for row, failure in rows if failure is None}
        failed = {row["path"]: _failed(row, failure) for row, failure in rows if failure is not None}
    except (pa.ArrowException, OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise InputError(
            f"'{path}' is not an index of features of version {VERSION} ({error}): extract them anew"
        ) from error
    return stamp, videos, failed, notes


def _rows(table: pa.Table) -> Iterator[tuple[dict, str | None]]:
    for row in table.to_pylist():
        failure = row.pop("failure")
        yield row | {"path": path_of_text(row["path"])}, failure


def _failed(row: Mapping[str, Any], reason: str) -> FailedVideo:
    is_noted = row["file_bytes"] is not None
    return FailedVideo(reason, Identity(*(row.get(name) for name in Identity._fields)) if is_noted else None)


def _opened(folder: Path) -> tuple[Index, list[np.ndarray]]:
    """An index with its arrays, features and spans. Whoever has written them anew meanwhile has taken the old ones away."""
    found = read_index(folder)
    _, videos, _, notes = found
    num_rows = sum(video.num_windows for video in videos.values())
    try:
        return found, [
            _mapped(folder / f"{name}-{notes['generation']}.npy", num_rows) for name in ("features", "spans")
        ]
    except InputError:
        if read_index(folder)[-1]["generation"] == notes["generation"]:
            raise
        return _opened(folder)


def _mapped(path: Path, num_rows: int) -> np.ndarray:
    """The rows of the index, mapped: what lies behind them is of an extraction that has not come to its end."""
    try:
        array = mapped_array(path)
        count = len(array) if array.ndim == 2 else 0
        if count < num_rows:
            raise ValueError(f"it has {count} of {num_rows} windows")
    except (OSError, ValueError) as error:
        raise InputError(f"'{path}' cannot be read ({error}): copy the features again, or extract them anew") from error
    return array[:num_rows]
