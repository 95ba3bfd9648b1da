"""tools/fit_head.py as a user runs it, over features as tools/extract_features.py leaves them."""

import re
from pathlib import Path

import fit_head
import numpy as np
import pytest
import torch

from engine.data.manifests.manifest import Manifest
from engine.errors import InputError
from engine.features.cache import INDEX_NAME, CachedVideo, FailedVideo, Stamp, read_index, write_index
from engine.features.encoder import encoder_of
from engine.features.files import identities, videos_digest
from engine.features.windows import WindowGrid
from engine.files.json_lines import read_json_lines
from engine.heads.catalogue import HEADS, OBJECT_HEADS
from engine.heads.splits import TRAINED
from engine.records import recording_into
from engine.semantics.classes import build_class_embeddings
from engine.semantics.config import WordsConfig, WordSourceConfig
from engine.tasks.zero_shot.trained import load_for_inference
from tests.rows import row
from tests.small_run import call_tool, write_run

NAMES = ("archery", "surfing", "skydiving", "swing", "juggling", "typing")


@pytest.fixture
def folder(tmp_path) -> Path:
    """m.parquet of four videos of each class and one that could not be read; features/ of two windows each."""
    rows = [row(f"{name}/{i}.mp4", name, content_hash=100 * n + i) for n, name in enumerate(NAMES) for i in range(4)]
    manifest = Manifest.from_rows([*rows, row("archery/bad.mp4", "archery", content_hash=9)], Path("/v"))
    manifest.save(tmp_path / "m.parquet")
    found = [path for path in manifest.strings("path") if "bad" not in path]
    files = identities(manifest)
    videos = [CachedVideo(path, 2 * i, 2, 1.0, files[path][0], None, *files[path][1:]) for i, path in enumerate(found)]
    (tmp_path / "features").mkdir()
    features = np.random.default_rng(0).standard_normal((2 * len(found), 6)).astype(np.float16)
    np.save(tmp_path / "features" / "features-1.npy", features)
    np.save(tmp_path / "features" / "spans-1.npy", np.tile([[0.0, 0.5], [0.5, 1.0]], (len(found), 1)))
    stamp = Stamp("drawn", "0" * 32, 6, False, WindowGrid(4, 2), "float16")
    notes = {"root": "/v", "generation": 1, "videos_digest": videos_digest(files)}
    write_index(tmp_path / "features" / INDEX_NAME, stamp, videos, {"archery/bad.mp4": FailedVideo("cut off")}, notes)
    return tmp_path


def restamp(folder: Path, stamp: Stamp) -> None:
    """As if another network had made them."""
    _, videos, failures, notes = read_index(folder / "features")
    del notes["stamp"]
    write_index(folder / "features" / INDEX_NAME, stamp, list(videos.values()), failures, notes)


def test_a_table_and_a_record(folder, monkeypatch, capsys):
    options = ["--num-train", 4, "--splits", 2, "--record", "--heads", "ridge", "linear"]
    with recording_into(folder):
        status = call_tool("fit_head.py", folder / "features", folder / "m.parquet", *options, monkeypatch=monkeypatch)
    out = capsys.readouterr().out
    assert status == 0 and "24 of 25 videos, features of drawn, windows of 4 frames every 2" in out
    assert [line.split()[0] for line in out.splitlines() if "±" in line] == ["ridge", "linear"] * 2
    assert '"heads"' not in out and (folder / "heads.jsonl").read_text().count('"mean_class_sd"') == 4
    (record,) = read_json_lines(folder / "heads.jsonl")
    assert record["n"] == 2 and len(record["measured"]) == 8


def test_named_together_too_and_where_classes_are_missing(folder, monkeypatch, capsys):
    options = ["--num-train", 4, "--splits", 2, "--heads", "ridge", "--transductive", "--record"]
    for occurring in ([], ["--occurring", 1]):
        with recording_into(folder / f"occurring{len(occurring)}"):
            call = folder / "features", folder / "m.parquet", *options, *occurring
            assert call_tool("fit_head.py", *call, monkeypatch=monkeypatch) == 0
    rows = [line.split("  ")[0] for line in capsys.readouterr().out.splitlines() if "±" in line]
    assert rows == ["ridge", "ridge, transductive"] * 4
    (whole,) = read_json_lines(folder / "occurring0" / "heads.jsonl")
    (some,) = read_json_lines(folder / "occurring2" / "heads.jsonl")
    assert "occurring" not in whole and some["occurring"] == 1
    assert {each["largest"] for each in some["measured"]} == {1.0} and {
        each["chance"] for each in some["measured"]
    } == {0.5}
    assert call_tool("fit_head.py", *call[:2], *options, "--occurring", 0, monkeypatch=monkeypatch) == 2


def test_heads_that_features_serve():
    assert fit_head.chosen_heads([], "installed") == [*HEADS, *OBJECT_HEADS]
    assert fit_head.chosen_heads([], "installed:lite2") == [*HEADS, *OBJECT_HEADS]
    assert fit_head.chosen_heads([], "k664/best.pt") == list(HEADS)
    assert fit_head.chosen_heads(["tarn", "linear", "tarn"], "installed") == ["tarn", "linear"]
    assert fit_head.chosen_heads([], "k664/best.pt", True) == [*HEADS, TRAINED]
    ready = WordsConfig(also=WordSourceConfig(source="npz", path="v.npz"))  # of whole classes alone
    assert fit_head.chosen_heads([], "k664/best.pt", True, ready) == [
        *(name for name in HEADS if name != "tarn"),
        TRAINED,
    ]
    with pytest.raises(InputError, match="--heads tarn reads the words of a class one by one, and ready vectors"):
        fit_head.chosen_heads(["linear", "tarn"], "k664/best.pt", True, ready)


@pytest.mark.parametrize(("linear", "dim"), [(True, 12), (False, 32)])
def test_the_layer_of_a_run_over_its_own_features(linear, dim, folder, monkeypatch, capsys):
    """It names the videos as the run does; features of another network are refused, and what it was trained on is named."""
    model = {"backbone": "r3d_18", "width": 4, "linear": linear}
    config = write_run(folder / "run", words={"source": "random", "dim": dim}, embed_dim=dim, model=model)
    run = load_for_inference(folder / "run", torch.device("cpu"))
    digest, width = encoder_of(run, torch.device("cpu")).digest, run.model.backbone.feature_dim
    features = np.random.default_rng(1).standard_normal((48, width)).astype(np.float16)
    np.save(folder / "features" / "features-1.npy", features)
    command = ["fit_head.py", folder / "features", folder / "m.parquet", "--num-train", 4, "--splits", 1, "--heads", "trained",
               "linear", "--record", "--run", folder / "run"]  # fmt: skip
    assert call_tool(*command, monkeypatch=monkeypatch) == 2
    assert "are of the model drawn, digest 000000000000, not of" in capsys.readouterr().err
    restamp(folder, Stamp("run", digest, width, False, WindowGrid(4, 2), "float16"))
    rows = [row(f"{name}/{i}.mp4", name, content_hash=100 * n + i) for n, name in enumerate(NAMES) for i in range(4)]
    with recording_into(folder):
        assert call_tool(*command, monkeypatch=monkeypatch) == 0
    assert ("trained: the run has no last layer (model.linear: false)" in capsys.readouterr().err) is not linear
    (record,) = read_json_lines(folder / "heads.jsonl")
    unseen = [sorted(NAMES)[i] for i in np.random.RandomState(0).permutation(6)[4:]]
    with torch.inference_mode():
        points = run.model.project(torch.from_numpy(features).float().unflatten(0, (24, 2)).mean(dim=1))
    vectors = build_class_embeddings(unseen, config.words).vectors
    asked = [index for index, each in enumerate(rows) if each["class_name"] in unseen]
    named = [unseen[index] for index in (points[asked] @ vectors.T).argmax(dim=1).tolist()]
    right = np.mean([name == rows[index]["class_name"] for name, index in zip(named, asked, strict=True)])
    assert record["measured"][0]["head"] == "trained" and record["measured"][0]["top1"] == right
    assert {each["words"] for each in record["measured"]} == {"words", "random words"}


def test_further_videos_and_classes_that_are_always_seen(folder, monkeypatch, capsys):
    (folder / "seen.txt").write_text("typing\njuggling\n")
    also = ["--also", folder / "features", folder / "m.parquet"]
    options = [
        "--num-train",
        2,
        "--splits",
        1,
        "--heads",
        "linear",
        "ridge",
        "--always-seen",
        folder / "seen.txt",
        *also,
    ]
    command = ["fit_head.py", folder / "features", folder / "m.parquet", *options, "--record"]
    with recording_into(folder):
        assert call_tool(*command, monkeypatch=monkeypatch) == 0
    (record,) = read_json_lines(folder / "heads.jsonl")
    assert (record["classes"], record["also_videos"], record["tau"]) == (4, [8, 24], 0.05)
    # the same four by name on both sides; the unseen classes are in --also too, and left out
    assert [row["seen"] for row in record["accuracy"]] == [4] * 4
    assert {row["mean_class_sd"] for row in record["accuracy"]} == {None}  # of one split no spread, and none is shown
    cells = [
        re.split(" {2,}", line)
        for line in capsys.readouterr().out.splitlines()
        if line.startswith(("linear ", "ridge "))
    ]
    assert all(re.fullmatch(r"\d\.\d{3}", row[column]) for row in cells for column in (3, 6))
    assert [row[4] for row in cells][::2] == ["-"] * 2 and all("one pair" in row[4] for row in cells[1::2])
    (folder / "seen.txt").write_text("typing\nflying\n")
    assert call_tool(*command, monkeypatch=monkeypatch) == 2
    assert "has no class 'flying'" in capsys.readouterr().err


def test_a_curve_with_its_picture(folder, monkeypatch, capsys):
    """Of two sets split together, one name one class; classes of a file are told apart too."""
    (folder / "hands.txt").write_text("typing\njuggling\nknitting\n")
    rows = [row(f"{name}/{i}.mp4", name, content_hash=100 * n + i) for n, name in enumerate(NAMES) for i in range(4)]
    rows = [each | {"class_name": "knitting"} if each["class_name"] == "surfing" else each for each in rows]
    Manifest.from_rows(rows, Path("/v")).save(folder / "other.parquet")
    joined = ["--joined", folder / "features", folder / "other.parquet", "--apart", folder / "hands.txt"]
    counts = ["--class-counts", 3, 2, 2, "--figure", folder / "curves.png"]
    command = ["fit_head.py", folder / "features", folder / "m.parquet", "--num-train", 5, "--splits", 4, "--heads", "linear",
               *joined, *counts, "--record"]  # fmt: skip
    with recording_into(folder):
        assert call_tool(*command, monkeypatch=monkeypatch) == 0
    out, err = capsys.readouterr()
    (record,) = read_json_lines(folder / "heads.jsonl")
    left_out = {each["split"]: each["left_out"] for each in record["measured"]}
    assert set(left_out.values()) == {0, 4}  # the four of surfing are those of knitting
    assert (
        err.count(f"warning: {sum(left_out.values())} videos to learn from, over 4 splits, show what one of an unseen")
        == 1
    )
    assert (record["classes"], record["videos"], record["class_counts"], record["tau"]) == (7, 48, [2, 3], 0.05)
    assert {(each["count"], each["seen"]) for each in record["measured"]} == {(2, 2), (3, 3)}
    assert {each["of"] for each in record["measured"]} == {"all", "hands", "not hands"}
    assert (folder / "curves.png").read_bytes()[:4] == b"\x89PNG" and "written:" in out and "not hands" in out
    (folder / "hands.txt").write_text("typing\nflying\n")
    assert call_tool(*command, monkeypatch=monkeypatch) == 2
    assert "no class is called 'flying'" in capsys.readouterr().err
    (folder / "all.txt").write_text("typing\n")
    assert call_tool(*command, "--apart", folder / "all.txt", monkeypatch=monkeypatch) == 2
    assert "rows called 'all' are those of all unseen classes" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--num-train", 6], "none would be unseen"),
        (
            ["--num-train", 5],
            "5 of 6 classes as training classes can measure nothing: with one unseen class every answer is right",
        ),
        (["--num-train", 3, "--heads", "ridge"], "at least 4 are needed"),
        (["--num-train", 0], "at least 1"),
        (["--num-train", 4, "--class-counts", 2, 0], "--class-counts are at least 1"),
        (["--num-train", 4, "--class-counts", 5], "4 seen classes without those that overlap: 5 are asked for"),
        (["--num-train", 4, "--figure", "a.png"], "--figure shows accuracy over --class-counts"),
        (["--num-train", 4, "--heads", "lstm"], "invalid choice: 'lstm'"),
        (["--num-train", 4, "--heads", "trained"], "the run whose features these are: name it with --run"),
        (["--num-train", 4, "--run", "r", "--definitions", "d.json"], "--definitions does not go with --run"),
        (["--num-train", 4, "--run", "r"], "no checkpoint"),
        (
            ["--num-train", 4, "--heads", "ridge", "objects"],
            "objects needs features of --model installed, and these are of drawn",
        ),
    ],
)
def test_mistakes(folder, options, message, monkeypatch, capsys):
    command = ["fit_head.py", folder / "features", folder / "m.parquet", *options]
    assert call_tool(*command, monkeypatch=monkeypatch) == 2
    assert message in capsys.readouterr().err


def test_features_of_other_videos_are_refused(folder, monkeypatch, capsys):
    Manifest.from_rows([row("new.mp4", "typing", content_hash=5)], Path("/v")).save(folder / "m.parquet")
    command = ["fit_head.py", folder / "features", folder / "m.parquet", "--num-train", 1]
    assert call_tool(*command, monkeypatch=monkeypatch) == 2
    assert "are not among them" in capsys.readouterr().err


def test_more_classes_than_there_are_cannot_occur(folder, monkeypatch, capsys):
    call = (
        folder / "features",
        folder / "m.parquet",
        "--num-train",
        4,
        "--splits",
        1,
        "--heads",
        "ridge",
        "--transductive",
    )
    assert call_tool("fit_head.py", *call, "--occurring", 99, monkeypatch=monkeypatch) == 2
    assert "unseen classes: 99 of them cannot occur (--occurring)" in capsys.readouterr().err
