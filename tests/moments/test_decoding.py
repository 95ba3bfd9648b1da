"""From scores to moments, and from windows to segments: always inside the video, several, of any length."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from engine.errors import InputError
from engine.moments.decoding import best_moments, merged
from engine.moments.measures import iou
from engine.moments.retrieval import high_moments, relevance
from engine.moments.segments import cut_segments, parts


def features(count, hop=1.0, length=2.0, duration=None, dim=4):
    start = np.arange(count) * hop
    values = np.random.default_rng(0).normal(size=(count, dim))
    return SimpleNamespace(
        features=values, start_s=start, end_s=start + length, duration_s=duration or (count - 1) * hop + length
    )


def logits(length, *real, seed=0):
    generator = torch.Generator().manual_seed(seed)
    found = [torch.randn(len(real), length, generator=generator) * 3 for _ in range(3)]
    for row, count in enumerate(real):
        for part in found[:2]:
            part[row, count:] = -torch.inf
    return found


def edges_of(length, *real):
    return torch.stack([torch.arange(length + 1).clamp(max=count).double() * 0.5 for count in real])


@pytest.mark.parametrize("frame_score", [0.0, 1.0])
def test_the_best_moments_are_those_of_a_plain_search(frame_score):
    real, length = (9, 16, 1), 16
    start, end, inside = logits(length, *real)
    found = best_moments(
        (start, end, inside), edges_of(length, *real), frame_score=frame_score, count=5, max_overlap=0.4
    )
    for row, count in enumerate(real):
        log_start, log_end = start[row].double().log_softmax(0), end[row].double().log_softmax(0)
        all_ = []
        for i in range(count):
            for j in range(i, count):
                score = log_start[i] + log_end[j] + frame_score * inside[row, i : j + 1].double().sum()
                all_.append((i / 2, (j + 1) / 2, score.item()))
        expected = []
        for moment in sorted(all_, key=lambda m: -m[2]):
            if len(expected) < 5 and all(iou(np.array([moment[:2]]), np.array([k[:2]]))[0, 0] <= 0.4 for k in expected):
                expected.append(moment)
        mine = found[row][torch.isfinite(found[row, :, 2])]
        np.testing.assert_allclose(mine.numpy(), expected, atol=1e-6)
        assert (mine[:, 0] >= 0).all() and (mine[:, 1] <= count / 2).all()


def test_merging_keeps_the_best_of_what_overlaps():
    found = np.array([[0, 10, 1.0], [1, 10, 3], [20, 30, 2], [5, 6, -np.inf]])
    np.testing.assert_array_equal(merged(found, 5, 0.5), [[1, 10, 3], [20, 30, 2]])
    np.testing.assert_array_equal(merged(found, 1, 0.5), [[1, 10, 3]])
    assert merged(np.zeros((0, 3)), 5, 0.5).shape == (0, 3)


def test_segments_lie_between_the_middles_of_windows():
    segments = cut_segments(features(4))
    np.testing.assert_allclose(segments.edges, [0, 1.5, 2.5, 3.5, 5])
    assert (
        segments.nearest(1.4, 3.6) == (1, 2)
        and segments.nearest(4.9, 4.95) == (3, 3)
        and segments.nearest(0, 99) == (0, 3)
    )
    part = segments.part(1, 3)
    np.testing.assert_allclose(part.edges, [1.5, 2.5, 3.5])
    assert len(cut_segments(features(1))) == 1 and cut_segments(features(1)).edges.tolist() == [0, 2]


def test_segments_of_so_many_seconds_are_means():
    video = features(7, hop=0.5, length=1.0)
    segments = cut_segments(video, segment_s=1.0)
    middle = video.start_s + 0.5
    groups = [np.flatnonzero(middle // 1.0 == second) for second in range(4)]
    np.testing.assert_allclose(segments.features, [video.features[group].mean(axis=0) for group in groups], rtol=1e-6)
    assert (np.diff(segments.edges) > 0).all() and segments.edges[[0, -1]].tolist() == [0, 4]


def test_durations_that_windows_reach_past():
    segments = cut_segments(features(6, duration=3.0))
    assert segments.edges[-1] == 3 == segments.edges.max() and (np.diff(segments.edges) >= 0).all()
    for bad in (features(0, duration=1.0), features(2, duration=-1.0)):
        with pytest.raises(InputError, match="has no moments"):
            cut_segments(bad)
    spoilt = features(3)
    spoilt.features[1, 1] = np.nan
    with pytest.raises(InputError, match="not finite"):
        cut_segments(spoilt)


@pytest.mark.parametrize(("count", "length"), [(1, 16), (16, 16), (17, 16), (40, 16), (1000, 128), (33, 16)])
def test_parts_cover_a_video_and_overlap(count, length):
    found = parts(count, length)
    assert found[0][0] == 0 and found[-1][1] == count
    assert all(last - first == min(length, count) for first, last in found)
    assert all(0 < other - one <= length // 2 for (one, _), (other, _) in itertools.pairwise(found))


def test_untrained_search_finds_the_windows_that_point_where_the_query_points():
    rng = np.random.default_rng(0)
    query = rng.normal(size=8)
    points = rng.normal(size=(60, 8))
    points[20:30] += 3 * query
    points[45:50] += 2 * query
    curve = relevance(points, query)
    np.testing.assert_allclose(relevance(points * 7, query / 3), curve)
    plain = points @ query / (np.linalg.norm(points, axis=1) * np.linalg.norm(query))
    np.testing.assert_allclose(curve[[0, 30, 59]], [plain[:3].mean(), plain[28:33].mean(), plain[57:].mean()])
    found = high_moments(curve, np.arange(61.0), count=5, max_overlap=0.5)
    assert iou(found[:1, :2], np.array([[20.0, 30]]))[0, 0] > 0.65
    assert iou(found[:, :2], np.array([[45.0, 50]])).max() > 0.5
    assert (found[:, 0] >= 0).all() and (found[:, 1] <= 60).all() and (np.diff(found[:, 2]) <= 0).all()
    flat = high_moments(np.ones(3), np.arange(4.0), count=5, max_overlap=0.5)
    assert flat.tolist() == [[0, 3, 0]]
    assert relevance(np.zeros((2, 8)), query).tolist() == [0, 0]


def test_a_curve_that_rises_nowhere_has_no_moment_but_the_whole():
    """Of a still picture for a video: the sums of a smoothed curve leave differences of 1e-15."""
    point = np.random.default_rng(0).normal(size=(1, 16))
    curve = relevance(np.repeat(point, 60, axis=0), np.arange(16.0))
    assert np.ptp(curve) > 0
    assert high_moments(curve, np.arange(61.0), count=5, max_overlap=0.5).tolist() == [[0, 60, 0]]


def test_a_runs_score_is_how_far_its_mean_lies_above_the_others():
    """Else a curve that lies high everywhere would give each moment a high score."""
    curve = np.array([0.5, 0.5, 0.9, 0.9, 0.5, 0.5, 0.5, 0.5])
    found = high_moments(curve, np.arange(9.0), count=2, max_overlap=0.5)
    assert found[0].tolist() == pytest.approx([2, 4, 0.9 - 0.5])
    # a single window that is highest does not win against the longer run that it lies in
    curve = np.array([0.1, 0.1, 0.6, 0.6, 0.7, 0.6, 0.6, 0.1, 0.1, 0.1, 0.1, 0.1])
    best = high_moments(curve, np.arange(13.0), count=1, max_overlap=0.5)[0]
    assert best.tolist() == pytest.approx([2, 7, 0.62 - 0.1])
