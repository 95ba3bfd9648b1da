"""A data set that a run draws and encodes itself: things x movements, some combinations kept for the test.

    config ──▶ plan (which combination, which split) ──▶ draw ──▶ encode ──▶ folder per class ──▶ manifest

Every thing and every movement is trained, and the unseen classes are new *combinations* of them, spread like
a Latin square: they share things and movements with each other as little as can be.
"""

import difflib
import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from tqdm import tqdm

from engine.data.config import ProceduralConfig
from engine.data.decoders import default_threads
from engine.data.drawing import MOVEMENTS, THINGS, draw_clip
from engine.data.indexing import IndexSettings, index_dataset
from engine.data.layouts.listing import Entry, Listing
from engine.data.pyav.encode import write_video
from engine.errors import InputError

DRAWING_VERSION = 1  # raise it when drawn or encoded frames change: older sets are then written again
MANIFEST_NAME = "manifest.parquet"
_MARK_NAME = "procedural.json"  # what the folder holds; its presence makes the folder ours to write again
_SPLITS = ("train", "unseen", "test")
_KEY_FRAME_EVERY = 16  # frames: a snippet late in the video need not decode it from the start


class DrawnVideo(Protocol):
    """A video of a drawn set. path: relative to the folder of the set."""

    split: str
    class_name: str
    number: int
    path: str


T = TypeVar("T", bound=DrawnVideo)


@dataclass(frozen=True, slots=True)
class PlannedVideo:
    """One video of the set: `number` counts within its class."""

    split: str
    thing: str
    movement: str
    number: int

    @property
    def class_name(self) -> str:
        return f"{self.thing} {self.movement}"

    @property
    def path(self) -> str:
        """Relative to the folder of the set."""
        return f"{self.split}/{self.class_name}/{self.number:03d}.mp4"


def write_procedural_dataset(config: ProceduralConfig) -> Path:
    """Draw, encode and index the set, unless the folder holds it already. Interrupted writing is continued.

    Videos are a pure function of the config: H.264 at `folder/{train,unseen}/CLASS/NNN.mp4`. A set of
    another config in the folder is replaced.

    Returns:
        The manifest, with splits "train" and "unseen".

    Raises:
        InputError: unknown names, too many unseen combinations, or a folder that holds something else.
    """

    def draw(video: PlannedVideo) -> np.ndarray:
        return draw_video(video, frames=config.frames, size=config.size, seed=config.seed)

    return write_drawn_set(Path(config.folder), "procedural", description(config), plan_videos(config), draw)


def write_drawn_set(
    folder: Path,
    key: str,
    described: Mapping[str, object],
    videos: Sequence[T],
    draw: Callable[[T], np.ndarray],
    fps: float = 25,
) -> Path:
    """Encode and index drawn videos at `folder`/`video.path`, as `write_procedural_dataset` says; returns the manifest.

    Args:
        key: the section of the config that asks for them. described: what decides the content of the folder, for JSON.
        draw: gives the frames of a video, uint8 [T, H, W, 3].
    """
    manifest = folder / MANIFEST_NAME
    _claim(folder, key, described)
    missing = [video for video in videos if not (folder / video.path).is_file()]
    if missing:
        manifest.unlink(missing_ok=True)
        _write_videos(missing, folder, draw, fps)
    if not manifest.is_file():
        _index(videos, folder, manifest)
    return manifest


def plan_videos(config: ProceduralConfig) -> list[PlannedVideo]:
    """All videos of the set, training classes first.

    Raises:
        InputError: unknown or doubled names, or too many unseen combinations.
    """
    things = chosen("procedural.things", config.things, THINGS)
    movements = chosen("procedural.movements", config.movements, MOVEMENTS)
    unseen = unseen_combinations(things, movements, config.num_unseen, config.seed)
    seen = [(thing, movement) for thing in things for movement in movements if (thing, movement) not in unseen]
    counts = {"train": config.videos_per_class, "unseen": max(1, config.videos_per_class // 2)}
    return [
        PlannedVideo(split, *combination, number)
        for split, combinations in zip(counts, (seen, unseen), strict=True)
        for combination in combinations
        for number in range(counts[split])
    ]


def unseen_combinations(
    things: Sequence[str], movements: Sequence[str], num_unseen: int, seed: int
) -> list[tuple[str, str]]:
    """Which (thing, movement) pairs are kept for the test.

    Both lists are shuffled and the pairs taken along the diagonals of their table: numbers of pairs with
    the same thing (or movement) differ by one at most.

    Raises:
        InputError: some thing or movement would not be trained at all.
    """
    generator = np.random.default_rng((seed, 0))
    rows, columns = generator.permutation(things).tolist(), generator.permutation(movements).tolist()
    if math.ceil(num_unseen / len(rows)) >= len(columns) or math.ceil(num_unseen / len(columns)) >= len(rows):
        raise InputError(
            f"procedural.num_unseen is {num_unseen} of {len(rows)} x {len(columns)} combinations: some thing or movement "
            "would never be trained; keep fewer unseen, or add things and movements"
        )
    lap = math.lcm(len(rows), len(columns))  # then the diagonal meets its own start, and the next one is taken
    return [(rows[k % len(rows)], columns[(k + k // lap) % len(columns)]) for k in range(num_unseen)]


def draw_video(video: PlannedVideo, *, frames: int, size: int, seed: int) -> np.ndarray:
    """The frames of one video, uint8 [frames, size, size, 3]: a pure function of the arguments."""
    key = (seed, 1, list(THINGS).index(video.thing), list(MOVEMENTS).index(video.movement), video.number)
    return draw_clip(video.thing, video.movement, frames=frames, size=size, rng=np.random.default_rng(key))


def chosen(key: str, names: Sequence[str], known: dict[str, Callable[..., object]]) -> list[str]:
    """The names that a key of the config gives, or all that are known.

    Raises:
        InputError: one is not known, or stands twice.
    """
    for index, name in enumerate(names):
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean '{close[0]}'? " if close else ""
            raise InputError(f"{key}: nothing here draws '{name}': {hint}there are {', '.join(known)}")
        if name in names[:index]:
            raise InputError(f"{key}: '{name}' stands twice: keep one")
    return list(names or known)


def description(config: Any) -> dict[str, object]:
    """What decides the content of the folder, with the default names spelt out."""
    names = {"things": list(config.things or THINGS), "movements": list(config.movements or MOVEMENTS)}
    described = {**asdict(config), **names, "drawing_version": DRAWING_VERSION}
    del described["folder"]
    return described


def _claim(folder: Path, key: str, described: Mapping[str, object]) -> None:
    """Make the folder ours: new, or holding (part of) this very set, or emptied of another one."""
    mark = folder / _MARK_NAME
    if not mark.is_file() and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(
            f"{key}.folder '{folder}' holds something else than a procedural data set: name a new or empty folder"
        )
    if mark.is_file() and mark.read_text(encoding="utf-8") == _as_text(described):
        for leftover in folder.glob("*/*/*.partial-*"):  # of a writing that was killed
            leftover.unlink(missing_ok=True)
        return
    # The mark first says nothing and at last what is there: killed in between, the folder is emptied again.
    folder.mkdir(parents=True, exist_ok=True)
    mark.write_text("", encoding="utf-8")
    (folder / MANIFEST_NAME).unlink(missing_ok=True)
    for split in _SPLITS:
        shutil.rmtree(folder / split, ignore_errors=True)
    mark.write_text(_as_text(described), encoding="utf-8")


def _as_text(described: Mapping[str, object]) -> str:
    return json.dumps(described, indent=1)


def _write_videos(videos: Sequence[T], folder: Path, draw: Callable[[T], np.ndarray], fps: float) -> None:
    """Draw and encode in threads: numpy and the encoder release the interpreter for most of the time."""

    def write(video: T) -> None:
        write_video(folder / video.path, draw(video), fps=fps, gop=_KEY_FRAME_EVERY)

    for video in videos:
        (folder / video.path).parent.mkdir(parents=True, exist_ok=True)
    print(f"drawing {len(videos)} videos into {folder}", flush=True)
    pool = ThreadPoolExecutor(default_threads())
    try:
        for _ in tqdm(pool.map(write, videos), total=len(videos), unit="video", disable=None):
            pass
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C, or a full disk, ends it now


def _index(videos: Sequence[DrawnVideo], folder: Path, manifest: Path) -> None:
    """Probe every file as tools/index_dataset.py does: the manifest says what was encoded, not what was meant."""
    entries = [Entry(video.path, video.class_name, video.split, group=f"{video.number:03d}") for video in videos]
    report = index_dataset(Listing("procedural", entries), folder, manifest, IndexSettings())
    if report.files:
        manifest.unlink()
        bad = report.files[0]
        raise InputError(f"'{folder / bad.path}' cannot be read back ({bad.text}): delete '{folder}' and start again")
