"""Runs that can measure nothing say so before they train, and do not end as if all were well."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.config import Config, load_config
from engine.data.manifests.manifest import Manifest
from engine.errors import InputError
from engine.processes.distributed import Ranks
from engine.processes.preemption import StopVote
from engine.results.accuracy import Accuracy, SetResult
from engine.results.record import Results
from engine.tasks.zero_shot.known import check_unseen, not_unseen
from engine.tasks.zero_shot.outcome import Outcome, _bars, _title, show
from engine.tasks.zero_shot.rehearsal import NO_TEST, NOTHING_HELD_OUT, rehearse
from engine.tasks.zero_shot.sets import read_sets
from engine.train import train
from tests import jobs

CPU = Ranks(torch.device("cpu"))


def config(videos: Path, folder: Path, *overrides: str, **data: object) -> Config:
    """A run over the small videos; `data` in place of its data section's keys, None to leave one out."""
    path = jobs.write_config(
        folder / "config.yaml", videos, folder / "run", data=data, words={"source": "random", "dim": 8}
    )
    if None in data.values():
        lines = path.read_text().splitlines()
        path.write_text("\n".join(line for line in lines if not any(f"  {key}: null" == line for key in data)))
    return load_config(path, list(overrides))


def said(of: Config) -> list[str]:
    return rehearse(of, read_sets(of, CPU.device))


def test_a_config_that_does_not_speak_of_tests_is_refused_before_training(videos, tmp_path):
    of = config(videos, tmp_path, tests=None)
    assert of.data.tests is None
    with pytest.raises(InputError, match=r"names no test set, .* write data\.tests: \[\] where none is wanted"):
        train(of, CPU, StopVote())
    assert not list((tmp_path / "run").rglob("*.pt"))
    done = jobs.run(tmp_path / "config.yaml", check=False)
    assert done.returncode == 2
    assert done.stderr.count("error: ") == 1 and "names no test set" in done.stderr


def test_a_config_that_wants_no_test_says_so_in_a_line_at_both_ends(videos, tmp_path):
    config(videos, tmp_path, tests=[])
    done = jobs.run(tmp_path / "config.yaml", "train.epochs=1")
    first, last = done.stdout.split("epoch 1: ")
    assert NO_TEST in first and NO_TEST in last
    assert NOTHING_HELD_OUT not in done.stdout  # some videos are


def test_nothing_held_out_is_told(videos, tmp_path):
    assert said(config(videos, tmp_path, validation={"video_share": 0.0})) == [NOTHING_HELD_OUT]
    few = {"train": [{"manifest": str(videos), "splits": ["train"], "video_share": 0.01}]}  # one video of each class
    (line,) = said(config(videos, tmp_path, **few))
    assert line.startswith(NOTHING_HELD_OUT) and "every class has one source of videos" in line
    with pytest.raises(InputError, match=r"could measure nothing: .*every class has one source"):
        said(config(videos, tmp_path, tests=[], **few))
    assert said(config(videos, tmp_path, tests=[], validation={"video_share": 0.0})) == [NO_TEST, NOTHING_HELD_OUT]


def test_one_candidate_is_no_test(videos, tmp_path):
    names = sorted(Manifest.load(videos).select(Manifest.load(videos).strings("split") == "unseen").classes)
    one = [{"manifest": str(videos), "splits": ["unseen"], "classes": names[:1], "name": "alone"}]
    with pytest.raises(InputError, match=rf"test set 'alone' can measure nothing: with one class \('{names[0]}'\)"):
        said(config(videos, tmp_path, tests=one))
    (line,) = said(config(videos, tmp_path, validation={"video_share": 0.25, "num_classes": 1}))
    assert "has one class: every answer is right, so it chooses no checkpoint" in line


def test_one_held_out_class_does_not_choose_the_checkpoint(videos, tmp_path):
    of = config(videos, tmp_path, "train.epochs=1", validation={"video_share": 0.25, "num_classes": 1})
    outcome = train(of, CPU, StopVote())
    assert outcome.results.best["metric"] == "seen top-1"


@pytest.mark.parametrize("which", ["test", "held out"])
def test_a_set_without_a_readable_video_is_refused_before_training(videos, tmp_path, which):
    manifest = Manifest.load(videos)
    rows = manifest.table.to_pylist()
    part = read_sets(config(videos, tmp_path), CPU.device).held_out_videos.data.manifest.strings("path")
    for row in rows:
        if row["split"] == "unseen" if which == "test" else row["path"] in part:
            row["path"] = "gone/" + row["path"]
    Manifest.from_rows(rows, manifest.root).save(tmp_path / "m.parquet")
    source = {"manifest": str(tmp_path / "m.parquet"), "root": str(manifest.root)}
    data = {"train": [source | {"splits": ["train"]}], "tests": [source | {"splits": ["unseen"], "name": "t"}]}
    with pytest.raises(InputError, match=r"can measure nothing: none of its 6 videos can be decoded; '.*gone/"):
        said(config(videos, tmp_path, **data))
    rows[-1]["path"] = rows[-1]["path"].removeprefix("gone/")  # one is enough
    Manifest.from_rows(rows, manifest.root).save(tmp_path / "m.parquet")
    assert which == "held out" or said(config(videos, tmp_path, **data)) == []


def result(name: str, classes: int, top1: float, **more: object) -> SetResult:
    accuracy = Accuracy(num_classes=classes, num_videos=20, top1=top1, top5=1.0, mean_class=top1)
    confusion = np.zeros((classes, classes), dtype=np.int64)
    return SetResult(
        name=name, all_classes=accuracy, half_classes=None, per_class=(), confusion=confusion, failures=(), **more
    )


def reached(*tests: SetResult, seen: SetResult | None = None, metric: str = "seen top-1") -> Results:
    return Results(
        checkpoint="c", class_vectors="w", num_snippets=1, tests={test.name: test for test in tests}, seen=seen,
        best={"value": 0.0, "step": 1, "metric": metric}, clips_per_second=1.0,
    )  # fmt: skip


def test_each_chance_bar_is_of_the_bar_beside_it():
    model = reached(result("a", 5, 0.6), result("b", 10, 0.5), seen=result("seen", 40, 0.9))
    control = reached(result("a", 5, 0.2), result("b", 10, 0.1), seen=result("seen", 40, 0.8))
    bars = [(bar.label, bar.value) for bar in _bars(model, control)]
    assert bars == [
        ("a", 0.6), ("control", 0.2), ("chance, 5 classes", 1 / 5),
        ("b", 0.5), ("control", 0.1), ("chance, 10 classes", 1 / 10),
        ("seen classes", 0.9), ("control", 0.8), ("chance, 40 classes", 1 / 40),
    ]  # fmt: skip
    assert [label for label, _ in bars if label != "control"] == [bar.label for bar in _bars(model, None)]


def test_what_was_trained_on_is_not_called_unseen(tmp_path, capsys):
    mixed = result("a", 5, 0.6, seen_classes=["x", "y"], trained_videos=["p.mp4"])
    assert not_unseen(mixed) == "2 of 5 classes trained on, 1 of 20 videos trained on"
    assert not_unseen(result("a", 5, 0.6, seen_classes=[], trained_videos=None)) == ""
    assert _title(reached(mixed)).startswith(
        "a (2 of 5 classes trained on, 1 of 20 videos trained on): 60.0 %, mean over classes"
    )
    title = _title(reached(result("a", 5, 0.125), result("b", 3, 0.5)))  # the bars have both
    assert title == "a, 5 classes the network never saw: 12.5 %, mean over classes (chance 20.0 %)"
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "best.pt").write_bytes(b"")
    for results, expected in (
        (reached(mixed, result("b", 3, 0.5)), ["a: 2 of 5 classes trained on", "UNSEEN classes (b)"]),
        (reached(metric="newest"), [NO_TEST, NOTHING_HELD_OUT]),
    ):
        show(Outcome(tmp_path, 8, results), None)
        out = capsys.readouterr().out
        assert all(text in out for text in expected) and "UNSEEN classes (a)" not in out


def test_the_speed_of_a_training_of_a_step_is_not_called_older(tmp_path, capsys):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "best.pt").write_bytes(b"")
    results = dataclasses.replace(reached(result("b", 3, 0.5)), clips_per_second=0.0)
    for is_short, told in ((True, "not measured (too few steps)"), (False, "trained before")):
        show(Outcome(tmp_path, 8, results, is_short=is_short), None)
        assert f"training speed  {told}" in capsys.readouterr().out


def test_a_test_of_training_classes_is_introduced_and_concluded_as_such(videos, tmp_path):
    """Where the config allows it."""
    tests = [{"manifest": str(videos), "name": "both"}]
    of = config(videos, tmp_path, "train.exclude_overlap.training=allow", "train.epochs=1", tests=tests)
    outcome = train(of, CPU, StopVote())
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "test, 6 of its classes trained on: 30 videos of 9 classes (both)" in log and "unseen: " not in log
    both = outcome.results.tests["both"]
    assert len(both.seen_classes) == 6 and len(both.trained_videos) == 18
    assert not_unseen(both) == "6 of 9 classes trained on, 18 of 30 videos trained on"


def test_nothing_unseen_at_all_is_an_error():
    seen = result("a", 2, 0.6, seen_classes=["x", "y"])
    same = result("b", 2, 0.6, seen_classes=[], trained_videos=[f"{i}.mp4" for i in range(20)])
    for tests in ([seen], [seen, same]):
        with pytest.raises(InputError, match=r"nothing unseen was measured \('a': 2 of 2 classes trained on"):
            check_unseen(tests)
    check_unseen([seen, dataclasses.replace(same, trained_videos=same.trained_videos[1:])])
    check_unseen([result("a", 2, 0.6, seen_classes=["x"])])
