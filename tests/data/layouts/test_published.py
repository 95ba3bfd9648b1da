"""The layouts of published data sets as they are distributed, and one clear error for each wrong input."""

import json

import pytest

from engine.data.layouts import read_layout
from tests.data.listings import chosen, error_of, kinds, make, rows, write

# UCF101

UCF = (
    "Archery/v_Archery_g01_c01.avi",
    "Archery/v_Archery_g08_c02.avi",
    "HandstandPushups/v_HandStandPushups_g01_c01.avi",
)


@pytest.fixture
def ucf(tmp_path):
    lists = tmp_path / "ucfTrainTestlist"
    write(lists / "classInd.txt", "1 Archery\n2 HandstandPushups\n")
    write(lists / "trainlist01.txt", "Archery/v_Archery_g08_c02.avi 1\nArchery/v_Archery_g09_c01.avi 1\n")
    write(lists / "testlist01.txt", "Archery/v_Archery_g01_c01.avi\nHandstandPushups/v_HandStandPushups_g01_c01.avi\n")
    write(lists / "trainlist02.txt", "Archery/v_Archery_g01_c01.avi 1\n")
    write(lists / "testlist02.txt", "Archery/v_Archery_g08_c02.avi\n")
    return make(tmp_path / "UCF-101", *UCF)


def test_ucf101_with_its_lists_beside_it(ucf):
    listing = read_layout("auto", ucf)
    assert listing.layout == "ucf101"
    assert rows(listing, "path", "class_name", "split", "group") == [
        (UCF[0], "Archery", "test1", "g01"),
        (UCF[1], "Archery", "train1", "g08"),
        (UCF[2], "HandstandPushups", "test1", "g01"),
    ]
    assert kinds(listing) == [("v_Archery_g09_c01", "missing")]
    second = read_layout("ucf101", ucf, split_number=2)
    assert rows(second, "split") == [("train2",), ("test2",), ("",)]


def test_ucf101_stored_anew_and_flat(ucf, tmp_path):
    """Another suffix and no class folders: the class with an irregular name is found in classInd.txt."""
    flat = make(tmp_path / "flat", "v_HandStandPushups_g01_c01.mp4", "v_Archery_g08_c02.mp4", "other.mp4")
    listing = read_layout("ucf101", flat, annotations=tmp_path / "ucfTrainTestlist")
    assert rows(listing, "class_name", "split") == [("Archery", "train1"), ("HandstandPushups", "test1")]
    assert ("other.mp4", "no-class") in kinds(listing)


def test_ucf101_errors(ucf, tmp_path):
    assert "trainlist03.txt" in error_of("ucf101", ucf, split_number=3)
    assert "must be the folder" in error_of("ucf101", ucf, annotations=tmp_path / "ucfTrainTestlist" / "classInd.txt")
    alone = make(tmp_path / "far" / "away", *UCF)
    assert rows(read_layout("auto", alone), "split") == [("",)] * 3
    assert "--annotations" in error_of("ucf101", alone, split_number=1)
    assert "no annotations" in error_of("ucf101", alone, annotations=tmp_path / "absent")


# HMDB51

HMDB_FILES = ("wave/April_09_wave_u_nm_np1_ba_goo_0.avi", "wave/Film#2_wave_f_cm_np1_fr_bad_3.avi", "run/x_run_f_1.avi")


@pytest.fixture
def hmdb(tmp_path):
    lists = tmp_path / "testTrainMulti_7030_splits"
    write(
        lists / "wave_test_split1.txt", "April_09_wave_u_nm_np1_ba_goo_0.avi 1 \nFilm#2_wave_f_cm_np1_fr_bad_3.avi 0 \n"
    )
    write(lists / "run_test_split1.txt", "x_run_f_1.avi 2 \nlost_run_f_1.avi 1 \n")
    return make(tmp_path / "hmdb51", *HMDB_FILES)


def test_hmdb51_with_its_lists_beside_it(hmdb):
    listing = read_layout("auto", hmdb)
    assert listing.layout == "hmdb51"
    assert rows(listing, "class_name", "split", "group") == [
        ("run", "test1", "x"),
        ("wave", "train1", "April_09"),
        ("wave", "", "Film#2"),
    ]
    assert kinds(listing) == [("run/lost_run_f_1", "missing")]


def test_lists_of_hmdb51_beside_another_data_set_do_not_count(hmdb):
    other = make(hmdb.parent / "mine", "surfing/a.mp4")
    assert chosen(other) == "folder"


def test_hmdb51_errors(hmdb):
    assert "splits 1, 2 and 3" in error_of(
        "hmdb51", hmdb, annotations=hmdb.parent / "testTrainMulti_7030_splits", split_number=3
    )
    write(hmdb.parent / "testTrainMulti_7030_splits" / "run_test_split1.txt", "x_run_f_1.avi 2\nx_run_f_1.avi 7\n")
    listing = read_layout("hmdb51", hmdb)  # a bad line is that line lost
    assert kinds(listing) == [("run_test_split1.txt:2", "bad-row")]
    assert "run_test_split1.txt, line 2" in listing.problems[0].text
    assert len(listing.entries) == 3


# Kinetics

KINETICS = """label,youtube_id,time_start,time_end,split
riding a bike,--abcDEF_12,10,20,train
"clean, and jerk",0_-xyzUVW34,5,15,train
riding a bike,whole000000,30,40,val
riding a bike,gone0000000,1,11,val
riding a bike,twice000000,0,10,train
"""


def test_kinetics_in_all_ways_of_naming_files(tmp_path):
    make(tmp_path, "train/riding_a_bike/--abcDEF_12_000010_000020.mp4", "0_-xyzUVW34.mkv", "val/whole000000.webm")
    make(tmp_path, "train/riding a bike/twice000000.mp4", "old/riding a bike/twice000000.mp4")
    write(tmp_path / "kinetics.csv", KINETICS)
    listing = read_layout("auto", tmp_path)
    assert listing.layout == "kinetics"
    assert rows(listing, "path", "class_name", "split", "may_be_cut") == [
        ("train/riding_a_bike/--abcDEF_12_000010_000020.mp4", "riding a bike", "train", False),
        ("0_-xyzUVW34.mkv", "clean, and jerk", "train", True),
        ("val/whole000000.webm", "riding a bike", "val", True),
        ("train/riding a bike/twice000000.mp4", "riding a bike", "train", True),
    ]
    assert not listing.entries[0].has_segment
    assert (listing.entries[1].segment_start, listing.entries[1].segment_end) == (5, 15)
    assert kinds(listing) == [("gone0000000_000001_000011", "missing")]


def test_kinetics_from_a_folder_of_lists(tmp_path):
    header, *lines = KINETICS.splitlines()
    write(tmp_path / "lists" / "train.csv", "\n".join([header, lines[0]]))
    write(tmp_path / "lists" / "val.csv", "\n".join([header.upper(), lines[2], ""]))
    write(tmp_path / "lists" / "test.csv", "youtube_id,time_start,time_end,split\nx,0,10,test\n")  # has no labels
    root = make(tmp_path / "videos", "a/--abcDEF_12_000010_000020.mp4", "b/whole000000_000030_000040.mp4")
    assert chosen(root, tmp_path / "lists") == "kinetics"
    assert rows(read_layout("auto", root, annotations=tmp_path / "lists"), "split") == [("train",), ("val",)]


def test_kinetics_clips_of_one_source_are_a_group(tmp_path):
    text = "label,youtube_id,time_start,time_end,split\nrun,abc,0,10,train\nrun,abc,20,30,train\nrun,def,0,10,train\n"
    make(tmp_path, "abc_000000_000010.mp4", "abc_000020_000030.mp4", "def.mp4")
    listing = read_layout("kinetics", tmp_path, annotations=write(tmp_path / "k.csv", text))
    assert rows(listing, "group") == [("abc",), ("abc",), ("",)]


def test_kinetics_names_sources_with_clips_in_several_splits(tmp_path):
    clips = [("abc", 0, "train"), ("abc", 20, "test"), ("def", 0, "train"), ("def", 20, "train")]
    make(tmp_path, "ghi.mp4", *(f"{name}_{start:06}_{start + 10:06}.mp4" for name, start, _ in clips))
    clips += [("ghi", 0, "train"), ("ghi", 20, "val")]
    text = "".join(f"run,{name},{start},{start + 10},{split}\n" for name, start, split in clips)
    listing = read_layout("kinetics", tmp_path, annotations=write(tmp_path / "k.csv", KINETICS + text))
    warnings = [note for note in listing.notes if note.startswith("warning")]
    assert warnings == [
        "warning: 1 YouTube video with clips in several splits: abc_000000_000010.mp4 (train), abc_000020_000030.mp4 (test)"
    ]


def test_kinetics_does_not_guess_between_files(tmp_path):
    write(tmp_path / "k.csv", KINETICS)
    make(tmp_path, "a/twice000000.mp4", "b/twice000000.mp4", "whole000000.mp4")
    assert ("twice000000", "ambiguous") in kinds(read_layout("kinetics", tmp_path))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("run,abc,1,x,train", "must be seconds"),
        ("run,abc,9,3,train", "before it starts"),
        (",abc,1,2,train", "no label"),
    ],
)
def test_kinetics_errors_name_the_line(tmp_path, line, message):
    text = "label,youtube_id,time_start,time_end,split\nrun,ok,0,10,train\n" + line
    error = error_of("kinetics", tmp_path, annotations=write(tmp_path / "k.csv", text))
    assert "k.csv, line 3: " in error
    assert message in error


def test_kinetics_needs_its_list_and_its_files(tmp_path):
    assert "youtube_id" in error_of("kinetics", tmp_path)
    table = write(tmp_path / "other.csv", "a,b\n1,2\n")
    assert "is no list of Kinetics" in error_of("kinetics", tmp_path, annotations=table)
    assert "none of the 5 videos" in error_of("kinetics", tmp_path, annotations=write(tmp_path / "k.csv", KINETICS))


# ActivityNet

ACTIVITYNET = {
    "version": "VERSION 1.3",
    "taxonomy": [],
    "database": {
        "aaa": {
            "subset": "training",
            "duration": 90.0,
            "annotations": [
                {"segment": [1.5, 20.0], "label": "Surfing"},
                {"segment": [-0.5, 30.0], "label": "Long jump"},
                {"segment": [50.0, 50.0], "label": "Surfing"},
            ],
        },
        "bbb": {"subset": "validation", "annotations": [{"segment": [0, 4], "label": "Surfing"}]},
        "ccc": {"subset": "validation", "annotations": [{"segment": [0, 4], "label": "Surfing"}]},
        "ddd": {"subset": "testing", "annotations": []},
    },
}


def test_activitynet_segments(tmp_path):
    write(tmp_path / "activity_net.v1-3.json", json.dumps(ACTIVITYNET))
    make(tmp_path, "train/v_aaa.mp4", "val/bbb.mkv", "test/v_ddd.mp4")
    listing = read_layout("auto", tmp_path)
    assert listing.layout == "activitynet"
    assert rows(listing, "path", "class_name", "split", "group", "segment_start", "segment_end") == [
        ("train/v_aaa.mp4", "Surfing", "training", "aaa", 1.5, 20.0),
        ("train/v_aaa.mp4", "Long jump", "training", "aaa", 0.0, 30.0),
        ("val/bbb.mkv", "Surfing", "validation", "bbb", 0.0, 4.0),
    ]
    assert kinds(listing) == [("ccc", "missing"), ("train/v_aaa.mp4", "bad-segment")]


def test_activitynet_errors(tmp_path):
    assert "give it with --annotations" in error_of("activitynet", tmp_path)
    assert "cannot read" in error_of("activitynet", tmp_path, annotations=write(tmp_path / "a.json", "{"))
    assert "no ActivityNet file" in error_of("activitynet", tmp_path, annotations=write(tmp_path / "a.json", "[]"))
    bad = {"database": {"aaa": {"annotations": [{"segment": [1], "label": "x"}]}}}
    assert "video 'aaa'" in error_of("activitynet", tmp_path, annotations=write(tmp_path / "a.json", json.dumps(bad)))
    good = write(tmp_path / "a.json", json.dumps(ACTIVITYNET))
    assert "none of the labelled videos" in error_of("activitynet", tmp_path, annotations=good)
