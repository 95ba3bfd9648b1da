"""tools/evaluate.py as a user runs it, on real videos and a real (untrained) model."""

import csv
import json
import re

import pytest
import torch

from engine.data.manifests.manifest import Manifest
from engine.data.sets.sources import DataSet
from engine.evaluation.evaluate import evaluate_source
from engine.evaluation.inference import inference_settings
from engine.results.record import files_of, read_results
from engine.semantics.classes import build_class_embeddings
from engine.tasks.decoding import choose_decoding
from engine.tasks.zero_shot.trained import load_for_inference
from tests.encoded import fade, manifest_of, write_colors
from tests.small_run import call_tool, run_tool, write_run

COLORS = {"red": (230, 20, 20), "green": (20, 230, 20), "blue": (20, 20, 230), "white": (240, 240, 240)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two test sets of four classes (12 videos in the splits a and b; 4 videos, one cut off) and a run that names them."""
    folder = tmp_path_factory.mktemp("evaluate")
    rows = {"first": [], "second": []}
    for name, color in COLORS.items():
        for i in range(4):
            data = "first" if i < 3 else "second"
            path = f"{name}/{i}.mp4"
            write_colors(folder / data / path, fade(color, (10 * i, 50, 90), 10 + 3 * i))
            rows[data].append((path, name, 10 + 3 * i))
    broken = folder / "second" / "blue/3.mp4"
    broken.write_bytes(broken.read_bytes()[:300])
    for data, videos in rows.items():
        manifest = manifest_of(folder / data, videos, split="a")
        manifest.save(folder / data / "manifest.parquet")
    tests = [{"manifest": str(folder / data / "manifest.parquet"), "name": data} for data in rows]
    write_run(folder / "run", tests=tests)
    write_run(folder / "bare")
    return folder


@pytest.fixture(scope="module")
def default(folder):
    return run_tool("evaluate.py", folder / "run", "--device", "cpu", "--out", folder / "out")


def test_all_test_sets_of_the_run_in_one_call(folder, default):
    assert default.returncode == 0, default.stderr
    content = json.loads((folder / "out" / "results.json").read_text())
    assert list(content["tests"]) == ["first", "second"]
    assert (content["step"], content["num_snippets"], content["decoder"]) == (7, 3, "pyav")

    # The numbers are those of the engine, called directly.
    loaded = load_for_inference(folder / "run", torch.device("cpu"))
    how = inference_settings(loaded.config, torch.device("cpu"), progress=False)
    decoder = choose_decoding(loaded.config, torch.device("cpu"), []).open(loaded.config.evaluate.batch_size)
    for name in ("first", "second"):
        data = DataSet(name, Manifest.load(folder / name / "manifest.parquet"))
        classes = build_class_embeddings(data.classes, loaded.config.words)
        expected = evaluate_source(loaded.model, data, classes, decoder, how).to_dict()
        for key in ("all_classes", "half_classes", "per_class", "confusion", "failures"):
            assert content["tests"][name][key] == expected[key], key
    decoder.close()
    assert content["tests"]["first"]["all_classes"]["num_videos"] == 12
    assert content["tests"]["second"]["all_classes"]["num_videos"] == 3


def test_tables_warnings_and_files(folder, default):
    lines = default.stdout.splitlines()
    header = next(line for line in lines if line.startswith("test set"))
    assert header.split()[-6:] == ["mean-class", "top-1", "top-5", "chance", "largest", "class"]
    first = next(line for line in lines if line.startswith("first  "))
    halves = lines[lines.index(first) + 1]
    assert first.split()[:5] == ["first", "all", "classes", "4", "12"] and first.split()[-2:] == ["0.250", "0.250"]
    assert "random halves" in halves
    assert "±" in halves
    assert halves.endswith("0.500")
    assert "most often taken for" in default.stdout

    assert "the model was trained on 1 of these classes, so they are not unseen: 'red'" in default.stderr
    assert "'second': 1 of 4 videos could not be decoded" in default.stderr
    assert "blue/3.mp4: " in default.stderr

    out = folder / "out"
    for name in ("first", "second"):
        for picture in (f"confusion_{name}.png", f"classes_{name}.png"):
            assert (out / picture).read_bytes().startswith(b"\x89PNG")
    with (out / "classes_first.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [row["class"] for row in table] == sorted(COLORS)
    assert {row["videos"] for row in table} == {"3"}
    with (out / "predictions_first.csv").open() as file:
        predictions = list(csv.DictReader(file))
    assert len(predictions) == 12
    correct = sum(int(row["correct"]) for row in predictions)
    assert correct == sum(row["class"] == row["predicted_1"] for row in predictions)
    assert correct == round(
        12 * json.loads((out / "results.json").read_text())["tests"]["first"]["all_classes"]["top1"]
    )
    assert all(float(row["cosine_1"]) >= float(row["cosine_2"]) for row in predictions)


def test_other_data_words_and_keys(folder, monkeypatch, capsys):
    status = call_tool(
        "evaluate.py", folder / "bare" / "checkpoints" / "best.pt", "--device", "cpu", "--snippets", "1",
        "--data", f"{folder / 'first' / 'manifest.parquet'}:a", "--words", "random", "words.seed=5",
        "data.tests.0.exclude_classes=[red]", monkeypatch=monkeypatch,
    )  # fmt: skip
    assert status == 0
    content = json.loads((folder / "bare" / "checkpoints" / "best_evaluation" / "results.json").read_text())
    assert content["num_snippets"] == 1
    assert "12 dimensions, seed 5" in content["class_vectors"]
    assert list(content["tests"]) == ["first-a"]
    assert content["tests"]["first-a"]["all_classes"]["num_classes"] == 3
    assert content["tests"]["first-a"]["seen_classes"] == []
    assert "warning" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "no checkpoint at 'nowhere'"),
        (["{bare}"], "names no test set"),
        (["{run}", "train.lr=1"], "override 'train.lr=1': only keys of the sections data, words, evaluate"),
        (["{run}", "words.sauce=npz"], "unknown key 'words.sauce': did you mean 'words.source'?"),
        (["{run}", "--snippets", "0"], "'evaluate.num_snippets' is 0: it must be at least 1"),
        (["{run}", "--data", "{first}:b"], "has no split 'b'"),
        (["{run}", "--data", "{first}", "--data", "{first}"], "two test sets are called"),
        (["{run}", "data.tests=[{{manifest: {first}}}, {{manifest: {first}}}]"], "two test sets are called 'first'"),
        (["{run}", "words.dim=9"], "embeds into 12 dimensions, but the class vectors have 9"),
        (["{run}", "--unlabelled", "{first}"], "--unlabelled is for installed and kinetics400 alone"),
        (["{run}", "--out", "{run}"], "is a run's own folder, with the results of its training"),
        (["{run}", "--words", "word2vec"], "words.source is word2vec: name its file in words.path"),
    ],
)
def test_mistakes_are_one_clear_line(folder, arguments, message, monkeypatch, capsys):
    places = {
        "bare": folder / "bare", "run": folder / "run", "first": folder / "first" / "manifest.parquet",
    }  # fmt: skip
    status = call_tool(
        "evaluate.py", *(text.format(**places) for text in arguments), "--device", "cpu", monkeypatch=monkeypatch
    )
    said = capsys.readouterr().err
    assert status == 2
    assert message in said
    assert said.count("error: ") == 1


def read_rows(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def part(folder, name, *classes, **columns):
    """A manifest of some classes of the first set, with other values in some columns."""
    first = Manifest.load(folder / "first" / "manifest.parquet")
    rows = [row | columns for row in first.table.to_pylist() if row["class_name"] in classes]
    Manifest.from_rows(rows, folder / "first").save(folder / f"{name}.parquet")
    return folder / f"{name}.parquet"


@pytest.mark.parametrize(
    ("classes", "columns", "message"),
    [
        (["blue"], {}, "test set 'nothing' can measure nothing: with one class ('blue') every answer is right"),
        (["blue", "red"], {"path": "gone.mp4"}, "can measure nothing: none of its 6 videos can be decoded; '"),
    ],
)
def test_a_test_that_measures_nothing_is_refused_before_anything_is_decoded(
    folder, classes, columns, message, monkeypatch, capsys
):
    data = part(folder, "nothing", *classes, **columns)
    arguments = (
        "evaluate.py",
        folder / "run",
        "--device",
        "cpu",
        "--data",
        folder / "first" / "manifest.parquet",
        "--data",
        data,
    )
    out = folder / "refused"
    assert call_tool(*arguments, "--out", out, monkeypatch=monkeypatch) == 2
    said = capsys.readouterr()
    assert message in said.err and "snippets a video" not in said.out
    assert not (out / "results.json").exists()


def test_a_test_of_seen_classes_alone_is_written_and_no_success(folder, monkeypatch, capsys):
    names = {"red": "Red", "blue": "walk", "green": "running", "white": "running"}
    table = Manifest.load(folder / "first" / "manifest.parquet").table.to_pylist()
    rows = [row | {"class_name": names[row["class_name"]]} for row in table]
    Manifest.from_rows(rows, folder / "first").save(folder / "known.parquet")
    out = folder / "known"
    arguments = (
        "evaluate.py",
        folder / "run",
        "--snippets",
        1,
        "--out",
        out,
        "--report",
        "--data",
        folder / "known.parquet",
    )
    status = call_tool(*arguments, "data.tests.0.exclude_classes=[running]", monkeypatch=monkeypatch)
    said = capsys.readouterr().err
    assert status == 2
    assert said.index("trained on 2 of these classes") < said.index(
        "nothing unseen was measured ('known': 2 of 2 classes"
    )
    assert json.loads((out / "results.json").read_text())["tests"]["known"]["seen_classes"] == ["Red", "walk"]
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "known · 2 classes, 2 of them trained on" in page and "unseen classes</h3>" not in page


def test_the_report_calls_unseen_only_what_is(folder, monkeypatch):
    out = folder / "marked"
    arguments = ("evaluate.py", folder / "run", "--device", "cpu", "--snippets", 1, "--out", out, "--report")
    assert call_tool(*arguments, "--data", folder / "first" / "manifest.parquet", monkeypatch=monkeypatch) == 0
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "first · 4 classes, 1 of them trained on" in page and "4 unseen classes" not in page
    assert page.count('<span class="bad">trained on</span>') == 1
    points = re.findall(r"<title>(\w+): \d+% of 3; nearest seen class", page)
    assert sorted(points) == ["blue", "green", "white"]
    videos = [row for row in read_rows(out / "predictions_first.csv") if row["class"] != "red"]
    right = sum(int(row["correct"]) for row in videos) / len(videos)  # as many of each class
    assert f"the unseen classes alone: {100 * right:.1f} %" in page


def test_help_teaches(monkeypatch, capsys):
    assert call_tool("evaluate.py", "--help", monkeypatch=monkeypatch) == 0
    said = capsys.readouterr().out
    for word in ("Evaluation Protocol 1", "results.json", "--snippets", "torchrun"):
        assert word in said


def test_report_is_one_file_beside_the_results(folder, monkeypatch):
    status = call_tool(
        "evaluate.py", folder / "run", "--device", "cpu", "--report", "--snippets", "1", "--out", folder / "looked",
        monkeypatch=monkeypatch,
    )  # fmt: skip
    assert status == 0
    page = (folder / "looked" / "report.html").read_text(encoding="utf-8")
    content = json.loads((folder / "looked" / "results.json").read_text())
    for name, test in content["tests"].items():
        assert f"<h2>{name}</h2>" in page
        assert f"{100 * test['all_classes']['top1']:.1f} %" in page
    assert "trained on: red." in page  # it is a class of both
    assert "blue/3.mp4" in page  # the broken video is named
    assert list((folder / "looked" / "tensorboard").glob("events.*"))

    # Another evaluation into the same folder: one test set, no report. Nothing of the older one is left.
    data = folder / "second" / "manifest.parquet"
    again = (
        "evaluate.py",
        folder / "run",
        "--device",
        "cpu",
        "--snippets",
        "1",
        "--data",
        data,
        "--out",
        folder / "looked",
    )
    assert call_tool(*again, monkeypatch=monkeypatch) == 0
    left = {str(path.relative_to(folder / "looked")) for path in (folder / "looked").rglob("*") if path.is_file()}
    reached = read_results(folder / "looked")
    assert list(reached.tests) == ["second"]
    assert {path for path in left if not path.startswith("tensorboard/events")} == {
        "results.json", "confusion_second.png", "classes_second.png", "classes_second.csv", "predictions_second.csv",
    }  # fmt: skip
    assert left - {"results.json"} <= set(files_of(reached))
