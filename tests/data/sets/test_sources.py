"""Choosing videos: splits, classes, random class splits, and what is held out of training."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.data.config import ClassSplitConfig, DataConfig, SourceConfig, ValidationConfig, set_names
from engine.data.manifests.joining import write_large
from engine.data.manifests.manifest import Manifest
from engine.data.sets.holding_out import hold_out_classes, hold_out_videos
from engine.data.sets.sources import (
    DataSet,
    class_lookup,
    load_source,
    load_tests,
    load_training,
    same_videos,
    split_classes,
)
from engine.errors import InputError
from tests.rows import row

CLASSES = [f"class {letter}" for letter in "abcdefghij"]


@pytest.fixture
def path(tmp_path) -> Path:
    rows = [
        row(f"{name}/{group}/{clip}.mp4", name, group=f"g{group:02d}", split="train" if group < 6 else "test")
        for name in CLASSES
        for group in range(8)
        for clip in range(3)
    ]
    path = tmp_path / "ten" / "manifest.parquet"
    Manifest.from_rows(rows, Path("/v")).save(path)
    return path


def test_source_keeps_what_is_named(path):
    data = load_source(SourceConfig(str(path), splits=["train"], classes=CLASSES[:3], exclude_classes=[CLASSES[1]]))
    assert data.name == "ten"
    assert data.classes == (CLASSES[0], CLASSES[2])
    assert len(data.manifest) == 2 * 6 * 3
    assert set(load_source(SourceConfig(str(path), groups=["g03"])).manifest.strings("group")) == {"g03"}


@pytest.mark.parametrize("part", ["train", "unseen"])
def test_class_split_follows_the_stated_rule(path, part):
    split = ClassSplitConfig(seed=4, num_train=7)
    order = np.random.RandomState(4).permutation(10)
    expected = {CLASSES[i] for i in (order[:7] if part == "train" else order[7:])}
    assert set(load_source(SourceConfig(str(path), class_split=split, part=part)).classes) == expected


def test_wrong_names_are_errors_with_near_ones(path):
    with pytest.raises(InputError, match=r"has no class_name 'class aa'; near: 'class a'"):
        load_source(SourceConfig(str(path), classes=["class aa"]))
    with pytest.raises(InputError, match="has no split 'val'; it has 'test', 'train'"):
        load_source(SourceConfig(str(path), splits=["val"]))
    with pytest.raises(InputError, match=r"has no group 'x'; it has 'g00', 'g01', .*'g07'$"):
        load_source(SourceConfig(str(path), groups=["x"]))
    with pytest.raises(InputError, match="no video is left"):
        load_source(SourceConfig(str(path), classes=[CLASSES[0]], exclude_classes=[CLASSES[0]]))
    with pytest.raises(InputError, match="none would be unseen"):
        split_classes(CLASSES, ClassSplitConfig(num_train=10))


def test_splits_of_a_data_set_that_has_none(tmp_path):
    Manifest.from_rows([row("x.mp4", "a", split="")], tmp_path).save(tmp_path / "m.parquet")
    with pytest.raises(InputError, match="knows no splits: leave 'train' out of the config"):
        load_source(SourceConfig(str(tmp_path / "m.parquet"), splits=["train"]))


def test_two_classes_at_least_must_train():
    with pytest.raises(InputError, match="at least 2 must be left to train on, so it can be at most 8"):
        hold_out_classes(CLASSES, ValidationConfig(num_classes=9))


def test_held_out_videos_are_whole_groups_of_every_class(path):
    manifest = load_source(SourceConfig(str(path))).manifest
    held = hold_out_videos(manifest, ValidationConfig(video_share=0.2))
    groups = manifest.strings("group")
    for index in range(len(CLASSES)):
        mine = manifest.class_index == index
        assert 0.2 <= held[mine].mean() <= 0.3  # 2 of 8 groups
        assert not set(groups[mine & held]) & set(groups[mine & ~held])
    assert np.array_equal(held, hold_out_videos(manifest, ValidationConfig(video_share=0.2)))
    assert not np.array_equal(held, hold_out_videos(manifest, ValidationConfig(video_share=0.2, seed=1)))


def test_a_class_of_one_group_is_never_held_out_whole():
    manifest = Manifest.from_rows([row(f"{i}.mp4", "only") for i in range(5)], Path("/v"))
    assert not hold_out_videos(manifest, ValidationConfig(video_share=0.5)).any()


def test_training_data_are_disjoint(path):
    config = DataConfig(train=[SourceConfig(str(path))], validation=ValidationConfig(video_share=0.1, num_classes=3))
    data = load_training(config)
    assert len(data.train.classes) == 7
    assert set(data.held_out_classes.classes) == set(hold_out_classes(CLASSES, config.validation))
    assert not set(data.held_out_classes.classes) & set(data.train.classes)
    paths = [set(part.manifest.strings("path")) for part in (data.train, data.held_out_videos, data.held_out_classes)]
    assert len(set.union(*paths)) == sum(map(len, paths)) == 240
    with pytest.raises(InputError, match=r"data.train is empty"):
        load_training(DataConfig())


def test_class_lookup_maps_by_name():
    manifest = Manifest.from_rows([row("1", "b"), row("2", "c")], Path("/v"))
    assert class_lookup(manifest, ("c", "a", "b"))[manifest.classes_of(np.array([1, 0, 1]))].tolist() == [0, 2, 0]


def test_two_test_sets_of_one_name_are_refused(path):
    with pytest.raises(InputError, match=r"two test sets are called 'ten': name one with data.tests.1.name=OTHER"):
        load_tests([SourceConfig(str(path), classes=CLASSES[:2]), SourceConfig(str(path), classes=CLASSES[2:])])


def test_two_test_sets_whose_results_would_be_in_files_of_one_name_are_refused(path):
    names = ("UCF 101", "UCF_101")
    with pytest.raises(
        InputError, match=r"'UCF 101' and 'UCF_101' would have results in files of one name: .*tests.1.name"
    ):
        load_tests([SourceConfig(str(path), name=name) for name in names])


def test_weights_of_several_sets_follow_their_videos(path, tmp_path):
    more = [row(f"{i}.jpg", "still", codec="image/jpeg", num_frames=1, file_frames=1, group="") for i in range(20)]
    Manifest.from_rows([*more, row("x.jpg", "class a", codec="image/jpeg")], Path("/w")).save(
        tmp_path / "s" / "m.parquet"
    )
    sources = [
        SourceConfig(str(path), weight=2),
        SourceConfig(str(tmp_path / "s" / "m.parquet"), name="stills", weight=0.5),
    ]
    data = load_training(
        DataConfig(train=sources, validation=ValidationConfig(0.1, num_classes=2)), without=["class a", "class b"]
    )
    assert data.train.name == "2 x ten + 0.5 x stills"
    assert len(data.weights) == len(data.train.manifest)
    assert np.array_equal(data.weights.each() == 0.5, data.train.manifest.is_still)
    assert set(data.weights.each()) <= {2.0, 0.5}
    assert not {"class a", "class b"} & {
        *data.train.classes,
        *data.held_out_classes.classes,
        *data.held_out_videos.classes,
    }
    assert len(data.train.classes) == 9 - 2


def test_training_sets_of_one_folder_are_told_apart(path, tmp_path, monkeypatch):
    other, far = path.with_name("more.parquet"), tmp_path / "far" / "manifest.parquet"
    far.parent.mkdir()
    for copy in (other, far):
        copy.write_bytes(path.read_bytes())

    def name(*sources):
        return load_training(DataConfig(train=[*sources], validation=ValidationConfig(video_share=0))).train.name

    one, two, three = (SourceConfig(str(file)) for file in (path, other, far))
    assert name(one, two, three) == "manifest + more + far"
    assert name(one, three) == "ten + far"
    assert name(replace(one, splits=["train"]), replace(one, splits=["test"])) == "ten + ten"  # parts of one file
    assert name(replace(one, name="mine"), replace(two, weight=2.0)) == "mine + 2 x more"
    monkeypatch.chdir(path.parent)
    assert set_names([SourceConfig("more.parquet")]) == ["ten"]
    assert set_names([SourceConfig("more.parquet")], is_here=False) == ["more"]  # its folder is not known


def test_a_share_of_the_videos_is_nested_and_does_not_depend_on_other_classes(path):
    def paths(**keys: object) -> set[str]:
        return set(load_source(SourceConfig(str(path), **keys)).manifest.strings("path"))

    whole, half, tenth = paths(), paths(video_share=0.5), paths(video_share=0.1)
    assert len(whole) == 240 and len(half) == 120 and len(tenth) == 20  # of the 24 of each class 12 and 2
    assert tenth < half < whole
    assert len({name.split("/")[0] for name in tenth}) == 10
    alone = paths(video_share=0.5, classes=CLASSES[:1])
    assert alone == {name for name in half if name.startswith(CLASSES[0] + "/")}
    assert paths(video_share=0.5, video_seed=1) != half
    assert len(paths(video_share=0.001)) == 10  # at least one of each class


def test_videos_that_are_trained_on_and_tested_are_named(tmp_path):
    def data(name, *files):
        rows = [row(path, "a", content_hash=found) for path, found in files]
        return DataSet(name, Manifest.from_rows(rows, tmp_path / "root"))

    train = data("kinetics", ("x.mp4", 1), ("y.mp4", 2), ("store.index/z.mp4#0", None))
    other = data("ucf", ("copy of y.mp4", 2), ("w.mp4", 3), ("store.index/z.mp4#0", None), ("x.mp4", 4))
    (note,) = same_videos(train, [data("hmdb", ("x.mp4", 5)), other])
    assert note == (
        "warning: 2 of the 4 videos of 'ucf' are trained on too, by their contents: copy of y.mp4 = y.mp4; "
        "store.index/z.mp4#0 = store.index/z.mp4#0"
    )


@pytest.mark.parametrize("kind", ["of an earlier version", "of this version", "large"])
def test_a_class_is_one_however_unicode_writes_its_name(tmp_path, monkeypatch, kind):
    composed, apart = "caf\u00e9", "cafe\u0301"
    rows = [row(f"{name}/{clip}.mp4", name) for name in (composed, apart, "run") for clip in range(2)]
    path = tmp_path / "set.parquet"
    with monkeypatch.context() as earlier:
        if kind != "of this version":
            earlier.setattr("engine.data.manifests.manifest.composed_names", lambda table: table)
        manifest = Manifest.from_rows(rows, Path("/v"))
        manifest.save(path)
        if kind == "large":
            write_large([manifest], path := tmp_path / "set")
    whole = load_source(SourceConfig(str(path)))
    assert whole.classes == (composed, "run")
    assert [whole.manifest.path(index) for index in range(4)] == [each["path"] for each in rows[:4]]
    for spelt in (composed, apart):
        kept = load_source(SourceConfig(str(path), classes=[spelt])).manifest
        assert len(kept) == 4 and set(kept.strings("class_name")) == {composed}
        assert load_source(SourceConfig(str(path), exclude_classes=[spelt])).classes == ("run",)
