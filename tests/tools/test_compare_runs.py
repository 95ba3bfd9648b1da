"""Runs side by side: means and spreads by hand, and what a record holds."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import compare_runs
import numpy as np
import pytest

from engine.config import Config, save_config
from engine.results.accuracy import Accuracy, ClassAccuracy, SetResult
from engine.results.record import Results, replacing
from engine.schema.keys import with_keys
from engine.semantics.config import WordsConfig, WordSourceConfig

TOOL = Path(__file__).resolve().parents[2] / "tools" / "compare_runs.py"


def write_run(folder: Path, unseen: float, control: float | None = None) -> Path:
    def result(name: str, mean_class: float) -> SetResult:
        accuracy = Accuracy(5, 10, top1=mean_class + 0.1, top5=1.0, mean_class=mean_class, largest_class=0.3)
        confusion = np.zeros((5, 5), dtype=np.int64)
        return SetResult(
            name=name, all_classes=accuracy, half_classes=None, per_class=(), confusion=confusion, failures=()
        )

    folder.mkdir(parents=True)
    tests, seen = {"a": result("a", unseen)}, result("seen", 0.5)
    facts = {"checkpoint": "checkpoints/best.pt", "class_vectors": "words", "num_snippets": 2}
    with replacing(folder, Results(**facts, tests=tests, seen=seen, clips_per_second=10.0)):
        pass
    if control is not None:
        write_run(folder / "control", control)
    return folder


def run(*arguments) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, TOOL, *map(str, arguments)], capture_output=True, text=True, timeout=120)


def test_mean_and_sample_standard_deviation(tmp_path):
    folders = [write_run(tmp_path / f"split_{i}", unseen, 0.2) for i, unseen in enumerate((0.2, 0.4, 0.3))]
    printed = run(*folders).stdout.splitlines()
    mean, std = (next(line.split() for line in printed if line.startswith(name)) for name in ("mean", "std"))
    assert mean == ["mean", "0.500", "0.300", "0.200", "0.200", "0.400", "0.300", "10.000"]
    assert std[2] == "0.100"
    assert "unseen less control, run by run (95 %): +0.100 (-0.148 to +0.348)" in printed  # 4.303 standard errors


def test_a_run_that_is_named_twice_counts_once(tmp_path):
    one, other = write_run(tmp_path / "a", 0.2, 0.1), write_run(tmp_path / "b", 0.4, 0.1)
    (tmp_path / "link").symlink_to(one)
    assert run(one, tmp_path / "link", other, other).stdout.splitlines()[1:] == run(one, other).stdout.splitlines()
    alone = run(one, tmp_path / "link").stdout
    assert alone.startswith(f"named more than once, counted once: {tmp_path / 'link'}\n") and "std" not in alone


def test_runs_without_control_are_shown_without(tmp_path):
    folders = [write_run(tmp_path / "a", 0.2, 0.2), write_run(tmp_path / "b", 0.4)]
    printed = run(*folders).stdout
    assert [line.split()[3] for line in printed.splitlines() if line[:2] in ("a ", "b ")] == ["0.200", "-"]


@pytest.mark.parametrize("make", [lambda path: path / "nothing", lambda path: path])
def test_a_folder_without_results_is_named(tmp_path, make):
    done = run(make(tmp_path))
    assert done.returncode == 2
    assert "no results.json in" in done.stderr


@pytest.mark.parametrize("content", ["{", "{}", "[]", '{"tests": {"a": 3}}'])
def test_results_of_something_else_are_named(tmp_path, content):
    (tmp_path / "results.json").write_text(content)
    done = run(tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: results.json of '{tmp_path}' is not what a run writes")
    assert done.stderr.count("\n") == 1


def result_of(name: str, classes: list[str], mean_class: float, **more: object) -> SetResult:
    accuracy = Accuracy(len(classes), 10, top1=mean_class + 0.1, top5=1.0, mean_class=mean_class)
    rows = tuple(ClassAccuracy(each, 2, mean_class, "", 0) for each in classes)
    confusion = np.zeros((len(classes), len(classes)), dtype=np.int64)
    return SetResult(
        name=name, all_classes=accuracy, half_classes=None, per_class=rows, confusion=confusion, failures=(), **more
    )


def write_tests(folder: Path, *tests: SetResult, snippets: int = 2) -> Path:
    folder.mkdir(parents=True)
    facts = {"checkpoint": "checkpoints/best.pt", "class_vectors": "words", "num_snippets": snippets}
    with replacing(folder, Results(**facts, tests={test.name: test for test in tests})):
        pass
    return folder


def tables(printed: str) -> dict[str, dict[str, list[str]]]:
    """Title -> first word of a row -> its numbers."""
    found = {}
    for block in printed.strip().split("\n\n"):
        title, header, _, *rows = block.splitlines()
        assert header.split() == [
            "run",
            "seen",
            "unseen",
            "control",
            "chance",
            "unseen",
            "top-1",
            "largest",
            "class",
            "clips/s",
        ]
        found[title] = {row.split()[0]: row.split()[1:] for row in rows if ":" not in row}
    return found


@pytest.mark.parametrize(("task", "says"), [("masked", "a pretraining: its losses"), ("moments", "compare_moments.py")])
def test_a_run_of_another_task_is_told_what_it_is(tmp_path, task, says):
    (tmp_path / "results.json").write_text(json.dumps({"task": task, "step": 3, "held_out": None}))
    done = run(tmp_path)
    assert done.returncode == 2 and done.stderr.startswith(f"error: results.json of '{tmp_path}' is of a")
    assert says in done.stderr and "KeyError" not in done.stderr


def test_every_test_set_has_a_table_of_its_own(tmp_path):
    a, b = list("vwxyz"), list("pq")
    folders = [
        write_tests(tmp_path / "one", result_of("a", a, 0.2, contents="1"), result_of("b", b, 0.8, contents="2")),
        write_tests(tmp_path / "two", result_of("a", a, 0.4, contents="1"), result_of("b", b, 0.6, contents="2")),
        write_tests(tmp_path / "three", result_of("b", b, 0.7, contents="2")),
    ]
    done = run(*folders)
    found = tables(done.stdout)
    assert list(found) == ["a: 5 classes", "b: 2 classes"]
    assert (
        found["a: 5 classes"]["mean"][1:5] == ["0.300", "-", "0.200", "0.400"] and "three" not in found["a: 5 classes"]
    )
    assert found["b: 2 classes"]["mean"][1:5] == ["0.700", "-", "0.500", "0.800"]
    assert "not the same" not in done.stdout


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (result_of("a", ["v", "w", "q"], 0.4), "not the same classes, so these are different tests: one, three | two"),
        (
            result_of("a", ["v", "w", "x"], 0.4, contents="2"),
            "not the same videos, so these are different tests: one, three | two",
        ),
    ],
)
def test_one_name_of_several_tests_is_told(tmp_path, other, says):
    same = result_of("a", ["v", "w", "x"], 0.2, contents="1")
    for name, test in (("one", same), ("two", other), ("three", same)):
        write_tests(tmp_path / name, test)
    assert says in run(tmp_path / "one", tmp_path / "two", tmp_path / "three").stdout


def test_one_name_of_other_numbers_of_classes_is_two_tables(tmp_path):
    one = write_tests(tmp_path / "one", result_of("a", list("vwxyz"), 0.2))
    two = write_tests(tmp_path / "two", result_of("a", list("vw"), 0.6))
    found = tables(run(one, two).stdout)
    assert {title: list(rows) for title, rows in found.items()} == {"a: 5 classes": ["one"], "a: 2 classes": ["two"]}


def test_other_snippets_and_what_is_not_unseen_are_told(tmp_path):
    one = write_tests(tmp_path / "one", result_of("a", ["v", "w"], 0.2, seen_classes=["w"]))
    two = write_tests(tmp_path / "two", result_of("a", ["v", "w"], 0.6, trained_videos=["p.mp4"]), snippets=25)
    printed = run(one, two).stdout
    assert "not the same number of snippets of a video: one | two" in printed
    assert "one: not unseen, trained on 1 of the classes: w" in printed
    assert "two: not unseen, trained on 1 of the videos: p.mp4" in printed


def test_what_is_averaged_says_what_it_is(tmp_path):
    one = write_tests(tmp_path / "one" / "evaluation", result_of("a", ["v", "w"], 0.2))
    two = write_tests(tmp_path / "two" / "evaluation", result_of("a", ["v", "w"], 0.6, transductive=True))
    record = json.loads((two / "results.json").read_text())
    record |= {
        "class_vectors": "random unit vectors: 50 dimensions, seed 3 (the control: no meaning)",
        "weights": "trained",
    }
    (two / "results.json").write_text(json.dumps(record))
    printed = run(one, two).stdout
    assert "TRANSDUCTIVE, videos named together, which is not the paper's protocol: two/evaluation" in printed
    assert "not the same class vectors: one/evaluation | two/evaluation" in printed
    assert "some of averaged weights and some not (evaluate.weights): one/evaluation | two/evaluation" in printed
    three = write_tests(tmp_path / "three" / "checkpoints" / "best_evaluation", result_of("a", ["v", "w"], 0.4))
    assert "three/best_evaluation" in run(three).stdout
    plain = run(one, write_tests(tmp_path / "four", result_of("a", ["v", "w"], 0.4))).stdout
    assert "TRANSDUCTIVE" not in plain and "class vectors" not in plain and "averaged" not in plain


def test_runs_of_one_name_are_told_apart_by_their_paths(tmp_path):
    folders = [write_run(tmp_path / path, 0.2) for path in ("x/a/run", "y/a/run", "y/b/run", "other")]
    lines = run(*folders).stdout.splitlines()
    assert [line.split()[0] for line in lines[3:7]] == ["x/a/run", "y/a/run", "y/b/run", "other"]
    assert [line.split()[0] for line in run(*folders[1:]).stdout.splitlines()[3:6]] == ["a/run", "b/run", "other"]
    done = subprocess.run([sys.executable, TOOL, "."], capture_output=True, text=True, timeout=120, cwd=folders[0])
    assert done.stdout.splitlines()[3].split()[0] == "run"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("model: {}\n", "it lacks 'clip'"),
        ("{clip: {}, model: {}, words: {}, loss: {}, train: {}, evaluate: {}}\n", "it lacks 'path'"),
        ("{clip: {}, model: {}, words: 3, loss: {}, train: {}, evaluate: {}}\n", "'int' object"),
    ],
)
def test_a_config_that_no_run_wrote_is_not_recorded(text, why, tmp_path):
    folder = write_run(tmp_path / "one", 0.2)
    (folder / "config.yaml").write_text(text)
    done = run(folder, "--record", "never")
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: '{folder / 'config.yaml'}' is no config that a run wrote ({why}")
    assert done.stderr.count("\n") == 1


def test_a_recorded_config_tells_no_folder_of_this_machine(tmp_path):
    own, old = str(tmp_path / "own.npz"), str(tmp_path / "old.pt")
    words = WordsConfig(path="glove/vectors.txt", also=WordSourceConfig(source="npz", path=own))
    keys = {
        "train.exclude_overlap.words": WordsConfig(path=own),
        "train.init_from": old,
        "model.weights": "kinetics400",
    }
    config = with_keys(dataclasses.replace(Config(), words=words), keys)
    save_config(config, tmp_path / "config.yaml")
    kept = compare_runs.record_fields([tmp_path], {"a": []})["config"]
    assert str(tmp_path) not in json.dumps(kept)
    assert (kept["words"]["path"], kept["words"]["also"]["path"]) == ("vectors.txt", "own.npz")
    assert (kept["model"]["weights"], kept["train"]["init_from"]) == ("kinetics400", "old.pt")


def test_a_control_of_another_test_is_none(tmp_path):
    one = write_tests(tmp_path / "one", result_of("a", ["v", "w"], 0.2))
    write_tests(one / "control", result_of("a", ["v", "x"], 0.5))
    assert tables(run(one).stdout)["a: 2 classes"]["one"][2] == "-"
    other = write_tests(tmp_path / "other", result_of("a", ["v", "w"], 0.2))
    write_tests(other / "control", result_of("a", ["v", "w"], 0.5), snippets=25)
    assert tables(run(other).stdout)["a: 2 classes"]["other"][2] == "-"
