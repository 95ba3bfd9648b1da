"""Which training sets, weights and classes the cells of an experiment get."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from engine.config import Config
from engine.data.manifests.manifest import Manifest
from engine.data.sampling.sampler import epoch_length
from engine.data.sets.class_splits import draw_classes
from engine.data.sets.sources import load_tests, load_training
from engine.errors import InputError
from engine.experiments import cost, curves, distances
from engine.experiments.cells import Cell
from engine.experiments.comparisons import comparison_points, table3_points
from engine.experiments.cost import CellCost, told
from engine.experiments.curves import classes_of_a_cluster, figure4_points, figure5_points, figure6_points
from engine.experiments.distances import (
    class_sets,
    distances_from_training,
    figure7_points,
    figure7_report,
    num_neighbours,
)
from engine.experiments.methods import methods_points
from engine.experiments.results import Measured, Point
from engine.experiments.setup import (
    Method,
    Setup,
    Training,
    class_pool,
    for_split,
    image_source,
    method_cell,
    only_classes,
    share_of_videos,
    with_sources,
)
from engine.schema.keys import with_keys
from engine.schema.parser import parse
from engine.semantics.classes import build_class_embeddings
from tests.experiments.test_reports import measured
from tests.rows import row

VIDEOS = ["archery", "cooking", "diving", "fishing", "jumping", "running", "smoking", "swimming"]
PICTURES = ["cycling", "drinking", "reading", "singing", "archery", "sailing"]


@pytest.fixture
def setup(tmp_path) -> Setup:
    """Eight classes of 20 to 34 videos, six train; six classes of 10 pictures."""
    rows = [row(f"{n}{c}.mp4", n, group=f"g{c}") for p, n in enumerate(VIDEOS) for c in range(20 + 2 * p)]
    Manifest.from_rows(rows, Path("/v")).save(tmp_path / "clips" / "manifest.parquet")
    rows = [row(f"{n}{c}.jpg", n, codec="image/jpeg", num_frames=1) for n in PICTURES for c in range(10)]
    Manifest.from_rows(rows, Path("/p")).save(tmp_path / "photos" / "manifest.parquet")
    source = {"manifest": str(tmp_path / "clips" / "manifest.parquet"), "class_split": {"seed": 0, "num_train": 6}}
    base = parse(Config, {
        "data": {"train": [{**source, "part": "train"}], "tests": [{**source, "part": "unseen", "name": "unseen"}],
                 "validation": {"video_share": 0.0}},
        "train": {"epochs": 1, "batch_size": 4, "exclude_overlap": {"tau": 0.01}},
    })  # fmt: skip
    return Setup(base, (0, 1), str(tmp_path / "photos" / "manifest.parquet"), shares=(0.1, 0.5, 1.0),
                 class_counts=(2, 4, 6), clusters=(1, 2), cluster_classes=2, draws=2)  # fmt: skip


def test_splits_move_every_class_split_or_else_the_seed(setup):
    config = for_split(setup, 5)
    assert [source.class_split.seed for source in (*config.data.train, *config.data.tests)] == [5, 5]
    assert config.run.seed == setup.base.run.seed
    order = np.random.RandomState(5).permutation(8)
    assert set(class_pool(config).names) == {VIDEOS[i] for i in order[:6]}
    plain = Setup(parse(Config, {"data": {"train": [{"manifest": "a"}]}}))
    assert for_split(plain, 5).run.seed == 5


@pytest.mark.parametrize("held_out", [0.0, 0.2])
def test_subsets_take_as_many_steps_as_the_whole(setup, held_out):
    config = with_keys(for_split(setup, 1), {"data.validation.video_share": held_out})
    pool = class_pool(config)
    for training in (
        only_classes(config, pool, pool.names[:2]),
        share_of_videos(config, pool, 0.1, 0),
        share_of_videos(config, pool, 0.5, 1),
    ):
        data = load_training(with_sources(config, training.sources).data)
        assert epoch_length(data.weights) == training.epoch == pool.epoch
        assert (len(data.train.manifest), len(data.train.classes)) == (training.videos, training.classes)
    two = load_training(with_sources(config, only_classes(config, pool, pool.names[:2]).sources).data)
    assert two.train.classes == tuple(sorted(pool.names[:2]))
    tenth = load_training(with_sources(config, share_of_videos(config, pool, 0.1, 0).sources).data)
    assert set(tenth.train.classes) == set(pool.names) and len(tenth.train.manifest) < 0.15 * pool.epoch


def test_a_share_of_a_set_that_is_drawn_itself_is_of_what_is_drawn(setup):
    """A smaller share lies within a larger one, and all within what the config trains on; further draws are others."""
    (source,) = for_split(setup, 1).data.train
    config = with_sources(for_split(setup, 1), [dataclasses.replace(source, video_share=0.5, video_seed=7)])
    pool = class_pool(config)

    def videos(share: float, draw: int) -> set[str]:
        training = share_of_videos(config, pool, share, draw)
        assert training.epoch == pool.epoch
        found = load_training(with_sources(config, training.sources).data).train.manifest.strings("path").tolist()
        assert len(found) == training.videos == pytest.approx(share * sum(pool.trained), abs=len(pool.names) / 2)
        return set(found)

    assert videos(0.2, 0) < videos(0.5, 0) < videos(0.9, 0) < videos(1.0, 0)
    assert videos(0.5, 1) != videos(0.5, 0)


def test_a_class_of_two_sets_counts_once(setup):
    split = next(s for s in range(50) if "archery" in class_pool(for_split(setup, s)).names)
    config = method_cell(setup, "joint", split).config
    pool = class_pool(config)
    training = only_classes(config, pool, ["archery", "reading"])
    data = load_training(with_sources(config, training.sources).data)
    assert data.train.classes == ("archery", "reading")
    assert epoch_length(data.weights) == pytest.approx(pool.epoch, abs=1)
    assert _share_of_pictures(data) == pytest.approx(0.75, abs=1e-3)  # all of the one class and half of the other


def _share_of_pictures(data) -> float:
    is_still = data.train.manifest.strings("codec") == "image/jpeg"
    return data.weights.select(is_still).sum() / data.weights.sum()


def test_pictures_are_half_of_each_batch_whatever_the_weight_and_the_share_of_the_videos(setup):
    heavy = with_sources(setup.base, [dataclasses.replace(setup.base.data.train[0], weight=3.0)])
    config = method_cell(dataclasses.replace(setup, base=heavy), "joint", 1).config
    half = share_of_videos(config, class_pool(config), 0.5, 0)
    removed = {"archery"} - set(class_pool(config).names)
    for each in (config, with_sources(config, half.sources)):
        data = load_training(each.data, removed)
        assert _share_of_pictures(data) == pytest.approx(0.5, abs=1e-3)
        assert epoch_length(data.weights) == class_pool(for_split(dataclasses.replace(setup, base=heavy), 1)).epoch


def test_methods_differ_in_what_they_are_called_for(setup):
    assert method_cell(setup, "frozen", 0).config.model.freeze_backbone
    assert method_cell(setup, "end to end", 0).config == for_split(setup, 0)
    pretrained = method_cell(setup, "pretrained", 0)
    assert pretrained.config == for_split(setup, 0)
    assert pretrained.start.config.data.train[0].manifest == setup.images
    assert pretrained.start.config.train.exclude_overlap.training == "remove"
    joint = method_cell(setup, "joint", 0).config
    assert [source.name for source in joint.data.train] == ["", "photos"]
    assert joint.train.exclude_overlap.training == "remove"
    assert [name for name in ("frozen", "pretrained", "joint") if Setup(setup.base).uses(name)] == ["frozen"]
    with pytest.raises(InputError, match="--images"):
        method_cell(Setup(setup.base), "pretrained", 0)
    given = dataclasses.replace(setup, frozen_weights="weights.pt")
    frozen, after, whole = (method_cell(given, name, 0) for name in ("frozen", "frozen pretrained", "end to end"))
    assert (frozen.config.model.weights, frozen.config.train.exclude_overlap.pretrained) == ("weights.pt", "allow")
    assert after.config.model.freeze_backbone and after.start == pretrained.start
    for cell in (after, whole):
        assert (cell.config.model.weights, cell.config.train.exclude_overlap.pretrained) == (None, "refuse")


def test_the_rows_of_the_ablation_are_the_cells_of_the_comparison(setup):
    """Of one snippet, or of as many as the config says; joint training counts its own classes and videos."""
    rows = [p for p in table3_points(setup) if p.split == 1]
    assert [(p.curve, p.cell.name, p.snippets) for p in rows] == [
        ("frozen", "frozen-split1", 1), ("e2e", "e2e-split1", 1), ("e2e + augment", "pretrained-split1", 1),
        ("e2e + multi", "e2e-split1", None), ("e2e + augment + multi", "pretrained-split1", None),
        ("e2e + joint + multi", "joint-split1", None),
    ]  # fmt: skip
    compared = {p.curve: p for p in comparison_points(setup) if p.split == 1}
    trainings = {p.cell.digest: p.training for p in rows}
    assert len(trainings) == 4 and trainings == {p.cell.digest: p.training for p in compared.values()}
    assert compared["joint with pictures"].classes == 11 > compared["end to end"].classes == 6
    seven = [p for p in figure7_points(setup) if p.split == 1]
    assert [p.curve for p in seven] == ["frozen", "end to end", "pretrained on pictures"]
    assert all(trainings[p.cell.digest] == p.training for p in seven)
    few = dataclasses.replace(setup, without=("frozen", "joint"))
    assert {p.curve for p in comparison_points(few)} == {"end to end", "pretrained on pictures"}
    assert {p.curve for p in table3_points(few)} == {p.curve for p in rows} - {"frozen", "e2e + joint + multi"}
    assert {p.curve for p in figure7_points(few)} == {"end to end", "pretrained on pictures"}


def test_methods_start_from_each_other_split_by_split(setup):
    pictures = with_sources(setup.base, [image_source(setup, 0)])
    after = with_keys(setup.base, {"train.lr": 0.5})
    listed = (Method("ours", setup.base, None, True), Method("after", after, "pictures", True),
              Method("pictures", pictures, None, False))  # fmt: skip
    points = methods_points(dataclasses.replace(setup, methods=listed))
    assert [(p.curve, p.split, p.cell.name) for p in points] == [
        (name, split, f"{name}-split{split}") for split in (0, 1) for name in ("ours", "after")
    ]
    ours, started = (p.cell for p in points[2:])
    assert (ours.config, ours.start) == (for_split(setup, 1), None)
    assert started.config == with_keys(for_split(setup, 1), {"train.lr": 0.5})
    assert started.start.config == for_split(dataclasses.replace(setup, base=pictures), 1)


def test_pictures_are_a_training_set_among_the_classes_that_are_shown(setup):
    setup = dataclasses.replace(setup, splits=(5, 0))
    training, tests = class_sets(setup)
    config = for_split(setup, 5)
    assert [name for name, _ in training] == ["clips", "photos"] and {*training[1][1]} == {*PICTURES}
    assert {*training[0][1]} == {*class_pool(config).names} != {*class_pool(for_split(setup, 0)).names}
    assert [(name, classes) for name, classes in tests] == [("unseen", load_tests(config.data.tests)[0].classes)]
    assert len(class_sets(dataclasses.replace(setup, images=None))[0]) == 1


def test_what_is_left_to_run_is_told_by_the_speed_of_what_is_finished(setup, monkeypatch):
    """The median of the finished cells, or the rate that is named; a control is trained beside."""
    config = with_keys(setup.base, {"train.epochs": 3, "train.batch_size": 7, "run.control": True})
    plain = with_keys(config, {"run.control": False})
    training, speeds = Training([], 100, 6, 100_000), {"a": 10.0, "b": 40.0, "c": None, "d": 50.0}
    costs = [CellCost(Cell(name, plain), training, Path(name), is_done=True) for name in speeds]
    costs += [CellCost(Cell("e", each), training, Path("e"), is_done=False) for each in (config, plain)]
    assert costs[0].steps == 42_858  # every epoch's rest goes into the next
    assert [each.snippets for each in costs[-2:]] == [2 * 42_858 * 7, 42_858 * 7]
    monkeypatch.setattr(cost, "read_results", lambda folder: SimpleNamespace(clips_per_second=speeds[str(folder)]))
    hours = 3 * 42_858 * 7 / 3600
    assert told(costs, 2, None) == (
        f"6 cells, 2 to run: 0.9 million snippets, at 40 a second about {hours / 40:.1f} hours of a worker, "
        f"{hours / 80:.1f} hours by the clock with 2; evaluation comes to it"
    )
    assert f"at 400 a second about {60 * hours / 400:.0f} minutes of a worker" in told(costs, 2, 400)
    few = CellCost(Cell("e", plain), Training([], 100, 6, 100), Path("e"), is_done=False)
    assert told([few], 1, None).startswith("1 cell, 1 to run: 301 snippets; ")


def test_pool_is_without_overlapping_classes(setup):
    """Archery is a test class of some split: then the pictures of that name are no training class."""
    split = next(s for s in range(50) if "archery" not in class_pool(for_split(setup, s)).names)
    pool = class_pool(method_cell(setup, "joint", split).config)
    assert len(pool.names) == 6 + 5 and "archery" not in pool.names
    other = next(s for s in range(50) if "archery" in class_pool(for_split(setup, s)).names)
    pool = class_pool(method_cell(setup, "joint", other).config)
    assert len(pool.names) == 6 + 5 and pool.videos[1]["archery"] == 10


def test_draws_of_classes_are_nested_and_keyed():
    assert set(draw_classes(VIDEOS, 2, (0, 0))) < set(draw_classes(VIDEOS, 5, (0, 0)))
    assert draw_classes(VIDEOS[::-1], 3, (0, 0)) == draw_classes(VIDEOS, 3, (0, 0))
    assert len({tuple(draw_classes(VIDEOS, 4, (0, draw))) for draw in range(10)}) > 3


def test_classes_of_a_cluster_are_alike(setup):
    names = ["playing violin", "playing piano", "playing guitar", "playing cello",
             "frying fish", "baking bread", "boiling soup", "frying eggs"]  # fmt: skip
    for draw in range(4):
        chosen = classes_of_a_cluster(names, setup.base, 2, 3, (0, draw))
        assert len(chosen) == 3 and len({name in names[:4] for name in chosen}) == 1
    assert {classes_of_a_cluster(names, setup.base, 2, 3, (0, d))[0] in names[:4] for d in range(2)} == {True, False}
    with pytest.raises(InputError, match="no one of 2 clusters of the 8 training classes has 7 classes"):
        classes_of_a_cluster(names, setup.base, 2, 7, (0, 0))
    with pytest.raises(InputError, match="8 training classes cannot be cut into 9 clusters: set --clusters lower"):
        classes_of_a_cluster(names, setup.base, 9, 1, (0, 0))
    whole = classes_of_a_cluster(names, setup.base, 2, 4, (0, 0))  # all that it has
    assert set(whole) in (set(names[:4]), set(names[4:]))
    assert classes_of_a_cluster(names[::-1], setup.base, 2, 3, (0, 0)) == classes_of_a_cluster(
        names, setup.base, 2, 3, (0, 0)
    )
    firsts = {classes_of_a_cluster(names, setup.base, 2, 4, (split, 0))[0] in names[:4] for split in range(6)}
    assert firsts == {True, False}  # not every split begins with the same cluster


def test_clusters_of_pictures_too_are_without_classes_that_are_tested(setup):
    """Of all that is left: as many classes as one cluster has, so that none is left to chance."""
    split = next(s for s in range(50) if "archery" not in class_pool(for_split(setup, s)).names)
    wide = dataclasses.replace(setup, splits=(split,), clusters=(1,), cluster_images=True, draws=1, cluster_classes=11)
    (point,) = figure5_points(wide)
    trained = {name for source in point.cell.config.data.train for name in source.classes}
    assert trained == {*class_pool(for_split(setup, split)).names, *PICTURES} - {"archery"}
    with pytest.raises(InputError, match="no one of 1 clusters of the 11 training classes"):
        figure5_points(dataclasses.replace(wide, cluster_classes=12))


def test_figures_share_their_cells(setup):
    four, five, six = figure4_points(setup), figure5_points(setup), figure6_points(setup)
    assert {p.curve for p in four} == {
        *(f"{m}, fewer {w}" for m in ("end to end", "frozen") for w in ("videos", "classes")),
        "frozen after pictures, fewer videos",
    }
    given = figure4_points(dataclasses.replace(setup, frozen_weights="weights.pt"))  # which are pretrained as they are
    assert {p.curve for p in given} == {p.curve for p in four} - {"frozen after pictures, fewer videos"}
    whole = {p.cell.digest for p in four if p.videos == sum(class_pool(for_split(setup, p.split)).trained)}
    assert len(whole) == 6  # of each split and method one, on both of its curves
    assert {p.cell.digest for p in six if p.curve == "from scratch"} < {p.cell.digest for p in four}
    # two splits; 0.1 and 0.5 of the videos and 2 and 4 of the classes, drawn twice (6 are all of them); the whole; twice, and
    # once more the shares, on features frozen after pictures
    assert len({p.cell.digest for p in four}) == 2 * 2 * (2 * 2 + 2 * 2 + 1) + 2 * (2 * 2 + 1)
    assert all(p.classes == 2 and len({n for s in p.cell.config.data.train for n in s.classes}) == 2 for p in five)
    assert [(p.split, p.x, p.draw) for p in five] == [(s, x, d) for s in (0, 1) for x in (1, 2) for d in (0, 1)]
    within = [
        (sorted(n for s in p.cell.config.data.train for n in s.classes), int(p.x), (p.split, p.draw)) for p in five
    ]
    pools = {split: class_pool(for_split(setup, split)).names for split in (0, 1)}
    for names, clusters, key in within:
        assert names == sorted(classes_of_a_cluster(pools[key[0]], setup.base, clusters, 2, key))
    assert len({tuple(names) for names, *_ in within}) > 4
    (drawn,) = [p for p in four if (p.curve, p.x, p.split, p.draw) == ("end to end, fewer classes", 2, 1, 1)]
    (source,) = drawn.cell.config.data.train
    assert source.classes == sorted(draw_classes(pools[1], 2, (1, 1)))


def test_end_to_end_alone_and_splits_that_overlap_leaves_unequal(setup, monkeypatch):
    """One place of the curve for all classes, whatever number of them a split has; and no frozen cell."""
    whole_pool = curves.class_pool

    def pool(config):
        found = whole_pool(config)
        first = config.data.train[0].class_split.seed in (0, 3)
        kept = {name: count for name, count in found.videos[0].items() if not first or name != found.names[0]}
        return dataclasses.replace(found, videos=(kept,))

    monkeypatch.setattr(curves, "class_pool", pool)
    alone = dataclasses.replace(setup, without=("frozen", "frozen pretrained"), splits=(0, 1, 2))
    points = figure4_points(alone)
    assert {p.curve for p in points} == {"end to end, fewer videos", "end to end, fewer classes"}
    assert not any(p.cell.config.model.freeze_backbone for p in points)
    assert [len(pool(for_split(setup, split)).names) for split in alone.splits] == [5, 6, 6]
    assert {p.x for p in points if p.curve.endswith("classes")} == {2, 4, 6}
    of_five = figure4_points(dataclasses.replace(alone, splits=(0, 3, 1), class_counts=(5,)))
    drawn, whole = ([p for p in of_five if p.curve.endswith("classes") and p.x == x] for x in (5, 6))
    assert [p.split for p in drawn] == [1, 1] and [(p.split, p.classes) for p in whole] == [(0, 5), (3, 5), (1, 6)]


def test_figure7_measures_distances_to_training_classes_alone(setup):
    """Six training classes: a quarter of them, rounded down, is the nearest one."""
    names = load_tests(for_split(setup, 1).data.tests)[0].classes
    training = class_pool(for_split(setup, 1)).names
    assert not set(names) & set(training)
    nearest = num_neighbours([training])
    distances = distances_from_training(names, training, setup.base.words, nearest)
    vectors = build_class_embeddings([*names, *training], setup.base.words).vectors.numpy()
    expected = [min(1 - vectors[place] @ vectors[2 + other] for other in range(6)) for place in range(2)]
    assert nearest == 1 and distances == pytest.approx(expected, abs=1e-6)
    of_three = [
        sum(sorted(1 - vectors[place] @ vectors[2 + other] for other in range(6))[:3]) / 3 for place in range(2)
    ]
    assert distances_from_training(names, training, setup.base.words, 3) == pytest.approx(of_three, abs=1e-6)

    near, far = sorted(zip(distances, names, strict=True))
    per_class = ((near[1], 30, 0.5), (far[1], 10, 0.1))
    values = [
        Measured(
            point=Point(curve, 0, 1, 0, method_cell(setup, "frozen", 1), Training([], 0, 0, 0)),
            test="unseen", folder=Path("run"), num_classes=2,
            mean_class=0.3, top1=0.4, top5=1.0, largest_class=0.75, half_mean_class=None, half_top1=None, half_top5=None,
            half_classes=None, per_class=per_class, control=None,
        )
        for curve in ("frozen", "end to end")
    ]  # fmt: skip
    report = figure7_report(setup, values)
    assert report.tables[0].rows[1] == ["unseen", "end to end", 2, 0.5, 0.1, pytest.approx(-1)]
    left = report.figure.axes[0].lines[0]
    assert left.get_xydata().tolist() == [
        [pytest.approx(near[0]), pytest.approx(30)], [pytest.approx(far[0]), pytest.approx(10)],
    ]  # fmt: skip


def test_figure7_takes_one_number_of_neighbours_for_all_splits(setup, monkeypatch):
    """That of the split with the fewest training classes, wherever it comes among them."""
    lists = {0: ["running", "jumping", "cooking", "reading", "eating", "walking", "singing", "dancing"]}
    lists |= {1: lists[0][:5], 2: lists[0]}

    def pool(config):
        return SimpleNamespace(names=lists[config.data.train[0].class_split.seed])

    monkeypatch.setattr(distances, "class_pool", pool)
    per_class = (("swimming", 1, 0.5), ("writing", 1, 0.4), ("typing", 1, 0.8), ("fishing", 1, 0.1))
    template = measured("end to end", 0, 0.5, per_class=per_class)
    values = [dataclasses.replace(template, point=dataclasses.replace(template.point, split=split)) for split in lists]
    report = figure7_report(setup, values)
    vectors = build_class_embeddings(["swimming", *lists[0]], setup.base.words).vectors.numpy()
    found = {row[2]: row[4] for row in report.values.rows if row[3] == "swimming"}
    cosines = vectors[1:] @ vectors[0]
    assert found == pytest.approx({0: 1 - max(cosines), 1: 1 - max(cosines[:5]), 2: 1 - max(cosines)})
    assert "its 1 nearest training classes" in report.notes[0]
    other = [dataclasses.replace(each, test="other", per_class=(("swimming", 1, 0.9),)) for each in values]
    both = figure7_report(setup, [*other, *values])
    assert [row for row in both.values.rows if row[0] == "unseen"] == report.values.rows
    accuracies = [row[6] for row in sorted(report.values.rows, key=lambda row: row[4])]
    near, far = report.tables[0].rows[0][3:5]
    assert (near, far) == (
        pytest.approx(np.mean(accuracies[:6])),
        pytest.approx(np.mean(accuracies[6:])),
    ) and near != far
