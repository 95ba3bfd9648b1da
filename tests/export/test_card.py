"""What the card of an exported model says of its run: the control beside it, what was not unseen, whose results those are."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from engine.evaluation.metrics import evaluate_embeddings
from engine.export.card import _accuracy, _title, _training, run_results
from engine.results.record import FILE
from engine.tasks.zero_shot.trained import load_for_inference
from tests.results.test_record import results_of
from tests.small_run import write_run


@pytest.fixture
def run(tmp_path):
    write_run(tmp_path / "run")
    return tmp_path / "run"


def perfect(name: str, classes: str):
    """Every video named right."""
    return evaluate_embeddings(name, torch.eye(4)[torch.arange(12) % 4], torch.arange(12) % 4, [*classes], torch.eye(4))


def test_a_control_stands_beside_the_same_test_of_as_many_snippets(run):
    loaded = load_for_inference(run, torch.device("cpu"))
    results = dataclasses.replace(results_of("new", "more"), seen=results_of("seen").tests["seen"])
    assert results.tests["new"].all_classes.mean_class < 0.9

    def beside() -> list[str]:
        rows = [[cell.strip() for cell in row.split("|")] for row in _accuracy(loaded, results)[0].splitlines()]
        assert rows[0][5] == "control" and [row[1] for row in rows[2:]] == ["seen classes, new videos", "new", "more"]
        return [row[5] for row in rows[2:]]

    def tells_of_control() -> bool:
        return "Control: the same network" in _accuracy(loaded, results)[1]

    assert beside() == ["-", "-", "-"] and not tells_of_control()
    control = dataclasses.replace(
        results, seen=perfect("seen", "abcd"), tests={"new": perfect("new", "abcd"), "more": perfect("more", "wxyz")}
    )
    (run / "control").mkdir()
    for snippets, told in ((3, ["1.000", "1.000", "-"]), (25, ["-", "-", "-"])):  # "more" is of other classes there
        written = dataclasses.replace(control, num_snippets=snippets).to_dict()
        (run / "control" / FILE).write_text(json.dumps(written))
        assert beside() == told and tells_of_control() == (told[0] != "-")


def test_what_was_not_unseen_and_what_says_nothing_is_noted(run):
    loaded = load_for_inference(run, torch.device("cpu"))
    results = results_of("new")
    (test,) = results.tests.values()
    at_chance = dataclasses.replace(test.all_classes, mean_class=0.25)
    seen, known = (dataclasses.replace(test, seen_classes=["a"], all_classes=at_chance) for _ in range(2))
    notes = _accuracy(loaded, dataclasses.replace(results, seen=seen, tests={"new": known}))[-1].splitlines()
    assert notes[1] == "- new: 1 of 4 classes trained on" and len(notes) == 3  # trained on is what seen classes are
    assert all("is not above chance" in note for note in (notes[0], notes[2]))
    assert _accuracy(loaded, dataclasses.replace(results, tests={}))[0] == "No test set was named."
    assert _accuracy(loaded, None) == ["Nothing was recorded of this checkpoint."]


def test_classes_that_the_weights_had_seen_are_told(run):
    loaded = load_for_inference(run, torch.device("cpu"))
    assert not any("had seen" in part for part in _training(loaded, ["a"]))
    assert "had seen 2 classes" in _training(dataclasses.replace(loaded, prior_classes=("a", "b")), ["a"])[-1]
    began = dataclasses.replace(loaded, began_from="/somewhere/weights.pt")
    assert "from the weights `weights.pt`" in _training(began, ["a"])[0]


def test_the_title_is_the_runs_name_wherever_it_is_exported_from(run, monkeypatch):
    monkeypatch.chdir(run)
    for given in (run, Path(), run / "checkpoints" / "best.pt"):
        assert _title(load_for_inference(given, torch.device("cpu"))) == "run"


def test_results_of_another_checkpoint_are_not_those_of_a_file(run):
    loaded = load_for_inference(run, torch.device("cpu"))
    best = run / "checkpoints" / "best.pt"
    assert run_results(loaded, best) is None
    for written, is_its in ((results_of("new", step=7), True), (results_of("new", step=6), False)):
        (run / FILE).write_text(json.dumps(written.to_dict()))
        assert (run_results(loaded, best) is not None) == is_its
    (run / FILE).write_text(json.dumps(results_of("new", step=7).to_dict()))
    other = dataclasses.replace(loaded, path=best.with_name("step-7.pt"))
    assert run_results(other, other.path) is None
    assert run_results(dataclasses.replace(loaded, path=run / "copies" / "best.pt"), best) is None
