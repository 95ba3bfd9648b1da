"""Both plans: each video once an epoch, uniform starts, weights, and nothing but (seed, epoch, position) matters."""

from pathlib import Path

import numpy as np
import pytest

from engine.data.manifests.manifest import MANY_ROWS, Manifest
from engine.data.sampling.plans import PLANS, ComputedPlan, Draw, plan_version
from engine.data.sampling.sampler import EpochPlan, epoch_length, stream_slice
from engine.data.sampling.weights import RowWeights
from tests.rows import row

both = pytest.mark.parametrize("version", PLANS)


class Lengths(Manifest):
    """A manifest of which a plan needs the lengths alone."""

    def __init__(self, num_frames: np.ndarray) -> None:
        self.num_frames = np.asarray(num_frames, np.int32)


def plan_of(version: int, num_frames: np.ndarray, weights: np.ndarray | None = None, **draw: object):
    weights = np.ones(len(num_frames)) if weights is None else np.asarray(weights, float)
    return PLANS[version](Lengths(num_frames), RowWeights.of_rows(weights), Draw(**{"seed": 0, **draw}))


def whole(version: int, num_frames: np.ndarray, epoch: int = 0, **options: object) -> EpochPlan:
    plan = plan_of(version, num_frames, **options)
    return plan.of_epoch(epoch, np.arange(plan.epoch_size))


def chi_square(counts: np.ndarray) -> float:
    """In standard deviations from what equal chances give."""
    expected, freedom = counts.sum() / counts.size, counts.size - 1
    return float((((counts - expected) ** 2).sum() / expected - freedom) / np.sqrt(2 * freedom))


@both
@pytest.mark.parametrize("count", [1, 2, 3, 5, 16, 17, 97, 255, 256, 257, 1000])
def test_every_video_once_and_order_random(version, count):
    orders = [whole(version, np.full(count, 100), epoch, seed=3).video.tolist() for epoch in range(4)]
    assert all(sorted(order) == list(range(count)) for order in orders)
    assert count < 17 or len({tuple(order) for order in [*orders, list(range(count))]}) == 5


@both
def test_pure_function_of_seed_and_epoch(version):
    frames = np.arange(20, 120)
    first, again = whole(version, frames, 2, seed=1), whole(version, frames, 2, seed=1)
    for name in EpochPlan.__slots__:
        assert np.array_equal(getattr(first, name), getattr(again, name))
        for other in (
            whole(version, frames, 2, seed=2),
            whole(version, frames, 3, seed=1),
            whole(version, frames, 1, seed=2),
        ):
            assert not np.array_equal(getattr(first, name), getattr(other, name))


@both
def test_starts_crops_and_motions_are_uniform_and_independent(version):
    plan = whole(version, np.full(60_000, 20))
    counts = np.bincount(plan.start, minlength=5)
    assert len(counts) == 5  # 0..4 = 20 - 16, both ends included
    assert chi_square(counts) < 4
    numbers = np.column_stack([plan.crop_y, plan.crop_x, plan.motion, plan.start / 4, plan.flip, plan.video / 60_000])
    assert numbers.shape == (60_000, 11) and (numbers[:, :8] >= 0).all() and (numbers[:, :8] < 1).all()
    for column in numbers[:, :8].T:
        assert abs(chi_square(np.histogram(column, 100, (0, 1))[0])) < 4
    assert abs(plan.flip.mean() - 0.5) < 0.01
    between = np.corrcoef(numbers.T) - np.eye(11)
    assert np.abs(between).max() < 4.5 / np.sqrt(60_000)
    ahead = np.corrcoef(numbers[:-1].T, numbers[1:].T)[:11, 11:]
    assert np.abs(ahead).max() < 4.5 / np.sqrt(60_000)
    assert plan.crop_y.dtype == plan.motion.dtype == np.float32 and plan.start.dtype == plan.video.dtype == np.int64


@both
@pytest.mark.parametrize("count", [40_000, 65_536, 70_001])
def test_the_order_is_as_good_as_a_draw(version, count):
    """Where in an epoch a video comes says nothing of its place in the manifest, in the next epoch or with another seed."""
    frames = np.full(count, 40)
    one, next_epoch, other = (
        whole(version, frames, epoch, seed=seed).video for seed, epoch in ((7, 0), (7, 1), (8, 0))
    )
    place = np.arange(count)
    bound = 4.5 / np.sqrt(count)
    for first, second in ((place, one), (one[:-1], one[1:]), (one, next_epoch), (one, other), (one[::2], one[1::2])):
        assert abs(np.corrcoef(first[: len(second)], second[: len(first)])[0, 1]) < bound
    blocks = np.histogram2d(place, one, bins=16)[0]
    assert abs(chi_square(blocks)) < 4
    steps = np.diff(one) % count
    assert abs(chi_square(np.histogram(steps, 64, (0, count))[0])) < 4.5
    assert abs(np.count_nonzero(one == place) - 1) < 6 and abs(np.count_nonzero(one == next_epoch) - 1) < 6
    for low_bits in (one % 16, one[::4] % 16):  # of all, and of one rank of four
        assert abs(chi_square(np.bincount(low_bits[: count // 4], minlength=16))) < 4


@both
def test_each_place_is_as_likely_for_a_video_of_a_small_set(version):
    counts = np.zeros((7, 7))
    for seed in range(1500):
        counts[np.arange(7), whole(version, np.full(7, 40), seed=seed).video] += 1
    assert abs(chi_square(counts)) < 6


@both
def test_span_follows_stride_and_short_videos_start_at_zero(version):
    for seed in range(20):
        plan = whole(version, np.array([31, 40, 5, 16]), seed=seed, span=31)
        start = dict(zip(plan.video.tolist(), plan.start.tolist(), strict=True))
        assert start[0] == start[2] == start[3] == 0
        assert 0 <= start[1] <= 9


@both
def test_flip_can_be_switched_off_without_moving_anything_else(version):
    frames = np.full(100, 50)
    with_flip, without = whole(version, frames), whole(version, frames, flip=False)
    assert with_flip.flip.any() and not without.flip.any()
    assert np.array_equal(with_flip.start, without.start)


@both
def test_cap_keeps_the_head_of_the_same_permutation(version):
    frames = np.full(100, 50)
    assert np.array_equal(whole(version, frames, clips_per_epoch=10).video, whole(version, frames).video[:10])
    assert len(whole(version, frames, clips_per_epoch=1000)) == 100


@both
def test_weights_say_how_often_a_video_comes(version):
    frames, weights = np.full(40, 40), np.repeat([1.0, 2.5, 0.3, 1.0], 10)
    plan = whole(version, frames, 2, seed=1, weights=weights)
    assert len(plan) == epoch_length(RowWeights.of_rows(weights)) == 20 + 25 + 3
    counts = np.bincount(plan.video, minlength=40)
    assert (counts[:10] == 1).all() and (counts[30:] == 1).all()
    assert sorted(counts[10:20]) == [2] * 5 + [3] * 5
    assert sorted(counts[20:30]) == [0] * 7 + [1] * 3
    drawn = [
        np.bincount(whole(version, frames, epoch, seed=1, weights=weights).video, minlength=40) for epoch in range(200)
    ]
    assert len({tuple(each) for each in drawn}) > 190  # the remainder is drawn anew
    assert abs(chi_square(np.sum(drawn, axis=0)[20:30])) < 4  # and all have their share of it
    first = np.bincount(plan.video[:12], minlength=40)
    assert first[:10].sum() < 10  # mixed, not one set after the other
    assert len(whole(version, frames, weights=weights, clips_per_epoch=7)) == 7


@both
def test_a_weight_of_almost_nothing_is_one_video(version):
    counts = [
        np.bincount(whole(version, np.full(5, 40), epoch, weights=np.full(5, 0.01)).video, minlength=5)
        for epoch in range(60)
    ]
    assert all(each.sum() == 1 for each in counts) and (np.sum(counts, axis=0) > 0).all()


@both
def test_any_places_in_any_number_are_what_the_epoch_has(version):
    plan, size = plan_of(version, np.arange(20, 57), clips_per_epoch=30), 30
    stream = [whole(version, np.arange(20, 57), epoch, clips_per_epoch=30) for epoch in range(3)]
    for batch in (1, 7, 64):
        epochs, positions = stream_slice(0, 11, batch, size)
        found = plan.at(epochs, positions)
        assert len(found) == batch
        for name in EpochPlan.__slots__:
            values = getattr(found, name)
            for place, (epoch, position) in enumerate(zip(epochs, positions, strict=True)):
                assert np.array_equal(values[place], getattr(stream[epoch], name)[position])
        parts = [plan.at(epochs[rank::3], positions[rank::3]).video for rank in range(min(3, batch))]
        assert all(np.array_equal(part, found.video[rank::3]) for rank, part in enumerate(parts))


def test_a_computed_plan_takes_no_memory_of_its_videos():
    class Many(Lengths):
        def __init__(self) -> None:
            pass

        def frames_of(self, rows: np.ndarray) -> np.ndarray:
            return (100 + rows % 7).astype(np.int32)

    count = 10**12
    plan = ComputedPlan(Many(), RowWeights.of_sets([(1.0, count), (0.25, count)]), Draw(seed=5))
    assert plan.epoch_size == count + count // 4
    found = plan.of_epoch(3, np.arange(10**11, 10**11 + 4096))
    assert len(set(found.video.tolist())) == 4096 and found.video.max() < 2 * count
    assert abs((found.video < count).mean() - 0.8) < 0.03
    assert (found.start <= 100 + found.video % 7 - 16).all()


def test_a_set_of_millions_is_computed_unless_the_config_says_otherwise():
    assert [plan_version("auto", count) for count in (10, MANY_ROWS - 1, MANY_ROWS)] == [1, 1, 2]
    assert [plan_version(name, count) for name in ("drawn", "computed") for count in (10, MANY_ROWS)] == [1, 1, 2, 2]


def test_weights_are_kept_by_runs():
    each = np.array([2, 2, 0.5, 0.5, 0.5, 2, 1.0])
    weights = RowWeights.of_rows(each)
    assert weights.values.tolist() == [2, 0.5, 2, 1] and len(weights) == 7
    assert weights.each().tolist() == each.tolist() and weights.sum() == each.sum()
    assert weights.counts() == [(0.5, 3), (1.0, 1), (2.0, 3)]
    for rows in (np.array([6, 0, 0, 3]), each == 2, np.zeros(7, bool), np.arange(7)):
        assert weights.select(rows).each().tolist() == each[rows].tolist()
    one = RowWeights.of_sets([(3.0, 5)])
    assert one.select(np.array([4, 1])).each().tolist() == [3, 3]
    none = one.select(np.zeros(5, bool))
    assert len(none) == 0 and len(none.select(np.zeros(0, bool))) == 0
    thinned = RowWeights.of_sets([(2.0, 5), (0.5, 3), (1.0, 4)]).thinned(np.array([2, 5, 8, 12]), [1, 2, 0, 3])
    assert thinned.each().tolist() == [2, 2, 2, 1, 1, 1] and len(thinned.values) == 2
    assert RowWeights.of_sets([(1.0, 2), (3.0, 1)]).each().tolist() == [1, 1, 3]


def test_a_manifest_tells_some_rows_as_it_tells_all():
    manifest = Manifest.from_rows([row(f"{i}.mp4", f"c{i % 3}", num_frames=10 + i) for i in range(9)], Path("/v"))
    rows = np.array([4, 0, 4, 8])
    assert manifest.frames_of(rows).tolist() == manifest.num_frames[rows].tolist() == [14, 10, 14, 18]
    assert manifest.classes_of(rows).tolist() == [1, 0, 1, 2]
    assert [manifest.path(each) for each in rows.tolist()] == [manifest.paths[each] for each in rows.tolist()]
