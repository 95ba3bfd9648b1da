"""What is held out of the training data: whole classes, and whole sources of videos of each other class."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from engine.data.config import ValidationConfig
from engine.data.manifests.contents import file_identities, footage_identities
from engine.data.manifests.large_manifest import LargeManifest
from engine.data.manifests.large_part import Part
from engine.data.manifests.manifest import Manifest
from engine.data.sampling.keyed import HOLD_OUT, keys
from engine.data.sets.footage import HELD_OUT_CLASS, HELD_OUT_VIDEO, LEFT_OUT, TRAINED
from engine.errors import InputError


def draw_parts(manifest: Manifest, config: ValidationConfig, *, join_copies: bool = True) -> np.ndarray:
    """uint8 [V]: the part of the training data that each row belongs to, by name in `engine/data/sets/footage.py`.

    Of what would be held out, rows that show the same as one trained on are left out of both.

    Args:
        join_copies: see `hold_out_videos`.
    """
    held_classes = hold_out_classes(manifest.classes, config)
    is_held = np.isin(manifest.class_index, [manifest.classes.index(name) for name in held_classes])
    part = np.where(is_held, HELD_OUT_CLASS, TRAINED).astype(np.uint8)
    rest = np.flatnonzero(~is_held)
    part[rest[hold_out_videos(manifest.select(rest), config, join_copies=join_copies)]] = HELD_OUT_VIDEO
    shown = footage_identities(manifest, file_identities(manifest))
    part[(part != TRAINED) & np.isin(shown, shown[part == TRAINED])] = LEFT_OUT
    return part


def draw_large_parts(manifest: LargeManifest, config: ValidationConfig) -> list[list[Part]]:
    """The rows of TRAINED, HELD_OUT_VIDEO and HELD_OUT_CLASS as shares of each part: as `draw_parts`, for so many rows that each is
    drawn by itself.

    A source is held out with the chance `video_share`, so what it is of each class is no more than near to it. Rows of one
    source (`video_sources.py`) are always on one side.
    """
    held_classes = set(hold_out_classes(manifest.classes, config))
    (key,) = keys(config.seed, count=1, purpose=HOLD_OUT)

    def side_of(part: Part) -> np.ndarray:
        is_held = part.is_drawn(config.video_share, key)
        sides = np.where(is_held, np.uint8(HELD_OUT_VIDEO), np.uint8(TRAINED))
        if held_classes:
            codes, names = part.coded("class_name")
            sides[np.array([name in held_classes for name in names], bool)[codes]] = HELD_OUT_CLASS
        return sides

    return manifest.divided(side_of, 1 + max(TRAINED, HELD_OUT_VIDEO, HELD_OUT_CLASS))


def nothing_held_out(config: ValidationConfig, held_out_videos: object | None) -> list[str]:
    """A warning where videos were to be held out and none is."""
    if config.video_share == 0 or held_out_videos is not None:
        return []
    return [
        f"warning: data.validation.video_share is {config.video_share:g}, but no video is held out: each class has too few sources "
        "of videos (groups, or files where there are none); give a larger share, or another data.validation.seed"
    ]


def hold_out_classes(classes: Sequence[str], config: ValidationConfig) -> list[str]:
    """Names of the training classes that are held out entirely."""
    if config.num_classes and config.num_classes > len(classes) - 2:
        raise InputError(
            f"data.validation.num_classes is {config.num_classes} of {len(classes)} training classes: at least 2 must be "
            f"left to train on, so it can be at most {max(0, len(classes) - 2)}"
        )
    order = np.random.RandomState(config.seed).permutation(len(classes))[: config.num_classes]
    return sorted(sorted(classes)[i] for i in order)


def hold_out_videos(manifest: Manifest, config: ValidationConfig, *, join_copies: bool = True) -> np.ndarray:
    """bool [V]: whole sources of each class, about `video_share` of its videos; never all of a class.

    A source is a group of a class (videos cut from one source: on both sides they would be no test at all), with all that has
    a file of equal contents, under whatever name, group or class.

    Args:
        join_copies: if not, a source is a group: the draw of versions that did not look for copies.
    """
    if config.video_share == 0:
        return np.zeros(len(manifest), dtype=bool)
    labels = [group or f"row {row}" for row, group in enumerate(manifest.strings("group").tolist())]
    source = _sources(manifest, labels, join_copies=join_copies)
    generator = np.random.RandomState(config.seed)
    held: set[int] = set()
    decided: set[int] = set()  # in a class before
    for rows in map(np.ndarray.tolist, rows_of_classes(manifest)):
        names: dict[int, str] = {}
        for row in rows:
            names[source[row]] = min(labels[row], names.get(source[row], labels[row]))
        counts = Counter(source[row] for row in rows)
        sources = sorted(names, key=names.__getitem__)
        order = generator.permutation(len(sources)).tolist()
        wanted, count = config.video_share * len(rows), sum(counts[each] for each in sources if each in held)
        for each in (sources[place] for place in order[:-1]):
            if each not in decided and count < wanted:
                held.add(each)
                count += counts[each]
        if held.issuperset(sources):
            held.discard(sources[order[-1]])
        decided.update(sources)
    return np.isin(source, list(held))


def rows_of_classes(manifest: Manifest) -> list[np.ndarray]:
    """The rows of each class, ascending, in the order of `manifest.classes`."""
    counts = np.bincount(manifest.class_index, minlength=len(manifest.classes))
    return np.split(np.argsort(manifest.class_index, kind="stable"), np.cumsum(counts))[:-1]


def _sources(manifest: Manifest, labels: Sequence[str], *, join_copies: bool) -> list[int]:
    """A number for each row: equal for one class and label, and where files of equal contents join them."""
    numbers: dict[tuple[int, str], int] = {}
    pairs = zip(manifest.class_index.tolist(), labels, strict=True)
    of_row = [numbers.setdefault(pair, len(numbers)) for pair in pairs]
    if not join_copies:
        return of_row
    joined = list(range(len(numbers)))

    def first(number: int) -> int:
        while joined[number] != number:
            joined[number] = joined[joined[number]]
            number = joined[number]
        return number

    of_file: dict[int, int] = {}
    _, file, count = np.unique(file_identities(manifest), return_inverse=True, return_counts=True)
    for row in np.flatnonzero(count[file] > 1).tolist():
        one, other = first(of_file.setdefault(int(file[row]), of_row[row])), first(of_row[row])
        joined[max(one, other)] = min(one, other)
    return [first(number) for number in of_row]
