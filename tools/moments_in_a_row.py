"""How often moment search without training is right: clips of ten classes in a row, and the query is the name of one.

    python tools/index_dataset.py clips --layout folder --splits none --out data/clips.parquet
    python tools/extract_features.py data/clips.parquet --model objects --window 0.25s --hop 0.25s --out features/clips
    python tools/moments_in_a_row.py features/clips

A clip's class is the name of its folder. Halving s is RandomState(s).permutation over the sorted class names: on the first half
the settings are chosen, on the other they are measured. Each half has --videos videos of ten clips of different classes; each clip
is asked for by the name of its class. Of fewer than 20 classes the videos have clips of all, and a half of them is asked for. As
many videos as can be had without the same clip twice are one index; the next one draws anew. A video is put together of features:
each half second has those of the windows on the screen at its first and its third quarter.

    found           the search of find_moments.py in the index, with the settings of the halving
    as it is        the same, with the settings that it has
    video by video  the same, each video an index of its own
    words alone     the same, without what the best moments look like
    no shots        the same in the index, moments cut from a smoothed curve alone
    true shots      the same, told where the clips begin: what better shots could bring
    random words    random vectors in place of all words
    random tenth    a tenth of the video, drawn anew for each query

R@1 at IoU 0.5: mean, standard deviation (n - 1), least and most over the halvings.
"""

import feature_options

from engine.errors import read_command, run_command

if __name__ == "__main__":  # before the imports below, which take seconds
    ARGUMENTS = read_command(feature_options.moments_in_a_row, __doc__)

import argparse
import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.errors import InputError
from engine.features.cache import FeatureCache, VideoFeatures
from engine.features.encoder import OBJECTS
from engine.models.image_weights import installed_names
from engine.moments.feedback import WEIGHT, with_looks
from engine.moments.index import GRID
from engine.moments.measures import measure
from engine.moments.objects import CONTEXT, ObjectQueries
from engine.moments.retrieval import average_window, high_moments
from engine.moments.shots import ALIKE, find_shots, looks_of_shots, means_in_shots
from engine.records import append_record
from engine.results.spread import mean_of
from engine.results.table import Table
from engine.semantics.config import WordsConfig
from engine.semantics.words import split_name
from engine.terminal.command_line import each_once

CLIPS = 10  # of a video
IOU = 0.5
# Likeness below which a shot ends, context of a query, weight of what its best moments look like.
SETTINGS = tuple(itertools.product((0.3, 0.4, 0.5), (0.0, CONTEXT), (0.0, WEIGHT)))
_NO_SHOTS = -2.0  # no cosine is below

Vectors = Callable[[str], np.ndarray]  # of a query


@dataclass(frozen=True)
class Joined:
    """Clips in a row. ends: float64 [CLIPS], seconds. features [W, D]; edges float64 [W + 1], seconds.

    classes: those that are asked for, with the seconds of each, true, float64 [Q, 2].
    """

    classes: Sequence[str]
    true: np.ndarray
    ends: np.ndarray
    features: np.ndarray
    edges: np.ndarray

    @functools.cached_property
    def true_shots(self) -> np.ndarray:
        """The windows that clips begin with, and the number of windows."""
        return np.searchsorted((self.edges[:-1] + self.edges[1:]) / 2, [0.0, *self.ends])


def main(arguments: argparse.Namespace) -> None:
    """Measure each halving, print, append a record if asked."""
    clips = clips_by_class(arguments.features, arguments.leave_out)
    vectors = {context: functools.cache(ObjectQueries(context=context)) for context in {c for _, c, _ in SETTINGS}}
    found: dict[str, list[float]] = {}
    chosen, queries = [], []
    for seed in range(arguments.halvings):
        order = np.random.RandomState(seed).permutation(sorted(clips)).tolist()
        draws = np.random.default_rng(seed)
        fixing, test = (
            draw_indexes(clips, order if len(order) < 2 * CLIPS else side, side, arguments.videos, draws)
            for side in (order[: len(order) // 2], order[len(order) // 2 :])
        )
        alike, context, weight = best = max(
            SETTINGS, key=lambda each: share_found(fixing, vectors[each[1]], each[0], each[2])
        )
        chosen.append(best)
        queries.append(sum(len(video.classes) for index in test for video in index))
        unknown, known = ObjectQueries(WordsConfig(source="random", seed=seed)), vectors[CONTEXT]
        shares = {
            "found": share_found(test, vectors[context], alike, weight),
            "as it is": share_found(test, known, ALIKE, WEIGHT),
            "video by video": share_found([[video] for index in test for video in index], known, ALIKE, WEIGHT),
            "words alone": share_found(test, known, ALIKE, 0.0),
            "no shots": share_found(test, known, _NO_SHOTS, WEIGHT),
            "true shots": share_found(test, known, None, WEIGHT),
            "random words": share_found(test, lambda query: unknown(f"no {query}"), ALIKE, WEIGHT),  # noqa: B023
            "random tenth": share_at_random(test, draws),
        }
        print(f"halving {seed}: {best}", ", ".join(f"{name} {share:.3f}" for name, share in shares.items()), flush=True)
        for name, share in shares.items():
            found.setdefault(name, []).append(share)
    means = {name: mean_of(each) for name, each in found.items()}
    rows = [[name, mean.value, mean.spread, min(found[name]), max(found[name])] for name, mean in means.items()]
    header = ["method", "R@1 IoU 0.5", "sd", "least", "most"]
    print(Table(header, rows, f"{len(clips)} classes, {arguments.halvings} halvings").text())
    if arguments.record:
        fields = {
            "model": FeatureCache(arguments.features[0]).stamp.model,
            "classes": sorted(clips),
            "clips": sum(map(len, clips.values())),
            "queries": queries,
        }
        append_record("moments_in_a_row", n=arguments.halvings, settings=chosen, shares=found, **fields)


def clips_by_class(folders: Sequence[Path], left_out: Sequence[str]) -> dict[str, list[VideoFeatures]]:
    """The clips of all caches by the name of their folder.

    Raises:
        InputError: features of another kind, a class that is not there, or too few for two halves.
    """
    clips: dict[str, list[VideoFeatures]] = {}
    first = None
    for folder in each_once(folders):
        cache = FeatureCache(folder)
        if cache.stamp.model not in installed_names(OBJECTS):
            raise InputError(f"'{folder}' has features of {cache.stamp.model}: extract them with --model {OBJECTS}")
        first = first or cache.stamp
        if cache.stamp.digest != first.digest:
            raise InputError(f"'{folder}': features {first.difference(cache.stamp)}: extract all with one model")
        for video in cache.videos:
            clips.setdefault(Path(video).parent.name, []).append(cache[video])
    unknown = [name for name in dict.fromkeys(left_out) if clips.pop(name, None) is None]
    if unknown:
        raise InputError(f"--leave-out: no clip is of {', '.join(unknown)}: there are {', '.join(sorted(clips))}")
    if len(clips) <= CLIPS:
        raise InputError(f"{len(clips)} classes: a video has {CLIPS}, and there must be more to choose from")
    return clips


def draw_indexes(
    clips: Mapping[str, Sequence[VideoFeatures]],
    classes: Sequence[str],
    asked: Sequence[str],
    count: int,
    draws: np.random.Generator,
) -> list[list[Joined]]:
    """`count` videos of clips of the classes, together in indexes that have no clip twice."""
    indexes: list[list[Joined]] = []
    while count:
        left = {name: draws.permutation(len(clips[name])).tolist() for name in classes}
        index: list[Joined] = []
        while len(index) < count:
            names = sorted((name for name in left if left[name]), key=lambda name: (-len(left[name]), draws.random()))
            if len(names) < CLIPS:
                break
            names = draws.permutation(names[:CLIPS]).tolist()  # of the classes that have most left
            index.append(join([(name, clips[name][left[name].pop()]) for name in names], asked))
        indexes.append(index)
        count -= len(index)
    return indexes


def join(named: Sequence[tuple[str, VideoFeatures]], asked: Sequence[str]) -> Joined:
    """A video of these clips, each with its class; those are asked for whose class is among `asked`."""
    names, shown = zip(*named, strict=True)
    ends = np.cumsum([clip.duration_s for clip in shown])
    starts = np.concatenate([[0.0], ends[:-1]])
    count = int(np.ceil(ends[-1] / GRID.hop))
    moments = (np.arange(2 * count) + 0.5) * GRID.hop / 2  # of the two frames of each window
    moments = np.minimum(moments, np.nextafter(ends[-1], 0))
    frames = []
    for moment, place in zip(moments, np.searchsorted(ends, moments, "right"), strict=True):
        clip = shown[place]
        frames.append(clip.features[np.abs((clip.start_s + clip.end_s) / 2 - (moment - starts[place])).argmin()])
    scores = np.square(np.array(frames, np.float32)).reshape(count, 2, -1).mean(axis=1)
    edges = np.minimum(np.arange(count + 1) * GRID.hop, ends[-1])
    chosen = [place for place, name in enumerate(names) if name in asked]
    true = np.stack([starts, ends], axis=1)[chosen]
    return Joined([names[place] for place in chosen], true, ends, np.sqrt(scores), edges)


def share_found(indexes: Sequence[Sequence[Joined]], vectors: Vectors, alike: float | None, weight: float) -> float:
    """R@1 of the search over all videos.

    Args:
        alike: likeness below which a shot ends; None: shots are known. weight: of what the best moments of an index look like.
    """
    found = []
    for index in indexes:
        seen = [
            (video.features, video.true_shots if alike is None else find_shots(video.features, alike))
            for video in index
        ]
        average = average_window(np.concatenate([features for features, _ in seen]))
        looks = [looks_of_shots(features, shots) for features, shots in seen]
        wanted = {
            name: with_looks(vectors(" ".join(split_name(name, frozenset()))), looks, average, weight)
            for name in {name for video in index for name in video.classes}
        }
        for video, (features, shots) in zip(index, seen, strict=True):
            for name in video.classes:
                curve = means_in_shots(features @ wanted[name], shots)  # both have length 1
                found.append(high_moments(curve, video.edges, count=1, max_overlap=1))
    return _share([video for index in indexes for video in index], found)


def share_at_random(indexes: Sequence[Sequence[Joined]], draws: np.random.Generator) -> float:
    """R@1 of a tenth of the video anywhere."""
    videos = [video for index in indexes for video in index]
    starts = [video.edges[-1] * draws.uniform(0, 1 - 1 / CLIPS) for video in videos for _ in video.classes]
    lengths = [video.edges[-1] / CLIPS for video in videos for _ in video.classes]
    return _share(videos, [np.array([[s, s + length]]) for s, length in zip(starts, lengths, strict=True)])


def _share(videos: Sequence[Joined], found: Sequence[np.ndarray]) -> float:
    return measure(found, [span[None] for video in videos for span in video.true]).recall[1, IOU]


if __name__ == "__main__":
    run_command(main, ARGUMENTS)
