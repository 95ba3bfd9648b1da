"""tools/class_overlap.py as a user calls it."""

import csv

import numpy as np
from PIL import Image

from engine.data.manifests.manifest import Manifest
from tests.rows import row
from tests.small_run import call_tool


def test_lists_manifests_and_pretrained_weights(tmp_path, monkeypatch, capsys):
    (tmp_path / "mine.txt").write_text("walking the dog\nplaying violin\n")
    Manifest.from_rows([row("a.mp4", "cooking"), row("b.mp4", "archery")], tmp_path).save(tmp_path / "set.parquet")
    (tmp_path / "ucf.txt").write_text("WalkingWithDog\nPlayingCello\nArchery\n")
    (tmp_path / "hmdb.txt").write_text("kiss\nTaiChi\n")
    status = call_tool(
        "class_overlap.py", "--train", tmp_path / "mine.txt", "--train", tmp_path / "set.parquet", "--train", "kinetics400",
        "--test", f"UCF={tmp_path / 'ucf.txt'}", "--test", tmp_path / "hmdb.txt", "--tau", "0.01", "--out", tmp_path / "out",
        monkeypatch=monkeypatch,
    )  # fmt: skip
    printed = capsys.readouterr().out
    assert status == 0
    # walking the dog and archery of mine and of Kinetics, playing cello and kissing of Kinetics
    assert (
        "397 of 404 training classes are left: 6 lie within 0.01 of a test class, 1 more have the name of one"
        in printed
    )
    with (tmp_path / "out" / "class_overlap.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 404
    near = {(r["training_class"], r["training_set"]): r for r in rows if r["overlaps"] == "1"}
    assert set(near) == {
        ("walking the dog", "mine"), ("archery", "set"), ("walking the dog", "kinetics400"), ("archery", "kinetics400"),
        ("playing cello", "kinetics400"), ("kissing", "kinetics400"), ("tai chi", "kinetics400"),
    }  # fmt: skip
    assert near["kissing", "kinetics400"]["test_set"] == "hmdb"
    assert near["archery", "set"]["test_set"] == "UCF"
    assert near["tai chi", "kinetics400"]["nearest_test_class"] == "TaiChi"
    assert float(near["tai chi", "kinetics400"]["distance"]) > 0.5  # GloVe has a word "taichi"
    picture = np.asarray(Image.open(tmp_path / "out" / "class_overlap.png").convert("RGB")).astype(int)
    reds = (np.abs(picture - [255, 0, 0]).max(axis=2) < 30).sum(axis=0)
    assert reds.max() > 0.8 * picture.shape[0]  # the line at tau, from top to bottom


def test_words_without_a_vector_are_named_on_either_side(tmp_path, monkeypatch, capsys):
    (tmp_path / "train.txt").write_text("zorbing\nwalking\n")
    (tmp_path / "test.txt").write_text("qwertzing\nZorbing\n")
    status = call_tool(
        "class_overlap.py", "--train", tmp_path / "train.txt", "--test", tmp_path / "test.txt", "--missing", "random",
        "--out", tmp_path / "out", monkeypatch=monkeypatch,
    )  # fmt: skip
    printed = capsys.readouterr().out
    assert status == 0
    assert "qwertzing" in printed.split("random vectors for")[1].splitlines()[0]
    assert "1 of 2 training classes are left: 1 lie" in printed  # the same name, though no word of it is known


def test_mistakes_are_one_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "odd.txt").write_text("qwertzing\n")
    common = ("--test", tmp_path / "odd.txt", "--out", tmp_path / "out")
    assert call_tool("class_overlap.py", "--train", tmp_path / "no.txt", *common, monkeypatch=monkeypatch) == 2
    assert "cannot be read" in capsys.readouterr().err
    assert call_tool("class_overlap.py", "--train", "kinetics400", *common, monkeypatch=monkeypatch) == 2
    assert "qwertzing" in capsys.readouterr().err
    assert (
        call_tool("class_overlap.py", "--train", "kinetics400", *common, "--missing", "random", monkeypatch=monkeypatch)
        == 0
    )


def test_sets_of_one_name_are_refused(tmp_path, monkeypatch, capsys):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.txt").write_text("cooking\narchery\n")
    one, other = (tmp_path / folder / "mine.txt" for folder in ("a", "b"))
    for sets, told in (
        (
            ("--train", f"X={one}", "--train", f"X={other}", "--test", one),
            "error: --train: several sets are called 'X': give",
        ),
        (("--train", one, "--test", one, "--test", other), "error: --test: several sets are called 'mine': give"),
        (("--train", one, "--test", one, "--test", one), "error: --test: several sets are called 'mine': give"),
    ):
        status = call_tool("class_overlap.py", "--report", *sets, "--out", tmp_path / "out", monkeypatch=monkeypatch)
        assert status == 2 and capsys.readouterr().err.startswith(told)
    named = ("--train", one, "--test", f"one={one}", "--test", other)
    assert call_tool("class_overlap.py", *named, "--out", tmp_path / "out", monkeypatch=monkeypatch) == 0
