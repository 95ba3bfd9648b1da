"""Found moments as one HTML file: for each query its videos, each with the curve over time and a strip of pictures a moment."""

import os
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from engine.data.batch import ClipFormat, SnippetRequest
from engine.data.decoders import build_decoder
from engine.features.reading import TimedVideo
from engine.files.addresses import shown
from engine.results.html_page import render_page, write_html

_TEMPLATE = Path(__file__).parent / "moment_page.html"
_SIDE = 144  # pixels of a picture
_PICTURES = 6  # of a moment
_POINTS = 600  # most points of a curve
_FORMAT = ClipFormat(num_frames=1, short_side=_SIDE, crop=_SIDE)


@dataclass(frozen=True)
class Shown:
    """A moment. rank: its place among the query's. href, cut: links to the second in its file, and to its own file, if any.

    pictures: uint8 [H, W, 3] each; none: `problem` says why.
    """

    rank: int
    start: str
    end: str
    start_s: float
    end_s: float
    score: float
    href: str | None
    cut: str | None
    pictures: Sequence[np.ndarray]
    problem: str = ""


@dataclass(frozen=True)
class ShownVideo:
    """A video with moments of a query. edges float64 [T + 1], values float64 [T]: its curve."""

    path: Path
    duration: str
    duration_s: float
    edges: np.ndarray
    values: np.ndarray
    moments: Sequence[Shown]

    @property
    def folder(self) -> str:
        """Where it lies, as a user knows it."""
        return shown(self.path.parent)

    def points(self, low: float, high: float) -> str:
        """The curve as points of a polyline in a box 1000 wide and 100 high; of neighbours too close to tell the highest."""
        middle = (self.edges[:-1] + self.edges[1:]) / 2
        column = (middle / self.duration_s * _POINTS).astype(int)
        firsts = np.flatnonzero(np.diff(column, prepend=-1))
        x = middle[firsts] / self.duration_s * 1000
        y = 100 - 100 * (np.maximum.reduceat(self.values, firsts) - low) / max(high - low, 1e-9)
        x, y = np.concatenate([[0], x, [1000]]), np.concatenate([y[:1], y, y[-1:]])
        return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, np.clip(y, 0, 100), strict=True))

    def share(self, seconds: float) -> str:
        """A place along the curve, in percent."""
        return f"{100 * seconds / self.duration_s:.2f}%"


@dataclass(frozen=True)
class ShownQuery:
    """A query; videos in the order of their best moments. low, high: of its curves."""

    query: str
    videos: Sequence[ShownVideo]
    low: float
    high: float


@dataclass(frozen=True)
class MomentPage:
    """facts: (what, value) of the search. measure: what the curves show. failures: path -> why it was not searched.
    damaged: path -> what is missing of one that was."""

    facts: Sequence[tuple[str, str]]
    measure: str
    queries: Sequence[ShownQuery]
    failures: dict[str, str]
    damaged: dict[str, str] = field(default_factory=dict)


def write_moment_page(page: MomentPage, path: Path) -> None:
    """Write the page to `path`, complete or not at all."""
    write_html(render(page), path)


def render(page: MomentPage) -> str:
    """The page as text."""
    return render_page(_TEMPLATE, page=page)


def link(target: Path, page: Path, start_s: float | None = None, end_s: float | None = None) -> str:
    """The address of a file for a page: relative where it lies beside or below it, so that both can be moved together."""
    relative = os.path.relpath(target, page.parent)
    is_below = relative.split(os.sep, 1)[0] != ".."
    quoted = urllib.parse.quote(os.fsencode(relative if is_below else target.absolute()))
    fragment = "" if start_s is None else f"#t={start_s:.2f},{end_s:.2f}"
    return ("./" if is_below else "file://") + quoted + fragment


def pictures(footage: TimedVideo, start_s: float, end_s: float) -> tuple[list[np.ndarray], str]:
    """Frames from the beginning to the end of a moment, uint8 [H, W, 3], the same one once; or why there are none."""
    video, timeline = footage
    moments = start_s + (np.arange(_PICTURES) + 0.5) / _PICTURES * (end_s - start_s)
    numbers = np.searchsorted(timeline.times()[:-1], moments, side="right") - 1
    wanted = sorted(set(np.clip(numbers, 0, video.file_frames - 1).tolist()))
    decoder = build_decoder("pyav", _FORMAT, torch.device("cpu"), 1, len(wanted), is_patient=True)
    try:
        decoded = decoder.decode([SnippetRequest(video, number, 0.5, 0.5, flip=False) for number in wanted])
    finally:
        decoder.close()
    if decoded.failures:
        return [], next(iter(decoded.failures.values()))
    return list(decoded.frames[:, 0].numpy()), ""
