"""tools/extract_features.py as a user runs it, and as a machine that fails runs it: killed in the middle, and again."""

import shutil
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch

from engine.data.decoders import build_decoder
from engine.data.manifests.manifest import Manifest
from engine.evaluation.embedding import embed_videos
from engine.evaluation.inference import inference_settings
from engine.features.cache import FeatureCache
from engine.features.encoder import build_encoder
from engine.tasks.zero_shot.trained import load_for_inference
from tests.data.videos import write_copies
from tests.small_run import call_tool, kill_when, run_tool, start_tool, write_run

NUM_VIDEOS = 40
LENGTHS = dict(zip(("surfing", "archery", "diving", "juggling"), [30, 45, 60, 75], strict=True))


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A manifest of real videos and a run."""
    home = tmp_path_factory.mktemp("home")
    write_copies(home / "set", LENGTHS, NUM_VIDEOS // 4)
    assert run_tool("index_dataset.py", home / "set", "--out", home / "m.parquet").returncode == 0
    write_run(home / "run")
    return home


def arguments(home, out, *more):
    return "extract_features.py", home / "m.parquet", "--model", home / "run", "--out", out, *more


def journal_lines(out):
    path = out / "journal.jsonl"
    return max(0, path.read_bytes().count(b"\n") - 1) if path.is_file() else 0


def test_killed_twice_and_gone_on_with_nothing_is_lost_or_doubled(home, tmp_path, monkeypatch, capsys):
    whole, out = tmp_path / "whole", tmp_path / "killed"
    assert call_tool(*arguments(home, whole, "--threads", 1), monkeypatch=monkeypatch) == 0
    for num_videos, how in ((6, ()), (18, ("--processes",))):
        process = start_tool(*arguments(home, out, "--threads", 2, *how))
        kill_when(out / "journal.jsonl", num_videos + 1, process)
        assert process.returncode == -signal.SIGKILL
        assert not (out / "videos.parquet").exists()
    known = journal_lines(out)
    assert 18 <= known < NUM_VIDEOS
    # What a kill between the features and the line, and one within the line, leave behind.
    for name in ("features-1.npy", "spans-1.npy"):
        with (out / name).open("ab") as file:
            file.write(b"torn" * 37)
    with (out / "journal.jsonl").open("a") as file:
        file.write('{"path": "surfing/00')
    done = run_tool(*arguments(home, out, "--threads", 2))
    assert done.returncode == 0, done.stderr
    assert f"{known} of {NUM_VIDEOS} videos have their features already" in done.stderr
    assert f"{NUM_VIDEOS} ({NUM_VIDEOS - known} new, 0 dropped, 0 bad)" in done.stdout
    caches = [FeatureCache(folder, manifest=Manifest.load(home / "m.parquet")) for folder in (whole, out)]
    assert sorted(caches[0].videos) == sorted(caches[1].videos)
    assert len(caches[0]) == NUM_VIDEOS
    for path in caches[0].videos:
        one, other = (cache[path] for cache in caches)
        assert np.array_equal(one.start_s, other.start_s)
        assert len(one.features) == -(-(LENGTHS[path.partition("/")[0]] - 4) // 2) + 1
        assert np.allclose(one.features, other.features, atol=1e-3)
        assert np.abs(one.features).max() > 0.1
    assert len(caches[1].features) == len(caches[0].features)
    assert not list(out.glob("tmp*"))


def test_the_features_are_those_before_the_linear_layer_of_the_run(home, tmp_path, monkeypatch):
    """A mean of features through the run's own layer is what the run says of the video (Sec. 4.4)."""
    assert call_tool(*arguments(home, tmp_path / "f", "--dtype", "float32"), monkeypatch=monkeypatch) == 0
    cache = FeatureCache(tmp_path / "f", digest=build_encoder(str(home / "run"), torch.device("cpu")).digest)
    loaded = load_for_inference(home / "run", torch.device("cpu"))
    manifest = Manifest.load(home / "m.parquet")
    # 14 evenly spaced snippets of a video of 30 frames, 4 long, are those of the windows.
    rows = np.flatnonzero(manifest.num_frames == 30)[:3]
    how = replace(inference_settings(loaded.config, torch.device("cpu"), progress=False), num_snippets=14)
    decoder = build_decoder("pyav", loaded.config.clip, torch.device("cpu"), 1, 4)
    wanted = embed_videos(loaded.model, manifest, decoder, how, rows).embeddings
    decoder.close()
    given, means = cache.means(manifest.select(rows))
    assert given.tolist() == [0, 1, 2]
    assert len(cache[manifest.strings("path")[rows[0]]].features) == 14
    with torch.inference_mode():
        assert torch.allclose(loaded.model.project(torch.from_numpy(means)), wanted, atol=1e-5)
    assert wanted.abs().max() > 0.01


def test_the_digest_is_of_weights_and_clip(home, tmp_path):
    device = torch.device("cpu")
    digests = {build_encoder(str(home / "run"), device).digest for _ in range(2)}
    best = home / "run" / "checkpoints" / "best.pt"
    state = torch.load(best, weights_only=True)
    for change in ("weight", "clip", "linear"):
        changed = torch.load(best, weights_only=True)
        if change == "weight":
            changed["model"]["backbone.stem.0.weight"][0, 0, 0, 0, 0] += 1e-6
        elif change == "clip":
            changed["config"]["clip"]["crop"] = 28
        else:
            changed["model"]["linear.weight"] += 1
        torch.save(changed, tmp_path / f"{change}.pt")
        digests.add(build_encoder(str(tmp_path / f"{change}.pt"), device).digest)
    assert len(digests) == 3  # the linear layer is no part of the features
    assert "backbone.stem.0.weight" in state["model"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({0: "nothing.parquet"}, "no manifest at '{home}/nothing.parquet': make one"),
        ({0: "set/surfing/000.mp4"}, "is not a readable Parquet file"),
        (
            {2: "no-run"},
            "--model is '{home}/no-run': there is no run folder or checkpoint file of that name",
        ),
        ({2: "set"}, "run folder '{home}/set' holds no checkpoint"),
        ({2: "set/surfing/000.mp4"}, "checkpoint '{home}/set/surfing/000.mp4' cannot be read"),
        ({4: "m.parquet"}, "--out: cannot write into '{home}/m.parquet'"),
        ({4: "/proc/features"}, "--out: cannot write into '/proc/features'"),
        ({5: ("--hop", "0")}, "--hop is 0 frames: it must be at least 1 frame"),
        ({5: ("--window", "2s", "--hop", "4")}, "give both in one"),
        ({5: ("--batch", "0")}, "--batch is 0: it must be from 1 to 65536"),
    ],
)
def test_bad_input_is_one_line(home, tmp_path, change, told, monkeypatch, capsys):
    words = [home / "m.parquet", "--model", home / "run", "--out", tmp_path / "f"]
    for place, word in change.items():
        words[place : place + 1] = [*word] if isinstance(word, tuple) else [home / word]
    assert call_tool("extract_features.py", *words, monkeypatch=monkeypatch) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert told.format(home=home) in error


def test_the_installed_network_needs_no_run(home, tmp_path, monkeypatch):
    shortest = Manifest.load(home / "m.parquet").table.sort_by("num_frames").slice(0, 2).to_pylist()
    Manifest.from_rows(shortest, home / "set").save(tmp_path / "m.parquet")
    words = (tmp_path / "m.parquet", "--model", "installed", "--out", tmp_path / "f")
    assert call_tool("extract_features.py", *words, monkeypatch=monkeypatch) == 0
    cache = FeatureCache(tmp_path / "f")
    assert len(cache) == 2 and cache.features.shape[1] == 1280


def test_another_model_and_paths_that_leave_the_root_are_refused(home, tmp_path, monkeypatch, capsys):
    assert call_tool(*arguments(home, tmp_path / "f"), monkeypatch=monkeypatch) == 0
    write_run(tmp_path / "other")
    state = torch.load(tmp_path / "other" / "checkpoints" / "best.pt", weights_only=True)
    state["model"]["backbone.stem.0.weight"] += 1
    torch.save(state, tmp_path / "other" / "checkpoints" / "best.pt")
    words = (home / "m.parquet", "--model", tmp_path / "other", "--out", tmp_path / "f")
    capsys.readouterr()
    assert call_tool("extract_features.py", *words, monkeypatch=monkeypatch) == 2
    assert "of the model run/best.pt (step 7), digest " in capsys.readouterr().err
    rows = Manifest.load(home / "m.parquet").table.to_pylist()
    rows[0]["path"] = str(home / "set" / rows[0]["path"])
    Manifest.from_rows(rows, home / "set").save(tmp_path / "m.parquet")
    words = (tmp_path / "m.parquet", "--model", home / "run", "--out", tmp_path / "g")
    assert call_tool("extract_features.py", *words, monkeypatch=monkeypatch) == 2
    refused = capsys.readouterr().err
    assert "which leaves its root" in refused and refused.endswith("if you trust the manifest, give --allow-outside\n")
    assert call_tool("extract_features.py", *words, "--allow-outside", monkeypatch=monkeypatch) == 0


def test_features_of_another_temporal_option_are_of_another_kind(tmp_path):
    """Frozen weights are the same with each; the features are not."""
    digests = set()
    for temporal in ("none", "shift", "difference"):
        write_run(tmp_path / temporal, model={"backbone": "timm:test_resnet", "temporal": temporal})
        digests.add(build_encoder(str(tmp_path / temporal), torch.device("cpu")).digest)
    assert len(digests) == 3


def test_no_name_of_a_file_steers_the_terminal(home, tmp_path, monkeypatch, capsys):
    """Not of one that is bad either."""
    for name in ("good.mp4", "\x1b[2Jbad.mp4"):
        (tmp_path / "set").mkdir(exist_ok=True)
        shutil.copy(next((home / "set").rglob("*.mp4")), tmp_path / "set" / name)
    index = ("--layout", "folder", "--splits", "none", "--out", tmp_path / "m.parquet")
    assert call_tool("index_dataset.py", tmp_path / "set", *index, monkeypatch=monkeypatch) == 0
    (tmp_path / "set" / "\x1b[2Jbad.mp4").write_bytes(b"no video")
    words = (tmp_path / "m.parquet", "--model", home / "run", "--out", tmp_path / "f", "--threads", 1)
    assert call_tool("extract_features.py", *words, monkeypatch=monkeypatch) == 0
    said = capsys.readouterr().out
    assert "\n  bad       \\x1b[2Jbad.mp4: it has 8 bytes" in said and "\x1b" not in said
