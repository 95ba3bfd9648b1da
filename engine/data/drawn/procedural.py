"""A data set that a run draws and encodes itself: things x movements, some combinations kept for the test.

    config ──▶ plan (which combination, which split) ──▶ draw ──▶ encode ──▶ folder per class ──▶ manifest

Every thing and every movement is trained, and the unseen classes are new *combinations* of them, spread like
a Latin square: they share things and movements with each other as little as can be. Varied scenes have more:
an extra word in each class, things that are never trained, and classes that are unseen ones under a synonym.
"""

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from engine.data.config import ProceduralConfig
from engine.data.drawn.drawing import MOVEMENTS, THINGS, draw_clip
from engine.data.drawn.drawn_set import write_drawn_set
from engine.data.drawn.scenes import EXTRAS, SCENE_MOVEMENTS, SCENE_THINGS, SYNONYMS, draw_scene
from engine.errors import InputError

DRAWING_VERSION = 1  # raise it when drawn or encoded frames change: older sets are then written again
_LATER = {
    "stills": 0,
    "nuisance": 1.0,
    "unseen_videos": 0,
}  # keys that varied sets on disk may not know, and what they have
_OF_SCENES = (
    "scene",
    "extras",
    "variants",
    "unseen_things",
    "synonyms",
    *_LATER,
)  # keys that plain drawings know nothing of
STILLS = "stills"  # the split of pictures


@dataclass(frozen=True, slots=True)
class PlannedVideo:
    """One video of the set: `number` counts within its class. extra: of `EXTRAS`, or "". Of stills the movement is ""."""

    split: str
    thing: str
    movement: str
    number: int
    extra: str = ""

    @property
    def class_name(self) -> str:
        thing = SYNONYMS[self.thing] if self.split == "synonyms" else self.thing
        action = f"{thing} {self.movement}".rstrip()
        return EXTRAS[self.extra].name(self.extra, action) if self.extra else action

    @property
    def path(self) -> str:
        """Relative to the folder of the set."""
        return f"{self.split}/{self.class_name}/{self.number:03d}.{'png' if self.split == STILLS else 'mp4'}"


def write_procedural_dataset(config: ProceduralConfig) -> Path:
    """Draw, encode and index the set, unless the folder holds it already. Interrupted writing is continued.

    Videos are a pure function of the config: H.264 at `folder/SPLIT/CLASS/NNN.mp4`. A set of
    another config in the folder is replaced.

    Returns:
        The manifest, with splits "train" and "unseen", and in varied scenes "unseen_things", "synonyms" and "stills".

    Raises:
        InputError: an odd size, unknown names, too many unseen combinations, or a folder that holds something else.
    """
    is_plain = config.scene == "plain"
    described = description(config, *_known(config))
    as_before = [key for key, value in _LATER.items() if described[key] == value]
    for key in _OF_SCENES if is_plain else as_before:  # as before there were these keys: sets on disk are known again
        del described[key]

    def draw(video: PlannedVideo) -> np.ndarray:
        shape = {"frames": 1 if video.split == STILLS else config.frames, "size": config.size, "seed": config.seed}
        return draw_video(video, **shape) if is_plain else draw_scene_video(video, **shape, nuisance=config.nuisance)

    def coding(video: PlannedVideo) -> dict[str, str]:
        if is_plain:
            return {}
        worse = scene_generator(video, config.seed, "coding").integers(15)
        return {"crf": str(18 + round(config.nuisance * worse))}

    return write_drawn_set(Path(config.folder), "procedural", described, plan_videos(config), draw, coding=coding)


def plan_videos(config: ProceduralConfig) -> list[PlannedVideo]:
    """All videos of the set, training classes first.

    Raises:
        InputError: an odd size, unknown or doubled names, or too much that is unseen.
    """
    if config.size % 2:
        raise InputError(f"procedural.size is {config.size}: 4:2:0 pictures need an even number")
    known_things, known_movements = _known(config)
    things = chosen("procedural.things", config.things, known_things)
    movements = chosen("procedural.movements", config.movements, known_movements)
    new = (
        chosen("procedural.unseen_things", config.unseen_things, dict.fromkeys(things)) if config.unseen_things else []
    )
    trained = [thing for thing in things if thing not in new]
    if not trained:
        raise InputError("procedural.unseen_things names every thing: leave some to train on")
    extras = _extras(config, things, movements)
    unseen = unseen_combinations(trained, movements, config.num_unseen, config.seed)
    combinations = {
        "train": [(thing, movement) for thing in trained for movement in movements if (thing, movement) not in unseen],
        "unseen": unseen,
        "unseen_things": [(thing, movement) for thing in new for movement in movements],
        "synonyms": [(thing, movement) for thing, movement in unseen if config.synonyms and thing in SYNONYMS],
    }
    untrained = set(config.extras) - {extra for pair in combinations["train"] for extra in extras[pair]}
    if untrained:
        raise InputError(
            f"procedural.extras: '{min(untrained)}' would never be trained: fewer extras or unseen combinations, or "
            "more variants"
        )
    less = config.unseen_videos or max(1, config.videos_per_class // 2)
    counts = {"unseen": less, "unseen_things": less}  # synonyms stand for training classes
    return [
        PlannedVideo(split, *pair, number, extra)
        for split, pairs in combinations.items()
        for pair in pairs
        for extra in extras[pair]
        for number in range(counts.get(split, config.videos_per_class))
    ] + [
        PlannedVideo(STILLS, thing, "", number, extra)
        for thing in things
        for extra in config.extras or [""]
        for number in range(config.stills)
    ]


def _known(config: ProceduralConfig) -> tuple[Mapping[str, object], Mapping[str, object]]:
    """The things and movements that the config's scene can show."""
    return (THINGS, MOVEMENTS) if config.scene == "plain" else (SCENE_THINGS, SCENE_MOVEMENTS)


def _extras(
    config: ProceduralConfig, things: Sequence[str], movements: Sequence[str]
) -> dict[tuple[str, str], list[str]]:
    """The extras of each thing and movement, along the diagonals of their table: all of them come equally often."""
    extras = chosen("procedural.extras", config.extras, EXTRAS) if config.extras else [""]
    if config.variants > len(extras):
        raise InputError(f"procedural.variants is {config.variants} of {len(extras)} extras: lower it, or add extras")
    return {
        (thing, movement): [extras[(row + column + step) % len(extras)] for step in range(config.variants)]
        for row, thing in enumerate(things)
        for column, movement in enumerate(movements)
    }


def unseen_combinations(
    things: Sequence[str], movements: Sequence[str], num_unseen: int, seed: int
) -> list[tuple[str, str]]:
    """Which (thing, movement) pairs are kept for the test.

    Both lists are shuffled and the pairs taken along the diagonals of their table: numbers of pairs with
    the same thing (or movement) differ by one at most.

    Raises:
        InputError: some thing or movement would not be trained at all.
    """
    generator = np.random.default_rng((seed, 0))
    rows, columns = generator.permutation(things).tolist(), generator.permutation(movements).tolist()
    if math.ceil(num_unseen / len(rows)) >= len(columns) or math.ceil(num_unseen / len(columns)) >= len(rows):
        raise InputError(
            f"procedural.num_unseen is {num_unseen} of {len(rows)} x {len(columns)} combinations: some thing or movement "
            "would never be trained; keep fewer unseen, or add things and movements"
        )
    lap = math.lcm(len(rows), len(columns))  # then the diagonal meets its own start, and the next one is taken
    return [(rows[k % len(rows)], columns[(k + k // lap) % len(columns)]) for k in range(num_unseen)]


def draw_video(video: PlannedVideo, *, frames: int, size: int, seed: int) -> np.ndarray:
    """The frames of one video, uint8 [frames, size, size, 3]: a pure function of the arguments."""
    key = (seed, 1, list(THINGS).index(video.thing), list(MOVEMENTS).index(video.movement), video.number)
    return draw_clip(video.thing, video.movement, frames=frames, size=size, rng=np.random.default_rng(key))


def draw_scene_video(video: PlannedVideo, *, frames: int, size: int, seed: int, nuisance: float = 1.0) -> np.ndarray:
    """As `draw_video`, in a varied scene. A still is a frame of any movement."""
    rng = scene_generator(video, seed, "drawing")
    movement = video.movement or rng.choice(list(SCENE_MOVEMENTS))
    return draw_scene(video.thing, movement, video.extra, frames=frames, size=size, rng=rng, nuisance=nuisance)


def scene_generator(video: PlannedVideo, seed: int, use: Literal["drawing", "coding"]) -> np.random.Generator:
    """The generator of one video of a varied set, another for each use."""
    names = ((SCENE_THINGS, video.thing), ([*SCENE_MOVEMENTS, ""], video.movement), (["", *EXTRAS], video.extra))
    indices = [list(known).index(name) for known, name in names]
    return np.random.default_rng((seed, 4, *indices, video.split == "synonyms", video.number, use == "coding"))


def chosen(key: str, names: Sequence[str], known: Mapping[str, object]) -> list[str]:
    """The names that a key of the config gives, or all that are known.

    Raises:
        InputError: one is not known, or stands twice.
    """
    for index, name in enumerate(names):
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean '{close[0]}'? " if close else ""
            raise InputError(f"{key}: nothing here draws '{name}': {hint}there are {', '.join(known)}")
        if name in names[:index]:
            raise InputError(f"{key}: '{name}' stands twice: keep one")
    return list(names or known)


def description(
    config: Any, things: Mapping[str, object] = THINGS, movements: Mapping[str, object] = MOVEMENTS
) -> dict[str, object]:
    """What decides the content of the folder, with the default names (all that are known) spelt out."""
    names = {"things": list(config.things or things), "movements": list(config.movements or movements)}
    described = {**asdict(config), **names, "drawing_version": DRAWING_VERSION}
    del described["folder"]
    return described
