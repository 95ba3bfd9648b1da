"""Experiments on drawn sets: each split has its own; overlapping classes are left out and left in."""

import dataclasses
from pathlib import Path

import pytest

from engine.config import Config, load_config
from engine.data.manifests.manifest import Manifest
from engine.data.sets.sources import load_tests
from engine.errors import InputError
from engine.experiments.cost import cell_costs
from engine.experiments.curves import figure4_points, figure6_points
from engine.experiments.drawn import draw_sets
from engine.experiments.leaks import leak_points, leak_report
from engine.experiments.planned import planned_sets, with_cells
from engine.experiments.results import Measured
from engine.experiments.setup import Setup, class_pool, for_split, method_cell, pretraining_cell
from engine.schema.keys import with_keys
from engine.semantics.overlap import nearest_test_classes, overlapping

CLAIMS = Path(__file__).resolve().parents[2] / "configs" / "claims.yaml"
SMALL = (
    "scene=varied", "things=[boat, key, heart, hat]", "movements=[rolling, spinning, falling]", "unseen_things=[hat]",
    "num_unseen=3", "synonyms=true", "videos_per_class=4", "unseen_videos=2", "stills=2", "frames=6", "size=32",
)  # fmt: skip


@pytest.fixture(scope="module")
def setup(tmp_path_factory) -> Setup:
    """Four things and three movements on two splits, drawn and ingested."""
    folder = tmp_path_factory.mktemp("drawn")
    manifest = f"{folder}/manifest.parquet"
    changes = [f"procedural.{change}" for change in SMALL] + [f"procedural.folder={folder}"]
    changes += [f"data.{part}.manifest={manifest}" for part in ("train.0", "tests.0", "tests.1")]
    base = load_config(CLAIMS, [*changes, "clip.short_side=32", "clip.crop=32"])
    draw_sets(base, (3, 4), workers=0)
    return Setup(base, (3, 4), shares=(0.25, 1.0), class_counts=(2,))


def test_every_split_has_a_set_of_its_own(setup):
    three, four = (for_split(setup, split) for split in setup.splits)
    assert (three.run.seed, four.run.seed, three.procedural) == (3, 4, None)
    unseen = [{*load_tests(config.data.tests)[0].classes} for config in (three, four)]
    assert unseen[0] != unseen[1] and len(unseen[0]) == len(unseen[1]) == 3
    stored = [Manifest.load(Path(config.data.train[0].manifest)) for config in (three, four)]
    assert all(path.startswith("store.index/") for each in stored for path in each.paths)
    assert not any(each.is_still.any() for each in stored)
    before = Path(three.data.train[0].manifest).stat().st_mtime_ns
    draw_sets(setup.base, (3,), workers=0)
    assert for_split(setup, 3) == three and Path(three.data.train[0].manifest).stat().st_mtime_ns >= before


@pytest.mark.parametrize("written", ["{}/", "{}/./", "{}//"])
def test_a_set_is_known_however_its_folder_is_written(setup, written):
    """Else all splits would train on the one set that the config itself draws."""
    folder = setup.base.procedural.folder
    base = with_keys(setup.base, {"procedural.folder": written.format(folder)})
    assert for_split(dataclasses.replace(setup, base=base), 3) == for_split(setup, 3)
    with planned_sets(dataclasses.replace(setup, base=base, splits=(3,))) as (planned, renamed):
        cell = method_cell(planned, "end to end", 3)
        assert folder not in cell.config.data.train[0].manifest
        assert renamed(cell).digest == method_cell(setup, "end to end", 3).digest


def test_a_plan_counts_what_is_going_to_be_drawn(setup, tmp_path):
    """The same cells of the same videos, whether the sets are there or not."""
    drawn = [*figure4_points(setup), *leak_points(setup)]
    with planned_sets(setup) as (planned, renamed):
        listed = [*figure4_points(planned), *leak_points(planned)]
        costs = cell_costs(listed, tmp_path, renamed)
    told = [(each.cell, each.training.classes, each.training.videos, each.snippets) for each in costs]
    later = cell_costs(drawn, tmp_path)
    assert told == [(each.cell, each.training.classes, each.training.videos, each.snippets) for each in later]
    assert any(each.cell.start for each in costs)
    assert [point.cell.digest for point in with_cells(listed, renamed)] == [point.cell.digest for point in drawn]


def test_stills_are_pretrained_on_where_no_pictures_are_named(setup):
    cell = pretraining_cell(setup, 3)
    (source,) = cell.config.data.train
    assert source.splits == ["stills"] and not cell.config.run.control
    assert set(class_pool(cell.config).names) == {
        "boat",
        "key",
        "heart",
        "hat",
    }  # all things, those of no training video too
    curves = {point.curve: point.cell for point in figure4_points(setup) if point.split == 3 and point.x == 1}
    frozen = curves["frozen after pictures, fewer videos"]
    assert frozen.start == cell and frozen.config.model.freeze_backbone
    pretrained = next(
        p.cell for p in figure6_points(setup) if p.split == 3 and p.curve == "pretrained on pictures" and p.x == 1
    )
    assert pretrained.start == cell and not pretrained.config.model.freeze_backbone
    other = Setup(setup.base, setup.splits, frozen_weights="kinetics400", shares=(1.0,), class_counts=(2,))
    assert "frozen after pictures, fewer videos" not in {point.curve for point in figure4_points(other)}


def test_overlapping_classes_are_left_out_and_left_in(setup):
    points = [point for point in leak_points(setup) if point.split == 3]
    out, left_in = points
    strict, lax = (class_pool(point.cell.config) for point in points)
    synonyms = set(lax.names) - set(strict.names)
    assert synonyms and all(name.startswith("ship ") for name in synonyms)
    assert not any(name.startswith("ship ") for name in strict.names)
    assert out.training.epoch == left_in.training.epoch == 24  # six classes of four videos: equal steps
    whole = next(
        point for point in figure4_points(setup) if point.split == 3 and point.curve.startswith("end") and point.x == 1
    )
    assert whole.cell.digest == out.cell.digest  # shared with Figure 4
    config = for_split(setup, 3)
    tests = [(test.name, test.classes) for test in load_tests(config.data.tests)]
    known = {
        row.test_class
        for row in overlapping(nearest_test_classes([("s", tuple(synonyms))], tests, config.words), 0.117)
    }
    unseen = tests[0][1]
    measured = [
        _measured(
            point, tests[0][0], [(name, 2, 0.5 if point is left_in and name in known else 0.25) for name in unseen]
        )
        for point in points
    ]
    rows = {(row[1], row[2]): row[4] for row in leak_report(setup, measured).tables[0].rows}
    assert rows["overlapping", "overlap left in"] == "0.500" and rows["overlapping", "overlap left out"] == "0.250"
    assert rows["other", "overlap left in"] == rows["other", "overlap left out"] == "0.250"


def test_without_overlap_there_is_nothing_to_leave_in(setup):
    base: Config = with_keys(setup.base, {"data.train.0.splits": ["train"]})
    with pytest.raises(InputError, match="no training class of the config overlaps"):
        leak_points(Setup(base, setup.splits))


def _measured(point, test, per_class) -> Measured:
    return Measured(
        point=point, test=test, folder=Path("run"), num_classes=len(per_class), top1=0.1, top5=0.2, mean_class=0.3,
        largest_class=None, half_mean_class=None, half_top1=None, half_top5=None, half_classes=None,
        per_class=tuple(per_class), control=None,
    )  # fmt: skip
