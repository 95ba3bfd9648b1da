"""What a manifest may ask for: files under its root, pictures and lengths within limits.

A manifest may come from someone else, and every path in it will be opened.
"""

import os
from collections import defaultdict
from pathlib import Path, PurePath

import numpy as np

from engine.data.batch import Video
from engine.data.config import SourceConfig
from engine.data.manifest import Manifest
from engine.data.remote.addresses import shown
from engine.errors import InputError


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
    if not _is_under(video.path, os.path.realpath(root)):
        _refuse(source, root, path, "a symbolic link leads out")


def check_inside(manifest: Manifest) -> None:
    """Refuse a manifest with a path that leaves its root: absolute, by `..`, or by a symbolic link.

    A folder is listed once, which tells its links without a look at each file.

    Raises:
        InputError: naming the first such path.
    """
    folders: dict[str, list[str]] = defaultdict(list)
    for path in manifest.paths:
        if path.startswith("/") or (".." in path and ".." in PurePath(path).parts):
            _refuse(
                manifest.source, manifest.root, path, "it is absolute" if path.startswith("/") else "it goes up by .."
            )
        folder, _, name = path.rpartition("/")
        folders[folder].append(name)
    root = os.path.realpath(manifest.root)
    for folder, names in folders.items():
        directory = Path(root, folder)
        if not _is_under(directory, root):
            _refuse(manifest.source, manifest.root, str(PurePath(folder, names[0])), "a symbolic link leads out")
        for name in _links(directory).intersection(names):
            if not _is_under(directory / name, root):
                _refuse(manifest.source, manifest.root, str(PurePath(folder, name)), "a symbolic link leads out")


def _links(folder: Path) -> set[str]:
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if entry.is_symlink()}
    except OSError:  # it is not there: the decoder will say so of each file
        return set()


def _is_under(path: Path, root: str) -> bool:
    real = os.path.realpath(path)
    return real == root or os.path.commonpath([real, root]) == root


def _refuse(source: Path | None, root: Path, path: str, why: str) -> None:
    raise InputError(
        f"manifest '{shown(source)}' names '{path}', which leaves its root '{shown(root)}' ({why}): "
        "if you trust the manifest, set allow_outside: true in its source"
    )


def _path(manifest: Manifest, row: int) -> str:
    return manifest.path(row)
