"""tools/experiments.py as a user calls it: real trainings of seconds, killed, resumed, shared, failed."""

import csv
import errno
import json
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import options
import pytest
import yaml
from PIL import Image

from engine.data.indexing.dataset import IndexSettings, index_dataset
from engine.data.layouts import read_layout
from engine.records import recording_into
from tests import jobs
from tests.forked import Forked, ForkedPopen
from tests.small_run import ROOT, call_tool


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A config of a tiny training (config.yaml), videos, and pictures of two classes."""
    here = tmp_path_factory.mktemp("experiments")
    manifest = jobs.write_videos(here / "videos")
    jobs.write_config(
        here / "config.yaml", manifest, here / "unused", train={"epochs": 1, "batch_size": 4},
        evaluate={"every_epochs": 1, "num_snippets": 2}, checkpoint={"every_steps": 1},
    )  # fmt: skip
    generator = np.random.default_rng(0)
    for name in ("fishing", "reading"):
        for picture in range(4):
            path = here / "photos" / name / f"{picture}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(generator.integers(0, 255, (40, 50, 3), dtype=np.uint8)).save(path)
    photos = here / "photos"
    index_dataset(read_layout("auto", photos), photos, photos / "manifest.parquet", IndexSettings())
    return here


@pytest.fixture(autouse=True)
def forked_cells(monkeypatch):
    """Cells that are started in this process; the tool that is killed starts them as a user's does."""
    streams = {"STDOUT": subprocess.STDOUT, "DEVNULL": subprocess.DEVNULL}
    monkeypatch.setattr("engine.cluster.programs.subprocess", Mock(Popen=ForkedPopen, **streams))


def words(place: Path, name: str = "fig6") -> list[str]:
    return [name, "--config", str(place / "config.yaml"), "--images", str(place / "photos" / "manifest.parquet"),
            "--out", str(place / "out"), "--splits", "3", "--shares", "1", "--workers", "2"]  # fmt: skip


def folder(place: Path, name: str) -> Path:
    found = list((place / "out" / "cells").glob(f"{name}-split3-*"))
    return next((each for each in found if (each / "results.json").is_file()), found[0])


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_killed_it_goes_on_and_finished_cells_are_shared(place, monkeypatch, capsys):
    """kill -9 of the tool and of its training; the same command then resumes that cell and runs the rest once."""
    tool = Forked(ROOT / "tools" / "experiments.py", *words(place), variables=jobs.environment(), merged=True)
    while not list((place / "out" / "cells").glob("e2e-*")) and tool.poll() is None:
        time.sleep(0.02)
    began = folder(place, "e2e")
    jobs.wait_for_step(began, 2, tool)
    children = Path(f"/proc/{tool.pid}/task/{tool.pid}/children").read_text().split()
    tool.kill()
    for child in children:
        os.kill(int(child), signal.SIGKILL)
    tool.communicate()
    assert not (began / "results.json").exists()

    with recording_into(place / "records"):
        status = call_tool("experiments.py", *words(place), "--record", monkeypatch=monkeypatch)
    said = capsys.readouterr()
    assert status == 0, said.err
    assert "pretrained-split3: " in said.err and said.err.endswith("about 00:00 left\n")
    resumed = [line for line in (began / "log.txt").read_text().splitlines() if "resumed at step" in line]
    assert len(resumed) == 1 and int(resumed[0].split("step ")[1].split()[0]) >= 1
    assert len(jobs.events(folder(place, "pretrained"), "start")) == 1
    assert "weights from" in (folder(place, "pretrained") / "log.txt").read_text()

    values = rows(place / "out" / "fig6.csv")
    assert [row["curve"] for row in values] == ["from scratch", "pretrained on pictures"]
    record = json.loads((place / "records" / "experiments.jsonl").read_text())
    assert (record["experiment"], record["splits"], record["n"]) == ("fig6", [3], 2)
    assert record["configs"][""]["train"]["batch_size"] == 4 and str(place) not in json.dumps(record)
    recorded = [dict(zip(record["header"], row, strict=True)) for row in record["rows"]]
    assert [f"{row['top1']:.6f}" for row in recorded] == [row["top1"] for row in values]
    for row in values:
        result = json.loads((place / "out" / "cells" / row["run"] / "results.json").read_text())
        assert float(row["top1"]) == pytest.approx(result["tests"]["combinations"]["all_classes"]["top1"], abs=1e-6)
    assert Image.open(place / "out" / "fig6.png").size[0] > 500
    assert "| combinations | from scratch | 1 | 6 | 18 | 1 | 1 |" in (place / "out" / "fig6.md").read_text()

    # another experiment of the same cells trains nothing
    assert call_tool("experiments.py", *words(place, "table2"), "--only-report", monkeypatch=monkeypatch) == 1
    said = capsys.readouterr()
    assert "2 cells are not finished" in said.err and "frozen-split3, joint-split3" in said.err
    table = (place / "out" / "table2.md").read_text()
    assert "| end to end | combinations | 6 | 1 | 3 |" in table and "37.6 / 62.5" in table


def test_a_failed_cell_is_named_and_the_rest_is_shown(place, monkeypatch, capsys):
    """Pictures that are gone: pretraining fails, what starts from it is left out, training from scratch is shown."""
    photos = place / "broken"
    shutil.copytree(place / "photos", photos)
    (photos / "manifest.parquet").unlink()
    index_dataset(read_layout("auto", photos), photos, photos / "manifest.parquet", IndexSettings())
    for picture in photos.rglob("*.png"):
        picture.unlink()
    broken = [word.replace("/photos/", "/broken/") for word in words(place)]
    assert call_tool("experiments.py", *broken, monkeypatch=monkeypatch) == 1
    said = capsys.readouterr()
    assert "1 of 3 cells are finished already" in said.err
    assert "images-split3 FAILED with status 2" in said.err and "error: " in said.err
    assert "pretrained-split3 is left out" in said.err
    assert "2 cells failed and are missing from the above: images-split3, pretrained-split3" in said.err
    assert [row["curve"] for row in rows(place / "out" / "fig6.csv")] == ["from scratch"]


def test_a_cell_whose_record_cannot_be_read_is_named_and_the_rest_is_shown(place, monkeypatch, capsys):
    record = folder(place, "pretrained") / "results.json"
    whole = record.read_bytes()
    for option in ((), ("--only-report",)):
        record.write_bytes(whole[:500])
        try:
            assert call_tool("experiments.py", *words(place), *option, monkeypatch=monkeypatch) == 1
        finally:
            record.write_bytes(whole)
        said = capsys.readouterr().err
        assert f"pretrained-split3: results.json of '{record.parent}' is not what a run writes at its end" in said
        assert "remove that file and give the command again" in said and "failed" not in said
        assert "1 cells cannot be read and are missing from the above: pretrained-split3" in said
        assert [row["curve"] for row in rows(place / "out" / "fig6.csv")] == ["from scratch"]


def test_a_cell_whose_config_cannot_be_read_is_named_and_the_rest_is_shown(place, monkeypatch, capsys):
    config = folder(place, "pretrained") / "config.yaml"
    whole = config.read_bytes()
    for option in ((), ("--only-report",), ("--only-plan",)):
        config.write_bytes(b"")
        try:
            assert call_tool("experiments.py", *words(place), *option, monkeypatch=monkeypatch) == 1
        finally:
            config.write_bytes(whole)
        said = capsys.readouterr()
        assert (
            f"pretrained-split3: {config} is empty: it is not what a run writes; mend that, or move that folder"
            in said.err
        )
        assert "1 cells cannot be read and are missing from the above: pretrained-split3" in said.err
        assert "failed" not in said.err and ("e2e-split3" in said.out) == ("--only-plan" in option)
        assert [row["curve"] for row in rows(place / "out" / "fig6.csv")] == ["from scratch"]


def test_cells_in_a_renamed_folder_are_shown(place, monkeypatch, capsys):
    moved, command = place / "renamed", [*words(place), "--only-report"]
    command[command.index("--out") + 1] = str(moved)
    (place / "out").rename(moved)
    try:
        assert call_tool("experiments.py", *command, monkeypatch=monkeypatch) == 0
    finally:
        moved.rename(place / "out")
    assert [row["curve"] for row in rows(place / "out" / "fig6.csv")] == ["from scratch", "pretrained on pictures"]


def test_a_record_that_the_disk_refuses_is_named_too(place, monkeypatch, capsys):
    record, read = folder(place, "pretrained") / "results.json", Path.read_text

    def refused(path: Path, *how: object, **beside: object) -> str:
        if path == record:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return read(path, *how, **beside)

    monkeypatch.setattr(Path, "read_text", refused)
    for option in ((), ("--only-report",)):
        assert call_tool("experiments.py", *words(place), *option, monkeypatch=monkeypatch) == 1
        said = capsys.readouterr().err
        assert f"pretrained-split3: results.json of '{record.parent}' cannot be read (Permission denied" in said
        assert "ask for the right to it" in said and "remove" not in said
        assert [row["curve"] for row in rows(place / "out" / "fig6.csv")] == ["from scratch"]


def test_methods_share_the_cells_of_other_experiments(place, tmp_path, monkeypatch, capsys):
    """The cells above are methods too, whatever the list calls them; the one that is missing is named."""
    shutil.copyfile(folder(place, "images") / "config.yaml", place / "photos.yaml")
    listed = {
        "reference": "ours",
        "methods": {
            "ours": {"config": str(place / "config.yaml")},
            "photos": {"config": str(place / "photos.yaml"), "shown": False},
            "after photos": {"config": str(place / "config.yaml"), "start": "photos"},
            "cosine": {"config": str(place / "config.yaml"), "set": ["loss.name=cosine"]},
        },
    }
    (tmp_path / "methods.yaml").write_text(yaml.safe_dump(listed, sort_keys=False))
    command = ["methods", "methods", "--methods", tmp_path / "methods.yaml", "--out", place / "out", "--splits", "3"]
    assert call_tool("experiments.py", *command, "--only-report", monkeypatch=monkeypatch) == 1
    assert "1 cells are not finished and are missing from the above: cosine-split3" in capsys.readouterr().err
    values = {row["curve"]: row for row in rows(place / "out" / "methods.csv")}
    assert {curve: row["run"] for curve, row in values.items()} == {
        "ours": folder(place, "e2e").name, "after photos": folder(place, "pretrained").name,
    }  # fmt: skip
    own = json.loads((folder(place, "e2e") / "results.json").read_text())["tests"]["combinations"]["all_classes"]
    assert float(values["ours"]["top1"]) == pytest.approx(own["top1"], abs=1e-6)
    both = ["fig4", *command, "--config", ROOT / "configs" / "mgm_quickstart.yaml"]
    assert call_tool("experiments.py", *both, "--only-report", monkeypatch=monkeypatch) == 2
    assert "mgm_quickstart.yaml: a training of it names no test set (data.tests)" in capsys.readouterr().err


def test_a_plan_and_a_report_of_drawn_sets_draw_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    command = ["fig4", "--config", ROOT / "configs" / "claims.yaml", "--splits", "1", "--shares", "1", "--class-counts", "25",
               "--without", "joint", "--out", "out"]  # fmt: skip
    assert call_tool("experiments.py", *command, "--only-plan", monkeypatch=monkeypatch) == 0
    assert not list(tmp_path.iterdir())
    assert (
        re.search(r"e2e-split1 +200 +1600 +800 .* no ", out := capsys.readouterr().out) and "6 cells, 6 to run" in out
    )
    assert call_tool("experiments.py", *command, "--only-report", monkeypatch=monkeypatch) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert "fig4: nothing to show, no cell is finished" in capsys.readouterr().err


def test_what_is_named_twice_counts_once(place, monkeypatch):
    given = ["--splits", "3", "3", "--clusters", "1", "1", "2", "--shares", "1", "1", "--class-counts", "2", "2"]
    monkeypatch.setattr(sys, "argv", ["experiments.py", "fig5", "--config", str(place / "config.yaml"), *given])
    tool = runpy.run_path(str(ROOT / "tools" / "experiments.py"))
    setup = tool["_setup"](options.experiments(tool["__doc__"]))
    assert (setup.splits, setup.clusters, setup.shares, setup.class_counts) == ((3,), (1, 2), (1.0,), (2,))


def test_mistakes_are_one_line(place, monkeypatch, capsys):
    for extra, message in (
        (["fig9"], "no experiment 'fig9': there are fig2"),
        (["fig6", "--shares", "2"], "--shares are of the training videos"),
        (["methods"], "name it with --methods FILE"),
        (["fig4", "--splits", "-1"], "--splits has -1: they are seeds"),
        (["fig4", "--splits", "0", "4294967296"], "--splits has 4294967296: they are seeds, from 0 to 4,294,967,295"),
        (["fig6", "--images", "nowhere.parquet"], "no manifest at 'nowhere.parquet'"),
        (["fig4", "--rate", "nan"], "--rate is nan: snippets a second are more than 0"),
        (["fig4", "--workers", "-2"], "--workers is -2: it must be at least 1"),
        (["fig4", "--out", str(place / "config.yaml")], "--out: cannot write into"),
    ):
        assert call_tool("experiments.py", *extra, "--config", place / "config.yaml", monkeypatch=monkeypatch) == 2
        assert message in capsys.readouterr().err
    assert call_tool("experiments.py", "fig4", monkeypatch=monkeypatch) == 2
    assert "--config FILE" in capsys.readouterr().err
