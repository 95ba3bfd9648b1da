"""A small set of real videos with their manifest, and an encoder whose features say which frames it was given."""

from pathlib import Path

import numpy as np
import torch

from engine.data.batch import ClipFormat
from engine.data.manifests.manifest import Manifest
from engine.data.pyav.encode import write_video
from tests.data.videos import numbered_frame, numbers
from tests.small_run import run_tool

CLIP = ClipFormat(num_frames=4, stride=2, short_side=64, crop=64)
LENGTHS = {"a.mp4": 5, "b.mp4": 8, "c.mkv": 21, "d.webm": 40}  # frames


class FrameReader:
    """An `Encoder`: the feature of a clip is the numbers that its frames carry, and their sum."""

    clip, width, normalised, name, digest = CLIP, CLIP.num_frames + 1, False, "reader", "0123456789abcdef"

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(self, frames):
        self.batches.append(len(frames))
        read = np.array([numbers(clip) for clip in np.asarray(frames)])
        return torch.from_numpy(np.column_stack([read, read.sum(axis=1)]).astype(np.float32))


def write_set(root: Path, lengths: dict[str, int] | None = None, first: int = 0) -> Path:
    """root/set/shown/NAME of so many numbered frames (from `first` on), and root/videos.parquet; returns the manifest's path."""
    folder = root / "set" / "shown"
    folder.mkdir(parents=True, exist_ok=True)
    for name, length in (lengths or LENGTHS).items():
        codec = "libvpx-vp9" if name.endswith(".webm") else "libx264"
        write_video(folder / name, (numbered_frame(first + k, 64, 64) for k in range(length)), codec=codec, gop=12)
    return index(root)


def index(root: Path) -> Path:
    """(Re)write root/videos.parquet."""
    done = run_tool("index_dataset.py", root / "set", "--layout", "folder", "--out", root / "videos.parquet")
    assert done.returncode == 0, done.stderr
    return root / "videos.parquet"


def expected(length: int, first: int = 0, *, window: int = 8, hop: int = 4) -> np.ndarray:
    """What `FrameReader` says of a video of `write_set`, float [W, 5]."""
    starts = [0]
    while starts[-1] + window < length:
        starts.append(starts[-1] + hop)
    read = np.array([[first + min(start + 2 * k, length - 1) for k in range(4)] for start in starts], float)
    return np.column_stack([read, read.sum(axis=1)])


def load(path: Path) -> Manifest:
    return Manifest.load(path)
