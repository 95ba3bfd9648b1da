"""What of a test was known before: each class under the first reason that holds, files by their contents, and the page."""

import pytest

from engine.data.manifests.joining import write_large
from engine.data.manifests.manifest import Manifest
from engine.semantics.class_lists import read_classes
from engine.semantics.config import WordsConfig
from engine.semantics.contamination import CLEAR, NEAR, SAME, SHARED, ClassSet, class_rows, contamination, page, summary
from tests.rows import row
from tests.small_run import call_tool

TRAINING = ("playing piano", "dunking basketball", "horse race", "riding a horse")
TEST = ("PlayingPiano", "BasketballDunk", "HorseRiding", "knitting", "surfing", "race")


def read(text):
    return ClassSet.of(read_classes(text), text)


def found(tau=0.05):
    return contamination(ClassSet(("test", TEST)), ClassSet(("seen", TRAINING)), WordsConfig(), tau)


def test_a_class_counts_under_the_first_reason_that_holds():
    kinds = {known.name: known.kind for known in found().classes}
    assert kinds["PlayingPiano"] == SAME  # the same words, spelt in another way
    assert kinds["BasketballDunk"] == kinds["HorseRiding"] == NEAR  # verbs as lemmas, in any order: equal vectors
    assert kinds["race"] == SHARED  # the last word of 'horse race'
    assert kinds["surfing"] == kinds["knitting"] == CLEAR
    assert [known.kind for known in found().classes] == [SAME, NEAR, NEAR, SHARED, CLEAR, CLEAR]
    assert {known.name for known in found(tau=2).classes if known.kind == NEAR} == set(TEST) - {"PlayingPiano"}


def test_the_page_tells_counts_sentences_and_classes():
    text = page([found()], 0.05, "vectors of a test; in full")
    assert "| test | seen | 6 | 1 | 2 | 1 | 2 | - | - |" in text
    assert (
        "Classes of test (6) that seen has under the same name: 1; others within the threshold of one of its classes: 2"
        in text
    )
    assert "| PlayingPiano | same name | playing piano | 0.000 |" in text and "surfing" not in text
    assert "Files were not compared." in text and "Class vectors in full: vectors of a test; in full." in text
    assert len(class_rows([found()]).rows) == 6 and summary([found()]).rows[0][2:7] == [6, 1, 2, 1, 2]


@pytest.fixture
def manifests(tmp_path):
    for name, hashes in (("seen", (1, 2, 3)), ("test", (3, 4, 5, 2))):
        rows = [row(f"{name}{k}.mp4", TEST[0], content_hash=hashes[k]) for k in range(len(hashes))]
        Manifest.from_rows(rows, tmp_path).save(tmp_path / f"{name}.parquet")
    return tmp_path


def test_files_are_known_by_their_contents(manifests):
    test, seen = (read(f"{name.upper()}={manifests / name}.parquet") for name in ("test", "seen"))
    both = contamination(test, seen, WordsConfig(), 0.05)
    assert (both.test, both.num_files, both.files) == ("TEST", 4, 2)
    assert both.sentence().endswith("Files of TEST (4) that are among those of SEEN: 2.")
    names_alone = contamination(test, read("imagenet"), WordsConfig(), 0.05)
    assert names_alone.files is None and names_alone.num_files == 4


def test_copies_of_a_file_count_each_and_segments_of_one_do_not(manifests):
    files = [("a.mp4", 2), ("b.mp4", 2), ("c.mp4", 2), ("d.mp4", 8), ("e.mp4", 9), ("e.mp4", 9)]
    rows = [row(path, TEST[0], content_hash=contents) for path, contents in files]
    Manifest.from_rows(rows, manifests).save(manifests / "copies.parquet")
    both = contamination(
        *(read(str(manifests / f"{name}.parquet")) for name in ("copies", "seen")), WordsConfig(), 0.05
    )
    assert both.sentence().endswith("Files of copies (5) that are among those of seen: 3.")


def test_a_large_manifest_has_contents_too(manifests):
    write_large([Manifest.load(manifests / "test.parquet")], manifests / "large")
    assert read(str(manifests / "large")).files == (3, 4, 5, 2)


def test_a_manifest_of_before_has_no_contents(manifests):
    Manifest.from_rows([row("a.mp4", TEST[0])], manifests).save(manifests / "old.parquet")
    assert read(str(manifests / "old.parquet")).files is None


def test_the_tool_writes_it_beside_the_figure(manifests, monkeypatch, capsys):
    arguments = ("--report", "--train", manifests / "seen.parquet", "--test", manifests / "test.parquet")
    assert call_tool("class_overlap.py", *arguments, "--out", manifests / "out", monkeypatch=monkeypatch) == 0
    assert "test      seen                1          1" in capsys.readouterr().out
    assert "among those of seen: 2." in (manifests / "out" / "contamination.md").read_text(encoding="utf-8")
    assert (manifests / "out" / "contamination.csv").read_text().count("\n") == 2
