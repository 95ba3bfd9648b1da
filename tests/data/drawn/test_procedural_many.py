"""The benchmark of many classes: splits that mean what they say, words that GloVe tells apart, synonyms it does not."""

import dataclasses
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.config import load_config
from engine.data.config import ProceduralConfig
from engine.data.drawn.procedural import (
    PlannedVideo,
    draw_scene_video,
    plan_videos,
    scene_generator,
    write_procedural_dataset,
)
from engine.data.drawn.scenes import EXTRAS, SCENE_MOVEMENTS, SCENE_THINGS, SYNONYMS
from engine.data.manifests.manifest import Manifest
from engine.errors import InputError
from engine.semantics.config import WordsConfig
from engine.semantics.overlap import nearest_test_classes, overlapping
from tests.environment import ROOT

MANY = load_config(ROOT / "configs" / "drawn_many.yaml", [])

SMALL = ProceduralConfig(
    scene="varied", things=["boat", "key", "heart"], movements=["rolling", "rising", "falling"], extras=["red", "tiny"],
    unseen_things=["heart"], num_unseen=2, synonyms=True, videos_per_class=2, frames=6, size=32,
)  # fmt: skip


def _classes(config: ProceduralConfig = MANY.procedural) -> dict[str, dict[str, PlannedVideo]]:
    """Of each split: class name -> its first video."""
    splits: dict[str, dict[str, PlannedVideo]] = {}
    for video in plan_videos(config):
        splits.setdefault(video.split, {}).setdefault(video.class_name, video)
    return splits


def test_splits_of_the_benchmark():
    splits = _classes()
    assert {split: len(names) for split, names in splits.items()} == {
        "train": 364, "unseen": 84, "unseen_things": 64, "synonyms": 18,
    }  # fmt: skip
    assert len(set().union(*splits.values())) == 364 + 84 + 64 + 18  # no class is in two splits
    new = set(MANY.procedural.unseen_things)
    train, unseen, things = ([*splits[name].values()] for name in ("train", "unseen", "unseen_things"))
    pairs = {(video.thing, video.movement) for video in train}
    assert {video.thing for video in train} == set(SCENE_THINGS) - new
    assert {video.movement for video in train} == set(SCENE_MOVEMENTS)
    assert not pairs & {(video.thing, video.movement) for video in unseen}
    assert set(Counter(video.thing for video in unseen).values()) == {3}
    assert {video.thing for video in things} == new
    for video in splits["synonyms"].values():
        same = dataclasses.replace(video, split="unseen")
        assert same.class_name in splits["unseen"]
        assert same.class_name.replace(video.thing, SYNONYMS[video.thing]) == video.class_name
    assert {source.splits[0] for source in (*MANY.data.train, *MANY.data.tests)} == {"train", "unseen", "unseen_things"}
    assert Path(MANY.procedural.folder) / "manifest.parquet" == Path(MANY.data.train[0].manifest)


def test_extras_tell_neither_thing_nor_movement():
    for variants in (1, 3):
        splits = _classes(dataclasses.replace(MANY.procedural, variants=variants))
        every = [video for names in splits.values() for video in names.values() if video.split != "synonyms"]
        assert len(every) == 32 * 16 * variants
        for axis in ("thing", "movement"):
            together = Counter((getattr(video, axis), video.extra) for video in every)
            assert len(set(together.values())) == 1  # each with each, equally often
        assert len(Counter(video.extra for video in splits["train"].values())) == 8


def test_videos_are_drawn_from_generators_of_their_own():
    videos = plan_videos(SMALL)
    assert len({draw_scene_video(video, frames=2, size=32, seed=0).tobytes() for video in videos}) == len(videos)
    firsts = [
        scene_generator(video, 0, use).random()
        for video in plan_videos(MANY.procedural)
        for use in ("drawing", "coding")
    ]
    assert len(set(firsts)) == len(firsts) == 2 * 3648


def test_words_tell_all_classes_apart_but_synonyms():
    """GloVe's distances: training classes are farther than 0.075 from all test classes, synonyms nearer than 0.06."""
    names = {split: list(classes) for split, classes in _classes().items()}
    tests = [(split, names[split]) for split in ("unseen", "unseen_things")]
    rows = nearest_test_classes([("train", names["train"]), ("synonyms", names["synonyms"])], tests, WordsConfig())
    assert min(row.distance for row in rows if row.source == "train") > 0.075
    synonyms = [row for row in rows if row.source == "synonyms"]
    assert max(row.distance for row in synonyms) < 0.06
    assert {row.name for row in overlapping(rows, MANY.train.exclude_overlap.tau)} == set(names["synonyms"])
    assert 0 < len(overlapping(rows, 0.05)) < len(synonyms)  # the paper's threshold misses some
    meant = {
        name: dataclasses.replace(video, split="unseen").class_name for name, video in _classes()["synonyms"].items()
    }
    assert {row.name: row.test_class for row in synonyms} == meant


def test_a_small_set_is_drawn_and_indexed(tmp_path):
    config = dataclasses.replace(SMALL, folder=str(tmp_path / "a"))
    manifest = Manifest.load(write_procedural_dataset(config))
    planned = plan_videos(config)
    rows = zip(*(manifest.strings(name) for name in ("path", "class_name", "split")), strict=True)
    assert set(rows) == {(video.path, video.class_name, video.split) for video in planned}
    assert set(manifest.strings("split")) == {"train", "unseen", "unseen_things", "synonyms"}
    mark = json.loads((tmp_path / "a" / "procedural.json").read_text())
    assert (mark["scene"], mark["extras"], mark["synonyms"]) == ("varied", ["red", "tiny"], True)
    write_procedural_dataset(dataclasses.replace(config, folder=str(tmp_path / "b")))
    for video in planned:
        assert (tmp_path / "a" / video.path).read_bytes() == (tmp_path / "b" / video.path).read_bytes()
    write_procedural_dataset(dataclasses.replace(config, synonyms=False))
    assert not (tmp_path / "a" / "synonyms").exists()


def test_stills_and_more_test_videos_leave_the_rest_as_it_was(tmp_path):
    plain = dataclasses.replace(SMALL, folder=str(tmp_path / "a"), synonyms=False)
    write_procedural_dataset(plain)
    mark = json.loads((tmp_path / "a" / "procedural.json").read_text())
    assert not {"stills", "nuisance", "unseen_videos"} & set(mark)  # as sets on disk have it
    config = dataclasses.replace(plain, folder=str(tmp_path / "b"), stills=3, unseen_videos=4)
    manifest = Manifest.load(write_procedural_dataset(config))
    for video in plan_videos(plain):
        assert (tmp_path / "a" / video.path).read_bytes() == (tmp_path / "b" / video.path).read_bytes()
    names = Counter(zip(*(manifest.strings(name) for name in ("split", "class_name")), strict=True))
    stills = {f"{extra} {thing}": 3 for extra in ("red", "tiny") for thing in SMALL.things}
    assert {name: count for (split, name), count in names.items() if split == "stills"} == stills
    assert {count for (split, _), count in names.items() if split.startswith("unseen")} == {4}
    assert manifest.is_still.tolist() == [split == "stills" for split in manifest.strings("split")]
    pictures = [np.asarray(Image.open(path)) for path in sorted((tmp_path / "b" / "stills").glob("*/*.png"))]
    assert {picture.shape for picture in pictures} == {(32, 32, 3)} and len({p.tobytes() for p in pictures}) == 18


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"unseen_things": ["boat", "key", "heart"]}, "leave some to train on"),
        ({"unseen_things": ["star"]}, "unseen_things: .*'star'"),
        ({"extras": ["red", "tiney"]}, "'tiney': did you mean 'tiny'"),
        ({"variants": 3}, "variants is 3 of 2 extras"),
        ({"movements": ["rolling", "rising"], "extras": list(EXTRAS), "num_unseen": 1}, "would never be trained"),
        ({"scene": "plain", "things": ["ball", "key"]}, "nothing here draws 'key'"),
    ],
)
def test_what_cannot_be_planned_is_told(values, message):
    with pytest.raises(InputError, match=message):
        plan_videos(dataclasses.replace(SMALL, **values))
