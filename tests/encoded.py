"""Small real videos, encoded on the spot, and their manifest."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from engine.data.manifests.manifest import Manifest
from engine.data.pyav.encode import write_video
from tests.rows import row

SIZE = (48, 32)  # width, height


def write_colors(path: Path, colors: Sequence[tuple[int, int, int]], codec: str = "mpeg4") -> Path:
    """One plain frame for each colour (R, G, B), at 25 frames a second."""
    width, height = SIZE
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, (np.full((height, width, 3), color, dtype=np.uint8) for color in colors), codec=codec)
    return path


def fade(first: tuple[int, int, int], last: tuple[int, int, int], num_frames: int) -> list[tuple[int, int, int]]:
    """Colours from one to another: every frame is its own, so that a wrong frame shows."""
    steps = np.linspace(first, last, num_frames).round().astype(int)
    return [tuple(int(value) for value in step) for step in steps]


def manifest_of(root: Path, videos: Sequence[tuple[str, str, int]], **values: object) -> Manifest:
    """A manifest of (path under root, class, frames); sizes are read off the files, 0 where there is none."""
    width, height = SIZE
    rows = []
    for path, name, num_frames in videos:
        file = root / path
        rows.append(
            row(
                path,
                name,
                num_frames=num_frames,
                file_frames=num_frames,
                width=width,
                height=height,
                codec="mpeg4",
                file_bytes=file.stat().st_size if file.exists() else 0,
                key_frames=[],
                key_pts=[],
                **values,
            )
        )
    return Manifest.from_rows(rows, root)
