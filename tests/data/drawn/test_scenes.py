"""Varied scenes: what is not named is the same for all classes, and only time tells the movement."""

import itertools

import numpy as np
import pytest

from engine.data.drawn.drawing import BRIGHT, SIZE, TURN
from engine.data.drawn.procedural import PlannedVideo, draw_scene_video
from engine.data.drawn.scenes import EXTRAS, SCENE_MOVEMENTS, SCENE_THINGS, SYNONYMS, draw_scene, scene_pose
from tests.data.drawn.test_drawing import neighbours_accuracy


def _scene(thing="fish", movement="circling", extra="", seed=0, frames=6, size=48):
    return draw_scene(thing, movement, extra, frames=frames, size=size, rng=np.random.default_rng(seed))


def test_equal_generators_draw_equal_scenes():
    clip = _scene()
    assert (clip.shape, clip.dtype) == ((6, 48, 48, 3), np.uint8)
    assert np.array_equal(clip, _scene())
    for other in (_scene(seed=1), _scene(thing="key"), _scene(movement="rolling"), _scene(extra="tiny")):
        assert not np.array_equal(clip, other)


def test_the_scenes_stay_as_they_are():
    """Means over the middle of some drawings: numbers measured on the set hold for what a run would draw today."""
    classes = zip([*SCENE_THINGS][8:19], [*SCENE_MOVEMENTS][5:], ["", *EXTRAS], strict=True)
    videos = [PlannedVideo("train", thing, movement, 3, extra) for thing, movement, extra in classes]
    means = [draw_scene_video(video, frames=8, size=48, seed=7)[:, :, 12:36].mean() for video in videos]
    expected = [54.165, 27.519, 26.956, 110.705, 60.855, 43.596, 33.650, 85.476, 58.234, 95.939, 42.539]
    assert np.allclose(means, expected, atol=0.01)


def test_without_nuisance_the_picture_stands_still():
    """Waves behind and noiseless light are the same in every frame, the thing is upright and in the middle half."""
    rng = np.random.default_rng
    clip = draw_scene("star", "spinning", "", frames=8, size=48, rng=rng(2), nuisance=0.0).astype(int)
    moved = (np.abs(np.diff(clip, axis=0)) > 0).any(axis=(0, 3))
    assert 0 < moved.mean() < 0.5 and not moved[:6].any() and not moved[:, :6].any()
    poses = [scene_pose("growing", 2, rng(seed), nuisance=0.0) for seed in range(20)]
    assert max(abs(pose.turn).max() for pose in poses) <= TURN[1] and {1.0} == {
        float(a) for p in poses for a in p.aspect
    }
    half = draw_scene("star", "spinning", "", frames=8, size=48, rng=rng(2), nuisance=0.5).astype(int)
    assert (np.abs(np.diff(half, axis=0)) > 0).any(axis=(0, 3)).mean() > 0.9  # the camera moves and there is noise


@pytest.mark.parametrize("movement", SCENE_MOVEMENTS)
def test_the_nuisance_is_the_same_whatever_is_shown(movement):
    """Camera, background, distractors, light and noise: bit for bit, where no thing is in front of them."""
    shown = [
        _scene(thing, movement, extra, seed=3)
        for thing, extra in (("comb", "tiny"), ("wheel", "tiny"), ("heart", "tiny"), ("heart", "near tower"))
    ]
    other = _scene("key", "falling", "tiny", seed=3)
    for clip in shown:
        same = (clip == other).all(axis=-1)
        assert same.mean() > 0.6  # noise of several levels: what is drawn anew is never equal by chance
        assert same.any(axis=(1, 2)).all()


def test_a_frame_does_not_tell_the_movement_but_sixteen_do():
    """Nearest neighbours on the true pose, of which any frame shows at most as much."""
    single, sequence, labels = [], [], []
    for label, movement in enumerate(SCENE_MOVEMENTS):
        for number in range(50):
            pose = scene_pose(movement, 16, np.random.default_rng((label, number)))
            seen = [pose.x, pose.y, np.log(pose.size), np.log(pose.aspect), np.cos(pose.turn), np.sin(pose.turn)]
            single.append(np.stack(seen)[:, number % 16])
            values = np.stack([*seen[:4], pose.turn, pose.swap])
            steps = np.diff(values)
            usual = np.median(steps[[0, 1, 2, 4]], axis=1)  # rising and falling differ in the sign of most steps
            usual[[0, 3]] = np.abs(usual[[0, 3]])  # either way is one movement
            sequence.append(np.concatenate([values.std(axis=1), usual, np.abs(steps).max(axis=1)]))
            labels.append(label)
    chance = 1 / len(SCENE_MOVEMENTS)
    assert len(SCENE_MOVEMENTS) >= 12
    assert neighbours_accuracy(np.array(single), np.array(labels)) < 2 * chance
    assert neighbours_accuracy(np.array(sequence), np.array(labels)) > 0.8


def test_what_an_extra_names_no_other_class_shows():
    scales = sorted(extra.scale for extra in EXTRAS.values() if extra.copies == 1)
    steps = [(low, high) for low, high in itertools.pairwise(scales) if low != high]
    assert len(steps) == 2  # tiny, all others, huge
    assert all(low * SIZE[1] <= high * SIZE[0] for low, high in steps)
    for extra in EXTRAS.values():
        if extra.colour:
            assert min(extra.colour) * 255 < BRIGHT[0] / 4  # saturated; unnamed colours are pale


@pytest.mark.parametrize("extra", EXTRAS)
def test_an_extra_shows_in_every_frame(extra):
    plain, with_extra = (_scene("heart", "shaking", word, seed=4).astype(int) for word in ("", extra))
    assert (np.abs(plain - with_extra).max(axis=-1) > 40).mean(axis=(1, 2)).min() > 0.01


@pytest.mark.parametrize("thing", SCENE_THINGS)
def test_a_thing_stands_out_of_its_scene(thing):
    """The same scene with a small thing: where only the large one is, the picture is another."""
    covers = _scene(thing, "shaking", seed=2).astype(int) - _scene(thing, "shaking", "tiny", seed=2)
    assert 0.01 < (np.abs(covers).sum(axis=-1) > 60).mean() < 0.5


def test_synonyms_stand_for_things():
    assert set(SYNONYMS) <= set(SCENE_THINGS)
    assert not set(SYNONYMS.values()) & set(SCENE_THINGS)
