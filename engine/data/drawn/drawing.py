"""Draws short clips of compositional actions, "ball bouncing": a thing (its shape) x a movement (its path in time).

    scene ──▶ background (coloured waves, drifting) ──▶ distractors ──▶ the thing, placed by its movement ──▶ noise

Position, size, turn, aspect and colours of the thing have the same spread whatever it does, so one frame
tells the thing but hardly the movement; and a mirrored clip shows the same thing and movement. Shapes are
signed distances (negative inside, in units of the thing's radius), which gives smooth edges at any size.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Array = np.ndarray
Layers = list[tuple[int, Array]]  # (colour: 0 main, 1 second; signed distance), painted in this order


def disc(u: Array, v: Array, x: float, y: float, radius: float) -> Array:
    return np.hypot(u - x, v - y) - radius


def box(u: Array, v: Array, x: float, y: float, half_width: float, half_height: float) -> Array:
    return np.maximum(np.abs(u - x) - half_width, np.abs(v - y) - half_height)


def _triangle(u: Array, v: Array, x: float, top: float, bottom: float, half_width: float) -> Array:
    """Isosceles, its tip at (x, top); v points down, so a tip below its base has top > bottom."""
    height = bottom - top
    length = np.hypot(height, half_width)
    sides = (np.abs(u - x) * abs(height) - (v - top) * np.sign(height) * half_width) / length
    return np.maximum(sides, (v - bottom) * np.sign(height))


def folded(u: Array, v: Array, times: int) -> tuple[Array, Array]:
    """The plane folded `times` around the origin onto one wedge along +x, whose y is positive."""
    radius, step = np.hypot(u, v), 2 * np.pi / times
    angle = np.abs((np.arctan2(v, u) + step / 2) % step - step / 2)
    return radius * np.cos(angle), radius * np.sin(angle)


def _ball(u: Array, v: Array) -> Layers:
    whole = disc(u, v, 0, 0, 0.9)
    return [(0, whole), (1, np.maximum(whole, np.minimum(np.maximum(u, v), np.maximum(-u, -v))))]  # opposite quarters


def _star(u: Array, v: Array) -> Layers:
    x, y = folded(u, v, 5)
    corner_x, corner_y = 0.42 * np.cos(np.pi / 5), 0.42 * np.sin(np.pi / 5)
    edge_x, edge_y = corner_y, 1.05 - corner_x  # normal of the edge from the tip (1.05, 0) to the inner corner
    return [(0, ((x - 1.05) * edge_x + y * edge_y) / np.hypot(edge_x, edge_y))]


def _house(u: Array, v: Array) -> Layers:
    return [
        (0, box(u, v, 0, 0.42, 0.62, 0.45)),
        (1, _triangle(u, v, 0, -0.85, 0.0, 0.9)),
        (1, box(u, v, 0, 0.58, 0.18, 0.3)),
    ]


def _fish(u: Array, v: Array) -> Layers:
    body = (np.hypot((u - 0.2) / 0.75, v / 0.45) - 1) * 0.45
    tail = _triangle(v, u, 0, -0.3, -1.0, 0.5)  # (v, u): lies on its side, tip towards the body
    return [(0, np.minimum(body, tail)), (1, disc(u, v, 0.58, -0.1, 0.14))]


def _moon(u: Array, v: Array) -> Layers:
    return [(0, np.maximum(disc(u, v, 0, 0, 0.95), -disc(u, v, 0.45, 0, 0.8)))]


def _ladder(u: Array, v: Array) -> Layers:
    rails = np.minimum(box(u, v, -0.42, 0, 0.1, 1), box(u, v, 0.42, 0, 0.1, 1))
    rungs = box(u, (v + 0.25) % 0.5 - 0.25, 0, 0, 0.42, 0.09)
    return [(0, np.minimum(rails, np.maximum(rungs, np.abs(v) - 0.7)))]


def _umbrella(u: Array, v: Array) -> Layers:
    canopy = np.maximum(disc(u, v, 0, 0, 1.0), v)
    pole = box(u, v, 0, 0.4, 0.08, 0.45)
    hook = np.maximum(np.abs(disc(u, v, 0.2, 0.8, 0.2)) - 0.08, 0.8 - v)
    return [(1, np.minimum(pole, hook)), (0, canopy)]


def _flower(u: Array, v: Array) -> Layers:
    x, y = folded(u, v, 5)
    return [(0, disc(x, y, 0.68, 0, 0.34)), (1, disc(u, v, 0, 0, 0.36))]


THINGS: dict[str, Callable[[Array, Array], Layers]] = {
    "ball": _ball,
    "star": _star,
    "house": _house,
    "fish": _fish,
    "moon": _moon,
    "ladder": _ladder,
    "umbrella": _umbrella,
    "flower": _flower,
}

_DARK, BRIGHT = (0, 100), (120, 255)  # levels of the background's channels and of things'


@dataclass
class Pose:
    """Where the thing is and how it looks, frame by frame: float or bool arrays of length T."""

    x: Array  # of its centre, in sides of the picture
    y: Array
    size: Array  # its radius, in sides of the picture
    turn: Array  # radians
    swap: Array  # whether its two colours are exchanged
    aspect: Array  # width over height, at equal area


# What a movement may change, and over which range; every other movement holds a constant drawn from that range.
PLACE, SIZE, TURN = (0.32, 0.68), (0.2, 0.35), (-0.6, 0.6)


def _bouncing(pose: Pose, phase: Array, rng: np.random.Generator) -> None:
    pose.y = PLACE[1] - rng.uniform(0.25, 0.4) * (1 - (2 * (phase % 1) - 1) ** 2)


def _falling(pose: Pose, phase: Array, rng: np.random.Generator) -> None:
    pose.y = PLACE[0] - 0.05 + rng.uniform(0.35, 0.5) * (phase % 1) ** 1.5  # again and again from the top


def _wobbling(pose: Pose, phase: Array, rng: np.random.Generator) -> None:
    pose.turn = rng.uniform(0.6, 0.9) * np.sin(2 * np.pi * phase * 2)


def _growing(pose: Pose, phase: Array, rng: np.random.Generator) -> None:
    pose.size = SIZE[0] * (SIZE[1] / SIZE[0]) ** (phase % 1)  # and small again


def _circling(pose: Pose, phase: Array, rng: np.random.Generator) -> None:
    angle, radius = 2 * np.pi * phase * rng.choice([-1, 1]), rng.uniform(0.12, 0.2)
    pose.x, pose.y = 0.5 + radius * np.cos(angle), 0.5 + radius * np.sin(angle)


def _shaking(pose: Pose, phase: Array, rng: np.random.Generator) -> None:
    swing, angle = rng.uniform(0.03, 0.06) * np.sin(2 * np.pi * phase * 3), rng.uniform(0, np.pi)
    pose.x, pose.y = pose.x + swing * np.cos(angle), pose.y + swing * np.sin(angle)


def _flashing(pose: Pose, phase: Array, rng: np.random.Generator) -> None:
    pose.swap = phase * 2 % 1 < 0.5


Movement = Callable[[Pose, Array, np.random.Generator], None]  # changes a pose; the array is the phase, in cycles

MOVEMENTS: dict[str, Movement] = {
    "bouncing": _bouncing,
    "falling": _falling,
    "wobbling": _wobbling,
    "growing": _growing,
    "circling": _circling,
    "shaking": _shaking,
    "flashing": _flashing,
}


def draw_pose(movement: str, frames: int, rng: np.random.Generator) -> Pose:
    """One example of a movement, without the thing that moves; it repeats every 12 to 18 frames."""
    return pose_of(MOVEMENTS[movement], frames, rng)


def pose_of(movement: Movement, frames: int, rng: np.random.Generator, aspect: float = 1.0) -> Pose:
    """As `draw_pose`, for any movement; `aspect` where the movement does not change it."""
    time = np.arange(frames, dtype=np.float32)
    low, high = zip(PLACE, PLACE, SIZE, TURN, strict=True)
    constants = np.broadcast_to(rng.uniform(low, high)[:, None], (4, frames))
    pose = Pose(*constants, swap=np.zeros(frames, dtype=bool), aspect=np.full(frames, aspect))
    movement(pose, rng.random() + time / rng.uniform(12, 18), rng)
    return pose


def draw_clip(thing: str, movement: str, *, frames: int, size: int, rng: np.random.Generator) -> Array:
    """Draw one clip.

    Args:
        thing, movement: keys of `THINGS` and `MOVEMENTS`.
        frames: length T; any 16 of them show the movement.
        size: pixels of the square picture's side.
        rng: everything about the clip is drawn from it; equal generators give equal clips.

    Returns:
        uint8 [T, size, size, 3] RGB.
    """
    time = np.arange(frames, dtype=np.float32)
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size
    drift = rng.uniform(-0.003, 0.003, 2).astype(np.float32)[:, None, None, None] * time[:, None, None]
    y, x = np.broadcast_arrays(axis[:, None] + drift[0], axis + drift[1])  # the camera moves: [T, size, size]
    clip = background(x, y, rng)
    for _ in range(rng.integers(1, 4)):
        paint(clip, distractor(x, y, rng) * size, random_colour(rng, *BRIGHT))
    paint_thing(clip, x, y, THINGS[thing], draw_pose(movement, frames, rng), two_colours(rng))
    clip += rng.standard_normal(clip.shape, dtype=np.float32) * rng.uniform(2, 8)
    return np.clip(np.rint(clip), 0, 255).astype(np.uint8)


def random_colour(rng: np.random.Generator, low: float, high: float) -> Array:
    return rng.uniform(low, high, 3).astype(np.float32)


def background(x: Array, y: Array, rng: np.random.Generator) -> Array:
    """A flat colour and four waves of random direction, length and tint: float32 [T, size, size, 3]."""
    waves = rng.normal(0, [9.0, 9.0, 3.0], (4, 3)).astype(np.float32)
    tints = rng.normal(0, 14, (4, 3)).astype(np.float32)
    fields = np.stack([np.sin(a * x + b * y + c) for a, b, c in waves], axis=-1)
    return fields @ tints + random_colour(rng, *_DARK)


def distractor(x: Array, y: Array, rng: np.random.Generator) -> Array:
    """A small disc or bar that belongs to the background: signed distance in sides of the picture."""
    place_x, place_y, width, height = rng.uniform([0, 0, 0.02, 0.02], [1, 1, 0.08, 0.08])
    return disc(x, y, place_x, place_y, width) if rng.random() < 0.5 else box(x, y, place_x, place_y, width, height)


def paint_thing(
    clip: Array, x: Array, y: Array, shape: Callable[[Array, Array], Layers], pose: Pose, colours: Array
) -> None:
    """Paint a shape where the pose says into float32 [T, size, size, 3]; colours: as many as its layers name."""
    column = {name: np.asarray(value, np.float32)[:, None, None] for name, value in vars(pose).items()}
    across, down = x - column["x"], y - column["y"]
    cos, sin = np.cos(column["turn"]), np.sin(column["turn"])
    stretch = np.sqrt(column["aspect"])
    u = (across * cos + down * sin) / column["size"] / stretch
    v = (down * cos - across * sin) / column["size"] * stretch
    for colour, distance in shape(u, v):
        shown = colours[np.where(pose.swap, 1 - colour, colour)][:, None, None, :]
        paint(clip, distance * column["size"] * clip.shape[1], shown)


def two_colours(rng: np.random.Generator) -> Array:
    """Two bright colours that can be told from each other: float32 [2, 3]."""
    while np.abs(np.subtract(*(colours := rng.uniform(*BRIGHT, (2, 3))))).sum() < 150:
        pass
    return colours.astype(np.float32)


def paint(clip: Array, distance: Array, colour: Array) -> None:
    """Blend `colour` in where `distance` (pixels) is negative, with an edge one pixel wide."""
    cover = np.clip(0.5 - distance, 0, 1)[..., None]
    clip += cover * (colour - clip)
