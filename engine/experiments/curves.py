"""Accuracy over the training data: Figure 4 (videos and classes), 5 (diversity of classes) and 6 (pretraining on pictures)."""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from engine.config import Config
from engine.data.sets.class_splits import draw_classes
from engine.errors import InputError
from engine.experiments import claims
from engine.experiments.cells import Cell
from engine.experiments.claims import FROZEN_PRETRAINED, Finding
from engine.experiments.results import Measured, Point, by_x, chance, control, largest_class, mean_over_splits
from engine.experiments.setup import (
    ClassPool,
    Setup,
    Training,
    class_pool,
    for_split,
    image_source,
    leaving_out_overlap,
    method_cell,
    only_classes,
    share_of_videos,
    with_sources,
)
from engine.experiments.tables import Report, Table
from engine.results.figures import BLUE, ORANGE
from engine.results.plots import Line, Panel, bars_figure, lines_figure
from engine.semantics.classes import build_class_embeddings

_STEPS = (
    "All runs take the same number of steps: of fewer videos each comes more often. Mean ± standard error over the class "
    "splits (of the mean over random subsets within a split), of a single split over its random subsets."
)


def figure4_points(setup: Setup) -> list[Point]:
    """End to end and frozen: all classes with a share of their videos, and some classes with all of theirs (Sec. 5.2).

    Where there are pictures, and no `frozen_weights`, also features that were pretrained on them and then frozen.
    """
    points = []
    pools = {split: class_pool(for_split(setup, split)) for split in setup.splits}
    every = max(len(pool.names) for pool in pools.values())  # of a split that has the most, so none draws as many
    for split, pool in pools.items():
        config = for_split(setup, split)
        shares = _shares(setup, config, pool)
        some = {
            (count, draw): only_classes(config, pool, draw_classes(pool.names, count, (split, draw)))
            for count in setup.class_counts if count < len(pool.names) for draw in range(setup.draws)
        }  # fmt: skip
        for method in filter(setup.uses, ("end to end", "frozen")):
            points += _share_points(setup, method, split, f"{method}, fewer videos", shares)
            for (count, draw), training in some.items():
                cell = method_cell(setup, method, split, training.sources, f"{count}classes-draw{draw}")
                points.append(Point(f"{method}, fewer classes", count, split, draw, cell, training))
            whole = next(p for p in points if p.split == split and p.curve == f"{method}, fewer videos" and p.x == 1)
            points.append(dataclasses.replace(whole, curve=f"{method}, fewer classes", x=every))
        if setup.uses("frozen pretrained") and setup.frozen_weights is None:
            points += _share_points(setup, "frozen pretrained", split, FROZEN_PRETRAINED, shares)
    return points


def _shares(setup: Setup, config: Config, pool: ClassPool) -> dict[tuple[float, int], Training]:
    """What is trained on with each share of the videos and each draw of it: the same for every method."""
    return {
        (share, draw): share_of_videos(config, pool, share, draw)
        for share in sorted({*setup.shares, 1.0})
        for draw in range(setup.draws if share < 1 else 1)
    }


def _share_points(
    setup: Setup, method: str, split: int, curve: str, shares: dict[tuple[float, int], Training]
) -> Iterator[Point]:
    for (share, draw), training in shares.items():
        label = "" if share == 1 else f"{share:g}videos-draw{draw}"
        cell = method_cell(setup, method, split, training.sources, label)
        yield Point(curve, share, split, draw, cell, training)


def figure4_report(setup: Setup, measured: Sequence[Measured]) -> Report:
    """Two families of curves over the number of training videos."""
    styles = {
        "end to end, fewer videos": (ORANGE, "-"), "frozen, fewer videos": (ORANGE, "--"), FROZEN_PRETRAINED: (ORANGE, ":"),
        "end to end, fewer classes": (BLUE, "-"), "frozen, fewer classes": (BLUE, "--"),
    }  # fmt: skip
    panels = []
    for test in tests_of(measured):
        lines = []
        for curve, (color, style) in styles.items():
            if groups := by_x(measured, test, curve):
                marks = [f"{x:g}" for x in groups] if "classes" in curve else None
                lines.append(_line(curve, groups, color, style, by_videos=True, marks=marks))
        panels.append(Panel(test, "training videos", lines, chance(measured, test), log=True))
    figure = lines_figure(panels, "Fewer videos or fewer classes (numbers at the blue points: classes)")
    findings = [finding for test in tests_of(measured) for finding in claims.amounts(measured, test)]
    return _report("Number of training videos and classes (paper Figure 4)", measured, figure, [_STEPS], findings)


def figure5_points(setup: Setup) -> list[Point]:
    """Sets of as many classes each, drawn within one of 1, 2, 3, ... clusters of the class vectors (paper Sec. 5.2)."""
    points = []
    for split in setup.splits:
        config = _pool_of_clusters(setup, split)
        pool = class_pool(config)
        for clusters in setup.clusters:
            for draw in range(setup.draws):
                names = classes_of_a_cluster(pool.names, config, clusters, setup.cluster_classes, (split, draw))
                training = only_classes(config, pool, names)
                name = f"e2e-split{split}-1of{clusters}clusters-draw{draw}"
                cell = Cell(name, with_sources(config, training.sources))
                points.append(Point("end to end", clusters, split, draw, cell, training))
    return points


def _pool_of_clusters(setup: Setup, split: int) -> Config:
    """The config's own training classes, with `cluster_images` those of the pictures too: few classes have no clusters."""
    config = for_split(setup, split)
    if not setup.cluster_images:
        return config
    return leaving_out_overlap(with_sources(config, [*config.data.train, image_source(setup, split)]))


def classes_of_a_cluster(
    names: Sequence[str], config: Config, clusters: int, count: int, key: tuple[int, ...]
) -> list[str]:
    """`count` classes at random within one of `clusters` k-means clusters of the class vectors that has so many.

    Raises:
        InputError: there are more clusters than classes, or no cluster is large enough.
    """
    from sklearn.cluster import KMeans

    names = sorted(names)
    if clusters > len(names):
        raise InputError(
            f"{len(names)} training classes cannot be cut into {clusters} clusters: set --clusters lower, or name more training "
            "classes (--images with --cluster-images)"
        )
    vectors = build_class_embeddings(names, config.words).vectors.numpy()
    labels = KMeans(clusters, n_init=10, random_state=0).fit(vectors).labels_
    large = np.flatnonzero(np.bincount(labels, minlength=clusters) >= count)
    if not len(large):
        raise InputError(
            f"no one of {clusters} clusters of the {len(names)} training classes has {count} classes: "
            "set --cluster-classes lower, or name more training classes (--images)"
        )
    order = np.random.Generator(np.random.Philox(np.random.SeedSequence((key[0], clusters)))).permutation(large)
    cluster = int(order[key[1] % len(order)])  # draw after draw another cluster, as far as there are some
    return draw_classes(
        [n for n, label in zip(names, labels, strict=True) if label == cluster], count, (*key, clusters)
    )


def figure5_report(setup: Setup, measured: Sequence[Measured]) -> Report:
    """A bar for each number of clusters."""
    panels = []
    for test in tests_of(measured):
        groups = by_x(measured, test, "end to end")
        bars = [(f"{x:g} cluster{'s' if x > 1 else ''}", mean_over_splits(group)) for x, group in groups.items()]
        panels.append((test, bars, chance(measured, test)))
    figure = bars_figure(panels, f"{setup.cluster_classes} training classes from one of so many clusters")
    notes = [
        "More clusters: training classes that are more alike. k-means of the class vectors; a cluster and its classes are "
        "drawn at random. " + _STEPS
    ]
    findings = [finding for test in tests_of(measured) for finding in claims.diversity(measured, test)]
    return _report("Diversity of the training classes (paper Figure 5)", measured, figure, notes, findings)


def figure6_points(setup: Setup) -> list[Point]:
    """From random weights and from weights trained on pictures, over the number of training videos (paper Sec. 5.3)."""
    points: list[Point] = []
    for split in setup.splits:
        config = for_split(setup, split)
        shares = _shares(setup, config, class_pool(config))
        for method, curve in (("end to end", "from scratch"), ("pretrained", "pretrained on pictures")):
            points += _share_points(setup, method, split, curve, shares)
    return points


def figure6_report(setup: Setup, measured: Sequence[Measured]) -> Report:
    """Two curves over the number of training videos."""
    panels = []
    for test in tests_of(measured):
        lines = [
            _line(curve, by_x(measured, test, curve), color, "-", by_videos=True)
            for curve, color in (("from scratch", ORANGE), ("pretrained on pictures", BLUE))
        ]
        panels.append(Panel(test, "training videos", lines, chance(measured, test), log=True))
    figure = lines_figure(panels, "Pretraining on videos made from pictures")
    findings = [finding for test in tests_of(measured) for finding in claims.pretraining(measured, test)]
    return _report("Pretraining on moving crops of pictures (paper Figure 6)", measured, figure, [_STEPS], findings)


def tests_of(measured: Sequence[Measured]) -> list[str]:
    """The test sets, each once."""
    return list(dict.fromkeys(each.test for each in measured))


def _line(
    label: str,
    groups: dict[float, list[Measured]],
    color: str,
    style: str,
    *,
    by_videos: bool,
    marks: list[str] | None = None,
) -> Line:
    xs = [float(np.mean([m.point.videos for m in g])) if by_videos else x for x, g in groups.items()]
    means = [mean_over_splits(group) for group in groups.values()]
    return Line(label, xs, [m.value for m in means], [m.error for m in means], color, style, marks)


def _report(
    title: str, measured: Sequence[Measured], figure: object, notes: list[str], findings: Sequence[Finding]
) -> Report:
    """A row for each place of each curve, what is found, and every single value as CSV."""
    rows = []
    for test in tests_of(measured):
        for curve in dict.fromkeys(each.point.curve for each in measured):
            for x, group in by_x(measured, test, curve).items():
                classes, videos = (np.mean([getattr(m.point, of) for m in group]) for of in ("classes", "videos"))
                splits = len({m.point.split for m in group})
                rows.append([test, curve, f"{x:g}", f"{classes:.0f}", f"{videos:.0f}", splits, len(group),
                             str(mean_over_splits(group)), chance(measured, test), control(group),
                             str(mean_over_splits(group, "top1")), largest_class(group)])  # fmt: skip
    header = ["test set", "curve", "at", "training classes", "training videos", "splits", "runs", "mean-class", "chance",
              "control", "top-1", "largest class"]  # fmt: skip
    return Report(title, notes, [Table(header, rows)], single_values(measured), figure, findings)


def single_values(measured: Sequence[Measured]) -> Table:
    """What the CSV holds: every single value, with the folder of its run."""
    header = ["test_set", "curve", "x", "split", "draw", "training_classes", "training_videos", "snippets",
              "mean_class", "top1", "top5", "half_mean_class", "half_top1", "half_top5", "num_classes", "largest_class",
              "control_mean_class", "run"]  # fmt: skip
    rows = [
        [m.test, m.point.curve, f"{m.point.x:g}", m.point.split, m.point.draw, m.point.classes, m.point.videos,
         m.point.snippets or m.point.cell.config.evaluate.num_snippets, m.mean_class, m.top1, m.top5, m.half_mean_class,
         m.half_top1, m.half_top5, m.num_classes, m.largest_class, m.control, m.folder.name]
        for m in measured
    ]  # fmt: skip
    return Table(header, rows)
