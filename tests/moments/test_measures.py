"""Overlap, recall, average precision and the prior, against values worked out by hand or by a plain second computation."""

import dataclasses

import numpy as np
import pytest

from engine.errors import InputError
from engine.moments.annotations import Annotations
from engine.moments.measures import IOUS, average_precision, iou, measure
from engine.moments.prior import Prior, fit_prior

w = np.array


def test_overlap_of_windows():
    found = iou(w([[0.0, 10], [5, 5], [-2, 3]]), w([[0.0, 10], [5, 15], [5, 5]]))
    np.testing.assert_allclose(found, [[1, 1 / 3, 0], [0, 0, 0], [3 / 12, 0, 0]])
    rng = np.random.default_rng(0)
    a, b = (np.sort(rng.integers(0, 20, (30, 2)), axis=1) + np.array([0, 1]) for _ in range(2))
    cells = [[set(range(*x)) for x in side.tolist()] for side in (a, b)]
    np.testing.assert_allclose(iou(a, b), [[len(x & y) / len(x | y) for y in cells[1]] for x in cells[0]])


def test_recall_counts_the_first_k_and_the_threshold_itself():
    true = [w([[0.0, 10]])] * 4
    found = [
        w([[0, 7.0]]),  # IoU 0.7 to the last digit but one
        w([[50, 60.0], [0, 5]]),  # 0.5 at the second place
        w([[50, 60.0]] * 5 + [[0, 10]]),  # right at the sixth
        np.zeros((0, 2)),
    ]
    result = measure(found, true)
    assert [result.recall[1, at] for at in IOUS] == [0.25, 0.25, 0.25]
    assert [result.recall[5, at] for at in IOUS] == [0.5, 0.5, 0.25]
    assert result.mean_iou == pytest.approx(0.7 / 4) and result.mean_ap is None
    assert result.to_dict()["R@5_IoU0.3"] == 0.5 and result.to_dict()["num_queries"] == 4


def test_the_nearest_of_several_true_windows_counts():
    result = measure([w([[20, 30.0]])], [w([[0, 10.0], [20, 30]])])
    assert result.recall[1, 0.7] == 1 == result.mean_iou
    assert result.mean_ap == pytest.approx(0.5)  # the other is never found


@pytest.mark.parametrize(
    ("overlap", "expected"),
    [
        ([[1, 0], [0, 1]], 1.0),
        (
            [[0, 0], [1, 0], [0, 1]],
            (2 / 3 + 2 / 3) / 2,
        ),  # interpolated: precision at recall 0.5 is the later, higher one
        ([[1, 0], [0.9, 0]], 0.5),  # the same window twice: found once
        ([[0.9, 0.8], [0.95, 0]], 0.5),  # the first takes the window it overlaps most, the second has none left
        ([[0.4, 0.4]], 0.0),
    ],
)
def test_average_precision(overlap, expected):
    assert average_precision(w(overlap, dtype=float), 0.5) == pytest.approx(expected)
    assert average_precision(np.zeros((0, 2)), 0.5) == 0


def table(windows, durations):
    count = len(windows)
    return Annotations(["v"] * count, ["q"] * count, ["train"] * count, w(durations, dtype=float), windows)


def test_the_prior_is_the_interval_that_is_right_most_often():
    rng = np.random.default_rng(1)
    durations = rng.uniform(5, 100, 80)
    windows = [np.sort(rng.random((rng.integers(1, 4), 2)), axis=1) * d for d in durations]
    found = table(windows, durations)
    prior = fit_prior(found)
    grid = [(a / 40, b / 40) for a in range(40) for b in range(a + 1, 41)]
    best = np.stack([iou(w(grid) * d, win).max(axis=1) for win, d in zip(windows, durations, strict=True)], axis=1)
    for at, interval, recall in zip(IOUS, prior.intervals, prior.recall(found).values(), strict=True):
        shares = (best >= at - 1e-9).mean(axis=1).tolist()
        assert recall == pytest.approx(max(shares)) and shares[grid.index(interval)] == max(shares)


def test_the_prior_sees_no_query_and_needs_durations():
    found = table([w([[0.0, 5]]), w([[0.0, 5]]), w([[2.0, 3]])], [10, 10, np.nan])
    prior = fit_prior(found)
    assert all(iou(w([i]), w([[0, 0.5]]))[0, 0] >= at for i, at in zip(prior.intervals, IOUS, strict=True))
    assert prior.recall(found.select(w([0, 1]))) == dict.fromkeys(IOUS, 1.0)
    for bad in (found, found.select(w([], dtype=int))):
        with pytest.raises(InputError, match="duration of every video"):
            Prior(((0, 1),) * 3).recall(bad)
    with pytest.raises(InputError, match="duration of every video"):
        fit_prior(dataclasses.replace(found, durations=np.full(3, np.nan)))
