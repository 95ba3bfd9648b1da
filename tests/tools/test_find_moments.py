"""tools/find_moments.py as a user runs it."""

import json
import re
import shutil

import av
import numpy as np
import pytest
from PIL import Image

from tests.encoded import fade, write_colors
from tests.moments.small_finder import write_moment_run
from tests.small_run import call_tool


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """v/: a video of the sea whose name is hostile, one without frames, one that is none; and a run of moments."""
    root = tmp_path_factory.mktemp("find")
    write_colors(root / "v" / "<b>sea #1.mp4", fade((0, 40, 220), (10, 90, 160), 75))
    (root / "v" / "broken.mp4").write_bytes(b"no video")
    with av.open(str(root / "v" / "sound.mp4"), "w") as container:
        sound = container.add_stream("aac", rate=48_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4800), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 48_000
        container.mux([*sound.encode(frame), *sound.encode(None)])
    write_moment_run(root / "runs")
    return root


def test_moments_are_found_shown_and_cut_without_any_training(home, tmp_path, monkeypatch, capsys):
    sea = home / "v" / "<b>sea #1.mp4"
    words = ("--index", tmp_path / "i", "--query", "the open sea", "--query", "a dog", "--query", "a dog", "--top", 2)
    results = ("--json", "--html", tmp_path / "out" / "p.html", "--cut", tmp_path / "cuts")
    assert call_tool("find_moments.py", home / "v", sea, *words, *results, monkeypatch=monkeypatch) == 1
    shown = capsys.readouterr()
    found = json.loads(shown.out)
    # One take has one moment here, for each query once, however often it is given.
    assert [(moment["query"], moment["rank"]) for moment in found] == [("the open sea", 1), ("a dog", 1)]
    for moment in found:
        assert moment["video"] == str(sea) and moment["duration_s"] == pytest.approx(3, abs=0.01)
        assert 0 <= moment["start_s"] < moment["end_s"] <= moment["duration_s"] and -1 < moment["score"] < 1
        assert re.fullmatch(r"0:00:0\d\.\d", moment["start"]) and "none" in moment["model"]
        with av.open(moment["cut"]) as container:
            frames = sum(1 for _ in container.decode(video=0))
        assert frames == pytest.approx(25 * (moment["end_s"] - moment["start_s"]), abs=1.01)
    assert sorted(path.name for path in (tmp_path / "cuts").iterdir())[0].startswith("a-dog_01_b-sea-1_0.00.0")
    page = (tmp_path / "out" / "p.html").read_text(encoding="utf-8")
    assert "<b>sea" not in page and page.count("<polyline") == 2 and f"#t={found[0]['start_s']:.2f}," in page
    assert "/v/%3Cb%3Esea%20%231.mp4#t=" in page and page.count("data:image/jpeg") >= 4 and "2 videos were not" in page
    for name in ("broken.mp4", "sound.mp4: only audio"):
        assert name in shown.err and name.split(":")[0] in page
    monkeypatch.setattr("engine.semantics.scripts._was_told", [False])
    assert call_tool("find_moments.py", *words, "--query", "волна", monkeypatch=monkeypatch) == 1
    again = capsys.readouterr()
    assert all(f"error: {home / 'v' / name}: " in again.err for name in ("broken.mp4", "sound.mp4"))
    assert "0:00:0" in again.out and again.err.count("warning: ") == 1
    assert "reads English" in again.err and ": 'волна': say" in again.err and "warning" not in shown.err
    trained = ("--index", tmp_path / "i", "--model", home / "runs" / "moments", "--query", "a dog")
    assert call_tool("find_moments.py", *trained, monkeypatch=monkeypatch) == 2
    assert "are of the model objects, digest" in capsys.readouterr().err


def test_a_picture_is_searched_where_it_is_named_and_not_cut(home, tmp_path, monkeypatch, capsys):
    """Those of a folder are counted, also where it has nothing else."""
    (tmp_path / "v" / "below").mkdir(parents=True)
    shutil.copy(home / "v" / "<b>sea #1.mp4", tmp_path / "v" / "sea.mp4")
    for name in ("a.jpg", "b.png", "below/c.jpg"):
        Image.new("RGB", (64, 48), (10, 90, 160)).save(tmp_path / "v" / name)
    words = (
        "--query",
        "the open sea",
        "--query",
        "a dog",
        "--cut",
        tmp_path / "cuts",
        "--html",
        tmp_path / "p.html",
        "--json",
    )
    videos = (tmp_path / "v", tmp_path / "v" / "a.jpg")
    assert call_tool("find_moments.py", *videos, *words, monkeypatch=monkeypatch) == 0
    out, err = capsys.readouterr()
    assert {moment["video"]: moment["cut"] is None for moment in json.loads(out)} == {
        str(tmp_path / "v" / "sea.mp4"): False, str(videos[1]): True
    }  # fmt: skip
    assert "note: of 1 picture among the results nothing is cut out\n" in err and "error" not in err
    assert (
        "note: pictures in the folders named are passed over, 2 of them: a picture is searched where it is named" in err
    )
    assert call_tool("find_moments.py", tmp_path / "v" / "below", "--query", "a dog", monkeypatch=monkeypatch) == 2
    assert (
        "no video: none is in the folders named (1 picture: a picture is searched where it is named"
        in capsys.readouterr().err
    )


def test_a_long_file_name_does_not_push_the_columns_away(home, tmp_path, monkeypatch, capsys):
    video = tmp_path / "v" / ("sea" + "x" * 230 + "1.mp4")
    video.parent.mkdir()
    shutil.copy(home / "v" / "<b>sea #1.mp4", video)
    words = (video, "--query", "the open sea", "--model", home / "runs" / "moments", "--index", tmp_path / "i")
    assert call_tool("find_moments.py", *words, monkeypatch=monkeypatch) == 0
    shown = capsys.readouterr().out
    assert "…" in shown and "x1.mp4" in shown and max(map(len, shown.splitlines())) < len(str(video.parent)) + 120
    assert call_tool("find_moments.py", *words, "--json", monkeypatch=monkeypatch) == 0
    assert json.loads(capsys.readouterr().out)[0]["video"] == str(video)


def test_a_video_that_is_cut_off_is_searched_with_a_warning(home, tmp_path, monkeypatch, capsys):
    sea, cut = home / "v" / "<b>sea #1.mp4", tmp_path / "sea.mkv"
    write_colors(cut, fade((0, 40, 220), (10, 90, 160), 75), codec="mpeg4")
    whole = cut.read_bytes()
    cut.write_bytes(whole[: len(whole) * 9 // 10])
    words = (sea, cut, "--query", "the open sea", "--html", tmp_path / "p.html")
    assert call_tool("find_moments.py", *words, monkeypatch=monkeypatch) == 0
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert (
        len(told) == 1
        and told[0].startswith(f"warning: {cut}: it is cut off: ")
        and told[0].endswith("as far as it decodes")
    )
    page = (tmp_path / "p.html").read_text(encoding="utf-8")
    assert "1 videos are damaged" in page and "it is cut off: " in page and "were not searched" not in page


def test_a_trained_run_finds_moments(home, tmp_path, monkeypatch, capsys):
    sea = home / "v" / "<b>sea #1.mp4"
    words = (sea, "--model", home / "runs" / "moments", "--query", "a boat on the sea", "--html", tmp_path / "p.html")
    assert call_tool("find_moments.py", *words, "--json", "--top", 3, monkeypatch=monkeypatch) == 0
    found = json.loads(capsys.readouterr().out)
    assert found[0]["model"] == "moments/best.pt (step 5)" and [moment["rank"] for moment in found] == [1, 2, 3]
    assert all(0 <= m["start_s"] < m["end_s"] <= m["duration_s"] and m["cut"] is None for m in found)
    page = (tmp_path / "p.html").read_text(encoding="utf-8")
    assert "864 training queries of x.moments.parquet" in page and "probability, from 0.00 to 1.00" in page


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("{v}", "--query", " "), "query ' ': it has no words"),
        (("{v}", "--query", "word " * 129), "has 129 words, a query at most 128"),
        (("{v}", "--query", "xylophonists " * 124), "all-MiniLM-L6-v2 does not read so many words: name one moment"),
        (("{v}/none", "--query", "a dog"), "no video at '{v}/none'"),
        (("--query", "a dog"), "no VIDEO is named, and no --index"),
        (("{v}", "--query", "a dog", "--top", "0"), "--top is 0: it must be from 1 to 1000"),
        (("{v}", "--query", "a dog", "--index", "/proc/index"), "--index: cannot write into '/proc/index'"),
        (("{v}", "--query", "a dog", "--cut", "{v}/broken.mp4/cuts"), "--cut: cannot write into '{v}/broken.mp4/cuts'"),
        (("{v}", "--query", "a dog", "--cut", "/proc/cuts"), "--cut: cannot write into '/proc/cuts'"),
        (("{v}", "--query", "a dog", "--html", "/proc/p.html"), "--html: cannot write into '/proc'"),
        (("{v}", "--query", "a dog", "--html", "{v}/broken.mp4"), "is no name of a page: give one that ends in .html"),
        (("{v}", "--query", "a dog", "--encoder", "x"), "no --model is named"),
        (("{v}", "--query", "a dog", "--model", "installed", "--encoder", "x"), "--model 'installed' is no run"),
        (("{v}", "--query", "a dog", "--model", "installed:lite9"), "called so: there are installed, installed:lite2"),
        (("{v}", "--query", "a dog", "--model", "{v}/none"), "'{v}/none'"),
        (("{v}", "--query", "a dog", "--model", "{v}/../runs/network"), "only a model of moments finds them"),
        (("{v}", "--query", "qzxw vvkjq", "--model", "{v}/../runs/moments"), "none of its words (qzxw, vvkjq) is in"),
        (("{v}/broken.mp4", "--query", "a dog", "--model", "{v}/../runs/moments"), "none of the 1 videos can be used"),
    ],
)
def test_bad_input_is_one_line(home, words, told, monkeypatch, capsys):
    words = [word.format(v=home / "v") for word in words]
    assert call_tool("find_moments.py", *words, monkeypatch=monkeypatch) == 2
    *begun, error = capsys.readouterr().err.splitlines()
    begun = [
        line for line in begun if " left, " not in line
    ]  # the progress, on a machine that takes seconds for one file
    assert (
        error.startswith("error: ")
        and begun
        in ([], ["1 videos: those that are new or have changed are looked at, then their features are extracted"])
        and told.format(v=home / "v") in error
    )
