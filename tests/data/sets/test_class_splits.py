"""Published class splits: their lists are whole, and a manifest's own spelling finds them."""

import csv

import pytest

from engine.data.config import PUBLISHED_SPLITS, SourceConfig
from engine.data.manifests.manifest import Manifest
from engine.data.sets.class_splits import published_split, published_tests
from engine.data.sets.sources import load_source
from engine.errors import InputError
from engine.schema.parser import parse
from tests.rows import row

SIZES = {"truze-ucf101": 31, "truze-hmdb51": 22, "kinetics600-1": 160, "kinetics600-2": 160, "kinetics600-3": 160}


@pytest.fixture
def hmdb(tmp_path):
    """A manifest of the split's test classes with spaces and capitals, and three others."""
    names = [name.replace("_", " ").title() for name in published_tests()["truze-hmdb51"]]
    path = tmp_path / "hmdb.parquet"
    rows = [row(f"{index}.mp4", name) for index, name in enumerate([*names, "brush_hair", "cartwheel", "catch"])]
    Manifest.from_rows(rows, tmp_path).save(path)
    return path


def test_every_split_has_as_many_classes_as_published():
    assert {name: len(set(names)) for name, names in published_tests().items()} == SIZES
    assert set(SIZES) == set(PUBLISHED_SPLITS)


@pytest.mark.parametrize(("name", "labels"), [
    ("truze-ucf101", "ucf101_label_map.txt"), ("truze-hmdb51", "hmdb51_label_map.txt"),
    ("kinetics600-1", "kinetics_label_map_k600.txt"), ("kinetics600-2", "kinetics_label_map_k600.txt"),
    ("kinetics600-3", "kinetics_label_map_k600.txt"),
])  # fmt: skip
def test_they_are_classes_of_their_data_set(name, labels, shared_data):
    text = (shared_data / "class_lists" / f"mmaction2__{labels}").read_text(encoding="utf-8")
    classes = [line.strip() for line in text.splitlines() if line.strip()]
    sides = published_split(classes, name)
    assert len(sides["unseen"]) == SIZES[name] and sorted(sides["train"] + sides["unseen"]) == sorted(classes)
    if name.startswith("kinetics"):
        with (shared_data / "splits" / f"k160_labels_split{name[-1]}.csv").open() as file:
            assert sorted(line["name"] for line in csv.DictReader(file)) == sides["unseen"]


def test_a_manifests_own_spelling_is_kept(hmdb):
    unseen = load_source(SourceConfig(str(hmdb), published_split="truze-hmdb51", part="unseen"))
    train = load_source(SourceConfig(str(hmdb), published_split="truze-hmdb51", part="train"))
    assert len(unseen.classes) == 22 and "Draw Sword" in unseen.classes
    assert train.classes == ("brush_hair", "cartwheel", "catch") and len(train.manifest) == 3
    assert SourceConfig.parse(f"{hmdb}:test1", "truze-hmdb51").name == "hmdb-test1-truze-hmdb51"


def test_a_part_of_a_data_set_is_refused_by_the_class_it_lacks(hmdb):
    manifest = Manifest.load(hmdb)
    Manifest.from_rows([r for r in manifest.table.to_pylist() if r["class_name"] != "Wave"], hmdb.parent).save(hmdb)
    with pytest.raises(
        InputError, match=r"truze-hmdb51 tests 22 classes, and 1 of them are not here, the first 'wave'"
    ):
        load_source(SourceConfig(str(hmdb), published_split="truze-hmdb51", part="unseen"))


@pytest.mark.parametrize("tree", [
    {"published_split": "truze-hmdb51"},
    {"part": "unseen"},
    {"published_split": "truze-hmdb51", "part": "unseen", "class_split": {"seed": 0, "num_train": 2}},
])  # fmt: skip
def test_one_way_to_split_and_which_part_of_it(tree):
    with pytest.raises(InputError, match="_split"):
        parse(SourceConfig, {"manifest": "x.parquet", **tree})
