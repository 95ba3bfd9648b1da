"""Records: what a line says, what it must not say, and that lines are only added."""

import contextvars
import json
import re
import subprocess
import sys
import threading
from contextlib import contextmanager

import numpy as np
import pytest

from engine import records
from engine.errors import InputError
from engine.files.atomic_file import atomic_write
from engine.records import append_record, public_path, summarise


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Records go into tmp_path, of a program of this command line."""
    monkeypatch.setattr(sys, "orig_argv", ["python3", "tools/x.py", "--n", "3"])
    with records.recording_into(tmp_path):
        yield


def test_lines_are_added_and_complete(tmp_path):
    for value in (1.5, 2.5):
        path = append_record("decode", clips_per_second=value, n=1)
    assert path == tmp_path / "decode.jsonl"
    first, second = (json.loads(line) for line in path.read_text().splitlines())
    assert (first["clips_per_second"], second["clips_per_second"]) == (1.5, 2.5)
    assert first["command"] == "python tools/x.py --n 3"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", first["time"])
    assert {"python", "torch", "torchvision", "numpy", "av"} <= first["versions"].keys()
    assert first["device"]["cpu"]
    assert first["device"]["cores"] >= 1


def test_a_line_that_another_program_adds_meanwhile_stays(tmp_path, monkeypatch):
    growing = records.GrowingRecord("x")
    growing.write(rows=1)
    other = threading.Thread(target=contextvars.copy_context().run, args=(append_record, "x"), kwargs={"rows": "other"})

    @contextmanager
    def slow(path):
        other.start()
        other.join(0.5)  # had it not to wait, it would be done
        with atomic_write(path) as partial:
            yield partial

    monkeypatch.setattr(records, "atomic_write", slow)
    growing.write(rows=2)
    other.join()
    assert [json.loads(line)["rows"] for line in (tmp_path / "x.jsonl").read_text().splitlines()] == [2, "other"]


def test_the_commit_is_named():
    record = json.loads(append_record("x").read_text())
    if not (records.RECORDS.parents[1] / ".git").exists():
        assert (record["commit"], record["dirty"]) == (None, None)
    else:
        assert re.fullmatch(r"[0-9a-f]{40}", record["commit"])
        assert record["dirty"] in (True, False)


def test_the_commit_of_a_project_that_the_package_is_installed_in_is_not_taken_for_its_own(tmp_path, monkeypatch):
    packages = tmp_path / "project" / ".venv"
    (packages / "engine").mkdir(parents=True)
    (packages / "engine" / "records.py").touch()
    monkeypatch.setattr(records, "RECORDS", packages / "benchmarks" / "records")

    def git(*words):
        named = ("-c", "user.name=x", "-c", "user.email=x")
        subprocess.run(["git", *named, *words], cwd=tmp_path / "project", check=True, capture_output=True)

    git("init")
    git("commit", "--allow-empty", "-m", "a project")
    assert records.git_state() == {"commit": None, "dirty": None}
    git("add", ".")
    git("commit", "-m", "the package is a part of it")
    assert re.fullmatch(r"[0-9a-f]{40}", records.git_state()["commit"]) and records.git_state()["dirty"] is False


def test_no_path_of_this_machine_is_kept(monkeypatch):
    checkout = records.RECORDS.parents[1]
    words = {
        f"{checkout}/configs/a.yaml": "configs/a.yaml",
        f"data.train.0.manifest={checkout}/runs/m.parquet": "data.train.0.manifest=runs/m.parquet",
        f"{checkout.parent}/shared/data/videos": "../shared/data/videos",
        "/home/somebody/videos/a.mp4": "a.mp4",
        "--out=/tmp/x/y.parquet": "--out=y.parquet",
        "configs/a.yaml": "configs/a.yaml",
        "train.lr=1e-3": "train.lr=1e-3",
    }
    assert {word: public_path(word) for word in words} == words
    monkeypatch.setattr(sys, "orig_argv", ["python3", f"{checkout}/tools/x.py", "/home/somebody/videos"])
    line = append_record("x").read_text()
    assert json.loads(line)["command"] == "python tools/x.py videos"
    assert str(checkout.parent) not in line


def test_values_that_json_has_no_word_for_are_refused(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        append_record("x", loss=float("nan"))
    assert not (tmp_path / "x.jsonl").exists()
    with pytest.raises(InputError, match="cannot name a record"):
        append_record("../x")


def test_another_folder_and_no_field_of_the_records_own(tmp_path):
    with records.recording_into(tmp_path / "here"):
        assert append_record("x", n=1) == tmp_path / "here" / "x.jsonl"
        with pytest.raises(ValueError, match="device"):  # it would hide which machine it was
            append_record("x", device="cpu")
    assert append_record("x", n=1) == tmp_path / "x.jsonl"


def test_quantiles():
    samples = np.random.default_rng(0).normal(size=101)
    found = summarise(samples)
    ordered = np.sort(samples)
    assert found == {"n": 101, "p20": ordered[20], "p50": ordered[50], "p80": ordered[80]}
    assert summarise([3]) == {"n": 1, "p20": 3, "p50": 3, "p80": 3}
    with pytest.raises(ValueError, match="no samples"):
        summarise([])


def test_a_growing_record_is_one_line_that_is_there_from_its_first_write(tmp_path):
    append_record("x", n=0)
    record = records.GrowingRecord("x")
    assert len((tmp_path / "x.jsonl").read_text().splitlines()) == 1
    record.write(n=1)
    append_record("x", n=9)
    record.write(n=2, results=[1, 2])
    lines = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    assert [line["n"] for line in lines] == [0, 2, 9] and lines[1]["results"] == [1, 2]
    assert [path.name for path in tmp_path.iterdir()] == ["x.jsonl"]
    (tmp_path / "x.jsonl").write_text("")
    with pytest.raises(InputError, match="changed by another program"):
        record.write(n=3)
