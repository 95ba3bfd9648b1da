"""tools/find_moments.py as a user runs it."""

import json

import pytest

from tests.encoded import fade, write_colors
from tests.small_run import call_tool


def test_moments_are_found_without_any_training(tmp_path, monkeypatch, capsys):
    write_colors(tmp_path / "v" / "sea.mp4", fade((0, 40, 220), (10, 90, 160), 75))
    (tmp_path / "v" / "broken.mp4").write_bytes(b"no video")
    words = (tmp_path / "v", "--index", tmp_path / "i", "--query", "the open sea", "--query", "a dog")
    assert call_tool("find_moments.py", *words, "--json", "--top", 2, monkeypatch=monkeypatch) == 1
    shown = capsys.readouterr()
    found = json.loads(shown.out)
    assert {moment["query"] for moment in found} == {"the open sea", "a dog"}
    for moment in found:
        assert moment["video"] == str(tmp_path / "v" / "sea.mp4")
        assert 0 <= moment["start_s"] < moment["end_s"] <= 3.01 and -1 < moment["score"] < 1
    assert "broken.mp4: " in shown.err
    assert call_tool("find_moments.py", *words[1:], monkeypatch=monkeypatch) == 0
    assert "0:00:0" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("{v}", "--query", " "), "query ' ': it has no words"),
        (("{v}", "--query", "word " * 129), "has 129 words, a query at most 128"),
        (("{v}/none", "--query", "a dog"), "no video at '{v}/none'"),
        (("--query", "a dog"), "no VIDEO is named, and no --index"),
        (("{v}", "--query", "a dog", "--top", "0"), "--top is 0: it must be from 1 to 1000"),
        (("{v}", "--query", "a dog", "--index", "/proc/index"), "--index: cannot write into '/proc/index'"),
    ],
)
def test_bad_input_is_one_line(tmp_path, words, told, monkeypatch, capsys):
    words = [word.format(v=tmp_path) for word in words]
    assert call_tool("find_moments.py", *words, monkeypatch=monkeypatch) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and told.format(v=tmp_path) in error
