"""Sets of classes by the names that a user gives."""

import pytest

from engine.data.manifests.joining import write_large
from engine.data.manifests.manifest import Manifest
from engine.errors import InputError
from engine.models.weights import kinetics400_classes
from engine.semantics.class_lists import read_class_names, read_classes
from tests.rows import row


def test_sets_of_classes_by_a_word():
    assert read_classes("kinetics400") == ("kinetics400", kinetics400_classes())
    called, names = read_classes("seen=imagenet")
    assert called == "seen" and "violin" in names and len(names) == 1842


def test_classes_of_a_large_manifest(tmp_path):
    rows = [row(f"{k}.mp4", name) for k, name in enumerate(["cooking", "archery", "cooking"])]
    write_large([Manifest.from_rows(rows, tmp_path)], tmp_path / "v1.2")
    assert read_classes(str(tmp_path / "v1.2")) == ("v1.2", ("archery", "cooking"))
    assert read_classes(f"all={tmp_path / 'v1.2'}")[0] == "all"
    with pytest.raises(InputError, match=r"is no large manifest .* index them with"):
        read_classes(str(tmp_path))


@pytest.mark.parametrize("text", ["0,abseiling\n1,air drumming\n2,archery\n", "id name\n1 a\n2 b\n3\tc\n"])
def test_a_numbered_list_is_refused(tmp_path, text):
    """The numbers have vectors too, and would hide that classes are equal."""
    (tmp_path / "classes.txt").write_text(text)
    with pytest.raises(InputError, match=r"classes.txt' numbers its class names \('.*', ...\).*leave them out"):
        read_class_names(tmp_path / "classes.txt")
    (tmp_path / "classes.txt").write_text("3 point shot\nlayup\n100 metres\ndunk\n")
    assert len(read_class_names(tmp_path / "classes.txt")) == 4
    (tmp_path / "classes.txt").write_text("100 metres\n200 metres\n400 metres\n400 metres hurdles\n")
    assert len(read_class_names(tmp_path / "classes.txt")) == 4  # here the numbers are what the classes differ in


def test_a_name_that_unicode_writes_in_two_ways_is_one_of_a_list(tmp_path):
    (tmp_path / "classes.txt").write_text("cafe\u0301\ncaf\u00e9\nrun\n", encoding="utf-8")
    assert read_class_names(tmp_path / "classes.txt") == ("caf\u00e9", "run")
    (tmp_path / "classes.txt").write_text("one\u2028two\r\nrun\r\n", encoding="utf-8")
    assert read_class_names(tmp_path / "classes.txt") == ("one\u2028two", "run")  # what ends a line in no editor
