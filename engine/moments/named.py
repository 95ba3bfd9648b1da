"""Which videos a search names: files, those in folders, of manifests, and of snippet stores."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from engine.data.layouts.walk import VideoFolder
from engine.data.manifests.large_manifest import PATTERN as LARGE
from engine.data.manifests.manifest import Manifest
from engine.data.manifests.trust import check_inside
from engine.data.remote.copied import is_there
from engine.data.store.index import INDEX_NAME as STORE_NAME
from engine.data.store.index import MANIFEST_NAME
from engine.errors import InputError
from engine.files.addresses import as_path, shown, url_of
from engine.terminal.wording import counted

_SHOWN = 3  # videos named in a message
_OF_PICTURES = "a picture is searched where it is named, by itself or in a manifest"


def list_videos(
    videos: Sequence[Path], *, allow_outside: bool = False, tell: Callable[[str], None] = lambda line: None
) -> tuple[list[str], dict[str, str]]:
    """Absolute paths of files, of the video files below folders, and of the videos of manifests and stores, each once; and what
    below the folders could not be looked at, with the reason.

    A store is named by its folder, its index or its manifest, also in object storage; what is in it by paths into its index.

    Args:
        allow_outside: a manifest may name files that do not lie under its root.
        tell: is told of pictures below the folders, which are searched only where they are named.

    Raises:
        InputError: a path is not there, or is no manifest that can be read; or there are paths, and no video in them.
    """
    found: list[str] = []
    unread: dict[str, str] = {}
    pictures: set[str] = set()
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
            pictures.update(str(video.absolute() / each) for each in files.pictures)
            unread |= {str(video.absolute() / problem.path): problem.text for problem in files.problems}
        else:
            found.append(str(video.absolute()))
    passed_over = pictures.difference(found)
    if videos and not found:
        whys = [f"{counted(len(passed_over), 'picture')}: {_OF_PICTURES}"] if passed_over else []
        whys += [told(unread)] if unread else []
        why = f" ({'; '.join(whys)})" if whys else ""
        raise InputError(
            f"no video: none is in the folders named{why}: {some(videos)}: name others, or none to "
            "search an index as it is"
        )
    if passed_over:
        tell(f"note: pictures in the folders named are passed over, {len(passed_over):,} of them: {_OF_PICTURES}")
    return list(each_once(found).values()), unread


def _listed(path: Path, allow_outside: bool) -> list[str]:
    """The absolute paths of a manifest's videos."""
    manifest = Manifest.load(path)
    if not allow_outside:
        check_inside(manifest, "give --allow-outside")
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
    if not path.is_file():  # to open a pipe would wait for ever
        return False
    try:
        with path.open("rb") as file:
            return path.suffix == ".parquet" or file.read(4) == b"PAR1"
    except OSError:  # whoever opens it as a video says why
        return False


def each_once(paths: Iterable[str]) -> dict[str, str]:
    """Real path -> the first of its names."""
    found: dict[str, str] = {}
    for path in paths:
        found.setdefault(os.path.realpath(path), path)
    return found


def told(failures: Mapping[str, str]) -> str:
    """The first few of path -> reason, for a message."""
    return _few([f"{shown(path)}: {text}" for path, text in failures.items()])


def some(paths: Iterable[str | Path]) -> str:
    """The first few of them, for a message."""
    return _few([shown(path) for path in paths])


def _few(texts: Sequence[str]) -> str:
    return "; ".join(texts[:_SHOWN]) + "; ..." * (len(texts) > _SHOWN)
