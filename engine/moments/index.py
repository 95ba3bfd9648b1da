"""An index of one's own videos, in no class folders: their features, brought up to date before a search.

files and folders ──▶ probe (journal) ──▶ changed or new? ──▶ `extract` ──▶ `FeatureCache`
"""

from collections.abc import Sequence
from pathlib import Path

from engine.data.indexing import IndexSettings, build_row, probe_files
from engine.data.journal import Failure, Journal
from engine.data.layouts.listing import Entry
from engine.data.layouts.walk import VideoFolder
from engine.data.manifest import Manifest
from engine.errors import InputError
from engine.features.cache import INDEX_NAME, FeatureCache, identities, read_index, videos_digest
from engine.features.encoder import Encoder
from engine.features.extract import extract
from engine.features.windows import WindowGrid

GRID = WindowGrid(0.5, 0.5, "seconds")
_ROOT = Path("/")  # paths of the index are absolute


def open_index(
    videos: Sequence[Path], folder: Path, encoder: Encoder
) -> tuple[FeatureCache, list[str], dict[str, str]]:
    """Bring an index up to date: `videos` are added, files that have changed are extracted anew, those that are gone dropped.

    Returns:
        The features; the paths of `videos` that have some (of all, if none is named); path -> why a video has none.

    Raises:
        InputError: no video can be used, or the index is of another model or was not made here.
    """
    named, known = list_videos(videos), []
    if (folder / INDEX_NAME).is_file():
        stamp, found, _, notes = read_index(folder)
        if stamp.digest != encoder.digest:
            FeatureCache(folder, digest=encoder.digest)  # says so
        if Path(notes["root"]) != _ROOT:
            raise InputError(f"--index: '{folder}' was made of a manifest: choose another folder")
        known = [path for path in found if Path(path).exists()]
    wanted = list(dict.fromkeys([*known, *named]))
    if not wanted:
        raise InputError(
            f"no video: '{folder}' has none, and none is named" if not videos else "no video in the folders named"
        )
    with Journal(folder / "videos.journal") as journal:
        records = probe_files(wanted, _ROOT, journal, IndexSettings(num_workers=min(4, len(wanted))))
    bad = {path: record.found.text for path, record in records.items() if isinstance(record.found, Failure)}
    rows = [build_row(Entry(path, ""), record) for path, record in records.items() if path not in bad]
    if not rows:
        raise InputError(
            "none of the videos can be used: " + "; ".join(f"{path}: {text}" for path, text in bad.items())
        )
    manifest = Manifest.from_rows(rows, _ROOT)
    if not _is_current(folder, manifest):
        extract(manifest, encoder, folder, GRID)
    cache = FeatureCache(folder, digest=encoder.digest, manifest=manifest)
    return cache, [path for path in named or cache.videos if path in cache], bad | cache.failures


def list_videos(videos: Sequence[Path]) -> list[str]:
    """Absolute paths of files, and of the video files below folders, each once.

    Raises:
        InputError: a path is not there.
    """
    found: dict[str, None] = {}
    for video in videos:
        if not video.exists():
            raise InputError(f"no video at '{video}'")
        path = video.absolute()
        found |= (
            dict.fromkeys(str(path / each) for each in VideoFolder(path).paths) if path.is_dir() else {str(path): None}
        )
    return list(found)


def _is_current(folder: Path, manifest: Manifest) -> bool:
    if not (folder / INDEX_NAME).is_file():
        return False
    return read_index(folder)[3]["videos_digest"] == videos_digest(identities(manifest))
