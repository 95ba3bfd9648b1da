"""Windows by what they must hold: the frames that a slow look at all of them would take."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from engine.data.batch import ClipFormat, Video
from engine.data.geometry import snippet_frames
from engine.errors import InputError
from engine.features.windows import FRAMES, SECONDS, WindowCutter, WindowGrid, parse_grid


def cut(grid, num_frames, edges):
    """All windows of a video whose frame k is shown from edges[k] to edges[k + 1], and which frames were converted."""
    cutter, asked, windows = WindowCutter(grid, num_frames), [], []
    for number, (start_s, end_s) in enumerate(itertools.pairwise(edges)):

        def picture(number=number):
            asked.append(number)
            return np.full((1, 1, 3), number)

        windows += cutter.add(start_s, end_s, picture)
    windows += cutter.finish()
    return [(window.start_s, window.end_s, [int(f[0, 0, 0]) for f in window.frames]) for window in windows], asked


def constant(num_frames, fps=25.0, first_s=0.0):
    return [first_s + k / fps for k in range(num_frames + 1)]


def slow_frames(length, hop, num_frames, total):
    """By the definition: starts until one window reaches the end; past it the last frame."""
    starts = [0]
    while starts[-1] + length < total and starts[-1] + hop < total:
        starts.append(starts[-1] + hop)
    return [[min(start + k * length // num_frames, total - 1) for k in range(num_frames)] for start in starts]


@pytest.mark.parametrize("total", [1, 2, 7, 8, 9, 15, 16, 17, 23, 24, 25, 64, 100])
@pytest.mark.parametrize(
    ("length", "hop", "num_frames"), [(16, 8, 16), (16, 16, 4), (8, 3, 8), (1, 1, 1), (5, 20, 5), (7, 1, 3)]
)
def test_windows_of_frames_are_those_of_the_definition(total, length, hop, num_frames):
    edges = constant(total, first_s=0.5)
    found, asked = cut(WindowGrid(length, hop), num_frames, edges)
    wanted = slow_frames(length, hop, num_frames, total)
    assert [frames for *_, frames in found] == wanted
    assert asked[:-1] == sorted(set(asked[:-1]))  # each converted once; the last perhaps again, for filling up
    needed = {frame for frames in wanted for frame in frames}  # at the end windows were begun that are not needed
    assert {frame for frame in asked if frame < total - length} <= needed <= set(asked)
    for index, (start_s, end_s, _) in enumerate(found):
        assert (start_s, end_s) == (edges[index * hop], edges[min(index * hop + length, total)])


def test_a_window_is_a_snippet_of_the_same_start():
    clip = ClipFormat(num_frames=4, stride=3)
    video = Video(Path("x"), 40, 0, 40, 8, 8, 0, "h264", 1, (), ())
    found, _ = cut(WindowGrid(clip.num_frames * clip.stride, 5), 4, constant(40))
    assert len(found) > 5
    assert [frames for *_, frames in found] == [snippet_frames(video, 5 * k, clip) for k in range(len(found))]


@pytest.mark.parametrize("seed", range(8))
def test_windows_of_seconds_show_what_is_on_the_screen_whatever_the_frame_rate(seed):
    generator = np.random.default_rng(seed)
    edges = (1.3 + np.concatenate([[0], generator.choice([0.02, 0.04, 0.5, 1.7], 60).cumsum()])).tolist()
    length, hop, count = [(2.0, 1.0, 4), (0.3, 0.7, 2), (1.5, 0.2, 8), (500.0, 250.0, 5)][seed % 4]
    found, _ = cut(WindowGrid(length, hop, SECONDS), count, edges)
    for index, (start_s, end_s, frames) in enumerate(found):
        assert start_s == pytest.approx(edges[0] + index * hop)
        assert end_s == pytest.approx(min(start_s + length, edges[-1]))
        moments = start_s + (np.arange(count) + 0.5) * length / count
        assert frames == np.clip(np.searchsorted(edges, moments, side="right") - 1, 0, 59).tolist()
    assert found[-1][1] == pytest.approx(edges[-1]) or hop > length  # nothing of the end is missed
    assert len(found) == 1 or found[-2][1] < edges[-1] - 1e-3  # and no window more than needed


def test_rounded_time_stamps_make_no_window_of_a_millisecond():
    edges = [round(k / 29.97, 3) for k in range(301)]  # 10.010 s
    found, _ = cut(WindowGrid(edges[-1] - 0.001, 1.0, SECONDS), 4, edges)
    assert len(found) == 1


def test_no_frames_no_windows():
    assert cut(WindowGrid(16, 8), 16, [0.0]) == ([], [])


def test_a_frame_is_held_only_while_a_window_needs_it():
    class Counted:
        living = most = 0

        def __init__(self):
            Counted.living += 1
            Counted.most = max(Counted.most, Counted.living)

        def __del__(self):
            Counted.living -= 1

    cutter = WindowCutter(WindowGrid(16, 8), 16)
    for number in range(2000):
        for _ in cutter.add(number / 25, (number + 1) / 25, Counted):
            pass
    assert 16 <= Counted.most <= 34


@pytest.mark.parametrize(
    ("window", "hop", "grid"),
    [
        (None, None, (16, 8, FRAMES)),
        ("32", None, (32, 16, FRAMES)), ("1", None, (1, 1, FRAMES)), ("16", "4", (16, 4, FRAMES)),
        ("2s", "1s", (2, 1, SECONDS)), ("0.5s", None, (0.5, 0.25, SECONDS)), (".5 s", "2s", (0.5, 2, SECONDS)),
        (None, "4", (16, 4, FRAMES)), ("256", "1", (256, 1, FRAMES)),
    ],
)  # fmt: skip
def test_options(window, hop, grid):
    found = parse_grid(window, hop, 16)
    assert (found.length, found.hop, found.unit) == grid


@pytest.mark.parametrize(
    ("window", "hop", "told"),
    [
        ("16", "0", "--hop is 0 frames: it must be at least 1 frame"), ("0", "8", "--window is 0 frames"),
        ("2s", "0s", "--hop is 0 seconds: it must be more than 0 seconds"),
        ("2s", "8", "--window is in seconds and --hop in frames"),
        ("-3", None, "--window is '-3': give a whole number"), ("2.5", None, "--window is '2.5'"), ("", "x", "--hop is 'x'"),
        ("nans", None, "--window is 'nans'"), ("10s", "0.001s", "10,000 windows, 256 at most"),
        ("257", "1", "257 windows, 256 at most"),
    ],
)  # fmt: skip
def test_wrong_options_are_told(window, hop, told):
    with pytest.raises(InputError) as error:
        parse_grid(window, hop, 16)
    assert told in str(error.value)
