"""Classes as points of the word space: Figure 2 (t-SNE), 3 (overlap) and 7 (accuracy over distance from training)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.data.sets.sources import load_source, load_tests, load_training_sets
from engine.errors import InputError
from engine.experiments.claims import Finding
from engine.experiments.curves import tests_of
from engine.experiments.results import Measured, Point
from engine.experiments.setup import Setup, class_pool, for_split, image_source, method_cell, whole_training
from engine.experiments.tables import Report, Table
from engine.results.pictures import overlap_figure
from engine.results.plots import Cloud, Steps, points_figure, steps_figure
from engine.results.spread import rank_correlation
from engine.results.tsne import FEWEST, tsne
from engine.semantics.class_lists import NamedClasses
from engine.semantics.classes import build_class_embeddings
from engine.semantics.config import WordsConfig
from engine.semantics.overlap import (
    Neighbour,
    nearest_test_classes,
    overlap_table,
    overlapping,
    preferring_same_names,
)

_NEIGHBOURS = 10  # paper Sec. 5.4
_FEW = 40  # training classes, of which ten neighbours would be a large part
_METHODS = (("frozen", "frozen"), ("end to end", "end to end"), ("pretrained", "pretrained on pictures"))
_SHOWN = 12  # overlapping classes named in the report


def figure7_points(setup: Setup) -> list[Point]:
    """The methods of the paper's figure on all training data; they are cells of Figures 4 and 6."""
    points = []
    for split in setup.splits:
        pool = class_pool(for_split(setup, split))
        for method, curve in _METHODS:
            if setup.uses(method):
                cell = method_cell(setup, method, split)
                points.append(Point(curve, 0, split, 0, cell, whole_training(cell.config, pool)))
    return points


@dataclass(frozen=True)
class _ClassValue:
    curve: str
    split: int
    name: str
    distance: float
    videos: int
    accuracy: float


def figure7_report(setup: Setup, measured: Sequence[Measured]) -> Report:
    """Accuracy on the test classes at least so far from training, and class by class (paper Sec. 5.4)."""
    panels, rows, summary, findings = [], [], [], []
    pools = {split: class_pool(for_split(setup, split)).names for split in {each.point.split for each in measured}}
    nearest = num_neighbours(list(pools.values()))
    for test in tests_of(measured):
        values: list[_ClassValue] = []
        for each in (m for m in measured if m.test == test):
            names = [name for name, _, _ in each.per_class]
            distances = distances_from_training(names, pools[each.point.split], setup.base.words, nearest)
            values += [
                _ClassValue(each.point.curve, each.point.split, name, distance, videos, accuracy)
                for (name, videos, accuracy), distance in zip(each.per_class, distances, strict=True)
            ]
        curves = []
        for curve in dict.fromkeys(value.curve for value in values):
            own = sorted((v for v in values if v.curve == curve), key=lambda v: v.distance)
            away, accuracy = [v.distance for v in own], [v.accuracy for v in own]
            curves.append(Steps(curve, *cumulative_accuracy(own), away, accuracy))
            half = len(own) // 2
            near, far = (float(np.mean(part)) if part else None for part in (accuracy[:half], accuracy[half:]))
            order = rank_correlation(away, accuracy)
            summary.append([test, curve, len(own), near, far, order])
        panels.append((test, curves))
        claim = "pretrained on pictures above end to end: by more on the farther half of the classes than on the nearer"
        findings.append(Finding(claim, test, _more_gained_far_away(values)))
        rows += [[test, v.curve, v.split, v.name, v.distance, v.videos, v.accuracy] for v in values]
    header = ["test set", "curve", "classes", "accuracy, nearer half", "accuracy, farther half", "rank correlation"]
    notes = [
        f"Distance of a test class: mean cosine distance to its {nearest} nearest training classes"
        f"{'' if nearest == _NEIGHBOURS else ' (the paper takes 10 of 664)'}. Left: mean accuracy of the classes at least so "
        "far away, over all splits together; right: each class of each split. Rank correlation: Spearman's, of distance and "
        "accuracy of the classes; below 0 where far classes are harder."
    ]
    figure = steps_figure(panels, f"mean distance to the {nearest} nearest training classes")
    columns = ["test_set", "curve", "split", "class", "distance", "videos", "accuracy"]
    title = "Accuracy as test classes move away from training (paper Figure 7)"
    return Report(title, notes, [Table(header, summary)], Table(columns, rows), figure, findings)


def _more_gained_far_away(values: Sequence[_ClassValue]) -> dict[int, float]:
    """Split -> what pretraining on pictures adds on the farther half of the test classes, less what it adds on the nearer."""
    more = {}
    for split in dict.fromkeys(value.split for value in values):
        own = sorted((v for v in values if v.split == split), key=lambda v: v.distance)
        added = [
            np.array([v.accuracy for v in own if v.curve == curve])
            for curve in ("pretrained on pictures", "end to end")
        ]
        if len(added[0]) == len(added[1]) > 1:
            gain, half = added[0] - added[1], len(added[0]) // 2
            more[split] = float(gain[half:].mean() - gain[:half].mean())
    return more


def num_neighbours(pools: Sequence[Sequence[str]]) -> int:
    """How many training classes a distance is to: one number for all splits, whose distances lie on one axis.

    It is 10 as in the paper, or a quarter of the training classes of the split that has the fewest, if those are under 40.
    """
    fewest = min(map(len, pools))
    return _NEIGHBOURS if fewest >= _FEW else max(1, fewest // 4)


def distances_from_training(
    names: Sequence[str], training: Sequence[str], words: WordsConfig, nearest: int
) -> list[float]:
    """Mean cosine distance of test classes to so many nearest training classes."""
    own, others = (build_class_embeddings(each, words).vectors.numpy() for each in (names, training))
    return np.sort(1 - own @ others.T, axis=1)[:, :nearest].mean(axis=1).tolist()


def cumulative_accuracy(values: Sequence[_ClassValue]) -> tuple[list[float], list[float]]:
    """For each distance (ascending) the mean accuracy of all classes that are at least so far away."""
    thresholds = sorted({value.distance for value in values})
    accuracy = []
    for threshold in thresholds:
        accuracy.append(float(np.mean([value.accuracy for value in values if value.distance >= threshold])))
    return thresholds, accuracy


def class_sets(setup: Setup) -> tuple[list[NamedClasses], list[NamedClasses]]:
    """Training sets (the pictures' too) and test sets: those named, else those of the first split."""
    if setup.train_classes or setup.test_classes:
        if not (setup.train_classes and setup.test_classes):
            raise InputError("name both --train-classes and --test-classes, or neither")
        return list(setup.train_classes), list(setup.test_classes)
    config = for_split(setup, setup.splits[0])
    training = [(data.name, data.classes) for data in load_training_sets(config.data)]
    if setup.has_images:
        images = load_source(image_source(setup, setup.splits[0]))
        training.append((images.name, images.classes))
    return training, [(test.name, test.classes) for test in load_tests(config.data.tests)]


def figure2_report(setup: Setup, measured: Sequence[Measured]) -> Report:
    """t-SNE of all class vectors: training classes that are kept, those removed, test classes (paper Fig. 2)."""
    training, tests = class_sets(setup)
    near = {(row.source, row.name) for row in _near(setup, _neighbours(setup, training, tests))}
    entries = [(source, name, "removed" if (source, name) in near else "training")
               for source, names in training for name in names]  # fmt: skip
    entries += [(source, name, "test") for source, names in tests for name in names]
    vectors = np.concatenate(
        [build_class_embeddings(names, setup.base.words).vectors.numpy() for _, names in (*training, *tests)]
    )
    points = project(vectors)
    clouds = []
    present = {(source, kind) for source, _, kind in entries}
    ordered = [(source, kind) for kind in ("training", "removed", "test") for source, _ in (*training, *tests)]
    for source, kind in (each for each in dict.fromkeys(ordered) if each in present):
        own = [index for index, (s, _, k) in enumerate(entries) if (s, k) == (source, kind)]
        clouds.append(Cloud(f"{source}: {kind}", kind, points[own], [entries[index][1] for index in own]))
    counts = [[cloud.label, len(cloud.names)] for cloud in clouds]
    rows = [
        [source, name, kind, float(x), float(y)] for (source, name, kind), (x, y) in zip(entries, points, strict=True)
    ]
    notes = [f"t-SNE of the class vectors. Removed: within {_tau(setup):g} (cosine distance) of a test class."]
    title = "Training and test classes in the word space (paper Figure 2)"
    columns = ["set", "class", "kind", "x", "y"]
    return Report(title, notes, [Table(["classes", "number"], counts)], Table(columns, rows), points_figure(clouds))


def project(vectors: np.ndarray) -> np.ndarray:
    """t-SNE of vectors [N, D] by cosine distance: float [N, 2], always the same for the same vectors.

    Raises:
        InputError: fewer than four vectors.
    """
    if len(vectors) < FEWEST:
        raise InputError(f"t-SNE of {len(vectors)} classes shows nothing: name more classes")
    return tsne(vectors, metric="cosine", init="random")


def figure3_report(setup: Setup, measured: Sequence[Measured]) -> Report:
    """The training classes nearest to a test class, with the threshold (paper Fig. 3)."""
    neighbours = _neighbours(setup, *class_sets(setup))
    near = _near(setup, neighbours)
    shown = [[row.name, row.source, row.test_class, row.test_set, f"{row.distance:.4f}"] for row in neighbours[:_SHOWN]]
    notes = [f"{len(neighbours) - len(near)} of {len(neighbours)} training classes are left at tau {_tau(setup):g}."]
    header = ["training class", "of", "nearest test class", "of", "distance"]
    figure = overlap_figure(neighbours, _tau(setup))
    title = "Overlap of training and test classes (paper Figure 3)"
    return Report(title, notes, [Table(header, shown, "The nearest")], overlap_table(neighbours, near), figure)


def _tau(setup: Setup) -> float:
    return setup.base.train.exclude_overlap.tau


def _neighbours(setup: Setup, training: list[NamedClasses], tests: list[NamedClasses]) -> list[Neighbour]:
    config = setup.base.train.exclude_overlap
    words = config.words or setup.base.words
    rows = nearest_test_classes(training, tests, words)
    return preferring_same_names(rows, tests, words) if config.same_names else rows


def _near(setup: Setup, neighbours: Sequence[Neighbour]) -> list[Neighbour]:
    config = setup.base.train.exclude_overlap
    return overlapping(neighbours, config.tau, same_names=config.same_names)
