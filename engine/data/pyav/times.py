"""When each frame of a file is shown, from time stamps that may be missing, in decoding order, or broken.

    stamps of the frames ──▶ presentation or decoding, the less faulty ──▶ repaired ──▶ seconds ──▶ knots

Frames are in the order in which they are shown, as decoders give them; only their stamps may lie.

Decoding stamps. AVI and raw streams have no others: FFmpeg hands them out as presentation stamps of the wrong frames.
  That of the packet which makes a decoder give out a frame is the frame's time, late by the decoder's delay (FFmpeg's
  best_effort_timestamp is it too).
Repair. A stamp that is missing or does not ascend counts as one period after the one before. One that jumps back by more
  than a second, or in broadcasts and live streams forward by more than a minute, is of a clock that was set anew: time
  goes on by one period.
Knots. Seconds are kept at some frames; between them they lie on a straight line, to a millisecond. A file of
  constant rate has two: its first frame, and its end.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from engine.data.pyav.packets import MAX_STEP_S

_SET_BACK_S = 1.0  # a step back by more is a clock that was set
_TOLERANCE_S = 1e-3  # of the knots, or a quarter of a period where that is less
_FILLING = 4  # steps at the beginning, and as many periods, in which an encoder's delay leaves its traces in AVI
_FALLBACK_S = 1 / 25

Stamps = Sequence[float | None]


@dataclass(frozen=True, slots=True)
class Timeline:
    """When the frames of a file are shown.

    frames: ascending, from 0 to the number of frames. seconds: when each is shown, after the container's start; the last
        is the end of the last frame. Both empty where nothing tells the rate.
    """

    frames: tuple[int, ...] = ()
    seconds: tuple[float, ...] = ()

    @property
    def rate(self) -> float:
        """Average, frames a second, from the first frame to the last; 0 where it is not known."""
        if not self.frames:
            return 0.0
        times = self.times()
        return 1 / (times[-1] - times[0]) if len(times) == 2 else float((len(times) - 2) / (times[-2] - times[0]))

    def times(self) -> np.ndarray:
        """Seconds at which each frame is shown, and the end: float64 [frames + 1]."""
        return np.interp(np.arange(self.frames[-1] + 1), self.frames, self.seconds)

    def between(self, start_s: float, end_s: float) -> tuple[int, int]:
        """The frames that are shown during a segment: the first, and the one behind the last (not above it if there is none)."""
        times = self.times()
        slack = 2 * _tolerance(times)  # what two roundings may be wrong by
        return int(np.sum(times[1:] <= start_s + slack)), int(np.sum(times[:-1] < end_s - slack))

    def at_rate(self, rate: float, moment: float = 0.45) -> np.ndarray:
        """The frames on the screen at (k + moment) / rate after the first, for k = 0, 1, ...: int64 [at least 1].

        A constant rate keeps every frame once, however coarse its stamps; a little before the middle, because the middle
        falls on the border of two frames where a rate is halved.
        """
        times = self.times()
        count = max(1, int(np.ceil((times[-1] - times[0]) * rate - moment - 1e-9)))
        moments = times[0] + (np.arange(count) + moment) / rate
        return np.searchsorted(times[:-1], moments, side="right") - 1


def timeline(
    pts: Stamps,
    dts: Stamps,
    *,
    rate: float,
    start_s: float | None,
    first_dts: float = 0.0,
    delay: int = 0,
    is_padded: bool = False,
    is_clock: bool = False,
) -> Timeline:
    """The times of frames in the order in which they are shown.

    Args:
        pts, dts: seconds, of each frame; `dts` of the packet that made the decoder give it out, or none at all.
        rate: frames a second as the stream says; 0 if it does not.
        start_s: of the container, by the same clock; None where it begins with the first frame.
        first_dts: of the first packet.
        delay: packets that the decoder was given before the one that made it give out its first frame.
        is_padded: the container has empty chunks where an encoder was late (AVI).
        is_clock: the stamps are of a clock that may be set anew (MPEG's transport and program streams, FLV).
    """
    shown, decoded = (np.array([np.nan if stamp is None else stamp for stamp in stamps]) for stamps in (pts, dts))
    faults = _faults(shown)
    by_decoding = (
        len(decoded) > 0 and (is_padded or faults > len(shown) // 50) and _faults(decoded) < faults + is_padded
    )
    stamps = decoded if by_decoding else shown
    known = np.flatnonzero(np.isfinite(stamps))
    if not len(known) and not rate:
        return Timeline()
    steps = np.diff(stamps)
    steps = steps[steps > 0]
    period = float(np.median(steps)) if len(steps) else 1 / rate if rate else _FALLBACK_S
    if by_decoding:
        late = stamps[known[0]] - known[0] * period - first_dts
        stamps = stamps - (late if late <= (delay + _FILLING) * period else delay * period)
    times = _repaired(stamps, period, MAX_STEP_S if is_clock else math.inf)
    times = times - (times[0] if start_s is None or not len(known) else min(start_s, times[0]))
    if (by_decoding or is_padded) and _is_paced(times, period):
        times = times[0] + period * np.arange(len(times))
    return _with_knots(times, period, rate)


def _faults(stamps: np.ndarray) -> int:
    """Stamps that are missing (but at the end, where a decoder is emptied) or do not ascend."""
    known = np.flatnonzero(np.isfinite(stamps))
    if not len(known):
        return len(stamps) + 1
    return int(known[-1] + 1 - len(known) + np.sum(np.diff(stamps[known]) <= 0))


def _repaired(stamps: np.ndarray, period: float, longest: float) -> np.ndarray:
    """Ascending seconds: the stamps where they are sound."""
    steps = np.diff(stamps)
    if np.isfinite(stamps).all() and ((steps > 0) & (steps <= longest)).all():
        return stamps
    known = np.flatnonzero(np.isfinite(stamps))
    first, clock = (stamps[known[0]] - known[0] * period, 0.0) if len(known) else (0.0, 0.0)
    times = [first]
    for stamp in stamps[1:].tolist():
        step = stamp + clock - times[-1]
        if step <= -_SET_BACK_S or step > longest:
            clock -= step - period
        times.append(times[-1] + (step if 0 < step <= longest else period))
    return np.array(times)


def _is_paced(times: np.ndarray, period: float) -> bool:
    """Whether a rate is constant but for gaps at both ends, where encoders start late and are emptied."""
    steps = np.diff(times)
    odd = np.flatnonzero(np.abs(steps - period) > period / 4)
    at_ends = (odd < _FILLING) | (odd >= len(steps) - _FILLING)
    gaps = steps[odd] - period
    return bool((at_ends & (gaps > 0)).all()) and float(gaps.sum()) <= _FILLING * period


def _tolerance(times: np.ndarray) -> float:
    return min(_TOLERANCE_S, float(np.median(np.diff(times))) / 4)


def _with_knots(times: np.ndarray, period: float, rate: float) -> Timeline:
    """The knots of a line through the times of all frames, and the end."""
    count = len(times)
    mean = (times[-1] - times[0]) / (count - 1) if count > 1 else period
    tolerance = _tolerance(np.append(times, times[-1] + mean))
    is_constant = bool((np.abs(times[0] + mean * np.arange(count) - times) <= tolerance).all())
    if is_constant:
        exact = 1 / rate if rate else mean
        step = exact if abs(exact - mean) * count <= 2 * tolerance else mean
        return _timeline((0, count), (times[0], times[0] + count * step))
    ends = [*times.tolist(), float(2 * times[-1] - times[-2])]  # the last frame stays as long as the one before it
    frames = tuple(_knots(ends, tolerance))
    return _timeline(frames, [ends[frame] for frame in frames])


def _timeline(frames: Sequence[int], seconds: Sequence[float]) -> Timeline:
    """The knots, in whole microseconds; none where no time goes by: of stamps as close as that, or too far from zero to differ."""
    rounded = tuple(round(float(second), 6) + 0.0 for second in seconds)  # no -0.0
    return Timeline(tuple(frames), rounded) if rounded[-1] > rounded[0] else Timeline()


def _knots(seconds: Sequence[float], tolerance: float) -> Iterator[int]:
    """Places between which all seconds lie within the tolerance of a straight line, found in one pass."""
    yield 0
    at, low, high = 0, -math.inf, math.inf
    for place in range(1, len(seconds)):
        slope = (seconds[place] - seconds[at]) / (place - at)
        if not low <= slope <= high:
            at, low, high = place - 1, -math.inf, math.inf
            yield at
            slope = seconds[place] - seconds[at]
        reach = tolerance / (place - at)
        low, high = max(low, slope - reach), min(high, slope + reach)
    yield len(seconds) - 1
