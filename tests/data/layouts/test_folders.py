"""What folders are guessed to be, and that no file below them is lost: splits by name, holders, links, odd suffixes, numbers."""

import os
from pathlib import Path

import pytest

from engine.data.layouts import read_layout
from engine.data.layouts.class_names import read_class_names, warn_of_names
from engine.data.layouts.folders import split_words
from engine.data.layouts.walk import looks_like_video
from engine.errors import InputError
from tests.data.listings import error_of, kinds, make, rows, write


def classes(listing):
    return sorted(set(rows(listing, "class_name", "split")))


def said(listing, *words):
    """Whether one note holds all of these."""
    return any(all(word in note for word in words) for note in listing.notes)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("train_256", "val_256"), ["train", "val"]),
        (("Training Set", "test-videos", "validation"), ["train", "test", "val"]),
        (("TrainSet", "TestSet"), ["train", "test"]),
        (("k400_train", "k400_val"), ["train", "val"]),
        (("seen", "unseen classes"), ["seen", "unseen"]),
        (("training dog", "test drive", "bus", "trainer", "eval1uation"), []),
    ],
)
def test_names_of_splits(names, expected):
    assert list(split_words(names).values()) == expected


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (("train_256/a/1.mp4", "val_256/a/2.mp4"), [("a", "train_256"), ("a", "val_256")]),
        (("train/a/1.mp4", "val/b/2.mp4", "samples/3.mp4", "x/y/4.mp4"), [("a", "train"), ("b", "val")]),
        (("train/a/1.mp4", "train/b/2.mp4", "demo/3.mp4"), [("a", "train"), ("b", "train")]),
        (("UCF/archery/1.mp4", "UCF/bowling/1.mp4"), [("archery", ""), ("bowling", "")]),
        (("data/k/train/a/1.mp4", "data/k/val/b/2.mp4"), [("a", "train"), ("b", "val")]),
        (("a/train/1.mp4", "a/val/2.mp4", "b/train/3.mp4"), [("a", "train"), ("a", "val"), ("b", "train")]),
        (("a/g01/1.mp4", "a/g02/2.mp4"), [("a", "")]),  # groups of one class
        (("bus/1.mp4", "car/2.mp4", "train/x/3.mp4"), [("bus", ""), ("car", ""), ("train", "")]),  # a vehicle
    ],
)
def test_what_the_folders_are(tmp_path, files, expected):
    listing = read_layout("auto", make(tmp_path, *files))
    assert classes(listing) == expected
    assert said(listing, "--splits") and said(listing, "layout folder", "--layout")
    assert {entry.path for entry in listing.entries} | {problem.path for problem in listing.problems} == set(files)
    assert {kind for _, kind in kinds(listing)} <= {"no-split"}


def test_the_user_says_which_folders_are_splits(tmp_path):
    make(tmp_path, "part1/archery/1.mp4", "part1/bowling/2.mp4", "part2/archery/3.mp4", "part2/bowling/4.mp4")
    guessed = read_layout("folder", tmp_path)
    assert classes(guessed) == [("part1", ""), ("part2", "")]
    assert said(guessed, "warning", "--splits part1,part2")
    assert classes(read_layout("folder", tmp_path, splits=["part1", "part2"])) == [
        ("archery", "part1"), ("archery", "part2"), ("bowling", "part1"), ("bowling", "part2"),
    ]  # fmt: skip
    assert "no such folder" in error_of("folder", tmp_path, splits=["part3"])
    assert "from lists" in error_of("kinetics", tmp_path, splits=[])
    train = make(tmp_path / "two", "train/g/1.mp4", "test/h/2.mp4")
    assert classes(read_layout("folder", train, splits=[])) == [("test", ""), ("train", "")]


def test_without_splits_loose_videos_are_one_class(tmp_path, monkeypatch):
    """A flat folder is enough for what needs no classes; the class is the one that naming the parent folder gives."""
    flat = make(tmp_path / "clips", "a.mp4", "b.mp4")
    listing = read_layout("folder", flat, splits=[])
    assert rows(listing, "path", "class_name", "split", "group") == [
        ("a.mp4", "clips", "", ""),
        ("b.mp4", "clips", "", ""),
    ]
    assert said(listing, "warning: 2 files in no class folder", "one class 'clips'", "recognition needs")
    assert classes(read_layout("folder", tmp_path, splits=[])) == classes(listing)
    monkeypatch.chdir(flat)
    assert classes(read_layout("folder", Path(), splits=[])) == classes(listing)
    beside = read_layout("folder", make(flat, "holiday/c.mp4"), splits=[])
    assert rows(beside, "path", "class_name") == [("a.mp4", "clips"), ("b.mp4", "clips"), ("holiday/c.mp4", "holiday")]
    assert not beside.problems
    assert kinds(read_layout("folder", flat)) == [("a.mp4", "no-class"), ("b.mp4", "no-class")]


def test_a_folder_under_three_names_is_three_classes(tmp_path):
    make(tmp_path, "real/a.mp4", "real/b.mp4")
    for name in ("one", "two"):
        (tmp_path / name).symlink_to("real")
    (tmp_path / "real" / "round").symlink_to(tmp_path)
    (tmp_path / "gone").symlink_to(tmp_path / "absent")
    listing = read_layout("auto", tmp_path)
    assert len(listing.entries) == 6
    assert {name for name, _ in classes(listing)} == {"one", "real", "two"}
    assert kinds(listing) == [("gone", "missing")]
    assert {unused.path for unused in listing.unused} == {"one/round/", "real/round/", "two/round/"}


def test_a_link_that_leads_nowhere_costs_itself_alone(tmp_path):
    make(tmp_path, "one/a.mp4")
    (tmp_path / "one" / "loop").symlink_to("loop")
    listing = read_layout("folder", tmp_path)
    assert len(listing.entries) == 1 and kinds(listing) == [("one/loop", "unreadable")]


def test_links_among_links_end(tmp_path):
    for name in "abcdef":
        make(tmp_path, f"{name}/{name}.mp4")
    for name in "abcdef":
        for other in "abcdef":
            (tmp_path / name / f"to_{other}").symlink_to(tmp_path / other)
    listing = read_layout("folder", tmp_path)
    assert {path.rsplit("/", 1)[-1] for (path,) in rows(listing, "path")} == {f"{name}.mp4" for name in "abcdef"}
    assert len(listing.entries) <= 6 * 16


def test_videos_are_told_by_their_first_bytes_where_the_name_is_no_help(tmp_path):
    starts = {
        "a/clip": b"\0\0\0\x18ftypisom", "a/clip.dat": b"\0\0\x01\xba", "a/1.bak": b"RIFF\0\0\0\0AVI LIST",
        "b/t": b"G" + b"\0" * 187 + b"G",
        "b/clip.mp4.1": b"\x1aE\xdf\xa3", "b/o.ogg": b"OggS" + b"\0" * 24 + b"\x80theora",
    }  # fmt: skip
    others = {
        "a/README": b"hello",
        "a/sound": b"OggS\0\0vorbis",
        "b/music": b"\0\0\0\x18ftypM4A ",
        "b/x.txt": b"RIFF\0\0\0\0AVI ",
    }
    make(tmp_path, *starts, *others, "a/x.mpe", "a/y.DIVX", "b/z.m2v", "b/.hidden.mp4", "b/p.jpg", "a/photo.heic")
    for path, content in (starts | others).items():
        (tmp_path / path).write_bytes(content)
    (tmp_path / "empty class").mkdir()
    listing = read_layout("auto", tmp_path)
    assert {path for (path,) in rows(listing, "path")} == {*starts, "a/x.mpe", "a/y.DIVX", "b/z.m2v"}
    assert {each.path for each in listing.unused} == {
        *others,
        "b/.hidden.mp4",
        "b/p.jpg",
        "a/photo.heic",
        "empty class/",
    }
    assert all(each.text for each in listing.unused)
    assert said(listing, "8 other files left out", "1 hidden", "1 .heic")
    assert not looks_like_video(tmp_path / "absent")


def test_many_files_of_a_kind_are_one_line(tmp_path):
    make(tmp_path, "a/v.mp4", *(f"a/frames/{number:05d}.jpg" for number in range(60)))
    listing = read_layout("auto", tmp_path)
    assert [(each.path, each.text.split(":")[0]) for each in listing.unused] == [("a/frames/.jpg*", "60 files")]
    assert said(listing, "60 other files", "60 .jpg") and said(listing, "warning: more pictures (60) than videos (1)")


def test_frames_of_videos_are_not_taken_for_pictures_without_a_word(tmp_path):
    listing = read_layout("auto", make(tmp_path, *(f"run/v1/img_{number:05d}.jpg" for number in range(9))))
    assert listing.layout == "images" and said(listing, "warning", "frames of videos")
    assert not said(
        read_layout("auto", make(tmp_path / "photos", "run/sun_a.jpg", "run/sun_b.jpg")), "frames of videos"
    )


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    make(tmp_path, "a/1.mp4", "b/2.mp4")
    scan = os.scandir

    def refuse(path):
        if str(path).endswith("/b"):
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert kinds(read_layout("folder", tmp_path)) == [("b/", "unreadable")]


def test_a_folder_that_may_be_listed_but_not_entered_is_named(tmp_path, monkeypatch):
    make(tmp_path, "a/1.mp4", "b/2.mp4", "b/list.json")
    stat = os.stat

    def refuse(path, **options):
        if "/b/" in str(path):
            raise PermissionError(13, "Permission denied")
        return stat(path, **options)

    monkeypatch.setattr(os, "stat", refuse)
    listing = read_layout("auto", tmp_path)
    assert rows(listing, "path") == [("a/1.mp4",)] and kinds(listing) == [("b/", "unreadable")]


def test_the_folder_above_need_not_be_listed(tmp_path, monkeypatch):
    root, scan = make(tmp_path / "above" / "set", "0/1.mp4", "1/2.mp4"), Path.iterdir

    def refuse(path):
        if path.name == "above":
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(Path, "iterdir", refuse)
    listing = read_layout("auto", root)
    assert listing.layout == "folder" and rows(listing, "path", "class_name") == [("0/1.mp4", "0"), ("1/2.mp4", "1")]


@pytest.mark.parametrize("name", ["notes.json", "0/notes.json", "0/notes.csv", "notes.txt", "lists/notes.csv"])
def test_a_file_beside_the_videos_need_not_be_readable(tmp_path, monkeypatch, name):
    root, read = make(tmp_path, "0/1.mp4", name), Path.open

    def refuse(path, *mode, **how):
        if path.stem == "notes":
            raise PermissionError(13, "Permission denied")
        return read(path, *mode, **how)

    monkeypatch.setattr(Path, "open", refuse)
    listing = read_layout("auto", root)
    assert (
        kinds(listing) == [] and listing.layout == "folder" and said(listing, "warning: 1 file may not be read", name)
    )
    table = write(root / "list.csv", "path,label\n0/1.mp4,run\n")
    assert rows(read_layout("auto", root), "path", "class_name") == [("0/1.mp4", "run")]
    table.unlink()
    write(root / "a.json", '{"database": {"1": {"annotations": [{"segment": [0, 1], "label": "run"}]}}}')
    assert rows(read_layout("auto", root), "path", "class_name") == [("0/1.mp4", "run")]
    assert "Permission denied" in error_of("csv", root, annotations=root / name)


# class names


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (("playing tennis/v_TennisSwing_g01_c01.mp4", "bow/v_Archery_g01_c01.mp4"), {"playing tennis", "bow"}),
        (("playing tennis/v_TennisSwing_g01_c01.mp4", "Archery/v_Archery_g01_c01.mp4"), {"playing tennis", "Archery"}),
        (
            ("sport/v_TennisSwing_g01_c01.mp4", "sport/v_Archery_g01_c01.mp4", "art/v_Dance_g01_c01.mp4"),
            {"sport", "art"},
        ),
        (("all/v_TennisSwing_g01_c01.mp4", "all/v_Archery_g01_c01.mp4"), {"TennisSwing", "Archery"}),
        (("disc1/v_Archery_g01_c01.mp4", "disc2/v_Archery_g02_c01.mp4"), {"Archery"}),
    ],
)
def test_class_folders_win_over_file_names(tmp_path, files, expected):
    listing = read_layout("auto", make(tmp_path, *files))
    assert listing.layout == "ucf101"
    assert {name for name, _ in classes(listing)} == expected
    assert rows(listing, "group")[0] == ("g01",)
    assert said(listing, "folder")


def test_ucf101_in_folders_of_splits(tmp_path):
    make(tmp_path, "train/Archery/v_Archery_g01_c01.avi", "test/v_Archery_g02_c01.avi", "test/v_Dance_g02_c01.avi")
    assert classes(read_layout("auto", tmp_path)) == [("Archery", "test"), ("Archery", "train"), ("Dance", "test")]


def test_a_clip_in_two_containers_is_one_video(tmp_path):
    names = ("Archery/v_Archery_g01_c01.avi", "Archery/v_Archery_g01_c01.mp4", "Archery/v_Archery_g02_c01.avi")
    listing = read_layout("auto", make(tmp_path, *names))
    assert rows(listing, "path", "copies") == [(names[0], (names[1],)), (names[2], ())]
    assert [(each.path, "second copy" in each.text) for each in listing.unused] == [(names[1], True)]


def test_a_list_that_contradicts_the_folders_counts_and_is_told(tmp_path):
    make(tmp_path, "run/a.mp4", "jump/b.mp4", "jump/c.mp4.part", "pole_vault/d.mp4")
    (tmp_path / "jump" / "c.mp4.part").write_bytes(b"\0\0\0\x18ftypisom")
    write(tmp_path / "l.csv", "path,label\nrun/a.mp4,jump\njump/b.mp4,run\npole_vault/d.mp4,pole vault\n")
    listing = read_layout("auto", tmp_path)
    assert rows(listing, "class_name") == [("jump",), ("run",), ("pole vault",)]
    assert said(listing, "warning: 2 videos in the folder of another class", "run/a.mp4: 'jump'")
    assert [each.path for each in listing.unused] == ["jump/c.mp4.part"]


def test_names_that_mean_the_same(tmp_path):
    listing = read_layout(
        "auto", make(tmp_path, "dance/a.mp4", "dance /b.mp4", "Dance/c.mp4", "dancing/d.mp4", "run/e.mp4")
    )
    assert said(listing, "warning", "'Dance', 'dance', 'dance ', 'dancing'", "same vector")
    assert len(listing.entries) == 5
    assert len(warn_of_names(["walking_dog", "walking the dog", "RidingBike", "riding a bike"])) == 2
    assert warn_of_names(["long jump", "high jump"]) == []
    assert "same words" in warn_of_names(["cafe\u0301", "caf\u00e9"])[0]
    assert "begin with a number" in warn_of_names(["001.run", "2_jump"])[0]
    assert "numbers alone" in warn_of_names(["class 1", "class 2"])[0]


def test_folders_that_unicode_writes_in_two_ways_are_one_class_and_keep_their_paths(tmp_path):
    paths = ["caf\u00e9/a.mp4", "cafe\u0301/b.mp4", "run/c.mp4"]
    listing = read_layout("auto", make(tmp_path / "set", *paths))
    assert {entry.path: entry.class_name for entry in listing.entries} == dict(
        zip(paths, ["caf\u00e9", "caf\u00e9", "run"], strict=True)
    )
    assert not said(listing, "warning")
    names = write(tmp_path / "names.json", '{"drinking cafe\u0301": "cafe\u0301", "running": "run"}')
    listing = read_layout("auto", tmp_path / "set", class_names=names)
    assert {entry.class_name for entry in listing.entries} == {"drinking caf\u00e9", "running"}


def test_numeric_class_folders_get_their_names(tmp_path):
    root = make(tmp_path / "set", "0/1.mp4", "1/2.mp4")
    assert said(read_layout("auto", root), "warning", "(0, 1)", "--class-names")
    write(tmp_path / "names", "run\njump\n")
    assert classes(read_layout("auto", root, class_names=tmp_path / "names")) == [("jump", ""), ("run", "")]
    write(root / "classes.txt", "1,run\n2,jump\n")  # from 1
    listing = read_layout("auto", root)
    assert rows(listing, "class_name") == [("run",), ("jump",)]
    assert listing.unused == [] and said(listing, "classes.txt", "--class-names")
    write(root / "labels.json", '{"sit": 0, "jump": 1}')
    assert said(read_layout("auto", root), "warning", "different names")
    write(tmp_path / "names", "run\n")
    assert "not all of the labels 0, 1" in error_of("auto", root, class_names=tmp_path / "names")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("n.txt", "run\njump up\n"), ("n.txt", "0 run\n1 jump up\n"),
        ("n.csv", "id,name\n0,run\n1,jump up\n"), ("n.csv", "run,0\njump up,1\n"),
        ("n.json", '{"run": 0, "jump up": "1"}'), ("n.json", '{"0": "run", "1": "jump up"}'),
        ("n.json", '\ufeff["run", "jump up"]'),
        ("n.json", '{"00": "run", "01": "jump up"}'), ("n.json", '{"run": "0.0", "jump up": "1.0"}'),
    ],
)  # fmt: skip
def test_files_of_class_names(tmp_path, name, text):
    assert read_class_names(write(tmp_path / name, text)) == {"0": "run", "1": "jump up"}


@pytest.mark.parametrize("labels", [("01", "02"), ("1", "2"), ("0", "1")])
@pytest.mark.parametrize("text", ['{"01": "run", "02": "jump"}', '{"run": "01", "jump": "02"}'])
def test_numbers_of_class_names_may_be_padded(tmp_path, labels, text):
    root = make(tmp_path / "set", *(f"{label}/{label}.mp4" for label in labels))
    listing = read_layout("auto", root, class_names=write(tmp_path / "n.json", text))
    assert rows(listing, "class_name") == [("run",), ("jump",)]


def test_a_file_of_class_names_that_is_none(tmp_path):
    with pytest.raises(InputError, match="holds no names"):
        read_class_names(write(tmp_path / "n.json", "3"))
