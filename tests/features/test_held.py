"""Pictures that are held: slides, screen recordings, and clocks that jump. Each is computed once, however long it is shown."""

import numpy as np
import pytest

from engine.data.manifests.manifest import Manifest
from engine.data.pyav.encode import write_video
from engine.data.pyav.times import Timeline
from engine.features.cache import FeatureCache
from engine.features.extract import Work, extract
from engine.features.extraction import Course
from engine.features.windows import SECONDS, WindowGrid
from tests.data.videos import numbered_frame
from tests.features.small_set import FrameReader, expected, index, write_set

HALVES = WindowGrid(0.5, 0.5, SECONDS)


def extracted(root, times, grid, size):
    """What is kept of a video whose frame k is shown from times[k] on, and the reader that was asked."""
    (root / "set" / "shown").mkdir(parents=True)
    shown = (numbered_frame(k, 64, 64) for k in range(len(times)))
    write_video(root / "set" / "shown" / "a.mkv", shown, times=times)
    reader, manifest = FrameReader(), Manifest.load(index(root))
    extract(manifest, reader, root / "features", grid, Work(batch_size=size, dtype="float32"))
    return FeatureCache(root / "features", manifest=manifest)["shown/a.mkv"], reader


def looked_at(times, start_s, grid):
    """The frames on the screen in the middle of each quarter of a window."""
    moments = start_s[:, None] + (np.arange(4) + 0.5) * grid.length / 4
    return np.searchsorted(times, moments, side="right") - 1


@pytest.mark.parametrize("grid", [HALVES, WindowGrid(2.0, 0.5, SECONDS)])
@pytest.mark.parametrize("size", [1, 3, 32])
def test_a_picture_that_is_held_is_computed_once_and_each_window_shows_its_own(tmp_path, grid, size):
    times = [0.0, 20.0, 20.04, 20.08, 60.0, 90.0, *(90 + k / 25 for k in range(1, 60)), 400.0, 401.0]
    found, reader = extracted(tmp_path, times, grid, size)
    seen = looked_at(times, found.start_s, grid)
    assert np.array_equal(found.features[:, :4], seen) and len(seen) > 800
    changes = 1 + np.any(np.diff(seen, axis=0), axis=1).sum()
    assert sum(reader.batches) == changes < 60 and max(reader.batches) <= size


def test_a_clock_that_jumps_by_hours_costs_no_computing(tmp_path):
    times = [*(k / 25 for k in range(50)), *(25_200 + k / 25 for k in range(50))]
    found, reader = extracted(tmp_path, times, HALVES, 32)
    assert len(found.features) > 50_000 and sum(reader.batches) < 12
    assert np.array_equal(found.features[:, :4], looked_at(times, found.start_s, HALVES))


def test_an_ordinary_video_is_given_to_the_network_in_the_batches_that_it_always_was(tmp_path):
    write_set(tmp_path, {"a.mp4": 50})
    reader, manifest = FrameReader(), Manifest.load(tmp_path / "videos.parquet")
    extract(manifest, reader, tmp_path / "features", WindowGrid(8, 4), Work(batch_size=3))
    assert reader.batches == [3, 3, 3, 3]
    assert np.array_equal(FeatureCache(tmp_path / "features")["shown/a.mp4"].features, expected(50))


def test_how_far_the_work_is_counts_what_is_held_for_long_as_little():
    even = Course(Timeline((0, 250), (1.0, 11.0)), HALVES)
    assert even.total == 10 and [even.at(s) for s in (1.0, 3.5, 11.0, 12.0)] == [0, 2, 10, 10]
    jump = Course(Timeline((0, 250, 251, 501), (0.0, 10.0, 36_010.0, 36_020.0)), HALVES)
    assert jump.total == 21 and jump.at(10.0) == 10 and jump.at(36_010.0) == 11
    slides = Course(Timeline((0, 60, 1560), (0.0, 60.0, 120.0)), HALVES)
    assert slides.total == 120 and slides.at(60.0) == 60
    frames = Course(Timeline((0, 60, 1560), (0.0, 60.0, 120.0)), WindowGrid(16, 8))
    assert frames.total == 1560 and frames.at(60.0) == 60
