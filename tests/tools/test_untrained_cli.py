"""predict.py, evaluate.py and untrained_splits.py with no run of ours: from the install alone, offline."""

import html
import json
import re
import shutil
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest
from bench.publish import newest, read_records

from engine.config import Config
from engine.data.config import ClassSplitConfig
from engine.data.manifests.identity import content_hash
from engine.data.manifests.manifest import Manifest
from engine.records import recording_into
from engine.results.accuracy import Accuracy
from engine.results.record import read_results
from engine.schema.parser import parse
from engine.semantics.classes import KeptVectors
from tests.encoded import fade, manifest_of, write_colors
from tests.small_run import call_tool

CLASSES = ("playing violin", "Swing", "surfing", "green meadow", "archery")


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_):
        raise AssertionError("asked for the network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Ten small videos of five classes, whatever they show."""
    folder = tmp_path_factory.mktemp("untrained")
    rows = []
    for index, name in enumerate(CLASSES):
        for i in range(2):
            path = f"{name}/{i}.mp4"
            write_colors(folder / path, fade((40 * index, 200 - 30 * i, 90), (10, 50 * index, 20 * i), 9))
            rows.append((path, name, 9))
    manifest_of(folder, rows).save(folder / "mine.parquet")
    return folder


def test_a_video_is_named_with_no_run_at_all(folder, monkeypatch, capsys):
    video = folder / "surfing" / "0.mp4"
    status = call_tool("predict.py", video, "--classes", "playing violin, swing", "sky", "--device", "cpu",
                       monkeypatch=monkeypatch)  # fmt: skip
    out = capsys.readouterr().out
    table, seen = out.split("\n\n")
    assert status == 0 and all(f"  {name} " in table for name in ("playing violin", "swing", "sky"))
    assert "seen in pretraining (installed, " in seen and "violin" in seen and "sky " not in seen


def test_names_that_the_installed_encoder_cannot_read_are_one_warning(folder, monkeypatch, capsys):
    monkeypatch.setattr("engine.semantics.scripts._was_told", [False])
    asked = [folder / "surfing" / "0.mp4", "--classes", "хоккей, плавание, surfing", "--device", "cpu"]
    assert call_tool("predict.py", *asked, monkeypatch=monkeypatch) == 0
    (told,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert "reads English" in told and "'хоккей', 'плавание': say" in told


def test_an_evaluation_tells_of_names_that_the_installed_encoder_cannot_read(folder, tmp_path, monkeypatch, capsys):
    rows = [(f"{folder_name}/0.mp4", name, 9) for folder_name, name in (("surfing", "бег"), ("archery", "滑雪"))]
    manifest_of(folder, rows).save(folder / "foreign.parquet")
    monkeypatch.setattr("engine.semantics.scripts._was_told", [False])
    asked = [
        "evaluate.num_snippets=1",
        "--data",
        folder / "foreign.parquet",
        "--device",
        "cpu",
        "--out",
        tmp_path / "out",
    ]
    assert call_tool("evaluate.py", *asked, monkeypatch=monkeypatch) == 0
    (told,) = [line for line in capsys.readouterr().err.splitlines() if "reads English" in line]
    assert told.endswith("'бег', '滑雪': say it in English")


def test_videos_named_together_have_shares(folder, monkeypatch, capsys):
    videos = [folder / name / f"{i}.mp4" for name in CLASSES[:3] for i in range(2)]
    command = ["predict.py", *videos, "--classes", "violin, sky, archery", "--transductive", "--device", "cpu"]
    assert call_tool(*command, monkeypatch=monkeypatch) == 0
    assert capsys.readouterr().out.splitlines()[0].split() == ["video", "rank", "class", "share"]
    call_tool(*command, "--json", monkeypatch=monkeypatch)
    answers = json.loads(capsys.readouterr().out)
    shares = [[each["share"] for each in answer["classes"]] for answer in answers]
    assert [round(sum(row), 3) for row in shares] == [1.0] * 6 and max(map(max, shares)) > 0.4
    assert call_tool("predict.py", *videos[:2], *command[-5:], monkeypatch=monkeypatch) == 2
    assert "VIDEO: 2 videos and 3 classes: named together (--transductive), each class must" in capsys.readouterr().err
    assert call_tool("predict.py", *videos[:2], folder / "gone.mp4", *command[-5:], monkeypatch=monkeypatch) == 2
    told = capsys.readouterr().err
    assert "2 videos and 3 classes" in told and f"({folder / 'gone.mp4'}: missing: " in told  # why there are too few


def test_as_json_what_was_seen_goes_to_stderr(folder, monkeypatch, capsys):
    video = folder / "surfing" / "0.mp4"
    call_tool("predict.py", "--classes", "violin", "sky", video, "--json", monkeypatch=monkeypatch)  # in this order too
    captured = capsys.readouterr()
    assert {each["class"] for each in json.loads(captured.out)[0]["classes"]} == {"violin", "sky"}
    assert "not unseen" in captured.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--classes", "a", "b"], "no VIDEO is named"),
        (["{video}", "--classes", "a, b", "--words", "glove", "--set", "words.missing=maybe"], "words.missing"),
        (["{video}", "--classes", "qwertzing, walking", "--words", "glove"], "qwertzing"),
        (["{video}", "--classes", "a, b", "--model", "instaled"], "instaled"),
        (["{video}", "--classes", "a, b", "--model", "kinetics400:none.pth"], "no file 'none.pth'"),
    ],
)
def test_mistakes(folder, arguments, message, monkeypatch, capsys):
    words = [each.format(video=folder / "surfing" / "0.mp4") for each in arguments]
    assert call_tool("predict.py", *words, monkeypatch=monkeypatch) == 2
    assert message in capsys.readouterr().err


def test_a_folder_of_pictures_is_no_video(folder, monkeypatch, capsys):
    assert call_tool("predict.py", folder / "surfing", "--classes", "a, b", monkeypatch=monkeypatch) == 1
    assert f"error: {folder / 'surfing'}: " in capsys.readouterr().err


def test_accuracy_of_an_untrained_model_stands_apart(folder, tmp_path, monkeypatch, capsys):
    mine = folder / "mine.parquet"
    status = call_tool("evaluate.py", "evaluate.num_snippets=2", "--data", mine, "--unlabelled", mine, "--device", "cpu",
                       "--out", tmp_path / "out", monkeypatch=monkeypatch)  # fmt: skip
    out, err = capsys.readouterr()
    assert status == 0 and "WITHOUT TRAINING, not the paper's protocol:" in out and "2 snippets a video" in out
    assert "warning: 'mine': 10 of its 10 videos are among those of --unlabelled" in err
    assert "TRANSDUCTIVE, scores standardised over videos of the test itself, not the paper's protocol: mine" in out
    assert "standardised over 10 unlabelled videos" in out
    assert [line.split("  ")[0] for line in out.partition("not unseen")[2].splitlines()[3:5]] == [
        "Swing",
        "playing violin",
    ]
    results = read_results(tmp_path / "out")
    assert results.checkpoint == "installed" and results.tests["mine"].seen_classes == ["Swing"]
    assert results.tests["mine"].transductive is True and results.tests["mine"].own_unlabelled == 10
    header = (tmp_path / "out" / "predictions_mine.csv").read_text().splitlines()[0]
    assert header.startswith("path,class,correct,predicted_1,cosine_1,")
    for option, says in (
        (["--generalised", "held-out"], "--generalised needs training classes, and 'installed' has none"),
        (["--words", "npz:none.npz"], "none.npz"),
    ):
        assert call_tool("evaluate.py", "--data", mine, *option, "--out", tmp_path / "b", monkeypatch=monkeypatch) == 2
        assert says in capsys.readouterr().err


def test_the_page_of_an_untrained_model_calls_no_class_unseen_that_its_weights_knew(
    folder, tmp_path, monkeypatch, capsys
):
    """And of the unlabelled videos the one that is a test video under another name is told."""
    shutil.copy(folder / "surfing" / "0.mp4", folder / "copy.mp4")
    write_colors(folder / "other.mp4", fade((1, 2, 3), (250, 90, 9), 9))
    test_videos = [(f"{name}/{i}.mp4", name, 9) for name in CLASSES for i in range(2)]
    for manifest, videos in (("hashed", test_videos), ("others", [("copy.mp4", "", 9), ("other.mp4", "", 9)])):
        rows = manifest_of(folder, videos).table.to_pylist()
        rows = [each | {"content_hash": content_hash(folder / each["path"])} for each in rows]
        Manifest.from_rows(rows, folder).save(folder / f"{manifest}.parquet")
    command = ["evaluate.py", "--data", folder / "hashed.parquet", "--unlabelled", folder / "others.parquet", "--report",
               "--snippets", 1, "--device", "cpu", "--out", tmp_path / "out"]  # fmt: skip
    assert call_tool(*command, monkeypatch=monkeypatch) == 0
    assert "warning: 'hashed': 1 of its 10 videos are among those of --unlabelled" in capsys.readouterr().err
    page = html.unescape((tmp_path / "out" / "report.html").read_text(encoding="utf-8"))
    assert "<h3>hashed · 5 classes, 2 of them seen in pretraining</h3>" in page and "unseen classes<" not in page
    assert "Without training, not the paper's protocol." in page
    assert "Not unseen in hashed, seen in pretraining: Swing, playing violin." in page
    assert "known by the same word" in page and page.count('<span class="bad">seen in pretraining</span>') == 2
    assert "scores are standardised over 1 videos of hashed itself" in page


@pytest.mark.parametrize(
    ("model", "name"),
    [("installed", "installed"), ("installed:lite2", "installed_lite2"), ("kinetics400:mine/w.pth", "kinetics400")],
)
def test_each_untrained_model_has_a_folder_of_its_own(model, name):
    from evaluate import default_folder

    assert default_folder(Path(model)) == Path("runs") / f"{name}_evaluation"


def test_a_test_set_named_together_says_so(folder, tmp_path, monkeypatch, capsys):
    command = ["evaluate.py", "--data", folder / "mine.parquet", "--transductive", "--device", "cpu", "--snippets", 1]
    assert call_tool(*command, "--out", tmp_path / "out", monkeypatch=monkeypatch) == 0
    assert "TRANSDUCTIVE, the videos of a test named together, not the paper's protocol:" in capsys.readouterr().out
    assert read_results(tmp_path / "out").tests["mine"].transductive is True
    header = (tmp_path / "out" / "predictions_mine.csv").read_text().splitlines()[0]
    assert header.startswith("path,class,correct,predicted_1,share_1,") and "cosine" not in header
    for option in (["--generalised", "held-out"], ["--unlabelled", folder / "mine.parquet"], ["--report"]):
        assert call_tool(*command, *option, "--out", tmp_path / "b", monkeypatch=monkeypatch) == 2
        assert f"{option[0]} " in capsys.readouterr().err


def test_splits_of_which_no_video_can_be_decoded_are_told(tmp_path, monkeypatch, capsys):
    rows = [(f"{name}.mp4", name, 8) for name in ("archery", "surfing", "typing", "juggling")]
    for path, *_ in rows:
        (tmp_path / path).write_bytes(b"no video")
    manifest_of(tmp_path, rows).save(tmp_path / "m.parquet")
    options = ["--num-train", 2, "--splits", 2, "--device", "cpu"]
    assert call_tool("untrained_splits.py", tmp_path / "m.parquet", *options, monkeypatch=monkeypatch) == 2
    told = capsys.readouterr().err
    assert (
        re.search(r"no video of the classes '\w+', '\w+' could be decoded, .* \('.*\.mp4': ", told)
        and "Traceback" not in told
    )


def test_splits_of_classes_beside_random_words(folder, tmp_path, monkeypatch, capsys):
    mine = folder / "mine.parquet"
    options = ["--num-train", 3, "--splits", 4, "--device", "cpu", "--record"]
    with recording_into(tmp_path):
        assert call_tool("untrained_splits.py", mine, *options, monkeypatch=monkeypatch) == 0
    out = capsys.readouterr().out
    assert "10 videos, 0 not decoded" in out and out.count("WITHOUT TRAINING") == 2
    ways = ("", ", standardised", ", transductive")
    methods = [f"{words}{way}" for words in ("names", "random words") for way in ways]
    lines = [line for line in out.splitlines() if line.split("  ")[0] in methods]
    rows = [line.split("  ")[0] for line in lines]
    assert not any("±" in line for line in lines[6:8])  # all classes at once, by names: the same each time
    assert rows == [*methods, *(name for name in methods if "standardised" not in name)]
    records = read_records(tmp_path)
    (record,) = records["untrained"]
    assert [row["method"] for row in record["accuracy"] if row["part"] == "splits"] == methods
    for row in record["accuracy"][:3]:  # of a sample: four splits
        assert row["mean_class_sd"] is not None
    assert [row["mean_class_sd"] for row in record["accuracy"][6:8]] == [None, None]
    chances = [row["chance_top1"] for row in record["accuracy"]]
    assert chances == pytest.approx([0.5] * 6 + [0.2] * 4)
    assert newest(records) == {}  # no benchmark: what makes pictures of these passes it by
    assert call_tool("untrained_splits.py", mine, "--num-train", 5, monkeypatch=monkeypatch) == 2
    assert "none would be unseen" in capsys.readouterr().err
    assert call_tool("untrained_splits.py", mine, "--num-train", 4, monkeypatch=monkeypatch) == 2
    assert "with one unseen class every answer is right. Leave at least two" in capsys.readouterr().err


def test_definitions_that_there_are_not_are_told_before_any_video_is_decoded(folder, tmp_path, monkeypatch, capsys):
    (tmp_path / "few.json").write_text('{"surfing": "riding a wave"}')
    decoded = []
    monkeypatch.setattr("engine.evaluation.inference.embed_source", lambda *_: decoded.append(1))
    for path, told in ((tmp_path / "none.json", "none.json"), (tmp_path / "few.json", "no definition")):
        words = ["--num-train", 2, "--definitions", path, "--device", "cpu"]
        assert call_tool("untrained_splits.py", folder / "mine.parquet", *words, monkeypatch=monkeypatch) == 2
        assert told in capsys.readouterr().err
    assert not decoded


def test_the_deviation_over_splits_is_that_of_a_sample(monkeypatch):
    import untrained_splits

    reached = iter(
        [Accuracy(2, 4, top1=value, top5=1.0, mean_class=value, largest_class=0.5) for value in (0.2, 0.4, 0.3) * 6] * 2
    )
    monkeypatch.setattr(untrained_splits, "name_unseen", lambda *_: next(reached))
    data, methods = (
        SimpleNamespace(classes=list("abcd")),
        {"names": KeptVectors(parse(Config, {}).words), "random words": None},
    )
    splits = [ClassSplitConfig(seed, 2) for seed in range(3)]
    rows = list(untrained_splits.measure("splits", splits, None, data, None, methods))
    assert [(row["mean_class"], row["mean_class_sd"]) for row in rows] == [pytest.approx((0.3, 0.1))] * 6
    rows = list(untrained_splits.measure("splits", splits[:1], None, data, None, methods))
    assert {row["mean_class_sd"] for row in rows} == {None} and "\u00b1" not in untrained_splits.table(rows).text()
