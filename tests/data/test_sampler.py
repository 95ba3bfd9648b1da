"""The sampler: each video once an epoch, uniform starts, nothing but (seed, epoch, position) matters."""

import numpy as np
import pytest

from engine.data.sampler import (
    epoch_length,
    evaluation_motions,
    evaluation_starts,
    plan_epoch,
    replacement_position,
    stream_slice,
)


def test_every_video_once_and_order_random():
    plan = plan_epoch(np.full(1000, 100), seed=3, epoch=5)
    assert sorted(plan.video.tolist()) == list(range(1000))
    assert plan.video.tolist() != list(range(1000))


def test_pure_function_of_seed_and_epoch():
    frames = np.arange(20, 120)
    first, again = plan_epoch(frames, seed=1, epoch=2), plan_epoch(frames, seed=1, epoch=2)
    for name in ("video", "start", "crop_y", "crop_x", "flip"):
        assert np.array_equal(getattr(first, name), getattr(again, name))
        for other in (plan_epoch(frames, seed=2, epoch=2), plan_epoch(frames, seed=1, epoch=3)):
            assert not np.array_equal(getattr(first, name), getattr(other, name))


def test_starts_are_uniform_over_zero_to_frames_minus_span():
    plan = plan_epoch(np.full(60_000, 20), seed=0, epoch=0, span=16)
    counts = np.bincount(plan.start, minlength=5)
    assert len(counts) == 5  # 0..4 = 20 - 16, both ends included
    assert np.abs(counts / 60_000 - 0.2).max() < 0.01
    assert abs(plan.flip.mean() - 0.5) < 0.01
    assert abs(plan.crop_y.mean() - 0.5) < 0.01
    assert plan.crop_x.min() < 0.01
    assert plan.crop_x.max() > 0.99


def test_span_follows_stride_and_short_videos_start_at_zero():
    plan = plan_epoch(np.array([31, 40, 5, 16]), seed=0, epoch=0, span=31)
    start = dict(zip(plan.video.tolist(), plan.start.tolist(), strict=True))
    assert start[0] == 0
    assert 0 <= start[1] <= 9
    assert start[2] == start[3] == 0


def test_flip_can_be_switched_off_without_moving_anything_else():
    frames = np.full(100, 50)
    with_flip, without = plan_epoch(frames, seed=0, epoch=0), plan_epoch(frames, seed=0, epoch=0, flip=False)
    assert not without.flip.any()
    assert np.array_equal(with_flip.start, without.start)


def test_cap_keeps_the_head_of_the_same_permutation():
    frames = np.full(100, 50)
    assert (
        plan_epoch(frames, seed=0, epoch=0, clips_per_epoch=10).video.tolist()
        == plan_epoch(frames, seed=0, epoch=0).video[:10].tolist()
    )
    assert len(plan_epoch(frames, seed=0, epoch=0, clips_per_epoch=1000)) == 100


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


def test_weights_say_how_often_a_video_comes():
    frames, weights = np.full(30, 40), np.repeat([1.0, 2.5, 0.3], 10)
    plan = plan_epoch(frames, seed=1, epoch=2, weights=weights)
    assert len(plan) == epoch_length(weights) == 10 + 25 + 3
    counts = np.bincount(plan.video, minlength=30)
    assert (counts[:10] == 1).all()
    assert sorted(counts[10:20]) == [2] * 5 + [3] * 5
    assert sorted(counts[20:]) == [0] * 7 + [1] * 3
    other = np.bincount(plan_epoch(frames, seed=1, epoch=3, weights=weights).video, minlength=30)
    assert not np.array_equal(counts, other)  # the remainder is drawn anew
    first = np.bincount(plan.video[:12], minlength=30)
    assert first[:10].sum() < 10  # mixed, not one set after the other
    assert epoch_length(weights, 7) == len(plan_epoch(frames, seed=1, epoch=2, weights=weights, clips_per_epoch=7)) == 7


def test_weights_of_one_change_nothing():
    frames = np.arange(20, 60)
    plain, weighted = (plan_epoch(frames, seed=5, epoch=1, weights=w) for w in (None, np.ones(40)))
    for name in ("video", "start", "crop_y", "crop_x", "flip", "motion"):
        assert np.array_equal(getattr(plain, name), getattr(weighted, name))


def test_motions_for_evaluation_are_fixed_and_differ():
    motions = evaluation_motions(5)
    assert motions == evaluation_motions(5)
    assert len(set(motions)) == 5
