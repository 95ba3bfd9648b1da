"""Shapes of varied scenes: told from each other at the sizes they are drawn in, whatever way up."""

import numpy as np
import pytest

from engine.data.drawn.scenes import SCENE_THINGS
from engine.data.drawn.shapes import STANDING

NUM_TURNS = 24


def _masks(shape, turns=1):
    """Where a shape covers a picture of 24 pixels, at so many turns of the full circle."""
    axis = np.linspace(-1.2, 1.2, 24)
    u, v = np.meshgrid(axis, axis)
    for angle in np.arange(turns) * 2 * np.pi / turns:
        layers = shape(u * np.cos(angle) + v * np.sin(angle), v * np.cos(angle) - u * np.sin(angle))
        yield np.min([distance for _, distance in layers], axis=0) < 0


def test_no_two_outlines_agree_at_any_turn():
    shapes = {**SCENE_THINGS, **STANDING}
    assert len(SCENE_THINGS) >= 24
    upright = np.stack([next(_masks(shape)) for shape in shapes.values()])
    for index, (name, shape) in enumerate(shapes.items()):
        turned = np.stack(list(_masks(shape, NUM_TURNS)))[:, None]
        overlap = ((turned & upright).sum(axis=(2, 3)) / (turned | upright).sum(axis=(2, 3))).max(axis=0)
        assert overlap[index] == 1.0
        closest = np.delete(overlap, index)
        assert closest.max() < 0.85, (name, [*shapes][int(np.argsort(overlap)[-2])])


@pytest.mark.parametrize("thing", SCENE_THINGS)
def test_a_shape_fills_its_radius_and_tells_its_turns(thing):
    assert 0.08 < next(_masks(SCENE_THINGS[thing])).mean() < 0.6
    axis = np.linspace(-3, 3, 61)
    u, v = np.meshgrid(axis, axis)
    layers = SCENE_THINGS[thing](u, v)
    assert all(colour in (0, 1) for colour, _ in layers)
    for _, distance in layers:
        assert distance[np.hypot(u, v) > 1.35].min() > 0, "reaches out of its radius"
    painted = [_colour_map(SCENE_THINGS[thing], angle) for angle in (0.0, 0.5)]
    assert (painted[0] != painted[1]).mean() > 0.03, "turning cannot be seen"


def _colour_map(shape, angle):
    axis = np.linspace(-1.2, 1.2, 24)
    u, v = np.meshgrid(axis, axis)
    shown = np.full(u.shape, -1)
    for colour, distance in shape(u * np.cos(angle) + v * np.sin(angle), v * np.cos(angle) - u * np.sin(angle)):
        shown[distance < 0] = colour
    return shown
