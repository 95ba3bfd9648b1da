"""engine/api.py as a notebook uses it."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from engine import api
from engine.api import load, nearest, prepare
from engine.errors import InputError
from tests.encoded import fade, write_colors
from tests.environment import environment
from tests.small_run import write_run
from tests.tools.test_help import HEAVY

COLORS = {
    "sunset": ((240, 60, 0), (90, 0, 30)),
    "meadow": ((0, 200, 40), (60, 250, 10)),
    "sea": ((0, 40, 220), (10, 90, 160)),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run, three videos, and class vectors that lie where the model puts them."""
    folder = tmp_path_factory.mktemp("api")
    for name, (first, last) in COLORS.items():
        write_colors(folder / f"{name}.mp4", fade(first, last, 12))
    (folder / "notes.mp4").write_text("not a video")
    write_run(folder / "run")
    points = load(folder / "run", device="cpu").embed_videos([folder / f"{name}.mp4" for name in COLORS])
    np.savez(folder / "own.npz", names=list(COLORS), vectors=points.numpy())
    return folder


@pytest.fixture(scope="module")
def model(folder):
    return load(folder / "run", "words.source=npz", f"words.path={folder / 'own.npz'}", device="cpu")


@pytest.mark.parametrize("name", COLORS)
def test_a_video_is_named(model, folder, name):
    found = model.name(str(folder / f"{name}.mp4"), list(COLORS))
    assert len(found) == 3 and found[0][0] == name and found[0][1] == pytest.approx(1, abs=1e-5)
    assert found == sorted(found, key=lambda pair: -pair[1])
    assert model.name(folder / f"{name}.mp4", list(COLORS), k=1) == found[:1]


class Labelled(dict):
    """A column as pandas has it after sorting: it is walked in its order, and asked by label."""

    def __iter__(self):
        return iter(self.values())


@pytest.mark.parametrize(
    "given",
    [
        Labelled({2: "sea", 0: "sunset", 1: "meadow"}),
        Labelled({7: "sea", 8: "sunset", 9: "meadow"}),
        set(COLORS),
        dict.fromkeys(COLORS).keys(),
        tuple(COLORS),
        np.array(list(COLORS)),
    ],
    ids=["sorted", "filtered", "set", "keys", "tuple", "array"],
)
def test_lists_of_any_kind_are_walked_in_their_order(model, folder, given):
    found = model.name(folder / "sea.mp4", given)
    assert found == model.name(folder / "sea.mp4", list(given)) and found[0][0] == "sea"
    assert all(type(name) is str for name, _ in found)
    together = model.name_together(folder.glob("[ms]e*.mp4"), (name for name in given if name != "sunset"))
    paths = list(folder.glob("[ms]e*.mp4"))
    assert [row[0][0] for row in together] == [path.stem for path in paths]
    assert torch.equal(model.embed_videos(dict.fromkeys(paths)), model.embed_videos(paths))


def test_videos_are_named_together(model, folder):
    videos = [folder / f"{name}.mp4" for name in COLORS]
    named = model.name_together(videos, list(COLORS), k=2)
    assert [row[0][0] for row in named] == list(COLORS) and all(
        len(row) == 2 and row[0][1] > row[1][1] for row in named
    )
    shares = [sum(share for _, share in row) for row in model.name_together(videos, list(COLORS))]
    assert shares == pytest.approx([1.0] * 3, abs=1e-5)
    with pytest.raises(
        InputError, match=r"videos: 1 video and 3 classes: named together \(name_together\), each class"
    ):
        model.name_together(videos[:1], list(COLORS))
    with pytest.raises(InputError, match=r"notes.mp4' cannot be used: .* Leave it out$"):
        model.name_together([*videos, folder / "notes.mp4"], list(COLORS))


def test_videos_and_names_are_points_of_one_space(model, folder):
    videos = model.embed_videos([folder / "sea.mp4", folder / "sunset.mp4"])
    names = model.embed_classes(["sunset", "sea"])
    assert videos.shape == names.shape == (2, 12) and videos.dtype == names.dtype == torch.float32
    torch.testing.assert_close(names.norm(dim=1), torch.ones(2))
    for candidates in (names, prepare(names)):
        scores, indices = nearest(videos, candidates, 2)
        assert indices.tolist() == [[1, 0], [0, 1]]
        torch.testing.assert_close(scores[:, 0], torch.ones(2))
    assert nearest(names, videos, 1)[1].tolist() == [[1], [0]]


def test_a_file_that_cannot_be_used_is_told_or_comes_last(model, folder):
    paths = [folder / "notes.mp4", folder / "sea.mp4", folder / "missing.mp4"]
    with pytest.raises(
        InputError, match=r"missing.mp4' cannot be used: missing: No such file or directory. Name another$"
    ):
        model.name(paths[2], ["sunset"])
    with pytest.raises(InputError, match=r"notes\.mp4' cannot be used \(and 1 more\)"):
        model.embed_videos(paths)
    points = model.embed_videos(paths, skip=True)
    assert torch.isnan(points[[0, 2]]).all() and torch.isfinite(points[1]).all()
    assert nearest(model.embed_classes(["sunset"]), points, 3)[1].tolist() == [[1, 0, 2]]
    assert torch.isnan(model.embed_videos(paths[:1], skip=True)).all()
    odd = ["s3://b/a.mp4", folder / "sea.mp4", f"file://{folder}/%73ea.mp4", "a\0b.mp4", "a\0b.jpg"]
    there = torch.isfinite(model.embed_videos(odd, skip=True)).all(dim=1)
    assert there.tolist() == [False, True, True, False, False]
    latin = folder / os.fsdecode(b"caf\xe9 #1.mp4")  # its URI has %E9, which is no UTF-8
    latin.symlink_to(folder / "sea.mp4")
    entry = next(each for each in os.scandir(os.fsencode(folder)) if each.name == b"sea.mp4")
    assert torch.isfinite(model.embed_videos([latin.as_uri(), entry])).all()
    with pytest.raises(
        InputError, match=r"^'s3://b/a\.mp4' cannot be used .and 2 more.: single videos are read as files"
    ):
        model.embed_videos(odd)


def test_a_run_from_random_weights_has_seen_no_class_before(model):
    assert "no class of these was seen in pretraining" in model.seen_in_pretraining(["Archery"])


def test_mistakes_are_told(model, folder):
    video = folder / "sea.mp4"
    for call, said in (
        (lambda: model.embed_videos(str(video)), "given as a list"),
        (lambda: model.embed_videos(video), "given as a list"),
        (lambda: model.embed_classes("sea"), "given as a list"),
        (lambda: model.embed_classes([]), "no class names"),
        (lambda: model.name(video, "sea"), "given as a list"),
        (lambda: model.name(video, []), "no class names"),
        (lambda: model.name(video, ["sea", "fog"]), "fog"),
        (lambda: model.name(video, ["sea"], k=0), "k is 0"),
        (lambda: model.name(video, ["sea"], k=2.0), "k is 2.0: it must be a whole number from 1 to 32"),
        (lambda: model.name(video, ["sea"], k="2"), "k is '2': it must be a whole number from 1 to 32"),
        (lambda: model.name_together([video], ["sea"], k=True), "k is True: it must be a whole number from 1 to 32"),
        (lambda: model.name(video, b"sea"), "given as a list"),
        (lambda: model.name(video, None), "class names are given as a list, not as None"),
        (lambda: model.name(video, ["sea", None]), "class name 2 of 2 is None: a class name is a text of words"),
        (lambda: model.embed_classes([1]), "class name 1 of 1 is 1: a class name is a text of words"),
        (lambda: model.name_together([video], ["sea", float("nan")]), "class name 2 of 2 is nan"),
        (lambda: model.seen_in_pretraining([b"sea"]), "class name 1 of 1 is b'sea'"),
        (lambda: model.embed_classes(["sea", " "]), "class name 2 of 2 is ' ': a class name is a text of words"),
        (lambda: model.name("", ["sea"]), "video 1 of 1 is '': a video is the path of its file"),
        (lambda: model.name("a\0b.mp4", ["sea"]), "its path holds a NUL, which that of no file does"),
        (lambda: model.name(None, ["sea"]), "video 1 of 1 is None: a video is the path of its file"),
        (lambda: model.embed_videos(torch.zeros(1, 9, 9)), r"video 1 of 1 is tensor\(\[\[0., .*: a video is the path"),
        (lambda: load(folder / "run", "model.width=8"), "only keys of the sections"),
        (lambda: load(folder / "run", 5), "setting 5: it must be a text, as 'evaluate.num_snippets=4'"),
        (lambda: load(folder / "nowhere"), "nowhere"),
        (
            lambda: load(b"run"),
            "the model is b'run': it must be the path of a run folder, a checkpoint file or a config",
        ),
        (lambda: load(None), "the model is None: it must be the path"),
        (lambda: load(""), "the model is '': it must be the path"),
    ):
        with pytest.raises(InputError, match=said):
            call()


@pytest.mark.parametrize("given", [np.zeros((2, 12), np.float32), [[0.0] * 12] * 2])
def test_points_that_are_no_tensors_are_told(given):
    points = torch.ones(2, 12)
    for call, what in (
        (lambda: nearest(given, points, 1), "queries"),
        (lambda: nearest(points, given, 1), "candidates"),
        (lambda: prepare(given), "candidates"),
    ):
        with pytest.raises(ValueError, match=f"^{what} must be a torch Tensor, not {type(given).__name__}: "):
            call()
    for k in (2.0, "2", True, None):
        with pytest.raises(ValueError, match=r"^k must be a whole number, not "):
            nearest(points, points, k)
    assert nearest(points, points, np.int64(2))[1].shape == (2, 2)


def test_the_device_is_the_one_that_was_asked_for(folder, monkeypatch):
    placed = []
    monkeypatch.setattr(api, "load_model", lambda path, device, **keys: placed.append(str(device)))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr("engine.processes.distributed.unfit", lambda index: None)
    for device in ("auto", "cpu", "cuda", "cuda:1", torch.device("cpu"), torch.device("cuda", 1), torch.device("cuda")):
        load(folder / "run", device=device)
    assert placed == ["cuda:0", "cpu", "cuda:0", "cuda:1", "cpu", "cuda:1", "cuda:0"]
    for device in ("gpu", "cup", "", "cuda:", "cuda:x", "cuda:-1", "auto:1", torch.device("meta"), None, 0):
        with pytest.raises(InputError, match=f"^device='{device}': it must be auto, cpu, cuda or cuda:N"):
            load(folder / "run", device=device)
    with pytest.raises(InputError, match=r"^device='cuda:2': torch sees only 2 GPUs: give another, auto or cpu"):
        load(folder / "run", device="cuda:2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match=r"^device='cuda': torch sees no GPU"):
        load(folder / "run", device="cuda")


@pytest.mark.parametrize(
    ("setting", "value", "usual"),
    [
        (torch.set_default_dtype, torch.float64, torch.float32),
        (torch.set_default_dtype, torch.bfloat16, torch.float32),
        (torch.set_default_device, "meta", None),
    ],
    ids=["float64", "bfloat16", "meta"],
)
def test_what_a_program_has_set_for_torch_changes_no_answer(model, folder, setting, value, usual):
    videos, words = [folder / f"{name}.mp4" for name in COLORS], f"words.path={folder / 'own.npz'}"
    setting(value)
    try:
        other = load(folder / "run", "words.source=npz", words, device="cpu")
        answers = [(each.name(videos[0], COLORS), each.name_together(videos, COLORS)) for each in (other, model)]
        assert torch.equal(other.embed_videos(videos), model.embed_videos(videos))
        assert torch.get_default_dtype() == (value if usual else torch.float32)
    finally:
        setting(usual)
    assert answers == [(model.name(videos[0], COLORS), model.name_together(videos, COLORS))] * 2


def test_words_of_another_dimension_are_told(folder):
    other = load(folder / "run", "words.source=random", "words.dim=7", device="cpu")
    with pytest.raises(InputError, match="12 dimensions, but the class vectors have 7"):
        other.embed_classes(["sea"])


def test_importing_the_package_alone_stays_light():
    done = subprocess.run(
        [sys.executable, "-c", "import sys, engine; print(*sys.modules)"],
        env=environment(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert not HEAVY & {name.partition(".")[0] for name in done.stdout.split()}
