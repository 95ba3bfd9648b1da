"""Shapes of drawn things, beside the eight of `engine/data/drawn/drawing.py`: told apart by their outline, whatever way up.

A shape takes coordinates (u to the right, v down, in units of the thing's radius) and gives its layers in the order
of painting: which of the thing's two colours, and the signed distance, negative inside.
"""

from collections.abc import Callable

import numpy as np

from engine.data.drawn.drawing import Array, Layers, box, disc, folded

Shape = Callable[[Array, Array], Layers]


def _line(u: Array, v: Array, start: tuple[float, float], end: tuple[float, float], radius: float) -> Array:
    """A stroke with round ends."""
    across, down = end[0] - start[0], end[1] - start[1]
    along = np.clip(((u - start[0]) * across + (v - start[1]) * down) / (across**2 + down**2), 0, 1)
    return np.hypot(u - start[0] - along * across, v - start[1] - along * down) - radius


def _ring(u: Array, v: Array, x: float, y: float, radius: float, half_width: float) -> Array:
    return np.abs(disc(u, v, x, y, radius)) - half_width


def _polygon(u: Array, v: Array, *corners: tuple[float, float]) -> Array:
    """Any simple polygon: distance to the nearest edge, its sign by how many edges lie above a point."""
    square, inside = np.full(u.shape, np.inf, u.dtype), np.zeros(u.shape, bool)
    for (x, y), (other_x, other_y) in zip(corners, (*corners[1:], corners[0]), strict=True):
        across, down = other_x - x, other_y - y
        along = np.clip(((u - x) * across + (v - y) * down) / (across**2 + down**2), 0, 1)
        square = np.minimum(square, (u - x - along * across) ** 2 + (v - y - along * down) ** 2)
        if down:
            inside ^= ((v >= y) != (v >= other_y)) & (u < x + (v - y) * across / down)
    return np.where(inside, -1, 1) * np.sqrt(square)


def _any(*parts: Array) -> Array:
    return np.minimum.reduce(parts)


def _boat(u: Array, v: Array) -> Layers:
    hull = _polygon(u, v, (-0.95, 0.3), (0.95, 0.3), (0.6, 0.8), (-0.6, 0.8))
    sail = _polygon(u, v, (-0.05, -0.95), (-0.05, 0.15), (-0.75, 0.15))
    jib = _polygon(u, v, (0.1, -0.6), (0.65, 0.15), (0.1, 0.15))
    return [(0, hull), (1, _any(sail, jib))]


def _car(u: Array, v: Array) -> Layers:
    cabin = _polygon(u, v, (-0.45, -0.45), (0.3, -0.45), (0.6, 0.0), (-0.65, 0.0))
    wheels = _any(disc(u, v, -0.5, 0.38, 0.26), disc(u, v, 0.5, 0.38, 0.26))
    return [(0, _any(box(u, v, 0, 0.15, 0.98, 0.22), cabin)), (1, wheels)]


def _key(u: Array, v: Array) -> Layers:
    teeth = _any(box(u, v, 0.55, 0.2, 0.08, 0.2), box(u, v, 0.85, 0.2, 0.08, 0.2))
    return [(0, _any(_ring(u, v, -0.58, 0, 0.3, 0.12), box(u, v, 0.35, 0, 0.62, 0.11), teeth))]


def _heart(u: Array, v: Array) -> Layers:
    lobes = _any(disc(u, v, -0.42, -0.3, 0.47), disc(u, v, 0.42, -0.3, 0.47))
    return [(0, _any(lobes, _polygon(u, v, (-0.8, -0.02), (0, -0.3), (0.8, -0.02), (0, 0.9))))]


def _arrow(u: Array, v: Array) -> Layers:
    head = _polygon(u, v, (0.95, 0), (0.25, -0.55), (0.25, 0.55))
    return [(1, box(u, v, -0.3, 0, 0.6, 0.16)), (0, head)]


def _hammer(u: Array, v: Array) -> Layers:
    return [(1, box(u, v, 0, 0.25, 0.12, 0.72)), (0, box(u, v, 0, -0.62, 0.66, 0.26))]


def _bottle(u: Array, v: Array) -> Layers:
    body = _any(box(u, v, 0, 0.42, 0.42, 0.55), disc(u, v, 0, -0.08, 0.42))
    return [(0, _any(body, box(u, v, 0, -0.55, 0.15, 0.4))), (1, box(u, v, 0, 0.42, 0.42, 0.24))]


def _butterfly(u: Array, v: Array) -> Layers:
    side = np.abs(u)
    upper = (np.hypot((side - 0.52) / 0.46, (v + 0.32) / 0.5) - 1) * 0.46
    lower = (np.hypot((side - 0.4) / 0.32, (v - 0.5) / 0.36) - 1) * 0.32
    return [(0, _any(upper, lower)), (1, _line(u, v, (0, -0.6), (0, 0.7), 0.1))]


def _snake(u: Array, v: Array) -> Layers:
    wave = 0.34 * np.sin(u * 5.4)
    body = np.maximum(np.abs(v - wave) * 0.55 - 0.09, np.abs(u) - 0.92)
    return [(0, body), (1, disc(u, v, 0.85, -0.34, 0.2))]


def _cross(u: Array, v: Array) -> Layers:
    return [(0, _any(box(u, v, 0, 0, 0.26, 0.95), box(u, v, 0, -0.2, 0.75, 0.26)))]


def _hat(u: Array, v: Array) -> Layers:
    return [(0, _any(box(u, v, 0, 0.5, 0.98, 0.13), box(u, v, 0, -0.15, 0.5, 0.6))), (1, box(u, v, 0, 0.2, 0.5, 0.14))]


def _glasses(u: Array, v: Array) -> Layers:
    rims = _any(_ring(u, v, -0.55, 0, 0.36, 0.1), _ring(u, v, 0.55, 0, 0.36, 0.1))
    return [(0, _any(rims, box(u, v, 0, -0.05, 0.2, 0.08)))]


def _spider(u: Array, v: Array) -> Layers:
    side = np.abs(u)
    legs = []
    for knee, foot in ((-0.75, -0.95), (-0.3, -0.4), (0.3, 0.4), (0.75, 0.95)):
        legs += [_line(side, v, (0, knee * 0.3), (0.5, knee), 0.06), _line(side, v, (0.5, knee), (0.9, foot), 0.06)]
    return [(0, _any(*legs)), (1, _any(disc(u, v, 0, 0.15, 0.36), disc(u, v, 0, -0.3, 0.22)))]


def _anchor(u: Array, v: Array) -> Layers:
    arms = np.maximum(_ring(u, v, 0, 0.15, 0.68, 0.11), 0.15 - v)
    stem = _any(box(u, v, 0, 0.15, 0.1, 0.75), box(u, v, 0, -0.3, 0.42, 0.1))
    return [(0, _any(arms, stem)), (1, _ring(u, v, 0, -0.75, 0.17, 0.09))]


def _crown(u: Array, v: Array) -> Layers:
    spikes = _polygon(
        u, v, (-0.9, 0.6), (-0.9, -0.6), (-0.42, 0.0), (0, -0.75), (0.42, 0.0), (0.9, -0.6), (0.9, 0.6)
    )  # fmt: skip
    return [(0, spikes), (1, box(u, v, 0, 0.48, 0.9, 0.14))]


def _rocket(u: Array, v: Array) -> Layers:
    body = np.maximum(disc(u, v, 0.75, 0.2, 1.1), np.maximum(disc(u, v, -0.75, 0.2, 1.1), v - 0.6))
    fins = _any(_polygon(np.abs(u), v, (0.2, 0.1), (0.7, 0.9), (0.2, 0.6)), box(u, v, 0, 0.72, 0.16, 0.2))
    return [(1, fins), (0, body)]


def _wheel(u: Array, v: Array) -> Layers:
    x, y = folded(u, v, 6)
    return [(1, np.maximum(y - 0.07, x - 0.8)), (0, _any(_ring(u, v, 0, 0, 0.8, 0.14), disc(u, v, 0, 0, 0.18)))]


def _scissors(u: Array, v: Array) -> Layers:
    side = np.abs(u)
    blades = _any(_line(u, v, (-0.32, 0.35), (0.42, -0.9), 0.1), _line(u, v, (0.32, 0.35), (-0.42, -0.9), 0.1))
    return [(0, blades), (1, _ring(side, v, 0.42, 0.62, 0.26, 0.1))]


def _sword(u: Array, v: Array) -> Layers:
    blade = _polygon(u, v, (0, -1.05), (0.14, -0.85), (0.14, 0.45), (-0.14, 0.45), (-0.14, -0.85))
    return [(0, blade), (1, _any(box(u, v, 0, 0.5, 0.5, 0.1), box(u, v, 0, 0.78, 0.1, 0.25)))]


def _airplane(u: Array, v: Array) -> Layers:
    side = np.abs(u)
    wings = _polygon(side, v, (0, -0.25), (0.98, 0.25), (0.98, 0.42), (0, 0.2))
    tail = _polygon(side, v, (0, 0.6), (0.42, 0.82), (0.42, 0.95), (0, 0.85))
    return [(1, _any(wings, tail)), (0, _line(u, v, (0, -0.8), (0, 0.85), 0.15))]


def _chair(u: Array, v: Array) -> Layers:
    legs = _any(box(u, v, -0.45, 0.55, 0.09, 0.42), box(u, v, 0.45, 0.55, 0.09, 0.42))
    return [(1, _any(legs, box(u, v, -0.45, -0.4, 0.1, 0.6))), (0, box(u, v, 0, 0.1, 0.55, 0.14))]


def _cactus(u: Array, v: Array) -> Layers:
    left = _any(_line(u, v, (-0.62, -0.3), (-0.62, 0.15), 0.15), _line(u, v, (-0.62, 0.15), (0, 0.15), 0.13))
    right = _any(_line(u, v, (0.62, -0.55), (0.62, -0.1), 0.15), _line(u, v, (0.62, -0.1), (0, -0.1), 0.13))
    return [(0, _any(left, right, _line(u, v, (0, -0.75), (0, 0.7), 0.22)))]


def _comb(u: Array, v: Array) -> Layers:
    teeth = np.maximum(np.abs((u + 1.15) % 0.3 - 0.15) - 0.08, box(u, v, 0, 0.25, 0.9, 0.45))
    return [(0, _any(teeth, box(u, v, 0, -0.32, 0.95, 0.2)))]


def _magnet(u: Array, v: Array) -> Layers:
    side = np.abs(u)
    bow = np.maximum(_ring(u, v, 0, 0.2, 0.55, 0.22), 0.2 - v)
    return [(0, _any(bow, box(side, v, 0.55, -0.1, 0.22, 0.32))), (1, box(side, v, 0.55, -0.6, 0.22, 0.25))]


def _tower(u: Array, v: Array) -> Layers:
    battlements = np.maximum(np.abs((u + 0.2) % 0.4 - 0.2) - 0.1, box(u, v, 0, -0.75, 0.5, 0.2))
    return [(0, _any(box(u, v, 0, 0.2, 0.36, 0.8), box(u, v, 0, -0.5, 0.5, 0.15), battlements))]


def _tree(u: Array, v: Array) -> Layers:
    crown = _any(disc(u, v, 0, -0.5, 0.45), disc(u, v, -0.4, -0.15, 0.4), disc(u, v, 0.4, -0.15, 0.4))
    return [(1, box(u, v, 0, 0.5, 0.14, 0.5)), (0, crown)]


MORE_THINGS: dict[str, Shape] = {
    "boat": _boat,
    "car": _car,
    "key": _key,
    "heart": _heart,
    "arrow": _arrow,
    "hammer": _hammer,
    "bottle": _bottle,
    "butterfly": _butterfly,
    "snake": _snake,
    "cross": _cross,
    "hat": _hat,
    "glasses": _glasses,
    "spider": _spider,
    "anchor": _anchor,
    "crown": _crown,
    "rocket": _rocket,
    "wheel": _wheel,
    "scissors": _scissors,
    "sword": _sword,
    "airplane": _airplane,
    "chair": _chair,
    "cactus": _cactus,
    "comb": _comb,
    "magnet": _magnet,
}

STANDING: dict[str, Shape] = {"tower": _tower, "tree": _tree}  # what only stands in the picture
