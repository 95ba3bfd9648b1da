"""Which runs are the same cell, and when one is finished."""

import dataclasses
import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from engine.config import Config, load_config, save_config
from engine.data.manifests.manifest import Manifest
from engine.errors import InputError
from engine.experiments.cells import Cell, is_finished, same_run, why_untold
from engine.experiments.changed import training_now
from engine.files.json_lines import append_json_line
from engine.provenance import FILE, manifest_hashes
from engine.schema.parser import parse
from engine.training.checkpoint import best_checkpoint, read_checkpoint, save_checkpoint
from tests.environment import ROOT
from tests.rows import row

TREE = {"data": {"train": [{"manifest": "a.parquet"}], "tests": [{"manifest": "b.parquet"}]}, "train": {"lr": 0.01}}


def cell(name: str = "one", start: Cell | None = None, **sections: dict) -> Cell:
    tree = {key: {**TREE.get(key, {}), **sections.get(key, {})} for key in {*TREE, *sections}}
    return Cell(name, parse(Config, tree), start)


def finish(one: Cell, folder: Path, config: Config | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_config(config or one.config, folder / "config.yaml")
    (folder / "results.json").write_text("{}")
    return folder


def test_a_digest_is_of_what_decides_the_result(tmp_path):
    one = cell()
    same = cell(
        "two",
        run={"folder": "elsewhere", "cpu_threads": 3, "timeout_s": 9.0, "control": True},
        log={"every_steps": 1},
        checkpoint={"keep": 9},
        data={"decode_threads": 5, "decode_processes": True},
        evaluate={"batch_size": 2},
        train={"channels_last": False, "gc_every_steps": 1, "checkpoint_activations": True},
        model={"form": "flat"},
    )
    assert same.digest == one.digest
    assert same.folder(tmp_path).name == f"two-{one.digest}"
    finish(one, one.folder(tmp_path))
    assert same.folder(tmp_path) == one.folder(tmp_path)  # one folder, whatever the experiment calls it
    others = [cell(train={"lr": 0.02}), cell(run={"seed": 1}), cell(model={"width": 8}), cell(loss={"name": "cosine"}),
              cell(data={"train": [{"manifest": "a.parquet", "video_share": 0.5}]}), cell(start=one),
              cell(start=cell(train={"lr": 0.02}))]  # fmt: skip
    assert len({one.digest, *(other.digest for other in others)}) == len(others) + 1


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("ucf15", "7b998ec35b"),
        ("ucf15_joint", "6ab1c3f968"),
        ("ucf15_small", "1582460146"),
        ("kinetics_c3d", "1f5fa58aa6"),
    ],
)
def test_digests_are_those_of_the_cells_that_there_are(name, digest):
    """Their folders are named by them, and benchmarks/records too."""
    assert Cell(name, load_config(ROOT / "configs" / f"{name}.yaml", [])).digest == digest


def test_a_key_at_its_default_changes_nothing():
    assert cell(train={"lr": 0.01, "momentum": 0.9, "sync_bn": False}).digest == cell().digest


def test_a_cell_is_found_by_its_config_where_another_version_named_it(tmp_path):
    """When speed counted too, and what could not matter."""
    before = cell(train={"channels_last": False, "momentum": 0.5})
    folder = finish(before, tmp_path / "cells" / "one-0123456789")
    assert cell().folder(tmp_path) == folder and is_finished(cell(), folder)
    assert cell(train={"lr": 0.1}).folder(tmp_path) != folder


def test_located_names_folder_and_start(tmp_path):
    start = cell("start")
    config = cell("after", start).located(tmp_path)
    assert config.run.folder == str(cell("after", start).folder(tmp_path))
    assert config.train.init_from == str(start.folder(tmp_path))


def test_finished_needs_results_of_an_equal_config(tmp_path):
    one = cell()
    folder = tmp_path / "run"
    assert not is_finished(one, folder)
    finish(one, folder)
    assert is_finished(one, folder)
    (folder / "results.json").unlink()
    assert not is_finished(one, folder)
    finish(one, folder, dataclasses.replace(one.config, loss=dataclasses.replace(one.config.loss, name="cosine")))
    with pytest.raises(InputError, match="another config than cell 'one'"):
        is_finished(one, folder)


def test_a_control_that_is_wanted_must_be_there(tmp_path):
    folder = finish(cell(), tmp_path / "run")
    wanted = cell(run={"control": True})
    assert not is_finished(wanted, folder)
    finish(cell(), folder / "control")
    assert is_finished(wanted, folder)


def test_a_start_is_known_by_its_own_config(tmp_path):
    """Paths of a run made by hand are relative to where it was started, not to where it is looked at."""
    pictures = cell("pictures", train={"epochs": 7})
    finish(pictures, tmp_path / "work" / "runs" / "pictures")
    after = cell("after", pictures)
    named = dataclasses.replace(after.config, train=dataclasses.replace(after.config.train, init_from="runs/pictures"))
    folder = finish(after, tmp_path / "work" / "runs" / "after", named)
    assert same_run(after, folder)
    assert not same_run(cell("after", cell("pictures", train={"epochs": 8})), folder)
    assert not same_run(cell("after"), folder)


def test_cells_that_were_moved_together_are_the_same(tmp_path):
    pictures = cell("pictures", train={"epochs": 7})
    after = cell("after", pictures)
    for one in (pictures, after):
        finish(one, one.folder(tmp_path / "out"), one.located(tmp_path / "out"))
    moved = tmp_path / "renamed"
    (tmp_path / "out").rename(moved)
    assert is_finished(after, after.folder(moved)) and why_untold(after, moved) is None
    assert not same_run(cell("after", cell("pictures", train={"epochs": 8})), after.folder(moved))
    shutil.rmtree(pictures.folder(moved))
    gone = f"its start '{pictures.folder(tmp_path / 'out')}' is gone"
    assert gone in why_untold(after, moved) and why_untold(pictures, moved) is None
    with pytest.raises(InputError, match=gone):
        is_finished(after, after.folder(moved))
    assert not same_run(cell("other"), after.folder(moved))  # which starts from none


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "config.yaml is empty: it is not what a run writes; mend that, or move that folder away"),
        ("train: [", "is not valid YAML: line 1"),
        ("train: {pace: 3}", "unknown key 'train.pace'"),
    ],
)
def test_a_config_that_cannot_be_read_is_told_of_its_cell_and_those_that_start_from_it(tmp_path, text, told):
    pictures, other = cell("pictures", train={"epochs": 7}), cell("other")
    after = cell("after", pictures)
    for one in (pictures, after, other):
        finish(one, one.folder(tmp_path), one.located(tmp_path))
    broken = pictures.folder(tmp_path) / "config.yaml"
    broken.write_text(text)
    for one in (pictures, after):
        why = why_untold(one, tmp_path)
        assert why.startswith(str(broken)) and told in why and why.count(str(broken)) == 1
    shutil.rmtree(after.folder(tmp_path))  # not begun yet
    assert told in why_untold(after, tmp_path) and why_untold(other, tmp_path) is None


def test_the_weights_that_a_config_names_itself_are_those_it_is_run_with(tmp_path, monkeypatch):
    """They count like those of a start: by what the run that holds them means, else by their name."""
    monkeypatch.chdir(tmp_path)
    named = cell("named", train={"init_from": "runs/sun"})
    assert named.located(tmp_path).train.init_from == "runs/sun" and named.digest != cell().digest
    sun = cell("sun", train={"epochs": 7})
    finish(sun, tmp_path / "runs" / "sun")
    named = cell("named", train={"init_from": "runs/sun"})
    assert named.digest == cell("after", sun).digest
    assert named.located(tmp_path).train.init_from == "runs/sun"
    assert same_run(named, finish(named, named.folder(tmp_path), named.located(tmp_path)))
    other = cell("other", sun, train={"init_from": "runs/moon"})
    assert other.digest == named.digest  # a start is in place of what the config names


def test_classes_of_pretrained_weights_count_with_a_start_too(tmp_path):
    told = {"init_from": None, "exclude_overlap": {"pretrained_classes": "sun.txt"}}
    sun = cell("sun")
    finish(sun, sun.folder(tmp_path))
    after = cell("after", sun, train=told)
    assert after.digest != cell("after", sun).digest
    assert same_run(after, finish(after, after.folder(tmp_path), after.located(tmp_path)))


def pretrained(folder: Path, epochs: int, step: int) -> None:
    """A run folder with weights to begin from."""
    one = cell(train={"epochs": epochs})
    finish(one, folder)
    state = {"model": {}, "config": {}, "step": step, "epoch": 0, "position": 0}
    save_checkpoint(best_checkpoint(folder), state)


def test_weights_of_a_run_count_by_what_it_means_and_its_step(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    using = {"model": {"weights": "runs/mine"}}
    digests = [cell(**using).digest]  # no run folder: by its name
    for epochs, step in ((1, 5), (1, 6), (30, 6)):
        pretrained(tmp_path / "runs" / "mine", epochs, step)
        digests.append(cell(**using).digest)
    assert len(set(digests)) == 4
    pretrained(tmp_path / "copied", 30, 6)
    assert cell(model={"weights": "copied"}).digest == digests[-1]
    (tmp_path / "runs" / "mine" / "checkpoints" / "best.pt").unlink()
    with pytest.raises(InputError, match="'runs/mine' holds no checkpoint"):
        assert cell(**using).digest


def test_a_cell_is_not_taken_for_one_of_weights_that_went_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pretrained(tmp_path / "runs" / "mine", 1, 5)
    before = cell(model={"weights": "runs/mine"})
    folder = finish(before, before.folder(tmp_path))
    assert is_finished(before, folder)
    pretrained(tmp_path / "runs" / "mine", 30, 60)
    after = cell(model={"weights": "runs/mine"})
    assert after.folder(tmp_path) != folder and not is_finished(after, after.folder(tmp_path))


def test_a_folder_whose_weights_went_on_is_of_the_cell_that_its_name_tells(tmp_path, monkeypatch):
    """Also for a program that is started later: what its config means now is not what it was trained from."""
    monkeypatch.chdir(tmp_path)
    pretrained(tmp_path / "runs" / "mine", 1, 5)
    before = cell(model={"weights": "runs/mine"})
    folder = finish(before, tmp_path / "cells" / f"one-{before.digest}")
    pretrained(tmp_path / "runs" / "mine", 30, 60)
    after = cell(model={"weights": "runs/mine"})
    assert before.digest != after.digest
    assert before.folder(tmp_path) == folder != after.folder(tmp_path)


def test_no_test_sets_are_asked_for_by_an_empty_list_and_by_none():
    empty, none = (cell(data={"tests": tests}) for tests in ([], None))
    assert empty.digest == none.digest != cell().digest
    assert cell(start=empty).digest == cell(start=none).digest


NAMES = ("diving", "jumping", "cooking")


def index(path: Path, numbers: Iterable[int], mtime: int = 0, names: Sequence[str] = NAMES) -> None:
    """A manifest of these classes, with these videos of each, by their contents."""
    rows = [row(f"{name}{n}.mp4", name, group=f"g{n}", content_hash=1 + n + 100 * place, mtime_ns=mtime)
            for n in numbers for place, name in enumerate(names)]  # fmt: skip
    Manifest.from_rows(rows, Path("/v")).save(path)


def trained(one: Cell, folder: Path) -> Path:
    """As a run leaves it: what its manifests held, and its videos in a checkpoint."""
    finish(one, folder)
    append_json_line(folder / FILE, {"manifests": manifest_hashes(one.config)})
    state = {"model": {}, "config": {}, "step": 1, "epoch": 0, "position": 0}
    data = training_now(one.config)[2]
    classes = {"train_classes": list(data.train.classes)}
    save_checkpoint(best_checkpoint(folder), {**state, **classes, "videos": data.footage.to_state()})
    return folder


def say_trained_on(folder: Path, test_classes: Sequence[str]) -> None:
    """What the results of a run tell of its test."""
    tree = json.loads((ROOT / "tests" / "old_files" / "run" / "results.json").read_text(encoding="utf-8"))
    tree["tests"]["combinations"]["seen_classes"] = test_classes
    (folder / "results.json").write_text(json.dumps(tree), encoding="utf-8")


def test_a_cell_of_before_that_has_a_class_of_a_tests_name_is_refused(tmp_path):
    """Its version trained on "sky diving" where "skydiving" was the test: the distance alone counted."""
    manifest, test = tmp_path / "clips.parquet", tmp_path / "test.parquet"
    index(manifest, range(8), names=("sky diving", "jumping", "cooking"))
    index(test, range(8), names=("skydiving", "painting"))
    data = {"train": [{"manifest": str(manifest)}], "tests": [{"manifest": str(test), "name": "skies"}]}
    both = cell(data=data, train={"exclude_overlap": {"training": "remove", "same_names": False}})
    now = cell(data=data, train={"exclude_overlap": {"training": "remove"}})
    for each, is_kept in ((both, True), (now, False)):
        folder = trained(both, tmp_path / each.digest)
        assert len(read_checkpoint(best_checkpoint(folder))["train_classes"]) == 3
        save_config(each.config, folder / "config.yaml")
        if each is now:  # its version wrote no such key
            path = folder / "config.yaml"
            path.write_text("".join(line for line in path.open(encoding="utf-8") if "same_names" not in line))
        say_trained_on(folder, ["skydiving"])
        if is_kept:
            assert is_finished(each, folder)
        else:
            with pytest.raises(InputError, match=r"training classes .without 'sky diving'; names of test classes"):
                is_finished(each, folder)
            say_trained_on(folder, [])  # none of them was a test's: nothing to look for
            assert is_finished(each, folder)


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_a_cell_of_other_videos_is_refused(tmp_path, share):
    """By what the videos hold: the same ones in another manifest, or another order, are the same cell."""
    manifest = tmp_path / "clips.parquet"
    index(manifest, range(8))
    one = cell(data={"train": [{"manifest": str(manifest), "video_share": share}], "tests": None})
    folder = trained(one, tmp_path / "run")
    index(manifest, reversed(range(8)), mtime=5)
    assert is_finished(one, folder)
    for numbers, why in (
        (range(4), "of the run are not in"),
        (range(20, 28), "of the run are not in"),
        (range(16), "are drawn of them" if share < 1 else "are not of"),
    ):
        index(manifest, numbers)
        with pytest.raises(InputError, match=rf"run' holds cell 'one' trained on other videos .*{why}.*--out"):
            is_finished(one, folder)
    best_checkpoint(folder).unlink()  # nothing tells any more
    assert is_finished(one, folder)


def test_a_cell_that_starts_from_one_of_other_videos_is_refused(tmp_path):
    clips, pictures = tmp_path / "clips.parquet", tmp_path / "pictures.parquet"
    index(clips, range(8))
    index(pictures, range(20, 28))
    start = cell("pictures", data={"train": [{"manifest": str(pictures)}], "tests": None})
    after = cell("after", start, data={"train": [{"manifest": str(clips)}], "tests": None})
    trained(start, start.folder(tmp_path))
    folder = trained(after, after.folder(tmp_path))
    save_config(after.located(tmp_path), folder / "config.yaml")
    assert is_finished(after, folder)
    index(pictures, range(20, 24))
    with pytest.raises(InputError, match="cell 'pictures' trained on other videos"):
        is_finished(after, folder)
    pictures.unlink()  # and with it what could be trained on in their place
    assert is_finished(after, folder)
    shutil.rmtree(start.folder(tmp_path))  # to train it again, on others
    gone = f"its start '{start.folder(tmp_path)}' is gone: put that back, or move this folder away"
    with pytest.raises(InputError, match=gone):
        is_finished(after, folder)
