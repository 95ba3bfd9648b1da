"""The sampler: an epoch that is drawn at once, and the stream of epochs. What all plans have in common: `test_plans.py`."""

import numpy as np
import pytest

from engine.data.sampling.sampler import (
    evaluation_motions,
    evaluation_starts,
    plan_epoch,
    replacement_position,
    stream_slice,
)


def test_stream_crosses_epochs_without_loss():
    epochs, positions = stream_slice(2, 7, 5, epoch_size=9)
    assert list(zip(epochs.tolist(), positions.tolist(), strict=True)) == [(2, 7), (2, 8), (3, 0), (3, 1), (3, 2)]


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_ranks_share_the_same_global_batch(world_size):
    whole = list(zip(*stream_slice(0, 6, 12, epoch_size=10), strict=True))
    parts = [whole[rank::world_size] for rank in range(world_size)]
    assert sorted(position for part in parts for position in part) == whole


def test_evaluation_starts():
    assert evaluation_starts(116, 5).tolist() == [0, 25, 50, 75, 100]
    assert evaluation_starts(116, 1).tolist() == [50]
    assert evaluation_starts(10, 3).tolist() == [0, 0, 0]
    starts = evaluation_starts(300, 25)
    assert (starts[0], starts[-1], len(starts)) == (0, 284, 25)
    assert np.ptp(np.diff(starts)) <= 1


def test_replacement_is_deterministic_and_in_the_epoch():
    positions = [replacement_position(0, 1, 2, attempt, 50) for attempt in range(20)]
    assert positions == [replacement_position(0, 1, 2, attempt, 50) for attempt in range(20)]
    assert len(set(positions)) > 5
    assert all(0 <= position < 50 for position in positions)


def test_an_epoch_is_drawn_as_ever():
    """Recorded results hang on these draws."""
    plan = plan_epoch(np.array([20, 30, 40, 16, 50]), seed=1, epoch=2, weights=np.array([1, 1, 2, 1, 0.5]))
    assert plan.video.tolist() == [3, 2, 4, 0, 1, 2]
    assert plan.start.tolist() == [0, 18, 10, 0, 1, 8]
    assert plan.flip.tolist() == [False, True, True, True, True, False]
    assert plan.crop_y[:2].tolist() == [0.7841964364051819, 0.8699725866317749]


def test_weights_of_one_change_nothing():
    frames = np.arange(20, 60)
    plain, weighted = (plan_epoch(frames, seed=5, epoch=1, weights=w) for w in (None, np.ones(40)))
    for name in ("video", "start", "crop_y", "crop_x", "flip", "motion"):
        assert np.array_equal(getattr(plain, name), getattr(weighted, name))


def test_motions_for_evaluation_are_fixed_and_differ():
    motions = evaluation_motions(5)
    assert motions == evaluation_motions(5)
    assert len(set(motions)) == 5
