"""Writes a set of drawn videos into a folder: drawn, encoded, indexed; marked, so that it is known again.

A folder whose mark says the same is left alone or finished, one with another mark is emptied, and anything else refused. Of several
processes that want the same set at once one draws it, and the others wait for it.
"""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Protocol, TypeVar

import numpy as np
from tqdm import tqdm

from engine.data.indexing.dataset import IndexSettings, index_dataset
from engine.data.layouts.listing import Entry, Listing
from engine.data.pyav.encode import write_video
from engine.data.stills import write_picture
from engine.errors import InputError
from engine.files.locks import try_lock
from engine.machine import rank_cores

MANIFEST_NAME = "manifest.parquet"
_MARK_NAME = "procedural.json"  # what the folder holds; its presence makes the folder ours to write again
_SPLITS = ("train", "unseen", "unseen_things", "synonyms", "stills", "test")
_POLL_S = 0.2
_KEY_FRAME_EVERY = 16  # frames: a snippet late in the video need not decode it from the start


class DrawnVideo(Protocol):
    """A video of a drawn set, or a picture. path: relative to the folder of the set; ".png" of a picture."""

    split: str
    class_name: str
    number: int
    path: str


T = TypeVar("T", bound=DrawnVideo)


def write_drawn_set(
    folder: Path,
    key: str,
    described: Mapping[str, object],
    videos: Sequence[T],
    draw: Callable[[T], np.ndarray],
    fps: float = 25,
    coding: Callable[[T], Mapping[str, str]] = lambda video: {},
) -> Path:
    """Encode and index drawn videos at `folder`/`video.path`, as `write_procedural_dataset` says; returns the manifest.

    Args:
        key: the section of the config that asks for them. described: what decides the content of the folder, for JSON.
        draw: gives the frames of a video, uint8 [T, H, W, 3]; of a picture, one. coding: the encoder's options for it.
    """
    manifest = folder / MANIFEST_NAME
    with _alone_in(folder, key):
        _claim(folder, described)
        missing = [video for video in videos if not (folder / video.path).is_file()]
        if missing:
            manifest.unlink(missing_ok=True)
            _write_videos(missing, folder, draw, fps, coding)
        if not manifest.is_file():
            _index(videos, folder, manifest)
    return manifest


@contextmanager
def _alone_in(folder: Path, key: str) -> Iterator[None]:
    """While inside, no other process of this machine draws into the folder, which is made if need be; waits until none does.

    The lock is on the mark. Where it may only be read, or the disk has no locks, nobody is kept out.
    """
    mark = folder / _MARK_NAME
    is_held = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    if is_held and not mark.is_file():  # in this order: whoever draws makes the mark first
        raise InputError(
            f"{key}.folder '{folder}' holds something else than a procedural data set: name a new or empty folder"
        )
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        if not is_held or os.access(mark, os.W_OK):
            _wait_for(stack.enter_context(mark.open("a")), folder)
        yield


def _wait_for(mark: IO, folder: Path) -> None:
    """Until this process has the lock."""
    if try_lock(mark):
        return
    print(f"another process draws the videos of {folder}: waiting for it", flush=True)
    while not try_lock(mark):
        time.sleep(_POLL_S)


def _claim(folder: Path, described: Mapping[str, object]) -> None:
    """Make the folder ours: new, or holding (part of) this very set, or emptied of another one."""
    mark = folder / _MARK_NAME
    if mark.read_text(encoding="utf-8") == _as_text(described):
        for leftover in folder.glob("*/*/*.partial-*"):  # of a writing that was killed
            leftover.unlink(missing_ok=True)
        return
    # The mark first says nothing and at last what is there: killed in between, the folder is emptied again.
    mark.write_text("", encoding="utf-8")
    (folder / MANIFEST_NAME).unlink(missing_ok=True)
    for split in _SPLITS:
        shutil.rmtree(folder / split, ignore_errors=True)
    mark.write_text(_as_text(described), encoding="utf-8")


def _as_text(described: Mapping[str, object]) -> str:
    return json.dumps(described, indent=1)


def _write_videos(
    videos: Sequence[T],
    folder: Path,
    draw: Callable[[T], np.ndarray],
    fps: float,
    coding: Callable[[T], Mapping[str, str]],
) -> None:
    """Draw and encode in threads: numpy and the encoder release the interpreter for most of the time."""

    def write(video: T) -> None:
        path, frames = folder / video.path, draw(video)
        if path.suffix == ".png":
            write_picture(path, frames[0])
        else:
            write_video(path, frames, fps=fps, gop=_KEY_FRAME_EVERY, options=coding(video))

    for video in videos:
        (folder / video.path).parent.mkdir(parents=True, exist_ok=True)
    print(f"drawing {len(videos)} videos into {folder}", flush=True)
    pool = ThreadPoolExecutor(rank_cores())
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
