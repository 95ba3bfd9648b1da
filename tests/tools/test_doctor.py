"""The doctor's page: what it says of this machine, and that a blocker is one."""

import json
from pathlib import Path

import pytest

from engine import diagnosis
from engine.data.indexing.dataset import index_folder
from engine.data.manifests.manifest import Manifest
from engine.data.store.index import StoreSettings
from engine.data.store.ingest import WorkSettings, ingest
from tests.data.videos import write_copies
from tests.rows import row
from tests.small_run import call_tool


def manifest(tmp_path, *, present):
    (tmp_path / "here.mp4").write_bytes(b"x" * 999)
    names = ["here.mp4", "gone.mp4"] if present else ["gone.mp4"]
    Manifest.from_rows([row(name, "walk") for name in names], tmp_path).save(tmp_path / "m.parquet")
    return tmp_path / "m.parquet"


def test_a_working_machine_with_some_videos_missing(tmp_path, monkeypatch, capsys):
    status = call_tool(
        "doctor.py", "--runs", tmp_path, "--data", manifest(tmp_path, present=True), "--json", monkeypatch=monkeypatch
    )
    page = json.loads(capsys.readouterr().out)
    found = {finding["name"]: finding for finding in page["findings"]}
    assert status == 0
    assert {
        "GPU",
        "NVDEC",
        "DALI",
        "Triton",
        "compiler",
        "video",
        "shared memory",
        "word vectors",
        "disk",
    } <= found.keys()
    assert found["video"]["state"] == found["word vectors"]["state"] == "ok"
    assert "1 of 2 looked at are as indexed, not" in found[f"data {tmp_path / 'm.parquet'}"]["text"]
    assert found[f"data {tmp_path / 'm.parquet'}"]["state"] == "warning"
    assert all(finding["mend"] for finding in page["findings"] if finding["state"] != "ok")


def test_changed_videos_and_those_of_a_store(tmp_path):
    root = write_copies(tmp_path / "set", {"walk": 9, "run": 9}, 2)
    index_folder(root, root / "m.parquet")
    ingest(Manifest.load(root / "m.parquet"), tmp_path / "store", StoreSettings(preset="ultrafast"), WorkSettings())
    video = root / "walk" / "001.mp4"
    video.write_bytes(video.read_bytes()[:-1] + b"!")
    finding = diagnosis.check_data(root / "m.parquet")
    assert finding.state == "warning"
    assert f"not '{video}'" in finding.text
    assert diagnosis.check_data(tmp_path / "store" / "manifest.parquet").state == "ok"
    (tmp_path / "store" / "store.index").unlink()
    assert diagnosis.check_data(tmp_path / "store" / "manifest.parquet").state == "blocker"


def test_blockers_end_with_status_1_and_their_mend(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(diagnosis, "diagnose", lambda *_: [
        diagnosis.check_data(manifest(tmp_path, present=False)), diagnosis.check_data(tmp_path / "none.parquet"),
    ])  # fmt: skip
    assert call_tool("doctor.py", monkeypatch=monkeypatch) == 1
    printed = capsys.readouterr().out
    assert "0 of 1 looked at are as indexed" in printed
    assert "give the source a root" in printed
    assert "no manifest at" in printed


def test_a_disk_that_cannot_be_written_is_a_blocker(tmp_path):
    (tmp_path / "file").write_text("")
    finding = diagnosis.check_disk(tmp_path / "file" / "runs")
    assert finding.state == "blocker"
    assert diagnosis.check_disk(Path(tmp_path)).text.startswith(f"'{tmp_path}': ")


def test_runs_in_object_storage_are_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert call_tool("doctor.py", "--runs", "s3://bucket/runs", monkeypatch=monkeypatch) == 2
    assert "--runs: 's3://bucket/runs' is in object storage" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_compiler_that_fails_is_told(monkeypatch):
    monkeypatch.setenv("CXX", "/bin/false")
    assert diagnosis.check_compiler().state == "warning"
    monkeypatch.setenv("CXX", "/nowhere/g++")
    assert "does not run" in diagnosis.check_compiler().text
    monkeypatch.setenv("CXX", "")
    monkeypatch.setenv("PATH", "")
    assert "none found" in diagnosis.check_compiler().text


@pytest.mark.gpu
def test_a_gpu_is_found():
    assert diagnosis.check_gpu().state == "ok"
