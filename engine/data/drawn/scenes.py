"""Draws clips of many classes: a thing x a movement x an extra word, "red fish rolling", "key falling near tower".

    nuisance ──▶ camera (pans, sways, zooms, rolls) ──▶ background ──▶ distractors ─┐
    act ───────▶ what stands still ──▶ the thing or its twins, as they move ────────┴─▶ light ──▶ noise

The two arrows on the left are generators of their own, so that nothing of the nuisance can depend on the class.
Every thing has any turn, and a place, a size and an aspect of one spread, whatever it does: a frame tells the thing
and the extra, but hardly the movement. An extra is visible in every frame, and what it does not name is the same
for all: "tiny" and "huge" lie outside of the sizes of the others, "red" outside of their colours.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from engine.data.drawn import drawing
from engine.data.drawn.drawing import PLACE, SIZE, Array, Layers, Movement, Pose
from engine.data.drawn.shapes import MORE_THINGS, STANDING, Shape


def _rising(pose: Pose, phase: Array, rng: np.random.Generator) -> None:
    pose.y = PLACE[0] - 0.05 + rng.uniform(0.35, 0.5) * (1 - phase % 1) ** 1.5  # falling, played backwards


def _shrinking(pose: Pose, phase: Array, rng: np.random.Generator) -> None:
    pose.size = SIZE[1] * (SIZE[0] / SIZE[1]) ** (phase % 1)


def _breathing(pose: Pose, phase: Array, rng: np.random.Generator) -> None:
    pose.size = SIZE[0] * (SIZE[1] / SIZE[0]) ** (0.5 + 0.5 * np.sin(2 * np.pi * phase))


def _spinning(pose: Pose, phase: Array, rng: np.random.Generator) -> None:
    pose.turn = 2 * np.pi * phase * rng.choice([-1, 1])


def _sliding(pose: Pose, phase: Array, rng: np.random.Generator) -> None:
    pose.x = 0.5 + rng.uniform(0.4, 0.55) * rng.choice([-1, 1]) * (phase % 1 - 0.5)


def _rolling(pose: Pose, phase: Array, rng: np.random.Generator) -> None:
    way = rng.choice([-1, 1])
    pose.x, pose.turn = 0.5 + rng.uniform(0.4, 0.55) * way * (phase % 1 - 0.5), 2 * np.pi * way * phase


def _swinging(pose: Pose, phase: Array, rng: np.random.Generator) -> None:
    angle, arm = rng.uniform(0.6, 0.9) * np.sin(2 * np.pi * phase), rng.uniform(0.3, 0.4)
    pose.x, pose.y, pose.turn = 0.5 + arm * np.sin(angle), 0.55 - arm * (1 - np.cos(angle)), pose.turn - angle


def _jumping(pose: Pose, phase: Array, rng: np.random.Generator) -> None:
    up = np.maximum(0, 1 - (4 * (phase % 1) - 3) ** 2)  # half of the cycle at rest
    pose.y = PLACE[1] - 0.05 - rng.uniform(0.25, 0.4) * up


def _stretching(pose: Pose, phase: Array, rng: np.random.Generator) -> None:
    pose.aspect = _aspect(2 * np.pi * phase)


def _aspect(angle: Array | float) -> Array:
    return np.exp(0.45 * np.sin(angle))


SCENE_THINGS: dict[str, Shape] = {**drawing.THINGS, **MORE_THINGS}

# Other words for the same drawings. Distances are cosine distances of GloVe's vectors (docs/experiments.md).
SYNONYMS = {
    "boat": "ship",
    "car": "vehicle",
    "airplane": "plane",
    "rocket": "missile",
    "sword": "dagger",
    "fish": "salmon",
}

SCENE_MOVEMENTS: dict[str, Movement] = {
    **drawing.MOVEMENTS,
    "rising": _rising,
    "shrinking": _shrinking,
    "breathing": _breathing,
    "spinning": _spinning,
    "sliding": _sliding,
    "rolling": _rolling,
    "swinging": _swinging,
    "jumping": _jumping,
    "stretching": _stretching,
}


_DARK_LAYER = -1  # the last of the three colours, whether the first two are exchanged (1 - -1 = 2) or not


def _striped(layers: Layers, u: Array) -> Layers:
    whole = np.minimum.reduce([distance for _, distance in layers])
    return [*layers, (_DARK_LAYER, np.maximum(whole, np.abs(u % 0.5 - 0.25) - 0.12))]


def _hollow(layers: Layers, u: Array) -> Layers:
    return [(colour, np.abs(distance - 0.06) - 0.08) for colour, distance in layers]


@dataclass(frozen=True)
class Extra:
    """What a third word changes. colour: channels of the main one, 0 to 1. standing: the shape of a second thing."""

    colour: tuple[float, float, float] | None = None
    scale: float = 1.0
    copies: int = 1
    pattern: Callable[[Layers, Array], Layers] | None = None
    standing: Shape | None = None

    def name(self, word: str, action: str) -> str:
        """The class: "tiny" and "ball bouncing", or "near tower" and "ball bouncing"."""
        return f"{action} {word}" if self.standing else f"{word} {action}"


EXTRAS: dict[str, Extra] = {
    "red": Extra(colour=(1, 0.1, 0.1)),
    "tiny": Extra(scale=0.55),
    "huge": Extra(scale=1.75),
    "twin": Extra(scale=0.8, copies=2),
    "striped": Extra(pattern=_striped),
    "hollow": Extra(pattern=_hollow),
    **{f"near {name}": Extra(standing=shape) for name, shape in STANDING.items()},
    "blue": Extra(colour=(0.1, 0.2, 1)),
    "green": Extra(colour=(0.1, 0.9, 0.1)),
}
_PLAIN = Extra()
_SCALE = 0.8  # of all sizes: the things are smaller than in the plain drawings, to leave room for huge ones


def draw_scene(
    thing: str, movement: str, extra: str, *, frames: int, size: int, rng: np.random.Generator, nuisance: float = 1.0
) -> Array:
    """Draw one clip.

    Args:
        thing, movement: keys of `SCENE_THINGS` and `SCENE_MOVEMENTS`.
        extra: a key of `EXTRAS`, or "" for none.
        frames: length T; any 16 of them show the movement.
        size: pixels of the square picture's side.
        rng: everything about the clip is drawn from it; with equal generators clips of any two classes differ only
            where a thing covers the background.
        nuisance: how much of what the class does not name varies, from 0 (a still camera, an upright thing of one aspect,
            no blobs, even light) to 1.

    Returns:
        uint8 [T, size, size, 3] RGB.
    """
    beside, act = rng.spawn(2)
    x, y = _camera(frames, size, beside, nuisance)
    clip = _background(x, y, beside, nuisance)
    for _ in range(round(nuisance * beside.integers(2, 6))):
        drawing.paint(clip, drawing.distractor(x, y, beside) * size, drawing.random_colour(beside, *drawing.BRIGHT))
    _paint_act(clip, x, y, thing, movement, EXTRAS.get(extra, _PLAIN), act, nuisance)
    return _light_and_noise(clip, beside, nuisance)


def scene_pose(movement: str, frames: int, rng: np.random.Generator, nuisance: float = 1.0) -> Pose:
    """One example of a movement as scenes have it: at any turn, and not always in the middle."""
    turn, angle, *away = rng.uniform([-np.pi, 0, -0.12, -0.12], [np.pi, 2 * np.pi, 0.12, 0.12])
    turn, away = turn * nuisance, [way * nuisance for way in away]
    pose = drawing.pose_of(SCENE_MOVEMENTS[movement], frames, rng, aspect=_aspect(angle) ** nuisance)
    pose.x, pose.y, pose.turn, pose.size = pose.x + away[0], pose.y + away[1], pose.turn + turn, pose.size * _SCALE
    return pose


def _paint_act(
    clip: Array, x: Array, y: Array, thing: str, movement: str, extra: Extra, rng: np.random.Generator, nuisance: float
) -> None:
    """The thing, as often as the extra says, in front of what stands by. All draws come from `rng`."""
    if extra.standing:
        drawing.paint_thing(clip, x, y, extra.standing, _still_pose(len(clip), rng), drawing.two_colours(rng))

    def shape(u: Array, v: Array) -> Layers:
        layers = SCENE_THINGS[thing](u, v)
        return extra.pattern(layers, u) if extra.pattern else layers

    pose, colours = scene_pose(movement, len(clip), rng, nuisance), _colours(extra, rng)
    pose.size = pose.size * extra.scale
    angle = rng.uniform(0, 2 * np.pi)
    apart = 0.18 if extra.copies > 1 else 0.0
    for side in range(extra.copies):
        way = apart * (1 - 2 * side)
        moved = replace(pose, x=pose.x + way * np.cos(angle), y=pose.y + way * np.sin(angle))
        drawing.paint_thing(clip, x, y, shape, moved, colours)


def _still_pose(frames: int, rng: np.random.Generator) -> Pose:
    """Of a second thing: away from the middle, and nearly upright."""
    angle, tilt, size = rng.uniform(0, 2 * np.pi), rng.uniform(*drawing.TURN) / 2, rng.uniform(0.17, 0.23)
    place = (0.5 + 0.36 * np.cos(angle), 0.5 + 0.36 * np.sin(angle), size, tilt)
    return Pose(*(np.full(frames, value) for value in place), swap=np.zeros(frames, bool), aspect=np.ones(frames))


def _colours(extra: Extra, rng: np.random.Generator) -> Array:
    """Main, second and dark colour of a thing, float32 [3, 3]; a named colour has a paler one of its own beside it."""
    two, level = drawing.two_colours(rng), rng.uniform(190, 255)
    if extra.colour:
        main = level * np.asarray(extra.colour)
        two = np.stack([main, 0.45 * main + 140])
    return np.clip([*two, np.full(3, 20)], 0, 255).astype(np.float32)


def _camera(frames: int, size: int, rng: np.random.Generator, nuisance: float) -> tuple[Array, Array]:
    """Where each pixel of each frame looks, in sides of the picture: float32 [T, size, size], twice."""
    time = nuisance * (np.arange(frames, dtype=np.float32)[:, None, None] - frames / 2)
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size - 0.5
    zoom, roll = np.exp(rng.uniform(-0.004, 0.004) * time), rng.uniform(-0.004, 0.004) * time
    period, phase = rng.uniform(20, 40), rng.uniform(0, 2 * np.pi, 2)
    drift, sway = rng.uniform(-0.004, 0.004, 2), nuisance * rng.uniform(-0.02, 0.02, 2)
    across, down = axis * np.cos(roll), axis[:, None] * np.cos(roll)
    across, down = across - axis[:, None] * np.sin(roll), down + axis * np.sin(roll)
    pan = [drift[i] * time + sway[i] * np.sin(2 * np.pi * time / period + phase[i]) for i in (0, 1)]
    return tuple((0.5 + zoom * seen + way).astype(np.float32) for seen, way in zip((across, down), pan, strict=True))


def _background(x: Array, y: Array, rng: np.random.Generator, nuisance: float) -> Array:
    """Waves, or tiles or stripes over them, of any colours that are dark: float32 [T, size, size, 3]."""
    clip = drawing.background(x, y, rng)
    angle, fineness, tint = rng.uniform(0, np.pi), rng.uniform(12, 40), rng.uniform(-30, 30, 3).astype(np.float32)
    kind = rng.integers(3)
    along = np.sin(fineness * (x * np.cos(angle) + y * np.sin(angle)))
    across = np.sin(fineness * (y * np.cos(angle) - x * np.sin(angle)))
    field = (np.zeros_like(x), along, along * across)[kind]
    return clip + np.clip(4 * field, -1, 1)[..., None] * (np.float32(nuisance) * tint)


def _light_and_noise(clip: Array, rng: np.random.Generator, nuisance: float) -> Array:
    time = np.arange(len(clip), dtype=np.float32)
    swell, period, phase = rng.uniform(0, 0.08), rng.uniform(15, 60), rng.uniform(0, 2 * np.pi)
    light = rng.uniform(0.8, 1.0) * (1 + nuisance * swell * np.sin(2 * np.pi * time / period + phase))
    clip = clip * light.astype(np.float32)[:, None, None, None]
    clip += rng.standard_normal(clip.shape, dtype=np.float32) * (nuisance * rng.uniform(2, 8))
    return np.clip(np.rint(clip), 0, 255).astype(np.uint8)
