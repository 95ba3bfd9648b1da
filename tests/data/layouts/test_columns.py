"""The columns of a list: other usual names are read by what they hold, and what is not read is named."""

import pytest

from engine.data.layouts import read_layout
from engine.data.layouts.columns import seconds
from tests.data.listings import error_of, make, rows, write


@pytest.fixture
def table(tmp_path):
    make(tmp_path, "a.mp4", "b.mp4")
    return lambda header, *values: write(tmp_path / "l.csv", "\n".join([header, *values]) + "\n")


@pytest.mark.parametrize(
    "header",
    [
        *("begin,stop,type", "t_start,t_end,set", "start_sec,end_sec,phase", "start_s,end_s,usage", "start,stop,fold"),
        *("start_seconds,end_seconds,partition", "Start (s),End [s],Set", "tStart,tEnd,dataset-split"),
    ],
)
def test_other_usual_names_of_seconds_and_splits_are_read(table, header):
    path = table(f"path,label,{header}", "a.mp4,run,1,2.5,train", "b.mp4,walk,0,3,test")
    listing = read_layout("csv", path.parent, annotations=path)
    assert rows(listing, "segment_start", "segment_end", "split") == [(1, 2.5, "train"), (0, 3, "test")]
    assert not any("not read" in note for note in listing.notes)
    assert "columns path, label, start" in listing.notes[0]


@pytest.mark.parametrize(
    ("header", "first", "second"),
    [
        ("type,fps", "indoor,25", "outdoor,25"),
        ("fold,set", "1,a", "2,b"),
        ("start_date,end_date", "2020-01-01,2020-01-02", "2021-01-01,2021-01-02"),
        ("duration,num_frames", "3.5,90", "2,50"),
        ("begin,stop", "yes,no", "no,no"),
        ("begin,stop", "0,-1", "0,-1"),
        ("start_frame,end_frame", "0,-1", "0,-1"),
        ("start_frame,num_frames", "0,90", "0,50"),
        ("start_frame,end_ms", "1,90", "2,50"),
        ("bus_stop,stop_sign,is_start", "0,1,0", "1,0,1"),
        ("start_year,home_end_score", "1990,3", "2001,1"),
        ("start_date,end_date", "2020,2021", "2020,2021"),
        ("start_timestamp,end_timestamp", "1600000000.5,1600000010", "1600000010,1600000020"),
        ("first,last", "1,2", "1,2"),
        ("t_start,count", "1,2", "1,2"),
    ],
)
def test_columns_that_are_not_read_are_named(table, header, first, second):
    path = table(f"path,label,{header},", f"a.mp4,run,{first},", f"b.mp4,walk,{second},")
    listing = read_layout("csv", path.parent, annotations=path)
    assert rows(listing, "path", "split") == [("a.mp4", ""), ("b.mp4", "")]
    assert not any(entry.has_segment for entry in listing.entries)
    assert f"l.csv: columns not read: {header.replace(',', ', ')}" in listing.notes


@pytest.mark.parametrize(
    "header",
    [
        "start_frame,end_frame",
        "startFrame,endFrame",
        "frame_begin,frame_end",
        "first_frame,last_frame",
        "start_ms,end_ms",
        "startTimeMs,endTimeMs",
        "frame_start,n_frames",
        "starts,ends",
    ],
)
def test_segments_in_other_units_are_refused(table, header):
    path = table(f"path,label,{header}", "a.mp4,run,10,30", "b.mp4,walk,0,9")
    error = error_of("csv", path.parent, annotations=path)
    assert f"'{path}': the segments of {header.replace(',', ', ')} are not read" in error and "in seconds" in error


def test_the_start_of_a_segment_without_its_end_is_refused(table):
    path = table("path,label,t_start,duration", "a.mp4,run,1,2")
    assert "t_start" in error_of("csv", path.parent, annotations=path)


def test_frames_beside_the_seconds_are_named_alone(table):
    path = table("path,label,start,end,start_frame,end_frame", "a.mp4,run,1,2,25,50")
    listing = read_layout("csv", path.parent, annotations=path)
    assert rows(listing, "segment_start", "segment_end") == [(1, 2)]
    assert "l.csv: columns not read: start_frame, end_frame" in listing.notes


def test_a_wrong_time_under_another_name_is_one_row(table):
    path = table("path,label,begin,stop,set", "a.mp4,run,1,2,train", "b.mp4,run,3,4,val", "b.mp4,walk,soon,9,val")
    listing = read_layout("csv", path.parent, annotations=path)
    assert len(listing.entries) == 2 and "'soon' is not a time" in listing.problems[0].text


@pytest.mark.parametrize("header", ["start,end", "begin,stop", "time_start,time_end", "start_timestamp,stop_timestamp"])
def test_times_may_be_written_as_a_clock_shows_them(table, header):
    path = table(f"path,label,{header}", "a.mp4,run,00:00:01.10,0:02", "b.mp4,walk,90:00,1:30:30.5", "b.mp4,walk,3,4:")
    listing = read_layout("csv", path.parent, annotations=path)
    assert rows(listing, "segment_start", "segment_end") == [(1.1, 2), (5400, 5430.5)]
    assert [each.text for each in listing.problems] == [
        f"{path}, line 4: '4:' is not a time in seconds, nor as h:mm:ss"
    ]


@pytest.mark.parametrize(
    "text", ["1:60", "1:60:00", "1:2:3:4", ":30", "1:", "-1", "-0:30", "1:-1", "nan", "inf", "soon"]
)
def test_what_is_no_time(text):
    assert seconds(text) is None


@pytest.mark.parametrize("header", ["FileName,ClassName,SubSet", "VideoID,Label,subSet", "videoId,LABEL,DataSplit"])
def test_capitals_within_a_name_may_begin_words_or_not(table, header):
    path = table(header, "a.mp4,run,train", "b.mp4,walk,test")
    listing = read_layout("csv", path.parent, annotations=path)
    assert rows(listing, "path", "split") == [("a.mp4", "train"), ("b.mp4", "test")]


def test_a_column_split_counts_before_others(table):
    path = table("path,label,set,split", "a.mp4,run,train,1", "b.mp4,run,test,2")
    assert rows(read_layout("csv", path.parent, annotations=path), "split") == [("1",), ("2",)]


def test_a_first_row_of_a_video_that_is_missing_is_no_header(table):
    path = table("gone.mp4,stop", "a.mp4,set", "b.mp4,type")
    listing = read_layout("csv", path.parent, annotations=path)
    assert rows(listing, "class_name") == [("set",), ("type",)] and len(listing.problems) == 1


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("x.parquet", b"PAR1\x15\x04", "a Parquet file"),
        ("x.csv", b"PK\x03\x04\x14\0", "an Excel file, or a ZIP"),
        ("x.csv.gz", b"\x1f\x8b\x08\0", "a gzip file"),
        ("x.pkl", b"\x80\x04\x95", "a pickle"),
        ("x.json", b'[\n {"path": "a.mp4", "label": "run"}]', "JSON"),
        ("x.json", b'{"a.mp4": "run"}', "JSON"),
    ],
)
def test_a_file_that_is_no_table_is_named_by_its_kind(tmp_path, name, content, what):
    make(tmp_path, "v/a.mp4")
    (tmp_path / name).write_bytes(content)
    error = error_of("csv", tmp_path / "v", annotations=tmp_path / name)
    assert error == (
        f"'{tmp_path / name}' is {what} and no table: write its paths and labels as CSV, with a header path,label"
    )
    if name != "x.csv":
        error = error_of("auto", tmp_path / "v", annotations=tmp_path / name)
        assert f"'{tmp_path / name}' ({what}) belongs to no known layout: read are CSV and TSV" in error


def test_a_name_in_brackets_is_a_row(tmp_path):
    make(tmp_path, "[a] b.mp4", "{c}.mp4")
    listing = read_layout("csv", tmp_path, annotations=write(tmp_path / "l.csv", "[a] b.mp4,run\n{c}.mp4,walk\n"))
    assert rows(listing, "class_name") == [("run",), ("walk",)]
