"""tools/ingest.py as a user runs it, and as a machine that fails runs it: killed in the middle, and again."""

import json
import signal

import numpy as np
import pytest

from engine.data.manifests.manifest import Manifest
from engine.data.store.index import StoreIndex
from engine.data.store.reader import StoreReader
from tests.data.videos import write_copies
from tests.small_run import call_tool, kill_when, run_tool, start_tool

NUM_VIDEOS = 40
LENGTHS = [30, 45, 60, 75]
FAST = ("--preset", "ultrafast", "--short-side", 64, "--shard-mb", 1)
MOTION = (*FAST, "--motion")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Four classes; every video is long enough that a kill finds some of them in hand."""
    frames_of_class = dict(zip(("surfing", "archery", "diving", "juggling"), LENGTHS, strict=True))
    return write_copies(tmp_path_factory.mktemp("videos") / "set", frames_of_class, NUM_VIDEOS // 4)


@pytest.fixture(scope="module")
def manifest(folder):
    path = folder.parent / "raw.parquet"
    assert run_tool("index_dataset.py", folder, "--out", path).returncode == 0
    return path


def stored_videos(store):
    """Path -> the bytes of its video, and that no byte of a shard belongs to none or to two."""
    index, manifest = StoreIndex(store / "store.index"), Manifest.load(store / "manifest.parquet")
    paths = [path.removeprefix("store.index/").rpartition("#")[0] for path in manifest.table.column("path").to_pylist()]
    assert len(set(paths)) == len(paths) == len(index)
    entries = [index[number] for number in range(len(index))]
    sizes = {file.name: file.stat().st_size for file in store.glob("*.h264")}
    used = {name: sum(e.num_bytes for e in entries if f"{e.shard:05d}.h264" == name) for name in sizes}
    assert used == sizes
    reader = StoreReader(index)
    return {path: reader.read(e, 0, len(e.group_end) - 1) for path, e in zip(paths, entries, strict=True)}


def stored_motion(store):
    """Path -> the motion of its video, and that no byte of it belongs to none or to two."""
    index, manifest = StoreIndex(store / "store.index"), Manifest.load(store / "manifest.parquet")
    paths = [path.removeprefix("store.index/").rpartition("#")[0] for path in manifest.paths]
    reader, entries = StoreReader(index), [index[number] for number in range(len(index))]
    motion = [reader.read_motion(entry, 0, entry.num_frames - 1).tobytes() for entry in entries]
    assert sum(map(len, motion)) == (store / "store.motion").stat().st_size
    assert len({entry.motion_offset for entry in entries}) == len(entries)
    return dict(zip(paths, motion, strict=True))


def test_killed_twice_and_resumed_nothing_is_lost_or_doubled(folder, manifest, tmp_path, monkeypatch, capsys):
    whole, out = tmp_path / "whole", tmp_path / "killed"
    assert call_tool("ingest.py", manifest, "--out", whole, *MOTION, "--workers", 1, monkeypatch=monkeypatch) == 0
    journal = out / "journal.jsonl"
    for num_lines in (8, 20):
        process = start_tool("ingest.py", manifest, "--out", out, *MOTION, "--workers", 2)
        kill_when(journal, num_lines, process)
        assert process.returncode == -signal.SIGKILL
        assert not (out / "manifest.parquet").exists()
    # What a kill between the bytes and the line, and one within the line, leave behind.
    known = journal.read_text().count('"video"')
    assert 16 <= known < NUM_VIDEOS
    with sorted(out.glob("*.h264"))[-1].open("ab") as shard:
        shard.write(b"torn" * 100)
    with (out / "store.motion").open("ab") as motion:
        motion.write(b"torn" * 10)
    with journal.open("a") as file:
        file.write('{"path": "surfing/00')
    resumed = run_tool("ingest.py", manifest, "--out", out, *MOTION, "--workers", 2)
    assert resumed.returncode == 0, resumed.stderr
    said = [line for line in resumed.stderr.splitlines() if "are in the store and unchanged" in line]
    assert known - 2 <= int(said[0].split()[0]) <= known  # the kill may have torn the last line
    assert stored_videos(out) == stored_videos(whole)
    assert len(stored_videos(out)) == NUM_VIDEOS
    motion = stored_motion(out)
    assert motion == stored_motion(whole) and all(any(of_video) for of_video in motion.values())
    assert (out / "manifest.parquet").read_bytes() == (whole / "manifest.parquet").read_bytes()
    reports = [json.loads((store / "report.json").read_text()) for store in (out, whole)]
    assert {**reports[0], "num_shards": 0} == {**reports[1], "num_shards": 0}
    assert f"verified: all {NUM_VIDEOS} byte ranges" in resumed.stdout


def test_a_folder_is_indexed_first_and_one_bad_file_stops_nothing(folder, tmp_path, monkeypatch, capsys):
    root = tmp_path / "set"
    (root / "diving").mkdir(parents=True)
    (root / "diving" / "a.mp4").write_bytes((folder / "diving" / "000.mp4").read_bytes())
    (root / "diving" / "b.mp4").write_text("<html>404</html>")
    assert call_tool("ingest.py", root, "--out", tmp_path / "s", *FAST, "--workers", 1, monkeypatch=monkeypatch) == 0
    text = capsys.readouterr().out
    assert "layout folder" in text
    table = {line.split()[0]: line.split()[1] for line in text.splitlines() if line.startswith("  ")}
    assert (table["videos"], table["frames"]) == ("1", "60")
    assert np.array_equal(Manifest.load(tmp_path / "s" / "manifest.parquet").num_frames, [60])
    assert call_tool("ingest.py", "--verify", tmp_path / "s", monkeypatch=monkeypatch) == 0
    (shard,) = (tmp_path / "s").glob("*.h264")
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    capsys.readouterr()
    assert call_tool("ingest.py", "--verify", tmp_path / "s", monkeypatch=monkeypatch) == 2
    assert "its bytes are not those that were written" in capsys.readouterr().err


def test_hevc_is_chosen_by_name(folder, tmp_path, monkeypatch, capsys):
    (tmp_path / "set" / "diving").mkdir(parents=True)
    (tmp_path / "set" / "diving" / "a.mp4").write_bytes((folder / "diving" / "000.mp4").read_bytes())
    arguments = (tmp_path / "set", "--out", tmp_path / "s", *FAST, "--workers", 1)
    assert call_tool("ingest.py", *arguments, "--codec", "hevc", monkeypatch=monkeypatch) == 0
    assert "verified: all 1 byte ranges; checksums and frames of 1 videos" in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "s").glob("0*")] == ["00000.hevc"]
    assert Manifest.load(tmp_path / "s" / "manifest.parquet").strings("codec") == ["hevc"]
    assert call_tool("ingest.py", *arguments, monkeypatch=monkeypatch) == 2
    assert "was begun with codec hevc (now h264)" in capsys.readouterr().err


def test_wrong_input_is_one_line(folder, manifest, tmp_path, monkeypatch, capsys):
    out = ("--out", tmp_path / "s")
    for arguments, message in [
        ((), "give SOURCE and --out STORE"),
        ((manifest, "--verify", tmp_path), "stands alone"),
        ((tmp_path / "absent.parquet", *out), "no manifest at"),
        ((folder, "--out", folder / "store"), "whose folders name the classes, and its shards be videos of one"),
        ((folder, "--out", folder), "name an --out outside"),
        ((manifest, *out, "--short-side", 127), "need an even number"),
        ((manifest, *out, "--gop", 0), "--gop is 0"),
        ((manifest, *out, "--fps", "nan"), "--fps is nan"),
        ((manifest, *out, "--workers", 0), "--workers is 0"),
        (("--verify", tmp_path / "s"), "no snippet store at"),
    ]:
        assert call_tool("ingest.py", *arguments, monkeypatch=monkeypatch) == 2, arguments
        error = capsys.readouterr().err.strip()
        assert error.startswith("error: ")
        assert message in error
        assert "\n" not in error


def test_help_reads_like_documentation(monkeypatch, capsys):
    assert call_tool("ingest.py", "--help", monkeypatch=monkeypatch) == 0
    text = capsys.readouterr().out
    for word in (
        "--short-side",
        "--gop",
        "--fps",
        "--crf",
        "--b-frames",
        "--codec",
        "--verify",
        "kill -9",
        "report.json",
    ):
        assert word in text
