"""What the best moments look like, added to the query: it finds what the words alone do not, and harms nothing that they do."""

import numpy as np
import pytest

from engine.moments.feedback import with_looks
from engine.moments.objects import ObjectIndex, find_moments, looked_for
from engine.moments.retrieval import average_window
from engine.moments.shots import looks_of_shots
from tests.moments.test_index import ManyVideos

WORD, LOOK, OTHER = np.eye(16, dtype=np.float32)[:3]
SHOTS = np.array([0, 4, 8])


def video(first, second):
    """Eight windows of two shots, of length 1."""
    windows = np.repeat(np.stack([first, second]).astype(np.float32), 4, axis=0)
    return windows / np.linalg.norm(windows, axis=1, keepdims=True)


def asked(vector, videos, **how):
    """`with_looks` over these videos, beside their average window."""
    looks = [looks_of_shots(features, SHOTS) for features in videos]
    return with_looks(vector, looks, average_window(np.concatenate(videos)), **how)


def sure_and_unsure():
    """Five videos show what the word says, and beside it how that looks; the sixth shows the look alone, and something else."""
    return [video(WORD + LOOK, np.eye(16)[3 + k]) for k in range(5)] + [video(LOOK, np.eye(16)[9])]


def test_moments_that_look_like_the_sure_ones_are_found():
    videos = sure_and_unsure()
    wanted = asked(WORD, videos)
    assert wanted.dtype == np.float32 and np.linalg.norm(wanted) == pytest.approx(1, abs=1e-6)
    last = videos[-1]
    assert np.ptp(last @ WORD) == 0  # the word alone knows nothing of it
    assert (last @ wanted)[0] > 0.3 + (last @ wanted)[4]
    assert wanted @ OTHER == pytest.approx(0, abs=1e-6)


def test_without_weight_or_without_any_likeness_the_query_is_what_it_was():
    videos = sure_and_unsure()
    assert np.allclose(asked(WORD, videos, weight=0.0), WORD, atol=1e-6)
    unseen = np.eye(16, dtype=np.float32)[15]
    assert np.allclose(asked(unseen, videos), unseen, atol=1e-6)
    assert np.allclose(asked(-WORD, videos), -WORD, atol=1e-6)


def test_what_every_window_shows_is_taken_off():
    """A background that all share is no look of what is asked for."""
    background = 2 * OTHER
    videos = [video(WORD + LOOK + background, np.eye(16)[3 + k] + background) for k in range(5)]
    wanted = asked(WORD, videos)
    assert wanted @ LOOK > 0.3 and abs(wanted @ OTHER) < wanted @ LOOK / 3


def test_the_average_of_many_windows_is_that_of_a_sample():
    draws = np.random.default_rng(0)
    features = draws.random((50_000, 8)).astype(np.float16)
    assert np.allclose(average_window(features), features.mean(axis=0, dtype=np.float64), atol=0.02)
    assert np.array_equal(average_window(features[:7]), features[:7].astype(np.float32).mean(axis=0))


def test_an_index_is_asked_with_what_its_best_videos_show():
    cache = ManyVideos()
    index = ObjectIndex(cache)
    wanted = looked_for(index, cache.videos, cache.vector)
    assert wanted @ cache.vector > 0.8
    best = find_moments(index, cache.videos, "it", wanted, 3)
    assert best[0].video == "33.mp4" and 3.5 <= best[0].start_s <= 4.75 and 6.25 <= best[0].end_s <= 7.5


def test_a_shot_has_a_say_by_the_cube_of_its_cosine():
    word, one, other = np.eye(8)[:3]
    shown = np.stack([0.8 * word + 0.6 * one, 0.4 * word + np.sqrt(1 - 0.16) * other])
    wanted = with_looks(word, [shown], np.zeros(8), weight=1.0)
    assert (wanted @ one) / (wanted @ other) == pytest.approx(0.8**3 * 0.6 / (0.4**3 * np.sqrt(0.84)), rel=1e-5)
