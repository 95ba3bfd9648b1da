"""tools/index_moments.py as a user runs it: annotations and a manifest in, a table and a report out."""

import json
from pathlib import Path

import pytest
from index_moments import split_and_file

from engine.data.manifests.manifest import Manifest
from engine.moments.annotations import Annotations
from tests.small_run import call_tool


def run(monkeypatch, *words):
    return call_tool("index_moments.py", *words, monkeypatch=monkeypatch)


def test_annotations_become_a_table_beside_the_manifest(videos, tmp_path, monkeypatch, capsys):
    raw, _ = videos
    manifest = Manifest.load(raw)
    path, duration = manifest.table.column("path")[0].as_py(), manifest.table.column("frame_times")[0].as_py()[-1]
    assert duration == pytest.approx(manifest.table.column("duration")[0].as_py())
    stem = path.rpartition(".")[0]
    (tmp_path / "my_train.txt").write_text(
        f"{stem} 0.0 99##a person waves.\nabsent 0 1##a person waves\n{stem} 0 0.1##xqzw vvkj\n"
    )
    (tmp_path / "other.csv").write_text(f"video,start,end,query\n{path},0:00.1,0:00.4,somebody runs\n")
    out = tmp_path / "moments.parquet"
    words = ["--manifest", raw, "--out", out]
    assert run(monkeypatch, tmp_path / "my_train.txt", f"mine={tmp_path / 'other.csv'}", *words) == 0
    found = Annotations.load(out)
    assert (list(found.videos), list(found.queries)) == ([path, path], ["a person waves.", "somebody runs"])
    assert list(found.splits) == ["train", "mine"] and found.durations.tolist() == [duration] * 2
    assert found.windows[0].tolist() == [[0, duration]] and found.windows[1].tolist() == [[0.1, 0.4]]
    report = json.loads((tmp_path / "moments.parquet.report.json").read_text())
    assert report["counts"] == {"missing_video": 1, "no_known_word": 1, "ends_after_video": 1}
    assert [row["place"] for row in report["rows"]] == ["my_train.txt:1", "my_train.txt:2", "my_train.txt:3"]
    said = capsys.readouterr().out
    assert (
        f"videos of the manifest without a query: {len(manifest) - 1}\n" in said
        and "none of its words has a vector" in said
    )


def test_what_cannot_be_used_is_told_in_a_line(videos, tmp_path, monkeypatch, capsys):
    raw, _ = videos
    (tmp_path / "a.txt").write_text("absent 0 1##a person waves\n")
    for words, told in (
        ([tmp_path / "a.txt"], "--out is missing"),
        ([tmp_path / "b.txt", "--manifest", raw], "'"),
        ([tmp_path / "a.txt", "--manifest", raw, "--words", "glov"], "words 'glov' are not known here"),
        ([tmp_path / "a.txt", "--manifest", raw, "--words", "word2vec"], "words 'word2vec' need their file"),
        ([tmp_path / "a.txt", "--manifest", raw, "--words", "glove:gone"], "error: --words: no file at 'gone'"),
        ([tmp_path / "a.txt", "--manifest", raw, "--out", tmp_path / "t.parquet"], "no query of"),
    ):
        assert run(monkeypatch, *words) == 2
        assert told in capsys.readouterr().err
    assert not (tmp_path / "t.parquet").exists() and (tmp_path / "t.parquet.report.json").is_file()
    assert run(monkeypatch, tmp_path / "a.txt", "--out", tmp_path / "t.parquet") == 0  # no manifest: any video
    assert list(Annotations.load(tmp_path / "t.parquet").videos) == ["absent"]


def test_a_file_that_is_named_twice_counts_once_in_its_split(tmp_path, monkeypatch, capsys):
    file, out = tmp_path / "a.csv", tmp_path / "t.parquet"
    file.write_text("v,0,1,a person waves\n")
    (tmp_path / "link.csv").symlink_to(file)
    assert run(monkeypatch, file, tmp_path / "link.csv", f"other={file}", "--out", out) == 0
    assert list(Annotations.load(out).splits) == ["all", "other"]
    assert f"named more than once, counted once: {tmp_path / 'link.csv'}\n" in capsys.readouterr().out


def test_the_table_takes_the_place_of_no_file_that_is_read(videos, tmp_path, monkeypatch, capsys):
    raw, _ = videos
    own, manifest = tmp_path / "a.csv", tmp_path / "m.parquet"
    own.write_text("v,0,1,a person waves\n")
    manifest.write_bytes(raw.read_bytes())
    for words in ((f"x={own}", "--out", own), (own, "--manifest", manifest, "--out", tmp_path / "." / "m.parquet")):
        assert run(monkeypatch, *words) == 2
        assert "is a file that is read here, and the table would take its place" in capsys.readouterr().err
    assert own.read_text() == "v,0,1,a person waves\n" and manifest.read_bytes() == raw.read_bytes()


def test_a_folder_for_the_table_is_made_or_refused_before_anything_is_read(tmp_path, monkeypatch, capsys):
    (tmp_path / "a.txt").write_text("v 0 1##a person waves\n")
    out = tmp_path / "new" / "deep" / "t.parquet"
    assert run(monkeypatch, tmp_path / "a.txt", "--out", out) == 0
    assert len(Annotations.load(out)) == 1 and out.with_name("t.parquet.report.json").is_file()
    capsys.readouterr()
    assert run(monkeypatch, tmp_path / "absent.txt", "--out", tmp_path / "a.txt" / "t.parquet") == 2
    assert f"--out: cannot write into '{tmp_path / 'a.txt'}'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("charades_sta_train.txt", "train"), ("charades_sta_test.txt", "test"), ("val_1.json", "val_1"),
        ("activitynet_captions_val2.json", "val2"), ("tacos_val.json", "val"), ("highlight_train_release.jsonl", "train"),
        ("highlight_val_release.jsonl", "val"), ("Training.csv", "train"), ("mine-test2.csv", "test"),
        ("trainset.csv", "train"), ("test_split.csv", "test"),
        ("constrained_set.csv", "all"), ("contest.csv", "all"), ("intervals.csv", "all"),
    ],
)  # fmt: skip
def test_a_file_is_of_the_split_that_is_a_word_of_its_name(name, split):
    assert split_and_file(f"folder_train/{name}") == (split, Path(f"folder_train/{name}"))
