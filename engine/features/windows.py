"""Which frames of a video make which window: a grid of equal windows, in frames or in seconds.

    frames in order, each with its time ──▶ WindowCutter ──▶ windows in order, each of T frames with its start and end

A frame is held only while a window that is not complete needs it, so memory does not grow with the video's length.
"""

import functools
import math
import re
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.errors import InputError

if TYPE_CHECKING:
    from engine.data.pyav.in_order import Picture  # it imports torch, which tools import only after --help

FRAMES, SECONDS = "frames", "seconds"
_MAX_OVERLAP = 256  # windows that one frame may lie in: what they need is held at the same time
_SLACK_S = 2e-3  # time stamps are rounded to a millisecond in some containers: so much of an end is not missed


@dataclass(frozen=True, slots=True)
class WindowGrid:
    """Windows that begin every `hop`, each `length` long, in frames or in seconds.

    The first begins with the video's first frame. The last is the first that reaches the end; where it reaches beyond, or
    the video is shorter than a window, the last frame is repeated. So every frame lies in a window unless `hop` is longer.
    A clip's T frames are spread evenly over the window: in frames those at 0, L / T, 2 L / T ... (as snippets are, where L is
    T times the stride), in seconds those on the screen in the middle of each T-th part, whatever the frame rate.

    Raises:
        InputError: a length or hop that is not above zero, or so small a hop that a frame would lie in hundreds of windows.
    """

    length: float
    hop: float
    unit: str = FRAMES

    def __post_init__(self) -> None:
        for name, value in (("window", self.length), ("hop", self.hop)):
            if not (value > 0 and math.isfinite(value)):
                least = "at least 1 frame" if self.unit == FRAMES else "more than 0 seconds"
                raise InputError(f"--{name} is {value:g} {self.unit}: it must be {least}")
        if math.ceil(self.length / self.hop) > _MAX_OVERLAP:
            raise InputError(
                f"--hop of {self.hop:g} in a --window of {self.length:g} {self.unit}: a frame would lie in "
                f"{math.ceil(self.length / self.hop):,} windows, {_MAX_OVERLAP} at most: take a longer hop"
            )

    def __str__(self) -> str:
        return f"{self.length:g} {self.unit} every {self.hop:g}"

    def points(self, index: int, num_frames: int) -> list[float]:
        """The places, in the grid's unit after the video's beginning, at which the frames of a window are taken."""
        start = index * self.hop
        if self.unit == FRAMES:
            return [start + place * self.length // num_frames for place in range(num_frames)]
        return [start + (place + 0.5) * self.length / num_frames for place in range(num_frames)]


def parse_grid(
    window: str | None, hop: str | None, span: int, names: tuple[str, str] = ("--window", "--hop")
) -> WindowGrid:
    """The grid of a window and a hop: a number of frames ("16"), or of seconds ("2s", "0.5s").

    Args:
        span: frames that a clip of the model covers, the default of `window`. The default of `hop` is half a window.
        names: what the user calls the two.

    Raises:
        InputError: no number, or one in frames and the other in seconds.
    """
    length, unit = _quantity(names[0], window) if window else (float(span), FRAMES)
    if hop is None:
        return WindowGrid(length, max(1, length // 2) if unit == FRAMES else length / 2, unit)
    step, hop_unit = _quantity(names[1], hop)
    if hop_unit != unit:
        raise InputError(
            f"{names[0]} is in {unit} and {names[1]} in {hop_unit}: give both in one (16 and 8, or 2s and 1s)"
        )
    return WindowGrid(length, step, unit)


def _quantity(option: str, text: str) -> tuple[float, str]:
    found = re.fullmatch(r"(\d+)|(\d+|\d*\.\d+)\s*s", text.strip())
    if found is None:
        raise InputError(f"{option} is '{text}': give a whole number of frames (16), or seconds (2s, 0.5s)")
    return (float(found[1]), FRAMES) if found[1] else (float(found[2]), SECONDS)


@dataclass(slots=True)
class Window:
    """A window: when it starts and ends, in seconds of the video, and its frames."""

    start_s: float
    end_s: float
    frames: list["Picture"]


@dataclass(slots=True)
class _Open(Window):
    """A window that waits for frames."""

    points: deque[float]
    end: float  # in the grid's unit


class WindowCutter:
    """Takes the frames of one video in order and gives its windows in order.

    Args:
        num_frames: T, frames of a window.
    """

    def __init__(self, grid: WindowGrid, num_frames: int) -> None:
        self._grid, self._num_frames = grid, num_frames
        self._slack = 0.0 if grid.unit == FRAMES else _SLACK_S
        self._open: deque[_Open] = deque()
        self._num_opened = self._num_frames_seen = 0
        self._first_s = self._high = self._end_s = 0.0
        self._last_end = -math.inf  # of the last complete window, in the grid's unit
        self._picture: Callable[[], Picture] | None = None

    def add(self, start_s: float, end_s: float, picture: Callable[[], "Picture"]) -> Iterator[Window]:
        """Take the next frame; gives the windows that are complete with it, which must be gone through before the next one.

        They are made one after the other: a frame may be shown for hours. In all of them it is the same object.

        Args:
            start_s, end_s: when it appears and goes.
            picture: its pixels, uint8 [H, W, 3]; asked for once at most, and only of a frame that a window takes.
        """
        if not self._num_frames_seen:
            self._first_s = start_s
        self._num_frames_seen += 1
        self._picture, self._end_s = functools.cache(picture), end_s
        self._high = float(self._num_frames_seen) if self._grid.unit == FRAMES else end_s - self._first_s
        for window in self._open:
            self._fill(window)
        yield from self._complete()
        while self._num_opened * self._grid.hop < self._high:
            self._begin(start_s)
            self._fill(self._open[-1])
            yield from self._complete()

    def finish(self) -> list[Window]:
        """The last window, if the end of the video lies in none yet."""
        if not self._open or self._last_end >= self._high - self._slack:
            return []
        return [self._finished(self._open.popleft())]

    def _begin(self, start_s: float) -> None:
        """Open the next window; in frames it starts as the frame that is being added."""
        start = self._num_opened * self._grid.hop
        points = deque(self._grid.points(self._num_opened, self._num_frames))
        at_s = start_s if self._grid.unit == FRAMES else self._first_s + start
        self._open.append(_Open(at_s, math.nan, [], points, start + self._grid.length))
        self._num_opened += 1

    def _fill(self, window: _Open) -> None:
        """Put the frame that is being added where the window waits for it."""
        while window.points and window.points[0] < self._high:
            window.frames.append(self._picture())
            window.points.popleft()

    def _complete(self) -> Iterator[Window]:
        while self._open and self._open[0].end <= self._high + self._slack:
            yield self._finished(self._open.popleft())

    def _finished(self, window: _Open) -> Window:
        if window.points:  # the end of the video comes first
            window.frames += [self._picture()] * len(window.points)
        end_s = self._end_s
        if self._grid.unit == SECONDS:
            end_s = min(end_s, window.start_s + self._grid.length)
        self._last_end = window.end
        return Window(window.start_s, end_s, window.frames)
