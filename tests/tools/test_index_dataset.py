"""tools/index_dataset.py as a user runs it, and as a machine that fails runs it: killed in the middle, and again."""

import json

import pytest

from engine.data.manifests.manifest import Manifest
from engine.data.pyav.encode import write_video
from tests.data.videos import numbered_frame
from tests.small_run import call_tool, kill_when, run_tool, start_tool

NUM_VIDEOS = 160


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Four classes of real videos; the many files are few videos under many names."""
    root = tmp_path_factory.mktemp("videos") / "set"
    for name, count in (("surfing", 30), ("archery", 45), ("diving", 60), ("juggling", 75)):
        (root / name).mkdir(parents=True)
        write_video(root / name / "000.mp4", (numbered_frame(number, 96, 64) for number in range(count)), gop=10)
        content = (root / name / "000.mp4").read_bytes()
        for number in range(1, NUM_VIDEOS // 4):
            (root / name / f"{number:03d}.mp4").write_bytes(content)
    (root / "surfing" / "900.mp4").touch()
    (root / "archery" / "900.mp4").write_text("<html>404</html>")
    return root


def test_killed_and_resumed_is_as_if_nothing_had_happened(folder, tmp_path, monkeypatch):
    whole, out = tmp_path / "whole.parquet", tmp_path / "killed.parquet"
    assert call_tool("index_dataset.py", folder, "--out", whole, "--workers", 2, monkeypatch=monkeypatch) == 0
    process = start_tool("index_dataset.py", folder, "--out", out, "--workers", 2)
    kill_when(tmp_path / "killed.parquet.journal", 20, process)
    assert not out.exists()
    known = (tmp_path / "killed.parquet.journal").read_text().count('"path"')
    assert 15 < known < NUM_VIDEOS
    resumed = run_tool("index_dataset.py", folder, "--out", out, "--workers", 2)
    assert resumed.returncode == 0, resumed.stderr
    said = [line for line in resumed.stderr.splitlines() if "known and unchanged" in line]
    assert len(said) == 1
    assert known - 2 <= int(said[0].split()[0]) <= known  # the last line may have been torn
    assert out.read_bytes() == whole.read_bytes()
    reports = [path.with_name(path.name + ".report.json").read_text() for path in (out, whole)]
    assert reports[0] == reports[1]
    assert len(Manifest.load(out)) == NUM_VIDEOS


def test_it_says_what_came_of_it(folder, monkeypatch, capsys):
    assert (
        call_tool(
            "index_dataset.py", folder, "--workers", 1, "--out", folder.parent / "m.parquet", monkeypatch=monkeypatch
        )
        == 0
    )
    text = capsys.readouterr().out
    table = {line.split()[0]: line.split()[1] for line in text.splitlines() if line.startswith("  ")}
    assert table["videos"] == str(NUM_VIDEOS)
    assert table["classes"] == "4"
    assert table["frames"] == f"{(30 + 45 + 60 + 75) * NUM_VIDEOS // 4:,}"
    assert (table["empty"], table["unreadable"]) == ("1", "1")
    assert "layout folder" in text
    bad = json.loads((folder.parent / "m.parquet.report.json").read_text())["files"]
    assert sorted(item["path"] for item in bad) == ["archery/900.mp4", "surfing/900.mp4"]


def test_wrong_input_is_one_line(folder, tmp_path, monkeypatch, capsys):
    for arguments, message in [
        ((tmp_path / "absent",), "is not a folder"),
        ((folder, "--workers", 0), "--workers is 0"),
        ((folder, "--time-limit", "nan"), "--time-limit is nan"),
        ((folder, "--layout", "ucf"), "unknown layout 'ucf'"),
        ((folder, "--split-number", 1), "no numbered splits"),
        ((folder, "--annotations", tmp_path / "absent.csv"), "no annotations"),
        ((folder, "--splits", "fold1,fold2"), "--splits names 'fold1'"),
        ((folder, "--class-names", tmp_path / "absent.txt"), "no class names at"),
    ]:
        assert call_tool("index_dataset.py", *arguments, monkeypatch=monkeypatch) == 2
        error = capsys.readouterr().err.strip()
        assert error.startswith("error: ")
        assert message in error
        assert "\n" not in error
    assert not (folder / "manifest.parquet").exists()


def test_help_reads_like_documentation(monkeypatch, capsys):
    assert call_tool("index_dataset.py", "--help", monkeypatch=monkeypatch) == 0
    text = capsys.readouterr().out
    for word in (
        "ucf101",
        "hmdb51",
        "kinetics",
        "activitynet",
        "something",
        "csv",
        "folder",
        "--split-number",
        "--annotations",
        "--splits",
        "--class-names",
    ):
        assert word in text
