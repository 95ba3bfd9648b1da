"""results.json: what is written is read; files of older versions too; an evaluation replaces the one before it, whole."""

import dataclasses
import json
import math
import re
import resource

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from engine.data.batch import SampleFailure
from engine.errors import InputError
from engine.evaluation.metrics import evaluate_embeddings
from engine.results.accuracy import Accuracy, ClassAccuracy, FailedVideo, SetResult
from engine.results.record import FILE, Results, files_of, read_results, replacing
from engine.results.visual_report.board import board_writer
from tests.environment import ROOT

# As versions before `Results` wrote them.
_ACCURACY = {"num_classes": 4, "num_videos": 8, "top1": 0.625, "top5": 1.0, "mean_class": 0.5, "chance_top1": 0.25,
             "chance_top5": 1.0}  # fmt: skip
_HALF = {"num_classes": 2, "num_videos": 4, "top1": 0.75, "top5": 1.0, "mean_class": 0.7}
_SET = {
    "name": "a set", "all_classes": _ACCURACY,
    "half_classes": {"num_classes": 2, "top1": 0.75, "top1_std": 0.0, "top5": 1.0, "top5_std": 0.0, "mean_class": 0.7,
                     "mean_class_std": 0.0, "chance_top1": 0.5, "chance_top5": 1.0, "splits": [_HALF, _HALF]},
    "per_class": [{"name": "x", "num_videos": 0, "top1": None, "confused_with": "", "confused_count": 0}],
    "confusion": [[0]], "failures": [{"path": "b.mp4", "reason": "torn"}],
}  # fmt: skip
OLD_RUN = {
    "checkpoint": "checkpoints/best.pt", "best": {"value": 0.5, "step": 6, "metric": "seen top-1"}, "clips_per_second": 90.5,
    "num_snippets": 2, "class_vectors": "words", "seen": None, "tests": {"a set": _SET},
}  # fmt: skip
OLD_EVALUATION = {
    "checkpoint": "runs/x/checkpoints/best.pt", "step": 6, "epoch": 2, "num_snippets": 25, "decoder": "pyav",
    "class_vectors": "words", "tests": {"a set": _SET | {"seen_classes": ["x"], "seconds": 1.5}},
}  # fmt: skip


def results_of(*names: str, **fields: object) -> Results:
    labels = torch.arange(12) % 4
    embeddings = torch.eye(4)[labels] + 0.8 * torch.randn(12, 4, generator=torch.Generator().manual_seed(1))
    failures = [SampleFailure("gone.mp4", "it is gone")]
    tests = {
        name: evaluate_embeddings(name, embeddings, labels, [*"abcd"], torch.eye(4), failures=failures)
        for name in names
    }
    return Results(checkpoint="best.pt", class_vectors="words", num_snippets=3, tests=tests, **fields)


def test_what_is_written_is_read(tmp_path):
    written = results_of("first", "second", step=7, decoder="pyav", weights="auto")
    with replacing(tmp_path, written):
        assert not (tmp_path / FILE).exists()
    found = read_results(tmp_path)
    assert found.to_dict() == written.to_dict()
    assert (found.step, found.best, found.weights) == (7, None, "auto")
    ours, theirs = written.tests["second"], found.tests["second"]
    assert theirs.all_classes == ours.all_classes and theirs.half_classes == ours.half_classes
    assert theirs.per_class == ours.per_class
    assert (theirs.confusion == ours.confusion).all() and theirs.confusion.sum() == 12
    assert str(theirs.failures[0].path) == "gone.mp4"


def test_the_document_has_every_field():
    words = set(
        re.findall(
            r"`(\w+)`", (ROOT / "docs" / "report.md").read_text(encoding="utf-8").partition("## results.json")[2]
        )
    )
    for kind in (Results, SetResult, Accuracy, ClassAccuracy, FailedVideo):
        assert {each.name for each in dataclasses.fields(kind)} <= words, kind


def test_every_field_is_there_and_a_class_without_videos_has_no_accuracy(tmp_path):
    with replacing(tmp_path, results_of("a")):
        pass
    tree = json.loads((tmp_path / FILE).read_text())
    assert tree.keys() == {each.name for each in dataclasses.fields(Results)}
    assert tree["tests"]["a"]["all_classes"]["chance_top1"] == 0.25
    assert tree["tests"]["a"]["half_classes"]["top1"] == read_results(tmp_path).tests["a"].half_classes.mean("top1")


@pytest.mark.parametrize("old", [OLD_RUN, OLD_EVALUATION])
def test_files_of_older_versions_are_read(tmp_path, old):
    (tmp_path / FILE).write_text(json.dumps(old))
    found = read_results(tmp_path)
    test = found.tests["a set"]
    assert (test.all_classes.top1, test.all_classes.chance_top1, test.half_classes.mean("top1")) == (0.625, 0.25, 0.75)
    assert math.isnan(test.per_class[0].top1) and test.failures[0].reason == "torn"
    assert (found.best, found.clips_per_second) == (old.get("best"), old.get("clips_per_second"))
    assert (found.epoch, test.seen_classes) == (old.get("epoch"), old["tests"]["a set"].get("seen_classes"))


@pytest.mark.parametrize("text", ["{", "{}", "[]", '{"tests": {"a": 3}}', "[" * 100_000])
def test_what_is_no_record_is_named(tmp_path, text):
    with pytest.raises(InputError, match=f"no {FILE} in"):
        read_results(tmp_path)
    (tmp_path / FILE).write_text(text)
    with pytest.raises(InputError, match="is not what a run writes at its end"):
        read_results(tmp_path)


def test_what_belongs_to_the_older_evaluation_goes_with_it_and_nothing_else(tmp_path):
    for name in files_of(Results.from_dict(OLD_EVALUATION)):
        (tmp_path / name).write_text("older")
    (tmp_path / FILE).write_text(json.dumps(OLD_EVALUATION))
    (tmp_path / "tensorboard").mkdir()
    (tmp_path / "tensorboard" / "events.out.tfevents.1.host").write_text("older")
    mine = [tmp_path / "classes_mine.csv", tmp_path / "notes.txt"]
    for path in mine:
        path.write_text("a user's own")
    assert (tmp_path / "confusion_a_set.png").exists()
    with replacing(tmp_path, results_of("new")):
        assert sorted(path for path in tmp_path.iterdir() if path.is_file() and path.name[0] != ".") == mine
        assert not any((tmp_path / "tensorboard").iterdir())
    assert list(read_results(tmp_path).tests) == ["new"]


def test_what_a_kill_leaves_goes_with_the_next_evaluation(tmp_path):
    with pytest.raises(KeyboardInterrupt), replacing(tmp_path, results_of("torn")):
        (tmp_path / "classes_torn.csv").write_text("half a table")
        raise KeyboardInterrupt
    assert not (tmp_path / FILE).exists()
    with replacing(tmp_path, results_of("new")):
        pass
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_a_record_that_finds_no_room_is_named(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(OSError, match=r"File too large: .*results.json"), replacing(tmp_path, results_of("new")):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_the_curves_of_a_training_stay_when_its_results_are_replaced(tmp_path):
    board = tmp_path / "tensorboard"
    for turn in range(2):
        with SummaryWriter(str(board)) as writer:
            writer.add_scalar("train/loss", 1.0 - turn, turn)
        with (
            replacing(tmp_path, results_of("a", best={"value": 0.5, "step": 6, "metric": "seen top-1"})),
            board_writer(tmp_path) as writer,
        ):
            writer.add_scalar("final/a_top1", 0.25 + turn)
    found = EventAccumulator(str(board)).Reload()
    # By their steps: files of one second are read in the order of their names, where the tenth comes before the ninth.
    assert {point.step: point.value for point in found.Scalars("train/loss")} == {0: 1.0, 1: 0.0}
    assert [point.value for point in found.Scalars("final/a_top1")] == [1.25]
