"""Drawn clips: the same for the same generator, things look different, and only time tells the movement."""

import numpy as np
import pytest

from engine.data.drawn.drawing import MOVEMENTS, THINGS, draw_clip, draw_pose
from engine.data.drawn.procedural import PlannedVideo, draw_video


def _clip(thing="fish", movement="circling", seed=0, frames=8, size=32):
    return draw_clip(thing, movement, frames=frames, size=size, rng=np.random.default_rng(seed))


def test_equal_generators_draw_equal_clips():
    clip = _clip()
    assert clip.shape == (8, 32, 32, 3)
    assert clip.dtype == np.uint8
    assert np.array_equal(clip, _clip())
    for other in (_clip(seed=1), _clip(thing="moon"), _clip(movement="falling")):
        assert not np.array_equal(clip, other)


def test_the_plain_drawings_stay_as_they_are():
    """Means over blocks of the first drawings ever made: what was drawn before is what a run would draw today."""
    videos = [PlannedVideo("train", thing, "falling", 3) for thing in THINGS]
    videos += [PlannedVideo("train", "fish", movement, 5) for movement in MOVEMENTS]
    means = [draw_video(video, frames=8, size=48, seed=7)[:, :, 12:36].mean() for video in videos]
    expected = [
        77.907, 71.836, 105.192, 66.462, 88.795, 83.602, 99.017, 92.418, 67.453, 58.849, 107.467, 88.023, 71.756, 84.183, 68.204,
    ]  # fmt: skip
    assert np.allclose(means, expected, atol=0.01)


def test_things_have_different_silhouettes():
    axis = np.linspace(-1.2, 1.2, 64)
    masks = {}
    for name, shape in THINGS.items():
        for turn in (-0.6, 0.0, 0.6):
            u, v = np.meshgrid(axis, axis)
            u, v = u * np.cos(turn) + v * np.sin(turn), v * np.cos(turn) - u * np.sin(turn)
            masks[name, turn] = np.min([distance for _, distance in shape(u, v)], axis=0) < 0
    for name in THINGS:
        mask = masks[name, 0.0]
        assert 0.1 < mask.mean() < 0.6
        for (other, _), other_mask in masks.items():
            if other != name:
                assert (mask & other_mask).sum() / (mask | other_mask).sum() < 0.8, (name, other)


@pytest.mark.parametrize("thing", THINGS)
def test_the_thing_stands_out_of_the_background(thing):
    clip = draw_clip(thing, "shaking", frames=4, size=48, rng=np.random.default_rng(5)).astype(int)
    background = np.median(clip, axis=(1, 2), keepdims=True)
    share = (np.abs(clip - background).sum(axis=-1) > 100).mean()
    assert 0.02 < share < 0.6


@pytest.mark.parametrize("movement", MOVEMENTS)
def test_the_thing_stays_in_the_frame(movement):
    for seed in range(50):
        pose = draw_pose(movement, 32, np.random.default_rng(seed))
        for position in (pose.x, pose.y):
            assert position.min() > 0.2
            assert position.max() < 0.8


def test_a_frame_does_not_tell_the_movement_but_sixteen_do():
    """Nearest neighbours on the true pose, of which any frame shows at most as much."""
    num_examples = 150
    single, sequence, labels = [], [], []
    for label, movement in enumerate(MOVEMENTS):
        for number in range(num_examples):
            pose = draw_pose(movement, 16, np.random.default_rng((label, number)))
            values = np.stack([pose.x, pose.y, pose.size, pose.turn, pose.swap]).astype(float)
            single.append(values[:, number % 16])
            sequence.append(np.concatenate([values.std(axis=1), np.abs(np.diff(values)).max(axis=1)]))
            labels.append(label)
    chance = 1 / len(MOVEMENTS)
    # Which colour comes first says nothing: both are drawn alike.
    assert neighbours_accuracy(np.array(single)[:, :-1], np.array(labels)) < 2 * chance
    assert neighbours_accuracy(np.array(sequence), np.array(labels)) > 0.9


def neighbours_accuracy(features, labels, k=9):
    """Leave-one-out accuracy of a majority vote among the k nearest, each feature scaled to unit spread."""
    features = features / features.std(axis=0)
    distance = np.square(features[:, None] - features[None]).sum(axis=-1)
    np.fill_diagonal(distance, np.inf)
    votes = labels[np.argsort(distance, axis=1)[:, :k]]
    predicted = np.array([np.bincount(row).argmax() for row in votes])
    return (predicted == labels).mean()
