"""Rows of a set by their places in it."""

import numpy as np
import pytest

from engine.data.manifests.row_set import RowSet


@pytest.mark.parametrize("size", [1, 63, 255, 256, 257, 5000])
@pytest.mark.parametrize("share", [0.01, 0.5, 0.99, 1])
def test_each_place_has_its_row(size, share):
    is_there = np.random.default_rng(size).random(size) < share
    rows, kept = np.flatnonzero(is_there), RowSet.of(is_there)
    assert len(kept) == len(rows) and np.array_equal(kept.mask(), is_there)
    assert np.array_equal(kept.at(np.arange(len(rows))), rows)
    places = np.random.default_rng(0).integers(0, max(1, len(rows)), 100 if len(rows) else 0)
    assert np.array_equal(kept.at(places), rows[places]) and kept.at(places).dtype == np.int64


def test_sets_one_after_the_other_begin_with_a_block():
    masks = [np.random.default_rng(each).random(size) < 0.3 for each, size in enumerate((300, 256, 1, 1000))]
    masks.insert(1, np.zeros(70, bool))
    sets = [RowSet.of(mask) for mask in masks]
    firsts = np.cumsum([0, *(each.room for each in sets)])
    assert firsts.tolist() == [0, 512, 768, 1024, 1280, 2304]
    expected = np.concatenate([first + np.flatnonzero(mask) for first, mask in zip(firsts, masks, strict=False)])
    joined = RowSet.joined(sets)
    assert len(joined) == len(expected) and np.array_equal(joined.at(np.arange(len(joined))), expected)


def test_a_row_takes_an_eighth_of_a_byte():
    kept = RowSet.of(np.random.default_rng(0).random(2**20) < 0.9)
    assert sum(value.nbytes for value in vars(kept).values() if isinstance(value, np.ndarray)) < 0.2 * 2**20
