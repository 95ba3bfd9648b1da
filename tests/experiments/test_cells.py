"""Which runs are the same cell, and when one is finished."""

import dataclasses
from pathlib import Path

import pytest

from engine.config import Config, load_config, save_config
from engine.errors import InputError
from engine.experiments.cells import Cell, is_finished, same_run
from engine.schema import parse
from tests.environment import ROOT

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
