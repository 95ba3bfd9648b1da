"""An index of one's own videos, in no class folders: their features, brought up to date before a search.

files, folders, manifests, stores ──▶ probe (journal) ──▶ changed or new? ──▶ `extract` ──▶ `FeatureCache`
"""

import os
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from engine.data.indexing.dataset import TRY_AGAIN, IndexSettings, build_row, probe_files
from engine.data.indexing.journal import Failure, Journal
from engine.data.layouts.listing import Entry
from engine.data.manifests.manifest import Manifest
from engine.data.remote.settings import patience
from engine.data.store.index import is_stored
from engine.errors import InputError
from engine.features.cache import INDEX_NAME, CachedVideo, FailedVideo, FeatureCache, read_index
from engine.features.encoder import Encoder
from engine.features.extract import Work, extract
from engine.features.files import Identity, identities, videos_digest
from engine.features.reading import TimedVideo, timed_videos
from engine.features.windows import WindowGrid
from engine.moments.begun import alone, interrupted, read_wanted, remember
from engine.moments.named import each_once, list_videos, some, told
from engine.moments.stored import stored_rows, that_are_there
from engine.terminal.progress import say

GRID = WindowGrid(0.5, 0.5, "seconds")
_ROOT = Path("/")  # paths of the index are absolute
_PROBE_S = 3600.0  # for one file: the frames of hours of video may have to be counted
_STORE_PATIENCE_S = 10.0  # one that is away is asked again by the next search
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
    damaged: name -> what is missing of one that is searched, as far as that is known.
    manifest: of the videos, where it is known.
    """

    cache: FeatureCache
    videos: list[str]
    failures: dict[str, str]
    damaged: dict[str, str] = field(default_factory=dict)
    manifest: Manifest | None = None

    def path(self, video: str) -> Path:
        """Where a video lies; of a stored one, a path into its store."""
        return self.cache.root / video

    @patience(_STORE_PATIENCE_S)
    def footage(self, videos: Iterable[str], folder: Path) -> tuple[dict[str, TimedVideo], dict[str, str]]:
        """What decoders need to know of some of the videos, whole: by name; and why others cannot be decoded.

        Args:
            folder: for the journal of a probe, where no manifest is known.
        """
        of_path = {str(self.path(video)): video for video in videos}
        manifest, failures = self.manifest, {}
        if manifest is None and of_path:
            described = _described(list(of_path), folder)
            manifest, failures = described.manifest, described.reasons
        paths = [] if manifest is None else [str(manifest.root / path) for path in manifest.paths]
        rows = [row for row, path in enumerate(paths) if path in of_path]
        whole = {
            of_path[str(video.path)]: (replace(video, first_frame=0, num_frames=video.file_frames), timeline)
            for video, timeline in (timed_videos(manifest, rows) if rows else ())
        }
        return whole, {of_path[path]: text for path, text in failures.items()}


@dataclass(frozen=True)
class _Described:
    """manifest: of the videos that can be used; None: none can. failures: path -> why another cannot. damaged: path -> what is
    missing of one that can."""

    manifest: Manifest | None
    failures: dict[str, Failure]
    damaged: dict[str, str]

    @property
    def reasons(self) -> dict[str, str]:
        return {path: failure.text for path, failure in self.failures.items()}


@dataclass(frozen=True)
class _Look:
    """What an index is to have. wanted: real path -> path of each video, usable or not. held: those that it has, and that cannot be
    looked at now; failed: others that are there and cannot be used, and why."""

    wanted: dict[str, str]
    found: _Described
    held: dict[str, Identity]
    failed: dict[str, str]

    @property
    def manifest(self) -> Manifest:
        return self.found.manifest


def open_index(videos: Sequence[Path], folder: Path, kind: FeatureKind, *, allow_outside: bool = False) -> VideoIndex:
    """Bring an index up to date: `videos` are added, files that have changed are extracted anew, those that are gone dropped.

    What cannot be used is kept in mind and told by each search of all. Where that may pass (the disk, time, a crash) it is tried
    again each time, and features that are there stay.

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
    look = None if interrupted(folder) or _lacks(folder, named) else _look(named, folder)
    if look is None or not _is_current(folder, look):
        look = _added(named, folder, kind, say if look is None else lambda _: None)
    return _checked(_searched(FeatureCache(folder, digest=kind.digest, manifest=look.manifest), look, named, unread))


def _added(named: Sequence[str], folder: Path, kind: FeatureKind, tell: Callable[[str], None]) -> _Look:
    """Extract what an index does not have. Whoever is killed at it, also while files are looked at, is gone on with."""
    with alone(folder):  # another process may have added to it meanwhile
        begun = read_wanted(folder)
        remember(folder, list(each_once([*begun, *named]).values()))
        try:
            look = _look(named, folder, begun, tell)
        except InputError:
            remember(folder, begun)
            raise
        work = Work(dtype=kind.dtype)
        beside = {"held": look.held, "failed": look.failed}
        extract(look.manifest, kind.encoder(), folder, kind.grid, work, option="--index", **beside)
        remember(folder, [])
    return look


def _searched(cache: FeatureCache, look: _Look, named: Sequence[str], unread: Mapping[str, str]) -> VideoIndex:
    """An index that is up to date, as far as it was asked for."""
    known = cache.failures | look.found.reasons
    asked = [look.wanted[os.path.realpath(path)] for path in named] or [*cache.videos, *known]
    videos = [path for path in dict.fromkeys(asked) if path in cache and path not in known]
    failures = dict(unread) | {path: known[path] for path in asked if path in known}
    damaged = {path: look.found.damaged[path] for path in videos if path in look.found.damaged}
    return VideoIndex(cache, videos, failures, damaged, look.manifest)


def can_only_be_read(folder: Path, videos: Sequence[Path]) -> bool:
    """Whether an index is searched as it is: nothing is to be added to it, and nothing can be."""
    return not videos and (folder / INDEX_NAME).is_file() and not os.access(folder, os.W_OK)


@patience(_STORE_PATIENCE_S)
def _look(
    named: Sequence[str],
    folder: Path,
    begun: Sequence[str] = (),
    tell: Callable[[str], None] = say,
) -> _Look:
    """The videos of an index, usable or not, and those named.

    Args:
        begun: those that an interrupted start was asked for.

    Raises:
        InputError: there is none, or none can be used.
    """
    kept, failed = _known(folder)
    found = list(each_once([*kept, *failed, *begun]).values())
    if begun:
        tell(f"an interrupted start is gone on with, of {len(begun)} videos")
    known = that_are_there(found)
    gone = sorted(set(found).difference(known))
    wanted = each_once([*known, *named])
    if not wanted and gone:
        raise InputError(
            f"no video: of the {len(gone)} of '{folder}' none is there any more ({some(gone)}), and none is named: bring them "
            "back, or name others"
        )
    if not wanted:
        raise InputError(f"no video: '{folder}' has none, and none is named")
    if any(path not in kept and path not in failed for path in wanted.values()):
        tell(
            f"{len(wanted)} videos: those that are new or have changed are looked at, then their features are extracted"
        )
    described = _described(list(wanted.values()), folder, tell)
    if described.manifest is None:
        raise InputError(f"none of the {len(wanted)} videos can be used: {told(described.reasons)}")
    _tell_gone(gone, kept, failed, tell)
    held = {
        path: kept[path].identity for path, why in described.failures.items() if path in kept and why.kind in TRY_AGAIN
    }
    failed = {path: why.text for path, why in described.failures.items() if path not in held and why.kind != "missing"}
    return _Look(wanted, described, held, failed)


def _tell_gone(gone: Sequence[str], kept: Container[str], failed: Container[str], tell: Callable[[str], None]) -> None:
    """Of the videos that are not there any more: those that had features, and those that an interrupted start was asked for."""
    if dropped := [path for path in gone if path in kept]:
        tell(f"{len(dropped)} videos of the index are not there any more, their features are dropped: {some(dropped)}")
    if missed := [path for path in gone if path not in kept and path not in failed]:
        tell(f"{len(missed)} videos of the interrupted start are not there any more, they are left out: {some(missed)}")


def _known(folder: Path) -> tuple[dict[str, CachedVideo], dict[str, FailedVideo]]:
    """The videos that an index has features of, and those that it knows to have none."""
    return read_index(folder)[1:3] if (folder / INDEX_NAME).is_file() else ({}, {})


def _lacks(folder: Path, named: Sequence[str]) -> bool:
    """Whether some of these videos are new to an index, and there."""
    if not named:
        return False
    known = each_once(path for videos in _known(folder) for path in videos)
    return bool(that_are_there([path for real, path in each_once(named).items() if real not in known]))


def _checked(index: VideoIndex) -> VideoIndex:
    """The index, if there is anything to search in it."""
    if not index.videos:
        raise InputError(f"none of the videos asked for can be used: {told(index.failures)}")
    return index


def _described(paths: Sequence[str], folder: Path, tell: Callable[[str], None] = say) -> _Described:
    """What is known of these files and stored videos."""
    plain = [path for path in paths if not is_stored(path)]
    rows, failures = stored_rows([path for path in paths if is_stored(path)])
    with Journal(folder / "videos.journal") as journal:
        settings = IndexSettings(num_workers=min(4, len(plain)), time_limit_s=_PROBE_S, max_hours=_MAX_HOURS)
        records = probe_files(plain, _ROOT, journal, settings, tell=tell) if plain else {}
    damaged = {}
    for path, record in records.items():
        if isinstance(record.found, Failure):
            failures[path] = record.found
            continue
        rows.append(build_row(Entry(path, ""), record))
        if record.found.damage:
            damaged[path] = record.found.damage
    return _Described(Manifest.from_rows(rows, _ROOT) if rows else None, failures, damaged)


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


def _is_current(folder: Path, look: _Look) -> bool:
    """Whether an index has all that it is to have, and nothing that failed may be tried again."""
    if not (folder / INDEX_NAME).is_file():
        return False
    _, kept, failed, notes = read_index(folder)
    wanted = identities(look.manifest) | look.held
    if notes.get("num_passing", len(failed)):  # versions of before did not tell them apart
        return False
    return {*kept, *failed} == {*wanted, *look.failed} and notes["videos_digest"] == videos_digest(wanted)
