"""Lists as others write them: separators, quotes, encodings, other machines' paths; a bad row is that row lost."""

import json
import time
import unicodedata
from pathlib import Path
from types import SimpleNamespace

import pytest

from engine.data.layouts import read_layout
from engine.data.layouts.finder import FileFinder
from engine.data.layouts.tables import read_lines, rows_of
from tests.data.listings import error_of, kinds, make, rows, write


def said(listing, *words):
    return any(all(word in note for word in words) for note in listing.notes)


def every_row_told(listing, count):
    return len(listing.entries) + len(listing.problems) == count


@pytest.mark.parametrize(
    "text",
    [
        "path,label\na.mp4,riding a bike\nb c.mp4,run\n",
        '"path","label"\n"a.mp4","riding a bike"\n"b c.mp4","run"\n',
        "Video Path;Label\r\na.mp4;riding a bike\r\nb c.mp4;run\r\n",
        ' "path" , "label" \n "a.mp4" , "riding" a bike\n b c.mp4,run\n',
        "riding a bike,a.mp4\nrun,b c.mp4\n",
        "0,a.mp4,riding a bike\n1,b c.mp4,run\n",
        "a.mp4;riding a bike\nb c.mp4;run\n",
        "a.mp4\triding a bike\rb c.mp4\trun\r",
        "a.mp4|riding a bike\nb c.mp4|run\n",
        "a.mp4 riding a bike\nb c.mp4 run\n",
        "\ufeffpath,label\n./a.mp4,riding a bike\nb c,run\n",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_separators_and_encodings(tmp_path, text, encoding):
    make(tmp_path, "a.mp4", "b c.mp4")
    (tmp_path / "l.csv").write_bytes(text.encode(encoding))
    listing = read_layout("auto", tmp_path)
    assert rows(listing, "path", "class_name") == [("a.mp4", "riding a bike"), ("b c.mp4", "run")]
    assert listing.problems == [] and listing.unused == []
    assert said(listing, "layout csv", "--layout")


@pytest.mark.parametrize(
    "text",
    [
        "path label split\na.mp4 archery train\nb.mp4 surfing test\n",
        "split  label  path\rtrain archery a.mp4\rtest surfing  b.mp4 \r",
        '"path" "frames" "label" "split"\n"a.mp4" "9" "archery" "train"\n"b.mp4" "8" "surfing" "test"\n',
    ],
)
def test_a_space_separates_the_columns_of_a_header(tmp_path, text):
    make(tmp_path, "a.mp4", "b.mp4")
    write(tmp_path / "l.txt", text)
    listing = read_layout("auto", tmp_path)
    assert rows(listing, "path", "class_name", "split") == [("a.mp4", "archery", "train"), ("b.mp4", "surfing", "test")]
    assert listing.problems == []


@pytest.mark.parametrize("header", ["path label", "path class name", "video path label"])
def test_a_label_may_hold_blanks_under_a_header_of_two_columns(tmp_path, header):
    make(tmp_path, "a.mp4")
    listing = read_layout("csv", tmp_path, annotations=write(tmp_path / "l.txt", f"{header}\na.mp4 clean and jerk\n"))
    assert rows(listing, "path", "class_name") == [("a.mp4", "clean and jerk")] and listing.problems == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("path label split\na.mp4 run train\nb.mp4 clean and jerk train\n", "5 values under a header of 3"),
        ("path label split\na.mp4 run train\nb.mp4 run\n", "2 values under a header of 3: an empty one"),
        ("path,label\na.mp4,run\nb.mp4,playing guitar, acoustic\n", "that holds a comma needs quotes"),
        ("path,label,,\na.mp4,run,,\nb.mp4,playing guitar, acoustic,\n", "under a header of 2"),
        ("a.mp4;run;train\nb.mp4;playing; loud;train\nc.mp4;run;test\n", "more values than the other rows"),
    ],
)
def test_a_row_of_another_number_of_values_is_told(tmp_path, text, reason):
    make(tmp_path, "a.mp4", "b.mp4")
    listing = read_layout("csv", tmp_path, annotations=write(tmp_path / "l.txt", text))
    assert rows(listing, "path", "class_name") == [("a.mp4", "run")]
    assert ("b.mp4", "bad-row") in kinds(listing) and reason in listing.problems[0].text


@pytest.mark.parametrize(
    "text",
    [
        "a.mp4,run\nb.mp4,jump,test\n",
        "a.mp4, run\nb.mp4, jump, test\n",
        'a.mp4,run\nb.mp4,"jump", test\n',
        "path,label,split\na.mp4,run\nb.mp4,jump,test,,\n",
    ],
)
def test_not_every_row_needs_a_split(tmp_path, text):
    make(tmp_path, "a.mp4", "b.mp4")
    listing = read_layout("csv", tmp_path, annotations=write(tmp_path / "l.txt", text))
    assert rows(listing, "path", "class_name", "split") == [("a.mp4", "run", ""), ("b.mp4", "jump", "test")]


def test_line_separators_within_fields(tmp_path):
    make(tmp_path, "a\u2028b.mp4", "c.mp4", "d\ne.mp4")
    write(
        tmp_path / "l.csv", 'path,label\n"a\u2028b.mp4","x\x85y"\nc.mp4,"clean\nand jerk"\n"d\ne.mp4",z\nlost.mp4,z\n'
    )
    listing = read_layout("auto", tmp_path)
    assert rows(listing, "path", "class_name") == [
        ("a\u2028b.mp4", "x\x85y"),
        ("c.mp4", "clean\nand jerk"),
        ("d\ne.mp4", "z"),
    ]
    assert [problem.text for problem in listing.problems] == ["listed in l.csv, line 7, but not there"]
    assert all(note.isprintable() for note in listing.notes)
    assert read_lines(write(tmp_path / "x", "a\u2028\x0cb\r\nc\rd\n")) == ["a\u2028\x0cb", "c", "d"]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b'"b.mp4,run', "unexpected end of data"),
        (b"b.mp4,", "needs a path and a label"),
        (b"b.mp4", "needs a path and a label"),
        (b",run", "needs a path and a label"),
        (b"b.mp4,nan", "empty cell"),
        (b"b.mp4,caf\xe9", r"'caf\xe9'"),
        (b"b.mp4,run,,,soon,9", "'soon' is not a time"),
        (b"b.mp4,run,,,1,", "needs a start and an end"),
    ],
)
def test_one_bad_row_is_one_row(tmp_path, row, reason):
    make(tmp_path, "a.mp4", "b.mp4", "c.mp4")
    (tmp_path / "l.csv").write_bytes(b"path,label,split,group,start,end\na.mp4,run\n" + row + b"\nc.mp4,jump\n")
    listing = read_layout("auto", tmp_path)
    assert rows(listing, "path", "class_name") == [("a.mp4", "run"), ("c.mp4", "jump")]
    assert [kind for _, kind in kinds(listing)] == ["bad-row"]
    assert "l.csv, line 3: " in listing.problems[0].text and reason in listing.problems[0].text
    assert [each.path for each in listing.unused] == ["b.mp4"] or listing.problems[0].path == "b.mp4"


@pytest.mark.parametrize("path", ["long" * 100 + ".mp4", "a\0b.mp4", "d/" * 3000])
def test_a_path_that_no_disk_can_have_is_one_row(tmp_path, path):
    make(tmp_path, "a.mp4")
    listing = read_layout("auto", tmp_path, annotations=write(tmp_path / "l.csv", f"path,label\n{path},x\na.mp4,run\n"))
    assert rows(listing, "path", "class_name") == [("a.mp4", "run")] and kinds(listing) == [(path, "missing")]


def test_a_header_without_a_label_is_no_row(tmp_path):
    make(tmp_path, "a.mp4")
    table = write(tmp_path / "l.csv", "video,start,end,tag\na.mp4,1,2,run\n")
    assert "names video, start, end, but not both" in error_of("csv", tmp_path, annotations=table)
    write(table, "path,label,class_name\na.mp4,3,run\n")
    assert rows(read_layout("auto", tmp_path), "class_name") == [("run",)]


KINETICS = '"label","youtube_id","time_start","time_end","split"\n'


def test_kinetics_with_a_quoted_header_and_other_separators(tmp_path):
    make(tmp_path, "train/aaa_000000_000010.mp4", "train/bbb_000000_000010.mp4")
    for separator in (",", ";", "\t"):
        text = KINETICS + '"archery","aaa",0,10,"train"\n"bowling","bbb",0,10,"train"\n'
        write(tmp_path / "train.csv", text.replace(",", separator))
        listing = read_layout("auto", tmp_path)
        assert listing.layout == "kinetics"
        assert rows(listing, "class_name") == [("archery",), ("bowling",)]


@pytest.mark.parametrize(
    ("row", "kind", "reason"),
    [
        (",aaa,10,20,test", "bad-row", "no label"),
        ("archery,aaa,10,10,train", "bad-segment", "ends (10 s) when it starts (10 s)"),
        ("archery,aaa,soon,20,train", "bad-row", "must be seconds"),
        ("archery,aaa,nan,20,train", "bad-row", "must be seconds"),
        ("archery,aaa", "bad-row", "must be seconds"),
        ('archery,"aaa,1,2,train', "bad-row", "unexpected end"),
    ],
)
def test_a_bad_row_of_kinetics(tmp_path, row, kind, reason):
    make(tmp_path, "aaa_000010_000020.mp4", "bbb_000000_000010.mp4")
    write(tmp_path / "k.csv", KINETICS + row + "\nbowling,bbb,0,10,train\n")
    listing = read_layout("auto", tmp_path)
    assert rows(listing, "class_name") == [("bowling",)]
    assert [found for _, found in kinds(listing)] == [kind]
    assert "k.csv, line 2: " in listing.problems[0].text and reason in listing.problems[0].text
    assert [each.path for each in listing.unused] == ["aaa_000010_000020.mp4"]


def test_lists_of_kinetics_without_labels_are_named(tmp_path):
    make(tmp_path, "bbb_000000_000010.mp4")
    write(tmp_path / "lists" / "train.csv", KINETICS + "bowling,bbb,0,10,train\n")
    write(tmp_path / "lists" / "test.csv", "youtube_id,time_start,time_end,split\nx,0,10,test\n")
    assert said(read_layout("auto", tmp_path), "test.csv", "not read")


def test_activitynet_with_a_byte_order_mark_and_bad_records(tmp_path):
    make(tmp_path, "v_aaa.mp4", "v_bbb.mp4")
    good = {"label": "Dancing", "segment": [0, 1]}
    database = {
        "aaa": {"subset": "training", "annotations": [good, {"label": "x"}, {"label": 7, "segment": [1, 2]}, 5]},
        "bbb": "nothing", "ccc": {"annotations": []},
    }  # fmt: skip
    write(tmp_path / "activity_net.json", "\ufeff" + json.dumps({"database": database}))
    listing = read_layout("auto", tmp_path)
    assert rows(listing, "path", "class_name") == [("v_aaa.mp4", "Dancing"), ("v_aaa.mp4", "7")]
    assert kinds(listing) == [("bbb", "bad-row"), ("v_aaa.mp4", "bad-row"), ("v_aaa.mp4", "bad-row")]


def test_activitynet_without_a_subset_and_with_a_number_that_is_none(tmp_path):
    make(tmp_path, "v_aaa.mp4")
    segments = [{"label": "Dancing", "segment": [0, 1]}, {"label": "Dancing", "segment": [0, 10**400]}]
    write(tmp_path / "a.json", json.dumps({"database": {"aaa": {"subset": None, "annotations": segments}}}))
    listing = read_layout("auto", tmp_path)
    assert rows(listing, "path", "split", "segment_end") == [("v_aaa.mp4", "", 1)]
    (problem,) = listing.problems
    assert problem.kind == "bad-row" and "'Dancing'" in problem.text and len(problem.text) < 400


# mmaction2, SlowFast, Something-Something


def test_lists_of_mmaction2(tmp_path):
    make(tmp_path, "videos_train/abseiling/a b.mp4", "videos_train/archery/c.mp4", "videos_val/archery/d.mp4")
    write(tmp_path / "kinetics400_train_list_videos.txt", "abseiling/a b.mp4 0\narchery/c.mp4 1\narchery/gone.mp4 1\n")
    write(tmp_path / "kinetics400_val_list_videos.txt", "archery/d.mp4 1\n")
    listing = read_layout("auto", tmp_path)
    assert said(listing, "those of the folders", "--class-names")
    assert rows(listing, "class_name") == [("abseiling",), ("archery",), ("archery",)]
    write(tmp_path / "label_map_k400.txt", "Abseiling\nArchery\n")
    listing = read_layout("auto", tmp_path)
    assert rows(listing, "path", "class_name", "split") == [
        ("videos_train/abseiling/a b.mp4", "Abseiling", "train"),
        ("videos_train/archery/c.mp4", "Archery", "train"),
        ("videos_val/archery/d.mp4", "Archery", "val"),
    ]
    assert kinds(listing) == [("archery/gone.mp4", "missing")]
    assert listing.unused == []
    assert said(listing, "'videos_train'") and said(listing, "label_map_k400.txt", "'Abseiling'")


def test_lists_of_slowfast_from_another_machine(tmp_path):
    make(tmp_path, "a/x.mp4", "a/y.mp4")
    write(tmp_path / "train.csv", "/checkpoint/k400/a/x.mp4 0\n/checkpoint/k400/a/y.mp4 1\n")
    write(tmp_path / "classInd.txt", "1 Archery\n2 Bowling\n")
    listing = read_layout("auto", tmp_path)
    assert rows(listing, "path", "class_name") == [("a/x.mp4", "Archery"), ("a/y.mp4", "Bowling")]
    assert said(listing, "3 folders of each path taken away")
    assert kinds(read_layout("csv", make(tmp_path / "other", "a/z.mp4"), annotations=tmp_path / "train.csv")) == [
        ("/checkpoint/k400/a/x.mp4", "missing"), ("/checkpoint/k400/a/y.mp4", "missing"),
    ]  # fmt: skip


def test_lists_in_a_folder_of_their_own(tmp_path):
    make(tmp_path, "v/a.mp4", "v/b.mp4", "v/c.mp4")
    write(tmp_path / "annotations" / "train.csv", "v/a.mp4 run\nv/b.mp4 jump\n")
    write(tmp_path / "annotations" / "val.csv", "v/c.mp4 run\n")
    listing = read_layout("auto", tmp_path)
    assert rows(listing, "class_name", "split") == [("run", "train"), ("jump", "train"), ("run", "val")]
    assert rows(read_layout("auto", tmp_path, annotations=tmp_path / "annotations"), "split") == rows(listing, "split")
    assert said(listing, "listed with labels in train.csv, val.csv")


def test_a_list_with_no_separator_says_what_is_expected(tmp_path):
    make(tmp_path, "a.mp4")
    error = error_of("csv", tmp_path, annotations=write(tmp_path / "l.csv", "a.mp4\n"))
    assert "line 1" in error and "comma, tab, semicolon, bar or (path.mp4 label) space" in error


def test_frame_counts_several_labels_and_folders_of_frames(tmp_path):
    make(tmp_path, "a/x.mp4", "a/y.mp4", "a/z/img_00001.jpg")
    listing = read_layout(
        "csv", tmp_path, annotations=write(tmp_path / "l.txt", "a/x.mp4 300 1\na/y.mp4 20 2\na/z 9 1\n")
    )
    assert rows(listing, "path", "class_name") == [("a/x.mp4", "1"), ("a/y.mp4", "2")]
    assert "single frames" in listing.problems[0].text and said(listing, "second is taken as the label")
    listing = read_layout("csv", tmp_path, annotations=write(tmp_path / "l.txt", "a/x.mp4 1\na/y.mp4 0 1 2\n"))
    assert kinds(listing) == [("a/y.mp4", "bad-row")] and "several numbers" in listing.problems[0].text


def test_something_something(tmp_path):
    make(tmp_path, "20bn/1.webm", "20bn/2.webm", "20bn/3.webm", "copies/2.webm")
    train = [
        {"id": "1", "label": "holding a cup next to a pen", "template": "Holding [something] next to [something]"},
        {"id": "9", "label": "x", "template": "x"},
        {"id": "3"},
    ]
    write(tmp_path / "something-something-v2-train.json", json.dumps(train))
    write(
        tmp_path / "something-something-v2-validation.json", json.dumps([{"id": 2, "template": "Pushing [something]"}])
    )
    listing = read_layout("auto", tmp_path)
    assert listing.layout == "something"
    assert rows(listing, "path", "class_name", "split") == [
        ("20bn/1.webm", "Holding something next to something", "train")
    ]
    assert kinds(listing) == [("2", "ambiguous"), ("3", "bad-row"), ("9", "missing")]
    assert [entry.copies for entry, _ in listing.undecided] == [("copies/2.webm",)]
    assert [each.path for each in listing.unused] == ["20bn/3.webm"]
    (tmp_path / "copies" / "2.webm").unlink()
    assert rows(read_layout("auto", tmp_path), "class_name", "split")[1] == ("Pushing something", "val")
    assert "give it with --annotations" in error_of("something", tmp_path / "20bn")


def test_something_something_v1(tmp_path):
    make(tmp_path, "v/100.webm", "v/7.webm")
    write(tmp_path / "something-something-v1-train.csv", "100;Holding something, up\n7;Pushing something\n")
    assert rows(read_layout("auto", tmp_path), "path", "class_name") == [
        ("v/100.webm", "Holding something, up"), ("v/7.webm", "Pushing something"),
    ]  # fmt: skip


def test_several_tables_that_are_no_splits_are_not_guessed_between(tmp_path):
    make(tmp_path, "run/a.mp4")
    for name in ("one.csv", "two.csv"):
        write(tmp_path / name, "path,label\nrun/a.mp4,jump\n")
    listing = read_layout("auto", tmp_path)
    assert listing.layout == "folder" and {each.path for each in listing.unused} == {"one.csv", "two.csv"}


def test_a_field_that_is_too_long_is_one_row():
    found = rows_of('a,b\n"' + "x" * 200_000 + '",c\nd,e\n', ",")
    assert [row.values for row in found if not row.error] == [["a", "b"], ["d", "e"]]
    assert "larger than field limit" in next(row.error for row in found if row.error)


def test_rows_after_a_quote_that_never_closes():
    found = rows_of('a,"b\nc,d\n"e\nf,g\n', ",")
    assert [(row.line, row.values) for row in found if not row.error] == [(2, ["c", "d"]), (4, ["f", "g"])]
    assert [row.line for row in found if row.error] == [1, 3]


def test_a_list_of_another_machine_whose_files_have_equal_names(tmp_path):
    files = [f"clips/id{i}/video.mp4" for i in range(4)]
    make(tmp_path, *files, "clips/id4/video.mp4.mkv", "clips/id4/video.mp4")
    write(tmp_path / "l.csv", "path,label\n" + "".join(f"/data/id{i}/video.mp4,run\n" for i in range(6)))
    listing = read_layout("csv", tmp_path, annotations=tmp_path / "l.csv")
    assert [entry.path for entry in listing.entries] == files  # two files fit the fifth row, none the sixth
    assert said(listing, "clips")


@pytest.mark.parametrize(("on_disk", "listed"), [("NFD", "NFC"), ("NFC", "NFD")])
@pytest.mark.parametrize("before", ["", "/data/"])
def test_accents_may_be_signs_of_their_own_in_the_list_or_on_the_disk(tmp_path, on_disk, listed, before):
    """As an archive from a Mac has them."""
    files = [unicodedata.normalize(on_disk, f"café/señal {i}.mp4") for i in range(3)]
    make(tmp_path, *files)
    rows = [unicodedata.normalize(listed, f"{before}café/señal {i}.mp4,run\n") for i in range(3)]
    write(tmp_path / "l.csv", "path,label\n" + "".join(rows))
    listing = read_layout("csv", tmp_path, annotations=tmp_path / "l.csv")
    assert [entry.path for entry in listing.entries] == files and not listing.problems


def test_the_time_to_find_files_of_equal_names_grows_like_their_number():
    seconds = []
    for count in (1_000, 8_000):
        paths = [f"clips/id{i}/video.mp4" for i in range(count)]
        files = FileFinder(SimpleNamespace(paths=paths, pictures=[], root=Path("/nowhere")), strip=2, prefix="clips")
        begun = time.process_time()
        assert [files.find(f"/data/id{i}/video.mp4") for i in range(count)] == [[path] for path in paths]
        seconds.append(time.process_time() - begun)
    assert seconds[1] < 24 * seconds[0]  # 64 times as long where each row goes over all files


# A list of names without suffixes


def listed(root, text):
    return read_layout("csv", root, annotations=write(root / "l.csv", text))


@pytest.mark.parametrize("place", [("", ""), ("videos/", "thumbs/"), ("thumbs/", "videos/")])
def test_a_thumbnail_is_not_the_video_of_its_name(tmp_path, place):
    videos, thumbs = place
    make(tmp_path, *(f"{videos}v{i}.mp4" for i in range(3)), *(f"{thumbs}v{i}.jpg" for i in range(9)))
    listing = listed(tmp_path, "video_id,label\nv4,run\nv0,run\nv1,walk\nv2,run\nv5,run\n")
    assert rows(listing, "path") == [(f"{videos}v{i}.mp4",) for i in range(3)]
    assert kinds(listing) == [("v4", "missing"), ("v5", "missing")]
    assert videos or "'v4.jpg'" in listing.problems[0].text
    assert {each.path for each in listing.unused} == {f"{thumbs}v{i}.jpg" for i in range(9)}


@pytest.mark.parametrize(
    "place", [("", ""), ("", "thumbs/"), ("videos/", "thumbs/"), ("videos/", ""), ("videos/", None)]
)
def test_the_first_videos_of_a_list_may_be_missing(tmp_path, place):
    """Whether or not thumbnails of all are there: where the videos lie is told by those that were downloaded."""
    videos, thumbs = place
    make(tmp_path, *(f"{videos}v{i}.mp4" for i in range(30, 34)))
    make(tmp_path, *(f"{thumbs}v{i}.jpg" for i in range(34) if thumbs is not None))
    listing = listed(tmp_path, "video_id,label\n" + "".join(f"v{i},run\n" for i in range(34)))
    assert rows(listing, "path") == [(f"{videos}v{i}.mp4",) for i in range(30, 34)]
    assert kinds(listing) == sorted((f"v{i}", "missing") for i in range(30))


@pytest.mark.parametrize("folder", ["", "photos/"])
def test_names_without_suffixes_mean_pictures_where_none_is_a_video(tmp_path, folder):
    make(tmp_path, *(f"{folder}v{i}.jpg" for i in range(3)), f"{folder}v2.png", "other.mp4")
    listing = listed(tmp_path, "id,label\nv0,run\nv1,walk\nv2,walk\n")
    assert rows(listing, "path") == [(f"{folder}v0.jpg",), (f"{folder}v1.jpg",)]
    assert kinds(listing) == [("v2", "ambiguous")]


def test_a_picture_that_is_listed_with_its_suffix_is_taken(tmp_path):
    make(tmp_path, "v0.mp4", "v0.jpg", "v1.jpg")
    assert rows(listed(tmp_path, "id,label\nv0,run\nv1.jpg,run\n"), "path") == [("v0.mp4",), ("v1.jpg",)]


def test_several_videos_of_a_listed_name_are_copies_to_choose_from(tmp_path):
    make(tmp_path, "v0.mp4", "v1.mp4", "v1.mov", "v1.jpg")
    listing = listed(tmp_path, "id,label\nv0,run\nv1,run\n")
    assert [(each.path, each.kind, each.text) for each in listing.problems] == [
        ("v1", "ambiguous", "2 files: v1.mov, v1.mp4")
    ]
    assert [(entry.path, entry.copies) for entry, _ in listing.undecided] == [("v1.mov", ("v1.mp4",))]
    assert said(listing, "1 path without its suffix")


def test_paths_without_their_suffix_are_counted_once(tmp_path):
    make(tmp_path, "a.mp4", "b.mp4", "c.mp4")
    assert said(listed(tmp_path, "id,label\na,run\nb,run\nc.mp4,run\n"), "2 paths without their suffix")


def test_rows_of_several_splits_are_counted_first(tmp_path):
    make(tmp_path / "v", *(f"{i}.mp4" for i in range(9)))
    for split, numbers in (("train", range(6)), ("val", range(4, 8)), ("test", range(6, 9))):
        write(tmp_path / "lists" / f"{split}.txt", "".join(f"{i}.mp4 run\n" for i in numbers))
    listing = read_layout("csv", tmp_path / "v", annotations=tmp_path / "lists")
    assert (
        "warning: 4 rows listed before in another split, where they count: 2 of 'val' in 'test', 2 of 'val' in 'train'; "
        "nothing is left in 'val'"
    ) in listing.notes
    write(tmp_path / "lists" / "val.txt", "0.mp4 run\n8.mp4 walk\n")
    listing = read_layout("csv", tmp_path / "v", annotations=tmp_path / "lists")
    assert "warning: 1 row listed before in another split, where it counts: 1 of 'val' in 'train'" in listing.notes


def test_rows_of_one_split_twice_are_no_warning(tmp_path):
    make(tmp_path, "a.mp4")
    listing = listed(tmp_path, "path,label,split\na.mp4,run,train\na.mp4,run,train\n")
    assert kinds(listing) == [("a.mp4", "duplicate")] and not said(listing, "another split")
    listing = listed(tmp_path, "path,label,split\na.mp4,run,\na.mp4,run,train\n")
    assert said(listing, "1 of 'train' in no split; nothing is left in 'train'")


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_name_of_several_videos_that_is_listed_again_counts_where_it_stands_first(tmp_path, split):
    make(tmp_path, "a.mp4", "a.mkv", "b.mp4", "b.mov")
    listing = listed(tmp_path, f"video_id,label,split\na,run,train\na,run,{split}\nb,walk,val\na,walk,train\n")
    assert [(entry.class_name, entry.split) for entry, _ in listing.undecided] == [
        ("run", "train"), ("walk", "val"), ("walk", "train")
    ]  # fmt: skip
    assert kinds(listing) == [("a", "ambiguous"), ("a", "ambiguous"), ("a", "duplicate"), ("b", "ambiguous")]
    assert said(listing, "1 of 'test' in 'train'; nothing is left in 'test'") is (split == "test")
    assert said(listing, "splits: train (2), val (1)") and said(listing, "2 classes: run, walk")


def test_segments_of_a_name_of_several_videos_are_no_duplicates_but_its_files_are(tmp_path):
    make(tmp_path, "a.mp4", "a.mkv")
    listing = listed(tmp_path, "video_id,label,start,end\na,run,0,1\na,run,1,2\na.mp4,run,0,1\n")
    assert rows(listing, "path") == [("a.mp4",)]
    assert [entry.segment_start for entry, _ in listing.undecided] == [1]
    assert kinds(listing) == [("a", "ambiguous"), ("a", "duplicate")]
