"""Drawn sets before they are drawn: what they are going to hold, for plans and reports, which write nothing."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from engine.config import Config
from engine.data.batch import STILL_CODEC
from engine.data.drawn.drawn_set import MANIFEST_NAME
from engine.data.drawn.procedural import STILLS, PlannedVideo, plan_videos
from engine.data.manifests.manifest import Manifest
from engine.experiments.cells import Cell
from engine.experiments.drawn import drawn_manifests
from engine.experiments.results import Point
from engine.experiments.setup import Setup
from engine.schema.keys import with_keys


@contextmanager
def planned_sets(setup: Setup) -> Iterator[tuple[Setup, Callable[[Cell], Cell]]]:
    """The setup with its drawn sets only listed, and the way from its cells to those of the sets themselves.

    Points, costs and reports of it count the same classes and videos as once all is drawn.
    """
    if setup.base.procedural is None:
        yield setup, lambda cell: cell
        return
    folder = str(Path(setup.base.procedural.folder))
    with TemporaryDirectory() as place:
        for split in setup.splits:
            _list_set(setup.base, split, Path(place) / f"seed{split}")
        manifests = dict.fromkeys(drawn_manifests(setup.base), f"{place}/{MANIFEST_NAME}")
        base = with_keys(setup.base, {"procedural.folder": place, **manifests})
        yield dataclasses.replace(setup, base=base), lambda cell: _cell_moved(cell, f"{place}/", f"{folder}/")


def with_cells(points: Sequence[Point], renamed: Callable[[Cell], Cell]) -> list[Point]:
    """The points with other cells."""
    return [dataclasses.replace(point, cell=renamed(point.cell)) for point in points]


def _cell_moved(cell: Cell, old: str, new: str) -> Cell:
    start = _cell_moved(cell.start, old, new) if cell.start else None
    return dataclasses.replace(cell, config=_with_manifests(cell.config, old, new), start=start)


def _with_manifests(config: Config, old: str, new: str) -> Config:
    """The config with another beginning of the paths of its manifests."""
    manifests = {f"{key}.manifest": source.manifest for key, source in config.data.sources.items()}
    moved = {key: new + path.removeprefix(old) for key, path in manifests.items() if path.startswith(old)}
    return with_keys(config, moved)


def _list_set(base: Config, split: int, folder: Path) -> None:
    """The manifests that `draw_sets` is going to leave, of files that are not there."""
    section = dataclasses.replace(base.procedural, seed=split)
    videos = plan_videos(section)
    rows = [_row(video, section.frames, section.size) for video in videos]
    drawn = Manifest.from_rows(rows, folder / "drawn")
    drawn.save(folder / "drawn" / MANIFEST_NAME)
    drawn.select(np.array([video.split != STILLS for video in videos])).save(folder / "store" / MANIFEST_NAME)


def _row(video: PlannedVideo, frames: int, size: int) -> dict[str, object]:
    is_still = video.split == STILLS
    frames = 1 if is_still else frames
    return {
        "path": video.path, "class_name": video.class_name, "split": video.split, "group": f"{video.number:03d}",
        "num_frames": frames, "first_frame": 0, "file_frames": frames, "fps": 25.0, "width": size, "height": size, "rotation": 0,
        "codec": STILL_CODEC if is_still else "h264", "pixel_format": "yuv420p", "duration": frames / 25,
        "segment_start": math.nan, "segment_end": math.nan, "file_bytes": 1, "key_frames": [0], "key_pts": [0],
    }  # fmt: skip
