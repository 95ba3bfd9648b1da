"""Calibrated stacking on scores whose curve, area and best bias are known."""

import numpy as np
import pytest
import torch

from engine.evaluation.calibration import (
    Contest,
    area_under_curve,
    best_bias,
    curve,
    harmonic_mean,
    seen_accuracy,
    unseen_accuracy,
)


def contest(margin, right=None, label=None):
    right = np.ones(len(margin), bool) if right is None else np.array(right, bool)
    return Contest(np.array(margin, float), right, np.zeros(len(margin), int) if label is None else np.array(label))


def test_a_curve_by_hand():
    seen, unseen = contest([0.1, 0.5]), contest([0.3, 0.7])
    biases, of_seen, of_unseen = curve(seen, unseen)
    assert biases.tolist() == [0.1, 0.3, 0.5, 0.7]
    assert of_seen.tolist() == [1, 0.5, 0.5, 0, 0] and of_unseen.tolist() == [0, 0, 0.5, 0.5, 1]
    assert area_under_curve(seen, unseen) == 0.25
    assert best_bias(seen, unseen) == pytest.approx(0.4)  # between 0.3 and 0.5: half of both


@pytest.mark.parametrize(("seen", "unseen", "area"), [([2, 3], [0, 1], 1), ([0, 1], [2, 3], 0), ([1, 1], [1, 1], 0.5)])
def test_kinds_that_some_bias_tells_apart_and_that_none_does(seen, unseen, area):
    assert area_under_curve(contest(seen), contest(unseen)) == area
    assert area_under_curve(contest(seen, [True, False]), contest(unseen, [True, False])) <= area / 2 + 0.25


def test_the_curve_is_what_accuracy_says_at_every_bias():
    generator = np.random.default_rng(0)
    sides = [
        contest(generator.integers(-5, 6, 60), generator.random(60) < 0.7, generator.integers(0, 4, 60)) for _ in "su"
    ]
    biases, of_seen, of_unseen = curve(*sides)
    between = [biases[0] - 1, *((biases[:-1] + biases[1:]) / 2), biases[-1] + 1]
    np.testing.assert_allclose(of_seen, [seen_accuracy(sides[0], bias) for bias in between], atol=1e-12)
    np.testing.assert_allclose(of_unseen, [unseen_accuracy(sides[1], bias) for bias in between], atol=1e-12)
    best = best_bias(*sides)
    reached = [harmonic_mean(seen_accuracy(sides[0], b), unseen_accuracy(sides[1], b)) for b in (best, *between)]
    assert reached[0] == pytest.approx(max(reached))
    assert 0.5 < area_under_curve(*sides) + 0.5 < 1


def test_classes_count_alike():
    seen = contest([1, 1, 1, -1], label=[0, 0, 0, 1])
    assert seen_accuracy(seen, 0) == 0.5
    assert seen_accuracy(seen, np.array([0, 0, 2, -2])) == pytest.approx((2 / 3 + 1) / 2)
    assert seen_accuracy(seen.where(np.array([True, False, False, True])), 0) == 0.5


def test_no_bias_is_better_than_none():
    assert best_bias(contest([1], [False]), contest([0])) == 0.0
    assert best_bias(contest([1]), contest([1])) == 0.0  # one threshold: all of one kind or all of the other
    assert best_bias(contest([5, 0.5]), contest([-0.5, -5])) == 0.0  # the widest choice: nearest to 0


def test_margins_and_nearest_classes_from_vectors():
    seen, unseen = torch.eye(4)[:2], torch.eye(4)[2:]
    points = torch.tensor([[3.0, 0, 4, 0], [0, 1, 0, 0]])
    found = Contest.of(points, torch.tensor([1, 1]), seen, unseen, is_seen=True)
    np.testing.assert_allclose(found.margin, [-0.2, 1.0], atol=1e-6)
    assert found.right.tolist() == [False, True]
    assert Contest.of(points, torch.tensor([0, 0]), seen, unseen, is_seen=False).right.tolist() == [True, True]
