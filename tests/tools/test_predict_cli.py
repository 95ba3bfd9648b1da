"""tools/predict.py as a user runs it: own videos of several formats, own class names, broken files among them."""

import json

import numpy as np
import pytest
import torch

from engine.data.indexing.dataset import IndexSettings, index_dataset
from engine.data.layouts import read_layout
from engine.data.manifests.manifest import Manifest
from engine.data.pyav import processes
from engine.data.pyav.decode import PyAVDecoder
from engine.data.sets.sources import DataSet
from engine.data.stills import write_picture
from engine.evaluation.embedding import embed_videos
from engine.evaluation.inference import embed_files, embed_source, inference_settings, load_model, manifest_of_files
from engine.tasks.decoding import choose_decoding
from tests.encoded import fade, write_colors
from tests.small_run import call_tool, run_tool, write_run

VIDEOS = {
    "sunset.mp4": ("libx264", fade((240, 60, 0), (90, 0, 30), 30)),
    "meadow.webm": ("libvpx-vp9", fade((0, 200, 40), (60, 250, 10), 12)),
    "sea.avi": ("mpeg4", fade((0, 40, 220), (10, 90, 160), 3)),  # fewer frames than a snippet
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run, videos, and class vectors that lie exactly where the model puts these videos."""
    folder = tmp_path_factory.mktemp("predict")
    for name, (codec, colors) in VIDEOS.items():
        write_colors(folder / name, colors, codec)
    (folder / "notes.mp4").write_text("not a video")
    write_run(folder / "run")
    cpu = torch.device("cpu")
    loaded = load_model(folder / "run", cpu)
    manifest, unreadable = manifest_of_files([folder / name for name in VIDEOS])
    assert unreadable == {}
    decoder = choose_decoding(loaded.config, cpu, []).open(loaded.config.evaluate.batch_size)
    embedded = embed_videos(loaded.model, manifest, decoder, inference_settings(loaded.config, cpu, progress=False))
    decoder.close()
    assert embedded.embeddings.std(dim=0).max() > 0.001  # three different points
    vectors = [embedding.numpy() for embedding in embedded.embeddings]
    others = np.random.default_rng(0).standard_normal((2, 12))
    np.savez(folder / "own.npz", names=["sunset", "meadow", "sea", "noise", "fog"], vectors=[*vectors, *others])
    return folder


def call(folder, *arguments, monkeypatch):
    return call_tool("predict.py", *arguments, "--model", folder / "run", "--device", "cpu", monkeypatch=monkeypatch)


def test_a_folder_in_place_of_a_video_is_told_with_the_mend(folder, tmp_path, monkeypatch, capsys):
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / "000001.jpg").write_bytes(b"x")
    assert call(folder, tmp_path / "frames", "--classes", "run, walk", monkeypatch=monkeypatch) == 1
    told = capsys.readouterr().err
    assert "frames: unreadable: a folder and not a video file: name the files in it" in told and "ffmpeg" in told


def test_each_video_goes_to_its_own_class_and_a_broken_one_stops_nothing(folder):
    done = run_tool(
        "predict.py", folder / "sunset.mp4", folder / "notes.mp4", folder / "meadow.webm", folder / "gone.mp4",
        folder / "sea.avi", "--model", folder / "run", "--classes", "fog, sea,sunset , noise, meadow, sea",
        "--words", f"npz:{folder / 'own.npz'}", "--top", "2", "--device", "cpu",
    )  # fmt: skip
    assert done.returncode == 1
    lines = [line.split() for line in done.stdout.splitlines() if " 1  " in line]
    assert [(line[0].rsplit("/")[-1], line[2], float(line[3])) for line in lines] == [
        ("sunset.mp4", "sunset", 1.0),
        ("meadow.webm", "meadow", 1.0),
        ("sea.avi", "sea", 1.0),
    ]
    assert len(done.stdout.splitlines()) == 2 + 3 * 2
    errors = done.stderr.splitlines()
    assert [line for line in errors if line.startswith("error: ")] == errors
    assert "notes.mp4: unreadable: " in errors[0]
    assert "gone.mp4: missing: " in errors[1]


def test_json_has_every_video_in_order(folder, monkeypatch, capsys):
    (folder / "classes.txt").write_text("noise\n\nmeadow\nfog\n")
    status = call(
        folder, folder / "notes.mp4", folder / "meadow.webm", "--classes-file", folder / "classes.txt", "--json",
        "--words", f"npz:{folder / 'own.npz'}", monkeypatch=monkeypatch,
    )  # fmt: skip
    assert status == 1
    first, second = json.loads(capsys.readouterr().out)
    assert (first["video"], first["classes"]) == (str(folder / "notes.mp4"), [])
    assert first["error"].startswith("unreadable: ")
    assert second["error"] is None
    assert second["classes"][0]["class"] == "meadow"
    cosines = [answer["cosine"] for answer in second["classes"]]
    assert cosines == sorted(cosines, reverse=True)
    assert len(cosines) == 3


def test_photos_are_named_as_those_of_a_manifest_are(folder, tmp_path, monkeypatch, capsys):
    light = np.linspace(0, 255, 60).astype(np.uint8)
    pixels = np.stack(np.broadcast_arrays(light, light[:40, None], np.uint8(60)), axis=-1)
    for path, picture in (("a/1.png", pixels), ("b/2.bmp", pixels[:, ::-1]), ("b/3.gif", 255 - pixels)):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        write_picture(tmp_path / path, picture)
    index_dataset(read_layout("images", tmp_path), tmp_path, tmp_path / "photos.parquet", IndexSettings())
    cpu, manifest = torch.device("cpu"), Manifest.load(tmp_path / "photos.parquet")
    assert manifest.is_still.tolist() == [True] * 3
    loaded = load_model(folder / "run", cpu)
    points = embed_source(loaded, DataSet("photos", manifest), cpu).embeddings
    files = [tmp_path / path for path in manifest.paths]
    torch.testing.assert_close(embed_files(loaded, files, cpu, progress=False).embeddings, points)
    np.savez(tmp_path / "own.npz", names=["one", "two", "three"], vectors=points.numpy())
    words = ("--words", f"npz:{tmp_path / 'own.npz'}", "--top", 1)
    assert call(folder, *files, "--classes", "one, two, three", *words, monkeypatch=monkeypatch) == 0
    said = capsys.readouterr()
    named = [line.split() for line in said.out.splitlines() if " 1  " in line]
    assert [(line[0], line[2]) for line in named] == [*zip(map(str, files), ("one", "two", "three"), strict=True)]
    assert said.err == ""


def test_a_photo_behind_the_classes_is_no_class(folder, monkeypatch, capsys):
    assert call(folder, "--classes", "run", "walk", "gone.jpg", monkeypatch=monkeypatch) == 1
    assert "gone.jpg: missing" in capsys.readouterr().err


def test_words_of_the_run_and_nothing_wrong(folder, monkeypatch, capsys):
    """Random vectors are the run's own words here; every name has one."""
    assert call(folder, folder / "sea.avi", "--classes", "one, another", monkeypatch=monkeypatch) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert "another" in said.out


def test_videos_are_decoded_in_processes_where_the_config_says_so(folder, monkeypatch, capsys):
    opened = []

    def threads(clip, device, count, max_batch_size):
        opened.append((count, max_batch_size))
        return PyAVDecoder(clip, device, count)

    monkeypatch.setattr(processes, "ProcessDecoder", threads)
    for is_used in ("false", "true"):
        chosen = [f"--set=data.decode_processes={is_used}", "--set=data.decode_threads=3"]
        assert call(folder, folder / "sea.avi", "--classes", "one, another", *chosen, monkeypatch=monkeypatch) == 0
        assert "another" in capsys.readouterr().out
    assert opened == [(3, 4)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--classes", "alone"], "1 class named: name at least two"),
        (["--classes", "Brush Hair, brush_hair"], "1 class named: name at least two"),
        (["--classes", " , "], "no class named: name at least two"),
        (["--classes-file", "nowhere.txt"], "class names cannot be read from 'nowhere.txt'"),
        (["--classes", "noise, archery", "--words", "npz:{folder}/own.npz"], "archery"),
        (["--classes", "a b, c d", "--set", "words.dim=9"], "embeds into 12 dimensions, but the class vectors have 9"),
        (["--classes", "a b, c d", "--set", "model.width=8"], "only keys of the sections data, words, evaluate"),
        (
            ["--classes", "a b, c d", "--set", "words.max_words=9"],
            "'words.max_words' needs words.source glove or word2vec",
        ),
        (["--classes", "a b, c d", "--top", "0"], "--top is 0: it must be from 1 to 32"),
        (["--classes", "noise, qwertzing", "--words", "glove"], "qwertzing"),
    ],
)
def test_mistakes_are_told_with_status_2(folder, arguments, message, monkeypatch, capsys):
    arguments = [text.format(folder=folder) for text in arguments]
    assert call(folder, folder / "sea.avi", *arguments, monkeypatch=monkeypatch) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert "error: " in said.err
    assert said.out == ""


def test_videos_behind_classes_are_videos_though_they_are_missing(folder, monkeypatch, capsys):
    words = [
        "--model",
        folder / "run",
        "--device",
        "cpu",
        "--classes",
        "noise",
        "sea",
        folder / "sea.avi",
        folder / "gone.mp4",
    ]
    assert call_tool("predict.py", *words, monkeypatch=monkeypatch) == 1
    said = capsys.readouterr()
    assert "gone.mp4: missing: " in said.err and "gone.mp4" not in said.out and "sea" in said.out
    words = ["--model", folder / "run", "--classes", "noise", "sea", folder / "gone.mp4"]
    assert call_tool("predict.py", *words, monkeypatch=monkeypatch) == 1
    assert "gone.mp4: missing: " in capsys.readouterr().err
    words = ["--model", folder / "run", "--classes", "noise", "bend/bow", folder / "sea.avi", folder / "gone", "none"]
    assert call_tool("predict.py", *words, monkeypatch=monkeypatch) == 1
    said = capsys.readouterr()
    assert "gone: missing: " in said.err and "none: missing: " in said.err and "bend/bow" in said.out
    words = ["--model", folder / "run", "--classes", "noise", "sea", folder / "gone"]
    assert call_tool("predict.py", *words, monkeypatch=monkeypatch) == 1
    assert "gone: missing: " in capsys.readouterr().err


def test_a_file_of_classes_may_have_comments_and_a_mark_of_its_encoding(folder, tmp_path, monkeypatch, capsys):
    (tmp_path / "classes.txt").write_text("kayaking\n# winter sports\nskiing\n", encoding="utf-8-sig")
    assert call(folder, folder / "sea.avi", "--classes-file", tmp_path / "classes.txt", monkeypatch=monkeypatch) == 0
    said = capsys.readouterr().out
    assert "kayaking" in said and "\ufeff" not in said and "winter" not in said


def test_help_teaches(monkeypatch, capsys):
    assert call_tool("predict.py", "--help", monkeypatch=monkeypatch) == 0
    said = capsys.readouterr().out
    for word in ("--classes-file", "words.replace", "not a probability", "exit status is then 1"):
        assert word in said
