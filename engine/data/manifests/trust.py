"""What a manifest may ask for: files under its root, pictures and lengths within limits.

A manifest may come from someone else, and every path in it will be opened.
"""

import os
from functools import lru_cache
from pathlib import Path, PurePath

import numpy as np
import pyarrow.compute as pc

from engine.data.batch import Video
from engine.data.config import SourceConfig
from engine.data.manifests.manifest import Manifest
from engine.errors import InputError
from engine.files.addresses import shown


def check_limits(manifest: Manifest, config: SourceConfig) -> None:
    """Refuse a manifest with pictures or files over the source's limits.

    Raises:
        InputError: naming the first such video.
    """
    columns = {name: manifest.table.column(name).to_numpy() for name in ("width", "height", "duration")}
    pixels = columns["width"].astype(np.int64) * columns["height"]
    for key, values, limit in (
        ("max_pixels", pixels, config.max_pixels),
        ("max_hours", columns["duration"] / 3600, config.max_hours),
    ):
        over = np.flatnonzero(values > limit)
        if len(over):
            raise InputError(
                f"manifest '{shown(manifest.source)}': {len(over)} video(s) over {key} = {limit:g}, the first is "
                f"'{_path(manifest, over[0])}' with {values[over[0]]:.6g}: index again without, or raise {key} of the source"
            )


def check_row(video: Video, seconds: float, source: Path, root: Path, config: SourceConfig) -> None:
    """Refuse one row of a manifest that is too large to be gone over as a whole; as `check_limits` and `check_inside`.

    Args:
        seconds: how long its file is. source, root: of the manifest.
    """
    for key, value, limit in (
        ("max_pixels", video.width * video.height, config.max_pixels),
        ("max_hours", seconds / 3600, config.max_hours),
    ):
        if value > limit:
            raise InputError(
                f"manifest '{shown(source)}': '{video.path}' with {value:.6g} is over {key} = {limit:g}: "
                f"index again without, or raise {key} of the source"
            )
    if config.allow_outside:
        return
    path = str(video.path)
    if not video.path.is_relative_to(root):
        _refuse(source, root, path, "it is absolute")
    if ".." in video.path.parts[len(root.parts) :]:
        _refuse(source, root, path, "it goes up by ..")
    if not _folder_is_under(video.path.parent, root) or (
        video.path.is_symlink() and not _is_under(video.path, os.path.realpath(root))
    ):
        _refuse(source, root, path, "a symbolic link leads out")


@lru_cache(maxsize=2**14)
def _folder_is_under(folder: Path, root: Path) -> bool:  # many rows are of one folder
    return _is_under(folder, os.path.realpath(root))


_OF_A_SOURCE = "set allow_outside: true in its source"


def check_inside(manifest: Manifest, allow: str = _OF_A_SOURCE) -> None:
    """Refuse a manifest with a path that leaves its root: absolute, by `..`, or by a symbolic link.

    A folder is listed once, which tells its links without a look at each file.

    Args:
        allow: what the caller's user does to read it all the same.

    Raises:
        InputError: naming the first such path.
    """
    texts, paths = manifest.table.column("path"), manifest.paths
    may_leave = pc.or_(pc.starts_with(texts, "/"), pc.match_substring(texts, ".."))
    for row in np.flatnonzero(may_leave.to_numpy()).tolist():
        if paths[row].startswith("/"):
            _refuse(manifest.source, manifest.root, paths[row], "it is absolute", allow)
        if ".." in PurePath(paths[row]).parts:
            _refuse(manifest.source, manifest.root, paths[row], "it goes up by ..", allow)
    root, links = os.path.realpath(manifest.root), set[str]()
    for folder in dict.fromkeys(path.rpartition("/")[0] for path in paths):
        directory = Path(root, folder)
        if not _is_under(directory, root):
            inside = next(path for path in paths if path.rpartition("/")[0] == folder)
            _refuse(manifest.source, manifest.root, inside, "a symbolic link leads out", allow)
        links.update(f"{folder}/{name}" if folder else name for name in _links(directory))
    for path in links.intersection(paths) if links else ():
        if not _is_under(Path(root, path), root):
            _refuse(manifest.source, manifest.root, path, "a symbolic link leads out", allow)


def _links(folder: Path) -> set[str]:
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if entry.is_symlink()}
    except OSError:  # it is not there: the decoder will say so of each file
        return set()


def _is_under(path: Path, root: str) -> bool:
    real = os.path.realpath(path)
    return real == root or os.path.commonpath([real, root]) == root


def _refuse(source: Path | None, root: Path, path: str, why: str, allow: str = _OF_A_SOURCE) -> None:
    raise InputError(
        f"manifest '{shown(source)}' names '{path}', which leaves its root '{shown(root)}' ({why}): "
        f"if you trust the manifest, {allow}"
    )


def _path(manifest: Manifest, row: int) -> str:
    return manifest.path(row)
