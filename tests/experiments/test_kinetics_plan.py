"""What the documented commands plan on Kinetics, from the real lists of class names: nothing is decoded or trained.

A twenty-fifth of the videos and of an epoch's snippets, so that the manifests are made in a second.
"""

from pathlib import Path

import pytest

from engine.config import load_config
from engine.data.manifests.manifest import Manifest
from engine.data.sets.sources import load_training, load_training_sets
from engine.experiments.comparisons import comparison_points, table3_points
from engine.experiments.cost import cell_costs, plan_table, told
from engine.experiments.curves import figure4_points, figure5_points, figure6_points
from engine.experiments.distances import figure7_points
from engine.experiments.setup import Setup, class_pool, for_split
from tests.environment import ROOT
from tests.rows import row

EPOCH, EPOCHS, BATCH = 4_000, 150, 22  # the authors: 100,000
STEPS = -(-EPOCH * EPOCHS // BATCH)
OUT = Path("nowhere")
LISTS = {"kinetics700": ("mmaction2__kinetics_label_map_k700.txt", 24), "sun397": ("tfds__sun397_labels.txt", 11),
         "ucf101": ("mmaction2__ucf101_label_map.txt", 1), "hmdb51": ("mmaction2__hmdb51_label_map.txt", 1)}  # fmt: skip


@pytest.fixture(scope="module")
def setup(tmp_path_factory, request):
    shared_data = request.getfixturevalue("shared_data")
    folder = tmp_path_factory.mktemp("data")
    for name, (labels, videos) in LISTS.items():
        classes = (shared_data / "class_lists" / labels).read_text(encoding="utf-8").split("\n")
        still = {"num_frames": 1, "codec": "image/jpeg"} if name == "sun397" else {}
        rows = [
            row(f"{c}_{v}".strip("/"), c, group="", **still)
            for c in filter(None, map(str.strip, classes))
            for v in range(videos)
        ]
        Manifest.from_rows(rows, folder / name).save(folder / f"{name}.parquet")
    tests = [{"manifest": str(folder / f"{name}.parquet"), "name": name} for name in ("ucf101", "hmdb51")]
    config = load_config(ROOT / "configs" / "kinetics_r2plus1d.yaml", [
        f"data.train.0.manifest={folder / 'kinetics700.parquet'}", f"data.tests={tests}", "words.source=glove", "words.path=null",
        "words.missing=random", f"train.batch_size={BATCH}", f"data.clips_per_epoch={EPOCH}",
    ])  # fmt: skip
    return Setup(
        config, (0,), str(folder / "sun397.parquet"), frozen_weights="kinetics400", draws=2, shares=(0.5, 1.0),
        class_counts=(2, 50), clusters=(1, 6), cluster_classes=50,
    )  # fmt: skip


@pytest.fixture(scope="module")
def pool(setup):
    return class_pool(for_split(setup, 0))


def test_classes_of_the_tests_are_left_out_and_a_hundredth_is_held_out(pool):
    assert 640 < len(pool.names) < 690 and "archery" not in pool.names
    assert pool.trained == (23 * len(pool.names),)  # of so few at least one


def test_figure_4_takes_as_many_steps_everywhere(setup, pool):
    points = figure4_points(setup)
    costs = cell_costs(points, OUT)
    assert {each.steps for each in costs} == {STEPS}
    assert {p.classes for p in points if p.curve.endswith("classes")} == {2, 50, len(pool.names)}
    half = [p.videos for p in points if p.curve == "end to end, fewer videos" and p.x == 0.5]
    assert half == [(12 - 1) * len(pool.names)] * 2  # what is held out is not counted
    frozen = {p.cell.config.model.weights for p in points if p.curve.startswith("frozen")}
    assert frozen == {"kinetics400"}
    plain = {p.cell.digest for p in figure4_points(_without_frozen_weights(setup))}
    own = {p.cell.digest for p in points if p.curve.startswith("end to end")}
    assert own < plain  # the baseline's weights touch no end-to-end cell


def _without_frozen_weights(setup):
    return Setup(setup.base, setup.splits, setup.images, draws=2, shares=setup.shares, class_counts=setup.class_counts)


def test_figure_5_draws_from_kinetics_alone(setup, pool):
    points = figure5_points(setup)
    assert {p.classes for p in points} == {50} and len(points) == 4
    for point in points:
        (source,) = point.cell.config.data.train
        assert set(source.classes) <= set(pool.names) and point.videos == 50 * 23
    assert {each.steps for each in cell_costs(points, OUT)} == {STEPS}


def test_joint_training_gives_half_of_each_batch_to_the_pictures(setup):
    (joint,) = [p for p in comparison_points(setup) if p.curve == "joint with pictures"]
    sets = load_training_sets(joint.cell.config.data)
    trained = set(class_pool(joint.cell.config).names)
    data = load_training(joint.cell.config.data, {n for each in sets for n in each.classes} - trained, sets)
    is_still = data.train.manifest.strings("codec") == "image/jpeg"
    assert data.weights.select(is_still).sum() / data.weights.sum() == pytest.approx(0.5, abs=1e-3)
    assert joint.training.epoch == EPOCH and joint.classes > 900
    assert not {"archery", "Archery"} & set(data.train.classes)


def test_pretraining_leaves_the_tests_scenes_out_and_is_counted_once(setup):
    costs = cell_costs([*figure6_points(setup), *figure7_points(setup), *table3_points(setup)], OUT)
    names = [each.cell.name for each in costs]
    assert len(names) == len(set(names)) and names.count("images-split0") == 1
    images = costs[names.index("images-split0")]
    assert images.training.classes <= 397 and images.training.videos <= 397 * 11
    assert names.index("images-split0") < names.index("pretrained-split0")


def test_the_plan_tells_snippets_and_hours(setup):
    costs = cell_costs(figure5_points(setup), OUT)
    snippets = 4 * STEPS * BATCH
    assert sum(each.snippets for each in costs) == pytest.approx(snippets, rel=1e-4)
    assert plan_table(costs).rows[0][1:5] == [50, costs[0].training.videos, STEPS, "0.60"]
    hours = snippets / 800 / 3600
    said = told(costs, 2, 800)
    assert said.startswith("4 cells, 4 to run: 2.4 million snippets, at 800 a second about ")
    assert f"about {60 * hours:.0f} minutes of a worker, {30 * hours:.0f} minutes by the clock with 2" in said
    assert "--rate" in told(costs, 2, None)
