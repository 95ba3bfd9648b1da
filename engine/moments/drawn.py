"""Videos that a run draws to learn moments from: several actions after each other, and queries that name one of them.

    "fish circling"      "house falling after the ball bounces"      "house falling before the star shakes"

In half of the videos one action comes twice: then only what happens before or after it tells which is meant. The test asks
for combinations of thing and movement that no training video shows (those that are unseen in the zero-shot quickstart too).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from engine.data.drawn.drawing import MOVEMENTS, THINGS, draw_clip
from engine.data.drawn.drawn_set import write_drawn_set
from engine.data.drawn.procedural import chosen, description, unseen_combinations
from engine.data.manifests.manifest import Manifest
from engine.errors import InputError
from engine.moments.annotations import Annotations, VideoNames
from engine.moments.config import DrawnMomentsConfig

FPS = 10
ANNOTATIONS_NAME = "manifest.moments.parquet"
_MAX_QUERIES = 4  # of a video
_VERBS = {"bouncing": "bounces", "falling": "falls", "wobbling": "wobbles", "growing": "grows", "circling": "circles",
          "shaking": "shakes", "flashing": "flashes"}  # fmt: skip

Action = tuple[str, str]  # thing, movement


@dataclass(frozen=True, slots=True)
class PlannedMoments:
    """One video: its actions in order, how many frames each has, and the queries, each with the place of its action."""

    split: str
    number: int
    actions: Sequence[Action]
    frames: Sequence[int]
    queries: Sequence[tuple[str, int]]
    class_name: str = field(default="moments", init=False)

    @property
    def path(self) -> str:
        """Relative to the folder of the set."""
        return f"{self.split}/{self.class_name}/{self.number:04d}.mp4"


def write_drawn_moments(config: DrawnMomentsConfig) -> tuple[Path, Path]:
    """Draw, encode and index the videos, unless the folder holds them already, and write their moments.

    Returns:
        The manifest and the table of moments, with splits "train" and "test".

    Raises:
        InputError: as `write_procedural_dataset`.
    """
    videos = plan_moments(config)

    def draw(video: PlannedMoments) -> np.ndarray:
        rng = np.random.default_rng((config.seed, 3, video.split == "test", video.number))
        clips = (
            draw_clip(*action, frames=count, size=config.size, rng=rng)
            for action, count in zip(video.actions, video.frames, strict=True)
        )
        return np.concatenate(list(clips))

    folder = Path(config.folder)
    described = {"moments": description(config)}
    manifest = write_drawn_set(folder, "moments.drawn", described, videos, draw, FPS)
    annotations = manifest.with_name(ANNOTATIONS_NAME)
    _annotate(videos, Manifest.load(manifest)).save(annotations)
    return manifest, annotations


def plan_moments(config: DrawnMomentsConfig) -> list[PlannedMoments]:
    """All videos of the set, training videos first: a pure function of the config.

    Raises:
        InputError: unknown or doubled names, too many unseen combinations, or fewer combinations than actions of a video.
    """
    things = chosen("moments.drawn.things", config.things, THINGS)
    movements = chosen("moments.drawn.movements", config.movements, MOVEMENTS)
    unseen = unseen_combinations(things, movements, config.num_unseen, config.seed)
    every = [(thing, movement) for thing in things for movement in movements]
    seen = [action for action in every if action not in unseen]
    if len(seen) < config.max_actions:
        raise InputError(
            f"moments.drawn: {len(seen)} combinations are left to train on, fewer than max_actions {config.max_actions}: name "
            "more things or movements, or fewer num_unseen"
        )
    train = [_plan(config, "train", number, seen, seen) for number in range(config.videos)]
    return train + [_plan(config, "test", number, every, unseen) for number in range(config.tests)]


def _plan(
    config: DrawnMomentsConfig, split: str, number: int, shown: Sequence[Action], asked: Sequence[Action]
) -> PlannedMoments:
    rng = np.random.default_rng((config.seed, 2, split == "test", number))
    count = int(rng.integers(config.min_actions, config.max_actions, endpoint=True))
    first = asked[rng.integers(len(asked))]  # at least one that may be asked for
    others = [action for action in shown if action != first]
    is_twice = count > 2 and rng.random() < 0.5
    actions = [others[i] for i in rng.permutation(len(others))[: count - 1 - is_twice]]
    gaps = rng.permutation(len(actions) + 1)[: 1 + is_twice]  # two different ones, so that it does not follow itself
    for gap in sorted(gaps.tolist(), reverse=True):
        actions.insert(gap, first)
    frames = rng.integers(config.min_frames, config.max_frames, len(actions), endpoint=True).tolist()
    queries = _queries(actions, asked)
    kept = sorted(rng.permutation(len(queries))[:_MAX_QUERIES].tolist())
    return PlannedMoments(split, number, actions, frames, [queries[i] for i in kept])


def _queries(actions: Sequence[Action], asked: Sequence[Action]) -> list[tuple[str, int]]:
    """All queries that mean one place and no other."""
    said: dict[str, list[int]] = {}
    for place, action in enumerate(actions):
        if action not in asked:
            continue
        name = " ".join(action)
        said.setdefault(name, []).append(place)
        for word, other in (("after", place - 1), ("before", place + 1)):
            if 0 <= other < len(actions):
                thing, movement = actions[other]
                said.setdefault(f"{name} {word} the {thing} {_VERBS[movement]}", []).append(place)
    return [(query, places[0]) for query, places in said.items() if len(places) == 1]


def _annotate(videos: Sequence[PlannedMoments], manifest: Manifest) -> Annotations:
    """The moments of the videos, at the frames that were drawn; durations as indexed."""
    paths = manifest.table.column("path").to_pylist()
    durations = dict(zip(paths, manifest.table.column("duration").to_pylist(), strict=True))
    names = VideoNames(paths)
    rows = [(next(iter(names.find(video.path))), video, *query) for video in videos for query in video.queries]
    windows = []
    for _, video, _, place in rows:
        edges = np.cumsum([0, *video.frames]) / FPS
        windows.append(edges[[place, place + 1]][None])
    return Annotations(
        [path for path, *_ in rows],
        [query for _, _, query, _ in rows],
        [video.split for _, video, *_ in rows],
        np.array([durations[path] for path, *_ in rows], dtype=np.float64),
        windows,
    )
