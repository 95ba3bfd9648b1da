"""The set that a run draws itself: reproducible, resumable, and unseen classes that are new combinations."""

import dataclasses
import math
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import numpy as np
import pytest

from engine.config import Config, load_config
from engine.data.config import ProceduralConfig
from engine.data.drawn import drawn_set
from engine.data.drawn.drawing import MOVEMENTS, THINGS
from engine.data.drawn.procedural import draw_video, plan_videos, unseen_combinations, write_procedural_dataset
from engine.data.manifests.manifest import Manifest
from engine.data.sets.sources import load_source, load_training
from engine.errors import InputError
from engine.semantics.classes import build_class_embeddings
from engine.semantics.config import WordsConfig
from tests.environment import ROOT

QUICKSTART = ROOT / "configs" / "quickstart.yaml"


@pytest.fixture(scope="module")
def quickstart() -> Config:
    return load_config(QUICKSTART, [])


def _small(folder: Path, **values: object) -> ProceduralConfig:
    defaults = {"things": ["ball", "fish"], "movements": ["falling", "shaking"], "num_unseen": 1}
    return ProceduralConfig(folder=str(folder), **defaults | {"videos_per_class": 2, "frames": 6, "size": 32} | values)


def _bytes(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.glob("*/*/*"))}


def test_manifest_rows_say_what_was_drawn(tmp_path):
    config = _small(tmp_path / "set")
    manifest = Manifest.load(write_procedural_dataset(config))
    planned = plan_videos(config)
    rows = zip(*(manifest.strings(name) for name in ("path", "class_name", "split")), strict=True)
    assert set(rows) == {(video.path, video.class_name, video.split) for video in planned}
    assert Counter(manifest.strings("split")) == {"train": 6, "unseen": 1}
    assert manifest.num_frames.tolist() == [6] * 7
    video = manifest.video(0)
    assert (video.width, video.height, video.codec, video.key_frames[0]) == (32, 32, "h264", 0)
    drawn = draw_video(planned[0], frames=6, size=32, seed=0)
    with av.open(str(manifest.root / planned[0].path)) as container:
        decoded = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    blurred = [clip.reshape(6, 16, 2, 16, 2, 3).mean(axis=(2, 4)) for clip in (drawn, decoded)]  # chroma is subsampled
    assert np.abs(blurred[0] - blurred[1]).mean() < 6  # another video of the class differs by tens
    other = draw_video(planned[1], frames=6, size=32, seed=0).reshape(6, 16, 2, 16, 2, 3).mean(axis=(2, 4))
    assert np.abs(other - blurred[1]).mean() > 20


def test_same_config_same_bytes_and_a_finished_set_is_left_alone(tmp_path):
    first, second = _small(tmp_path / "a"), _small(tmp_path / "b")
    manifest = write_procedural_dataset(first)
    write_procedural_dataset(second)
    assert len(_bytes(tmp_path / "a")) == 7
    assert _bytes(tmp_path / "a") == _bytes(tmp_path / "b")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "a").rglob("*")}
    assert write_procedural_dataset(first) == manifest
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "a").rglob("*")} == times


def test_interrupted_writing_is_continued(tmp_path, monkeypatch):
    whole, broken = _small(tmp_path / "whole"), _small(tmp_path / "broken")
    write_procedural_dataset(whole)
    real, count = drawn_set.write_video, 0

    def stops_at_the_fourth(path: Path, *arguments: object, **options: object) -> int:
        nonlocal count
        count += 1
        if count == 4:
            path.with_name(f"{path.stem}.partial-1{path.suffix}").write_bytes(b"half a video")
            raise KeyboardInterrupt
        return real(path, *arguments, **options)

    monkeypatch.setattr(drawn_set, "rank_cores", lambda: 1)
    monkeypatch.setattr(drawn_set, "write_video", stops_at_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        write_procedural_dataset(broken)
    done = {path: path.stat().st_mtime_ns for path in (tmp_path / "broken").glob("*/*/[0-9][0-9][0-9].mp4")}
    assert 3 <= len(done) < 7
    assert not (tmp_path / "broken" / "manifest.parquet").exists()
    monkeypatch.setattr(drawn_set, "write_video", real)
    manifest = Manifest.load(write_procedural_dataset(broken))
    assert len(manifest) == 7
    assert _bytes(tmp_path / "broken") == _bytes(tmp_path / "whole")  # and nothing half written is left
    assert all(path.stat().st_mtime_ns == time for path, time in done.items())


def test_of_several_that_want_a_set_at_once_one_draws_it(tmp_path, monkeypatch, capsys):
    config, real, written, begun = _small(tmp_path / "set"), drawn_set.write_video, [], threading.Event()

    def slow(path: Path, *arguments: object, **options: object) -> int:
        written.append(path)
        begun.set()
        time.sleep(0.1)
        return real(path, *arguments, **options)

    monkeypatch.setattr(drawn_set, "write_video", slow)
    with ThreadPoolExecutor() as pool:
        first = pool.submit(write_procedural_dataset, config)
        assert begun.wait(20)
        others = [pool.submit(write_procedural_dataset, config) for _ in range(2)]
        assert {each.result(60) for each in (first, *others)} == {tmp_path / "set" / "manifest.parquet"}
    assert sorted(written) == sorted(tmp_path / "set" / video.path for video in plan_videos(config))
    assert capsys.readouterr().out.count("another process draws") == 2


def test_a_set_that_may_only_be_read_is_taken(tmp_path, monkeypatch):
    manifest = write_procedural_dataset(_small(tmp_path / "set"))
    monkeypatch.setattr(drawn_set.os, "access", lambda path, mode: False)
    monkeypatch.setattr(drawn_set, "_wait_for", None)  # nor locked
    assert write_procedural_dataset(_small(tmp_path / "set")) == manifest


def test_a_lost_video_is_drawn_again(tmp_path):
    config = _small(tmp_path / "set")
    manifest = write_procedural_dataset(config)
    before = _bytes(tmp_path / "set")
    (tmp_path / "set" / plan_videos(config)[2].path).unlink()
    assert len(Manifest.load(write_procedural_dataset(config))) == 7
    assert manifest.is_file()
    assert _bytes(tmp_path / "set") == before


def test_another_config_replaces_the_set(tmp_path):
    write_procedural_dataset(_small(tmp_path / "set"))
    before = _bytes(tmp_path / "set")
    manifest = Manifest.load(write_procedural_dataset(_small(tmp_path / "set", seed=1, videos_per_class=1)))
    assert len(manifest) == 4
    after = _bytes(tmp_path / "set")
    assert len(after) == 4
    assert not set(before.values()) & set(after.values())


def test_a_folder_of_something_else_is_not_touched(tmp_path):
    precious = tmp_path / "train" / "thesis.txt"
    precious.parent.mkdir()
    precious.write_text("years of work")
    with pytest.raises(InputError, match="something else"):
        write_procedural_dataset(_small(tmp_path))
    assert precious.read_text() == "years of work"


@pytest.mark.parametrize("shape", [(6, 6), (8, 7), (4, 6), (2, 3)])
def test_unseen_combinations_are_spread_and_leave_everything_trained(shape):
    things, movements = list(THINGS)[: shape[0]], list(MOVEMENTS)[: shape[1]]
    for count in range(1, (min(shape) - 1) * max(shape) + 1):
        unseen = unseen_combinations(things, movements, count, seed=count)
        assert len(set(unseen)) == count
        for axis, names in enumerate((things, movements)):
            held = Counter(pair[axis] for pair in unseen)
            assert max(held.values()) == math.ceil(count / len(names))
            assert max(held.values()) < shape[1 - axis]  # so each is also trained, with something else
    assert unseen_combinations(things, movements, 2, 0) == unseen_combinations(things, movements, 2, 0)
    assert len({tuple(unseen_combinations(things, movements, 2, seed)) for seed in range(8)}) > 1


def test_classes_of_the_quickstart(quickstart):
    videos = plan_videos(quickstart.procedural)
    seen, unseen = ({(v.thing, v.movement) for v in videos if v.split == split} for split in ("train", "unseen"))
    assert not seen & unseen
    assert len(unseen) == 12
    for axis in (0, 1):
        assert {pair[axis] for pair in unseen} <= {pair[axis] for pair in seen}
        assert set(Counter(pair[axis] for pair in unseen).values()) == {2}  # one word alone gives no class away


def test_every_name_has_a_word_vector_of_its_own():
    names = [f"{thing} {movement}" for thing in THINGS for movement in MOVEMENTS]
    classes = build_class_embeddings(names, WordsConfig(rules="none"))  # no stand-ins for missing words
    similarity = (classes.vectors @ classes.vectors.T).fill_diagonal_(-1)
    assert similarity.max() < 0.95


def test_the_quickstart_reads_the_manifest_that_is_written(quickstart, tmp_path):
    small = dataclasses.replace(quickstart.procedural, folder=str(tmp_path), videos_per_class=2, frames=8, size=32)
    assert Path(quickstart.procedural.folder) / "manifest.parquet" == Path(quickstart.data.train[0].manifest)
    assert Path(quickstart.data.tests[0].manifest) == Path(quickstart.data.train[0].manifest)
    manifest = str(write_procedural_dataset(dataclasses.replace(small, things=["ball", "moon"], num_unseen=4)))
    train = dataclasses.replace(quickstart.data.train[0], manifest=manifest)
    training = load_training(dataclasses.replace(quickstart.data, train=[train]))
    test = load_source(dataclasses.replace(quickstart.data.tests[0], manifest=manifest))
    assert (len(training.train.classes), len(test.classes)) == (8, 4)
    assert training.held_out_videos is not None
    assert not set(training.train.classes) & set(test.classes)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"things": ["bal", "fish"]}, "'bal': did you mean 'ball'"),
        ({"movements": ["falling", "falling"]}, "'falling' stands twice"),
        ({"num_unseen": 3}, "num_unseen is 3 of 2 x 2"),
        ({"size": 65}, "procedural.size is 65: 4:2:0 pictures need an even number"),
        ({"things": ["ball"]}, "would never be trained"),
    ],
)
def test_what_cannot_be_drawn_is_named(tmp_path, values, message):
    with pytest.raises(InputError, match=message):
        write_procedural_dataset(_small(tmp_path / "set", **values))
    assert not (tmp_path / "set").exists()
