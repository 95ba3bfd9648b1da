"""Where a video is cut into shots, and what a mean over them is."""

import numpy as np
import pytest

from engine.moments.objects import ObjectIndex, query_curve
from engine.moments.shots import find_shots, looks_of_shots, means_in_shots
from tests.moments.test_index import ManyVideos


def scenes(*lengths, noise=0.1, width=32, seed=0):
    """float16 [W, width]: so many windows of each of several scenes, alike but for noise."""
    draws = np.random.default_rng(seed)
    shown = np.repeat(draws.normal(size=(len(lengths), width)), lengths, axis=0)
    return (shown + noise * draws.normal(size=shown.shape)).astype(np.float16)


@pytest.mark.parametrize(
    "lengths", [(1,), (2,), (40,), (5, 9), (4, 30, 4), (7, 12, 4, 60, 9), (3000, 2000, 4093, 4, 100)]
)
def test_shots_begin_where_the_scene_changes(lengths):
    assert find_shots(scenes(*lengths)).tolist() == [0, *np.cumsum(lengths)]


def test_what_changes_little_by_little_is_one_shot():
    angle = np.linspace(0, np.pi, 200)[:, None]
    ends = np.linalg.qr(np.random.default_rng(0).normal(size=(32, 2)))[0].T
    drift = np.cos(angle) * ends[0] + np.sin(angle) * ends[1]
    assert find_shots(drift).tolist() == [0, 200]
    assert find_shots(np.zeros((50, 8), np.float16))[[0, -1]].tolist() == [0, 50]


def test_a_single_take_is_not_cut_however_it_trembles():
    take = scenes(200, noise=0.3)
    assert find_shots(take).tolist() == [0, 200]
    assert find_shots(np.repeat(take[:1], 50, axis=0)).tolist() == [0, 50]


def test_what_all_of_a_video_shows_hides_no_cut():
    """A network that gives much to all objects: cosines are near 1 across every cut, and the cuts are found all the same."""
    shown = np.abs(scenes(9, 7, 30, 12).astype(np.float32)) + 3
    shown /= np.linalg.norm(shown, axis=1, keepdims=True)
    assert (shown @ shown.T).min() > 0.9
    assert find_shots(shown).tolist() == [0, 9, 16, 46, 58]


def test_what_a_shot_shows_is_its_mean_and_a_long_one_is_in_pieces():
    features = scenes(3, 45, 20).astype(np.float32)
    looks = looks_of_shots(features, np.array([0, 3, 48, 68]))
    assert looks.shape == (5, 32) and looks.dtype == np.float32
    for look, (first, last) in zip(looks, ((0, 3), (3, 18), (18, 33), (33, 48), (48, 68)), strict=True):
        mean = features[first:last].mean(axis=0)
        assert np.allclose(look, mean / np.linalg.norm(mean), atol=1e-6)


def test_a_mean_stays_in_its_shot_and_a_long_shot_is_smoothed():
    curve = np.arange(40.0)
    assert means_in_shots(curve, np.array([0, 3, 10, 40])).tolist() == [
        *[1.0] * 3, *[6.0] * 7, 11.0, 11.5, *range(12, 38), 37.5, 38.0,
    ]  # fmt: skip
    whole = means_in_shots(curve, np.array([0, 20, 40]))
    assert whole.tolist() == [9.5] * 20 + [29.5] * 20


def test_a_curve_has_the_value_of_the_shot():
    cache = ManyVideos()
    curve = query_curve(cache["33.mp4"].features, cache.vector, ObjectIndex(cache).shots("33.mp4"))
    assert np.ptp(curve[8:14]) == 0 and curve[8] > 0.9 and curve[:8].max() < 0.8 and curve[14:].max() < 0.8
