"""Means and their errors, intervals of paired differences, rank correlation: against values by hand and from tables."""

import math

import pytest

from engine.results.spread import difference, mean_of, rank_correlation


def test_mean_error_and_standard_deviation():
    mean = mean_of([0.2, 0.3, 0.7])
    assert (mean.value, mean.count) == (pytest.approx(0.4), 3)
    assert mean.std == pytest.approx(math.sqrt(0.07)) and mean.error == pytest.approx(math.sqrt(0.07 / 3))
    assert str(mean_of([0.25])) == "0.250" and mean_of([0.25]).error == 0


def test_a_paired_difference_has_the_interval_of_students_t():
    """Two that differ far less than either varies: 12.706 and 2.776 are the table's for one and four degrees of freedom."""
    found = difference([(0.12, 0.1), (0.54, 0.5)])
    assert found.value == pytest.approx(0.03)
    assert (found.low, found.high) == pytest.approx((0.03 - 12.7062 * 0.01, 0.03 + 12.7062 * 0.01), abs=1e-6)
    five = difference([(value + 0.1, value) for value in (0.1, 0.5, 0.3, 0.9)] + [(0.25, 0.2)])
    assert five.high - five.value == pytest.approx(2.776445 * 0.01, abs=1e-6)
    assert str(five) == "+0.090 (+0.062 to +0.118)"
    assert str(difference([(0.3, 0.1)])) == "+0.200 (one pair says nothing)"


def test_rank_correlation():
    assert rank_correlation([1, 2, 3, 9], [0.1, 0.2, 0.3, 0.35]) == pytest.approx(1)
    assert rank_correlation([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    # by hand, ties share ranks: (1, 2.5, 2.5, 4) against (2, 1, 3, 4)
    assert rank_correlation([1, 2, 2, 4], [2, 1, 3, 4]) == pytest.approx(3.0 / math.sqrt(4.5 * 5))
    assert rank_correlation([1, 1, 1], [1, 2, 3]) == 0.0
