"""An index of one's own videos, in no class folders: their features, brought up to date before a search.

files, folders, manifests, stores ──▶ probe (journal) ──▶ changed or new? ──▶ `extract` ──▶ `FeatureCache`
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from engine.data.indexing import IndexSettings, build_row, probe_files
from engine.data.journal import Failure, Journal
from engine.data.large_manifest import PATTERN as LARGE
from engine.data.layouts.listing import Entry
from engine.data.layouts.walk import VideoFolder
from engine.data.manifest import Manifest
from engine.data.manifest_table import path_of_text
from engine.data.progress import say
from engine.data.remote.addresses import as_path, shown, url_of
from engine.data.remote.copied import is_there
from engine.data.store.index import INDEX_NAME as STORE_NAME
from engine.data.store.index import MANIFEST_NAME, is_stored, split_stored_name
from engine.data.trust import check_inside
from engine.errors import InputError
from engine.features.cache import INDEX_NAME, FeatureCache, read_index
from engine.features.encoder import Encoder
from engine.features.extract import Work, extract
from engine.features.files import identities, videos_digest
from engine.features.reading import TimedVideo, timed_videos
from engine.features.windows import WindowGrid
from engine.moments.begun import alone, interrupted, read_wanted, remembered

GRID = WindowGrid(0.5, 0.5, "seconds")
_ROOT = Path("/")  # paths of the index are absolute
_SHOWN = 3  # videos named in a message
_PROBE_S = 3600.0  # for one file: the frames of hours of video may have to be counted
_MAX_HOURS = 48.0  # of one file: a camera that runs day and night is searched too


@dataclass(frozen=True)
class FeatureKind:
    """Which features a search needs. digest: of the network. encoder: gives it, when there is something to extract."""

    digest: str
    encoder: Callable[[], Encoder]
    grid: WindowGrid = GRID
    dtype: str = Work().dtype


@dataclass(frozen=True)
class VideoIndex:
    """Videos ready to be searched.

    cache: the features. videos: those that are searched, by their names in it. failures: name -> why a video is not.
    manifest: of the videos, where it is known.
    """

    cache: FeatureCache
    videos: list[str]
    failures: dict[str, str]
    manifest: Manifest | None = None

    def path(self, video: str) -> Path:
        """Where a video lies; of a stored one, a path into its store."""
        return self.cache.root / video

    def footage(self, videos: Iterable[str], folder: Path) -> tuple[dict[str, TimedVideo], dict[str, str]]:
        """What decoders need to know of some of the videos, whole: by name; and why others cannot be decoded.

        Args:
            folder: for the journal of a probe, where no manifest is known.
        """
        of_path = {str(self.path(video)): video for video in videos}
        manifest, failures = self.manifest, {}
        if manifest is None and of_path:
            manifest, failures = _described(list(of_path), folder)
        paths = [] if manifest is None else [str(manifest.root / path) for path in manifest.paths]
        rows = [row for row, path in enumerate(paths) if path in of_path]
        whole = {
            of_path[str(video.path)]: (replace(video, first_frame=0, num_frames=video.file_frames), timeline)
            for video, timeline in (timed_videos(manifest, rows) if rows else ())
        }
        return whole, {of_path[path]: text for path, text in failures.items()}


def open_index(videos: Sequence[Path], folder: Path, kind: FeatureKind, *, allow_outside: bool = False) -> VideoIndex:
    """Bring an index up to date: `videos` are added, files that have changed are extracted anew, those that are gone dropped.

    Features that tools/extract_features.py has made of a manifest are searched as they are, without those of changed files.

    Args:
        videos: see `list_videos`; none: all that the index has.

    Raises:
        InputError: no video can be used, or the index is of another model, of other windows, or not to be added to.
    """
    named, unread = list_videos(videos, allow_outside=allow_outside)
    if (folder / INDEX_NAME).is_file():
        stamp, _, _, notes = read_index(folder)
        cache = FeatureCache(folder, digest=kind.digest)
        if Path(notes["root"]) != _ROOT:
            return _checked(_as_it_is(cache, named, "run tools/extract_features.py again"))
        if can_only_be_read(folder, videos):
            return _checked(_as_it_is(cache, named, "this index can only be read: search where it can be written"))
        if stamp.grid != kind.grid:
            raise InputError(
                f"--index: the features in '{folder}' are of windows {stamp.grid} (now {kind.grid}): choose another folder"
            )
    wanted, manifest, failures = _look(named, folder, interrupted(folder))
    if not _is_current(folder, manifest):
        with alone(folder):  # another process may have added to it meanwhile
            wanted, manifest, failures = _look(named, folder, read_wanted(folder), tell=lambda _: None)
            with remembered(folder, list(wanted.values())):
                extract(manifest, kind.encoder(), folder, kind.grid, Work(dtype=kind.dtype))
    cache = FeatureCache(folder, digest=kind.digest, manifest=manifest)
    asked = [wanted[os.path.realpath(path)] for path in named] or cache.videos
    failures = unread | failures | cache.failures
    return _checked(VideoIndex(cache, [path for path in asked if path in cache], failures, manifest))


def can_only_be_read(folder: Path, videos: Sequence[Path]) -> bool:
    """Whether an index is searched as it is: nothing is to be added to it, and nothing can be."""
    return not videos and (folder / INDEX_NAME).is_file() and not os.access(folder, os.W_OK)


def _look(
    named: Sequence[str],
    folder: Path,
    begun: Sequence[str],
    tell: Callable[[str], None] = say,
) -> tuple[dict[str, str], Manifest, dict[str, str]]:
    """The videos of an index and those named, each by its real path; a manifest of those that can be used; why others cannot.

    Args:
        begun: those that an interrupted start was asked for.

    Raises:
        InputError: there is none, or none can be used.
    """
    found = list(_each_once([*(read_index(folder)[1] if (folder / INDEX_NAME).is_file() else ()), *begun]).values())
    if begun:
        tell(f"an interrupted start is gone on with, of {len(begun)} videos")
    known = [path for path in found if _is_there(path)]
    if gone := sorted(set(found).difference(known)):
        tell(f"{len(gone)} videos of the index are not there any more, their features are dropped: {_some(gone)}")
    wanted = _each_once([*known, *named])
    if not wanted:
        raise InputError(f"no video: '{folder}' has none, and none is named")
    tell(f"{len(wanted)} videos: those that are new or have changed are looked at, then their features are extracted")
    manifest, failures = _described(list(wanted.values()), folder, tell)
    if manifest is None:
        raise InputError(f"none of the {len(wanted)} videos can be used: {_told(failures)}")
    return wanted, manifest, failures


def _checked(index: VideoIndex) -> VideoIndex:
    """The index, if there is anything to search in it."""
    if not index.videos:
        raise InputError(f"none of the videos asked for can be used: {_told(index.failures)}")
    return index


def _told(failures: Mapping[str, str]) -> str:
    return _some([f"{path}: {text}" for path, text in failures.items()])


def _some(texts: Sequence[str]) -> str:
    return "; ".join(texts[:_SHOWN]) + "; ..." * (len(texts) > _SHOWN)


def list_videos(videos: Sequence[Path], *, allow_outside: bool = False) -> tuple[list[str], dict[str, str]]:
    """Absolute paths of files, of the video files below folders, and of the videos of manifests and stores, each once; and what
    below the folders could not be looked at, with the reason.

    A store is named by its folder, its index or its manifest, also in object storage; what is in it by paths into its index.

    Args:
        allow_outside: a manifest may name files that do not lie under its root.

    Raises:
        InputError: a path is not there, or is no manifest that can be read; or there are paths, and no video in them.
    """
    found: list[str] = []
    unread: dict[str, str] = {}
    for video in map(as_path, videos):
        if url_of(video):
            found += _listed(_remote_manifest(video), allow_outside)
            continue
        if not video.exists():
            raise InputError(f"no video at '{video}'")
        store = video.parent if video.name == STORE_NAME else video
        if (store / STORE_NAME).is_file():
            found += _listed(store / MANIFEST_NAME, allow_outside)
        elif _is_manifest(video):
            found += _listed(video, allow_outside)
        elif video.is_dir():
            files = VideoFolder(video)
            found += [str(video.absolute() / each) for each in files.paths]
            unread |= {str(video.absolute() / problem.path): problem.text for problem in files.problems}
        else:
            found.append(str(video.absolute()))
    if videos and not found:
        why = f" ({_told(unread)})" if unread else ""
        raise InputError(
            f"no video: none is in the folders named{why}: {_some([str(video) for video in videos])}: name others, or none to "
            "search an index as it is"
        )
    return list(_each_once(found).values()), unread


def _listed(path: Path, allow_outside: bool) -> list[str]:
    """The absolute paths of a manifest's videos."""
    manifest = Manifest.load(path)
    if not allow_outside:
        check_inside(manifest)
    return [str(manifest.root.absolute() / each) for each in manifest.paths]


def _remote_manifest(path: Path) -> Path:
    """The manifest that an address names, by itself or by its store.

    Raises:
        InputError: there is none.
    """
    store = path.parent if path.name == STORE_NAME else path
    found = path if path.suffix == ".parquet" else store / MANIFEST_NAME
    if not is_there(found):
        raise InputError(
            f"'{shown(path)}' is no manifest and no snippet store, and single videos are not read from object storage: "
            "copy the video here, or ingest it into a store (tools/ingest.py)"
        )
    return found


def _is_manifest(path: Path) -> bool:
    """Whether it is one to read or, where it is large, to refuse."""
    if path.is_dir():
        return any(path.glob(LARGE))
    try:
        with path.open("rb") as file:
            return path.suffix == ".parquet" or file.read(4) == b"PAR1"
    except OSError:  # whoever opens it as a video says why
        return False


def _each_once(paths: Iterable[str]) -> dict[str, str]:
    """Real path -> the first of its names."""
    found: dict[str, str] = {}
    for path in paths:
        found.setdefault(os.path.realpath(path), path)
    return found


def _is_there(path: str) -> bool:
    stored = split_stored_name(path)
    return is_there(Path(stored[0] if stored else path))


def _described(
    paths: Sequence[str], folder: Path, tell: Callable[[str], None] = say
) -> tuple[Manifest | None, dict[str, str]]:
    """A manifest of these files and stored videos, None if none can be used; and why others cannot."""
    plain = [path for path in paths if not is_stored(path)]
    rows, failures = _stored_rows([path for path in paths if is_stored(path)])
    with Journal(folder / "videos.journal") as journal:
        settings = IndexSettings(num_workers=min(4, len(plain)), time_limit_s=_PROBE_S, max_hours=_MAX_HOURS)
        records = probe_files(plain, _ROOT, journal, settings, tell=tell) if plain else {}
    for path, record in records.items():
        if isinstance(record.found, Failure):
            failures[path] = record.found.text
        else:
            rows.append(build_row(Entry(path, ""), record))
    return Manifest.from_rows(rows, _ROOT) if rows else None, failures


def _stored_rows(paths: Sequence[str]) -> tuple[list[dict[str, object]], dict[str, str]]:
    """What the stores say of these videos of theirs, and why others are not to be had."""
    rows: list[dict[str, object]] = []
    failures = dict.fromkeys(paths, "its store has no such video")
    for store in dict.fromkeys(Path(split_stored_name(path)[0]).parent for path in paths):
        for row in Manifest.load(store / MANIFEST_NAME).table.to_pylist():
            path = str(store / path_of_text(row["path"]))
            if failures.pop(path, None) is not None:
                rows.append(row | {"path": path})
    return rows, failures


def _as_it_is(cache: FeatureCache, named: Sequence[str], mend: str) -> VideoIndex:
    """Features that are not added to: of a manifest's videos (only tools/extract_features.py does), or that can only be read."""
    if named:
        raise InputError(
            f"--index: '{cache.folder}' was made of a manifest: name no VIDEO to search all of it, or choose another folder"
        )
    failures = dict(cache.failures)
    for video in cache.videos:
        try:
            change = cache.change(video)
        except OSError:
            change = "the file is missing"
        if change:
            failures[video] = f"{change.partition(':')[0]}: {mend}"
    return VideoIndex(cache, [video for video in cache.videos if video not in failures], failures)


def _is_current(folder: Path, manifest: Manifest) -> bool:
    if not (folder / INDEX_NAME).is_file():
        return False
    return read_index(folder)[3]["videos_digest"] == videos_digest(identities(manifest))
