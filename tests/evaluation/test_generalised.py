"""Generalised zero-shot: seen and unseen classes compete, classes that are both are left out, held-out videos are found."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.data.config import ClassSplitConfig, DataConfig, SourceConfig, ValidationConfig
from engine.data.manifests.contents import file_identities
from engine.data.manifests.manifest import Manifest
from engine.data.sets.footage import Footage
from engine.data.sets.sources import DataSet, load_training
from engine.data.sets.trained import load_held_out
from engine.errors import InputError
from engine.evaluation.embedding import EmbeddedVideos
from engine.evaluation.generalised import evaluate_generalised
from engine.evaluation.seen_side import calibration_videos, seen_videos
from engine.semantics.embeddings import ClassEmbeddings
from tests.encoded import fade, manifest_of, write_colors
from tests.rows import row
from tests.small_run import call_tool, write_run

AXES = np.eye(6)
CPU = torch.device("cpu")


def classes(**axes: int) -> ClassEmbeddings:
    return ClassEmbeddings.from_raw(list(axes), AXES[list(axes.values())], "axes", [(name,) for name in axes])


def videos(name: str, points: list[tuple[str, int]]) -> tuple[DataSet, EmbeddedVideos]:
    """Videos of a class, each embedded at an axis of the space."""
    manifest = Manifest.from_rows([row(f"{i}.mp4", c) for i, (c, _) in enumerate(points)], Path("/v"))
    embeddings = torch.tensor(AXES[[axis for _, axis in points]], dtype=torch.float32) * 3
    rows = torch.arange(len(points))
    return DataSet(name, manifest), EmbeddedVideos(embeddings, torch.from_numpy(manifest.class_index), rows, [])


def test_all_classes_are_candidates_for_all_videos():
    seen = videos("seen", [("run", 0), ("run", 3), ("walk", 1), ("walk", 1)])  # one of run is taken for unseen 'dive'
    unseen = videos("test", [("dive", 3), ("dive", 0), ("dive", 1), ("fly", 4)])  # two of dive for seen classes
    result = evaluate_generalised(seen, unseen, classes(run=0, walk=1), classes(dive=3, fly=4), CPU)
    assert (result.num_seen_classes, result.num_unseen_classes) == (2, 2)
    assert result.seen.mean_class == pytest.approx((0.5 + 1) / 2)
    assert result.unseen.mean_class == pytest.approx((1 / 3 + 1) / 2)
    assert result.seen.num_classes == result.unseen.num_classes == 4
    assert result.unseen_as_seen == pytest.approx(2 / 4)
    assert result.harmonic_mean == pytest.approx(2 * 0.75 * (2 / 3) / (0.75 + 2 / 3))
    assert json.loads(json.dumps(result.to_dict()))["harmonic_mean"] == result.harmonic_mean


def test_classes_that_are_both_are_left_out_and_twins_count_as_one():
    seen = videos("seen", [("run", 0), ("Run", 0), ("walk", 1)])
    unseen = videos("test", [("running", 0), ("dive", 3), ("Dive", 3)])
    result = evaluate_generalised(seen, unseen, classes(walk=1, run=0, Run=0), classes(running=0, dive=3, Dive=3), CPU)
    assert result.left_out == ("running",)
    assert (result.num_seen_classes, result.unseen.num_videos) == (2, 2)
    assert (result.seen.top1, result.unseen.top1, result.unseen_as_seen) == (1.0, 1.0, 0.0)
    with pytest.raises(InputError, match="none is unseen"):
        evaluate_generalised(
            seen, videos("t", [("running", 0)]), classes(run=0, Run=0, walk=1), classes(running=0), CPU
        )
    with pytest.raises(InputError, match="no class vector for 'Run'"):
        evaluate_generalised(seen, unseen, classes(run=0, walk=1), classes(running=0, dive=3, Dive=3), CPU)


def test_no_unseen_video_right_is_a_harmonic_mean_of_zero():
    result = evaluate_generalised(
        videos("s", [("run", 0)]), videos("t", [("dive", 0)]), classes(run=0, walk=1), classes(dive=3), CPU
    )
    assert (result.seen.top1, result.unseen.top1, result.harmonic_mean) == (1.0, 0.0, 0.0)


def test_held_out_videos_are_those_of_the_training(tmp_path):
    rows = [row(f"{c}/{g}/{i}.mp4", f"class {c}", group=f"g{g}") for c in range(12) for g in range(6) for i in range(2)]
    Manifest.from_rows(rows, Path("/v")).save(tmp_path / "m.parquet")
    source = SourceConfig(str(tmp_path / "m.parquet"), class_split=ClassSplitConfig(2, 9), part="train")
    config = DataConfig(train=[source], validation=ValidationConfig(0.2, num_classes=2, seed=4))
    without = [load_training(config).train.classes[0]]
    trained = load_training(config, without=without)
    held = load_held_out(config, trained.train.classes, trained.footage).held_out_videos
    assert list(held.manifest.strings("path")) == list(trained.held_out_videos.manifest.strings("path"))
    assert len(held.classes) == 6
    (again, whole), why_not = calibration_videos(config, trained.train.classes, trained.footage, None)
    assert list(again.manifest.strings("path")) == list(held.manifest.strings("path")) and not why_not
    assert len(whole.classes) == 2 and not set(whole.classes) & {*trained.train.classes, *without}
    assert list(whole.manifest.strings("path")) == list(trained.held_out_classes.manifest.strings("path"))
    no_classes = DataConfig(train=[source], validation=ValidationConfig(0.2))
    kept = load_training(no_classes)
    assert "held out no whole classes" in calibration_videos(no_classes, kept.train.classes, kept.footage, None)[1]
    assert "nothing tells" in calibration_videos(config, trained.train.classes, None, None)[1]
    with pytest.raises(InputError, match="held out no videos"):
        none = load_training(DataConfig(train=[source], validation=ValidationConfig(0.0)), without=without)
        load_held_out(config, trained.train.classes, none.footage)
    with pytest.raises(InputError, match="was not trained on"):
        seen_videos(config, trained.train.classes, None, SourceConfig(str(tmp_path / "m.parquet")))


def test_that_new_videos_are_not_compared_with_a_large_training_is_told(tmp_path):
    Manifest.from_rows([row("a.mp4", "run", content_hash=1)], Path("/v")).save(tmp_path / "new.parquet")
    source = SourceConfig(str(tmp_path / "new.parquet"), name="new")
    _, told = seen_videos(DataConfig(), ["run"], Footage.of_large([3, 4]), source)
    assert ["'new' are not held against those trained on" in line for line in told] == [True]
    assert seen_videos(DataConfig(), ["run"], None, source)[1] == []  # who asks tells it


def leaning(name: str, classes: tuple[str, ...], prefix: str, each: int = 4) -> tuple[DataSet, EmbeddedVideos]:
    """Videos of seen classes (axes 0, 1) and unseen ones (3, 4) that all lie nearer to a seen class, unseen ones by less."""
    rows = [
        row(f"{prefix}{c}{i}.mp4", c, content_hash=1000 * ord(prefix) + 10 * n + i)
        for n, c in enumerate(classes)
        for i in range(each)
    ]
    manifest = Manifest.from_rows(rows, Path("/v"))
    places = {"run": (10, 0, 8, 8, 0, 0), "walk": (0, 10, 0, 0, 8, 8), "dive": (10, 0, 0, 9, 0, 0), "fly": (0, 10, 0, 0, 9, 0),
              "swim": (10, 0, 9, 0, 0, 0), "row": (0, 10, 0, 0, 0, 9)}  # fmt: skip
    index = torch.from_numpy(manifest.class_index)
    points = torch.tensor([places[manifest.classes[i]] for i in index.tolist()], dtype=torch.float32)
    return DataSet(name, manifest), EmbeddedVideos(points, index, torch.arange(len(rows)), [])


def test_held_out_classes_choose_the_bias_that_test_classes_need():
    seen, unseen = leaning("seen", ("run", "walk"), "s"), leaning("test", ("dive", "fly"), "t")
    held_classes = leaning("held", ("swim", "row"), "h"), classes(swim=2, row=5)
    arguments = (seen, unseen, classes(run=0, walk=1), classes(dive=3, fly=4), CPU)
    plain = evaluate_generalised(*arguments)
    assert (plain.seen.mean_class, plain.unseen.mean_class, plain.harmonic_mean, plain.calibrated) == (1, 0, 0, None)
    assert plain.area == pytest.approx(1.0)  # some bias tells all of them apart
    found = evaluate_generalised(*arguments, held=(seen, *held_classes))
    assert (found.calibrated.seen, found.calibrated.unseen, found.calibrated.harmonic_mean) == (1, 1, 1)
    low, high = 1 / np.hypot(10, 9), 2 / np.sqrt(228)  # margins of unseen and of seen test videos
    assert low < found.calibrated.bias < high and found.harmonic_mean == 0
    assert (set(found.calibrated.classes), found.calibrated.num_videos) == ({"swim", "row"}, 16)
    assert json.loads(json.dumps(found.to_dict()))["calibrated"]["harmonic_mean"] == 1


def test_what_is_in_the_test_set_chooses_no_bias():
    seen, unseen = leaning("seen", ("run", "walk"), "s"), leaning("test", ("dive", "fly"), "t")
    arguments = (seen, unseen, classes(run=0, walk=1), classes(dive=3, fly=4), CPU)
    for held, vectors in (
        (leaning("held", ("dive", "fly"), "h"), classes(dive=2, fly=5)),  # a name
        (leaning("held", ("swim", "row"), "h"), classes(swim=3, row=4)),  # a vector
        ((DataSet("held", unseen[0].manifest), unseen[1]), classes(dive=2, fly=5)),  # the files
    ):
        assert evaluate_generalised(*arguments, held=(seen, held, vectors)).calibrated is None
    one = leaning("held", ("swim", "dive"), "h"), classes(swim=2, dive=3)
    assert evaluate_generalised(*arguments, held=(seen, *one)).calibrated.classes == ("swim",)


def test_from_the_command_line(tmp_path, monkeypatch, capsys):
    sets = {"seen": ("run", "walk"), "new": ("blue", "green")}
    for data, names in sets.items():
        rows = []
        for place, name in enumerate(names):
            for i in range(2):
                write_colors(tmp_path / data / name / f"{i}.mp4", fade((250 * place, 90, 20), (10, 100 * i, 90), 8))
                rows.append((f"{name}/{i}.mp4", name, 8))
        manifest_of(tmp_path / data, rows).save(tmp_path / data / "manifest.parquet")
    write_run(tmp_path / "run", tests=[{"manifest": str(tmp_path / "new" / "manifest.parquet"), "name": "new"}])
    arguments = ("evaluate.py", tmp_path / "run", "--device", "cpu", "--generalised")
    assert call_tool(*arguments, tmp_path / "seen" / "manifest.parquet", monkeypatch=monkeypatch) == 0
    assert "harmonic mean" in capsys.readouterr().out
    content = json.loads((tmp_path / "run" / "evaluation" / "results.json").read_text())["tests"]["new"]["generalised"]
    assert (content["num_seen_classes"], content["num_unseen_classes"]) == (3, 2)
    assert (content["seen"]["num_videos"], content["unseen"]["num_classes"]) == (4, 5)
    assert call_tool(*arguments, tmp_path / "new" / "manifest.parquet", monkeypatch=monkeypatch) == 2
    assert "was not trained on blue, green" in capsys.readouterr().err
    assert (
        call_tool(*arguments, "held-out", monkeypatch=monkeypatch) == 2
    )  # this run has no training sets to hold out from
    assert "data.train is empty" in capsys.readouterr().err
    write_run(tmp_path / "run", tests=[{"manifest": str(tmp_path / "seen" / "manifest.parquet"), "name": "old"}])
    monkeypatch.setattr("engine.evaluation.embedding.embed_rows", None)  # told before any video is embedded
    assert call_tool(*arguments, tmp_path / "seen" / "manifest.parquet", monkeypatch=monkeypatch) == 2
    assert "test set 'old': every class is a training class" in capsys.readouterr().err


def test_a_seen_video_is_measured_with_the_bias_of_the_half_that_it_is_not_in():
    """By the bias of their own half all would be right, by the other's half of them are."""
    manifest = Manifest.from_rows([row(f"{i}.mp4", "run", content_hash=1 + i) for i in range(4)], Path("/v"))
    far = np.argsort(np.argsort(file_identities(manifest))) % 2 == 0  # of one half; those of the other are near
    points = torch.tensor([[10, 0, 0, 0, 0, 1] if each else [10, 0, 6, 8, 0, 0] for each in far], dtype=torch.float32)
    seen = DataSet("seen", manifest), EmbeddedVideos(points, torch.zeros(4, dtype=torch.int64), torch.arange(4), [])
    held, unseen = videos("held", [("swim", 2)] * 2), leaning("test", ("dive", "fly"), "t")
    held[1].embeddings[:] = torch.tensor([8.0, 0, 10, 0, 0, 0])
    arguments = (seen, unseen, classes(run=0, walk=1), classes(dive=3, fly=4), CPU)
    found = evaluate_generalised(*arguments, held=(seen, held, classes(swim=2))).calibrated
    of_far, of_near = found.biases
    near = (10 - 8) / np.sqrt(200)  # their margin between the seen and the test classes
    assert of_near < near < of_far and found.seen == 0.5


def test_held_out_classes_with_a_file_of_the_test_set_choose_no_bias():
    """By whatever names: their contents tell."""
    seen, unseen = leaning("seen", ("run", "walk"), "s"), leaning("test", ("dive", "fly"), "t")
    others, points = leaning("held", ("swim", "row"), "t")  # the same contents as the test's, by other names
    found = evaluate_generalised(
        seen,
        unseen,
        classes(run=0, walk=1),
        classes(dive=3, fly=4),
        CPU,
        held=(seen, (others, points), classes(swim=2, row=5)),
    )
    assert found.calibrated is None


def test_classes_that_were_trained_on_by_another_name_are_left_out():
    seen = videos("seen", [("run", 0), ("walk", 1)])
    unseen = videos("test", [("dive", 3), ("fly", 4), ("fly", 4)])
    found = evaluate_generalised(seen, unseen, classes(run=0, walk=1), classes(dive=3, fly=4), CPU, trained=["dive"])
    assert (found.left_out, found.num_unseen_classes, found.unseen.num_videos) == (("dive",), 1, 2)
