"""Folders of classes and tables: how they are read, what is chosen by itself, and one clear error for each wrong input.

`test_layouts_published.py` has the data sets that come with lists of their own.
"""

import math
import os

import pytest

from engine.data.layouts import read_layout
from tests.data.listings import chosen, error_of, kinds, make, rows, write

# folder


def test_folder_per_class(tmp_path):
    make(tmp_path, "surfing/b.mp4", "surfing/a.MKV", "archery/g1/x.avi", "top.mp4", "surfing/notes.txt")
    make(tmp_path, ".cache/x.mp4", "surfing/._a.mp4")  # hidden: what macOS leaves behind
    listing = read_layout("auto", tmp_path)
    assert listing.layout == "folder"
    assert rows(listing, "path", "class_name", "split", "group") == [
        ("archery/g1/x.avi", "archery", "", "g1"),
        ("surfing/a.MKV", "surfing", "", ""),
        ("surfing/b.mp4", "surfing", "", ""),
    ]
    assert kinds(listing) == [("top.mp4", "no-class")]
    assert any("a folder per class" in note for note in listing.notes)


def test_folder_per_split_and_class(tmp_path):
    make(tmp_path, "train/surfing/a.mp4", "val/surfing/b.mp4", "Test/archery/c.mp4")
    listing = read_layout("folder", tmp_path)
    assert rows(listing, "class_name", "split") == [("archery", "Test"), ("surfing", "train"), ("surfing", "val")]


def test_a_class_may_have_the_name_of_a_split(tmp_path):
    assert rows(read_layout("folder", make(tmp_path, "train/a.mp4", "bus/b.mp4")), "class_name", "split") == [
        ("bus", ""),
        ("train", ""),
    ]


def test_linked_folders_are_followed_once(tmp_path):
    make(tmp_path / "elsewhere", "a.mp4")
    make(tmp_path / "set", "surfing/b.mp4")
    (tmp_path / "set" / "archery").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set" / "surfing" / "round").symlink_to(tmp_path / "set")
    paths = [path for (path,) in rows(read_layout("folder", tmp_path / "set"), "path")]
    assert paths == ["archery/a.mp4", "surfing/b.mp4"]


def test_folders_without_videos_are_errors(tmp_path):
    assert "is not a folder" in error_of("auto", tmp_path / "absent")
    assert "no videos" in error_of("auto", tmp_path)
    assert "unpack them first" in error_of("folder", make(tmp_path, "surfing.rar"))
    flat = error_of("folder", make(tmp_path, "a.mp4"))
    assert "no class folders" in flat and "--splits none takes them as they lie" in flat
    assert "unknown layout 'k400'" in error_of("k400", tmp_path)
    assert "no numbered splits" in error_of("folder", tmp_path, split_number=2)


# CSV


def test_csv_without_header(tmp_path):
    make(tmp_path, "videos/a.mp4", "videos/b, c.mp4")
    write(
        tmp_path / "labels.csv",
        'videos/a.mp4,surfing,train,g1\n\n"videos/b, c.mp4",archery\nvideos/lost.mp4,archery,test\n',
    )
    listing = read_layout("auto", tmp_path)
    assert listing.layout == "csv"
    assert rows(listing, "path", "class_name", "split", "group") == [
        ("videos/a.mp4", "surfing", "train", "g1"),
        ("videos/b, c.mp4", "archery", "", ""),
    ]
    assert kinds(listing) == [("videos/lost.mp4", "missing")]
    assert math.isnan(listing.entries[0].segment_start)


def test_tsv_with_header_segments_and_absolute_paths(tmp_path):
    root, elsewhere = make(tmp_path / "root", "a.mp4"), make(tmp_path / "elsewhere", "b.mp4")
    table = write(
        tmp_path / "labels.tsv",
        f"\ufefflabel\tstart\tend\tsplit\tfile\nrun\t1.5\t4\ttrain\t{root}/a.mp4\njump\t5\t6\ttrain\ta.mp4\n"
        f"jump\t\t\ttest\t{elsewhere}/b.mp4\nrun\t3\t3\ttrain\ta.mp4\nrun\t1.5\t4\ttest\ta.mp4\n",
    )
    listing = read_layout("auto", root, annotations=table)
    assert rows(listing, "path", "class_name", "split", "segment_start") == [
        ("a.mp4", "run", "train", 1.5),
        ("a.mp4", "jump", "train", 5.0),
        (f"{elsewhere}/b.mp4", "jump", "test", pytest.approx(math.nan, nan_ok=True)),
    ]
    assert kinds(listing) == [("a.mp4", "bad-segment"), ("a.mp4", "duplicate")]


def test_a_table_of_something_else_does_not_hide_class_folders(tmp_path):
    make(tmp_path, "surfing/a.mp4")
    write(tmp_path / "prices.csv", "name,price\nsurfboard,3\n")
    assert chosen(tmp_path) == "folder"


def test_csv_errors(tmp_path):
    assert "no .csv or .tsv" in error_of("csv", tmp_path)
    table = tmp_path / "x.csv"
    for text, message in [
        ("", "is empty"),
        ("path,label\n", "lists no videos"),
        ("a,b,c,d,e\n", "names no columns"),
        ("path,label\na.mp4,\n", "x.csv, line 2: a row needs a path and a label"),
        ("path,label,start\na.mp4,x,1\n", "needs a start and an end"),
        ("path,label,start,end\na.mp4,x,1,-2\n", "'-2' is not a time"),
    ]:
        assert message in error_of("csv", tmp_path, annotations=write(table, text)), text
    table.write_bytes(b"a.mp4,caf\xe9\n")
    assert "cannot read" in error_of("csv", tmp_path, annotations=table)
    write(tmp_path / "y.csv", "a")
    assert "2 tables" in error_of("csv", tmp_path)


def test_annotations_of_no_known_kind(tmp_path):
    make(tmp_path, "surfing/a.mp4", "lists/readme")
    assert "no known layout" in error_of("auto", tmp_path, annotations=tmp_path / "lists")
    assert "no known layout" in error_of("auto", tmp_path, annotations=write(tmp_path / "x.json", "{}"))
    assert "what is" in error_of("folder", tmp_path, annotations=tmp_path / "lists")


def test_names_that_are_not_utf8_are_listed(tmp_path):
    make(tmp_path, "surfing/a.mp4")
    os.close(os.open(os.fsencode(tmp_path) + b"/surfing/\xff.mp4", os.O_CREAT))
    assert len(read_layout("folder", tmp_path).entries) == 2
