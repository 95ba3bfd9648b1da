"""Published forms of annotations and one's own, with what is wrong in them."""

import json
import math
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from engine.data.manifests.manifest import Manifest
from engine.errors import InputError
from engine.files.parquet import write_table
from engine.moments.annotations import SCHEMA, Annotations, Report, VideoNames, check, joined
from engine.moments.readers import Noted, Unreadable, read_moments, seconds
from tests.rows import row


def written(path, text):
    path.write_text(text, encoding="utf-8")
    return read_moments(path)


def checked(rows, manifest=None, knows=lambda query: "xyzzy" not in query):
    report = Report()
    return check(rows, "train", manifest, knows, report), report


def test_charades_lines(tmp_path):
    rows = written(
        tmp_path / "a.txt",
        "AO8RW 0.0 6.9##a person puts a book on a shelf.\n\nno mark\nX 8.0 7.0##back ## wards\nY 1##one\nZ a b##c\n",
    )
    assert math.isnan(rows[0].duration)
    assert replace(rows[0], duration=0) == Noted(
        "a.txt:1", "AO8RW", "a person puts a book on a shelf.", [(0.0, 6.9)], 0
    )
    assert [row.place for row in rows if isinstance(row, Unreadable)] == ["a.txt:3", "a.txt:5"]
    found, report = checked(rows)
    assert found.queries == ("a person puts a book on a shelf.",)
    assert report.counts == {"unreadable": 2, "not_a_time": 1, "ends_before_start": 1}
    assert report.rows[1] == ("a.txt:4", "ends_before_start", "8 to 7 s")


def test_a_video_of_a_line_may_have_blanks_in_its_name(tmp_path):
    (row,) = written(tmp_path / "a.txt", "my first video.mp4 0.5 6.9##she waves")
    assert (row.video, row.windows, row.query) == ("my first video.mp4", [(0.5, 6.9)], "she waves")


def test_captions_in_seconds_and_in_frames(tmp_path):
    entries = {"v_1": {"duration": 50, "timestamps": [[0.5, 50.2], [3, 4], [7]], "sentences": ["A b. ", " c d"]},
               "v_2": {"duration": 9}, "v_3": None}  # fmt: skip
    rows = written(tmp_path / "captions.json", json.dumps(entries))
    assert [type(row) for row in rows] == [Noted, Noted, Unreadable, Unreadable, Unreadable]
    found, report = checked(rows)
    assert found.queries == ("A b.", "c d")
    np.testing.assert_array_equal(found.windows[0], [[0.5, 50.0]])
    assert ("captions.json: v_1, sentence 1", "ends_after_video", "0.5 to 50.2 s of 50 s") in report.rows
    assert report.counts == {"unreadable": 3, "ends_after_video": 1}
    frames = {"s1.avi": {"fps": 25.0, "num_frames": 1000, "timestamps": [[50, 100]], "sentences": ["She takes out a kiwi"]},
              "s2.avi": {"fps": 0, "num_frames": 9, "timestamps": [], "sentences": []}}  # fmt: skip
    found, report = checked(written(tmp_path / "tacos.json", json.dumps(frames)))
    assert found.videos == ("s1.avi",) and found.durations.tolist() == [40.0] and report.counts == {"unreadable": 1}
    np.testing.assert_allclose(found.windows[0], [[2.0, 4.0]])
    (told,) = written(tmp_path / "tacos.json", json.dumps({"s1.avi": frames["s1.avi"] | {"fps": "25,0"}}))
    assert told == Unreadable("tacos.json: s1.avi", "fps is no number: '25,0'")


@pytest.mark.parametrize("as_list", [False, True])
def test_queries_of_several_windows(tmp_path, as_list):
    entries = [
        {
            "qid": 1,
            "query": "A girl cooks",
            "duration": 150,
            "vid": "x_210.0_360.0",
            "relevant_windows": [[82, 150], [0, 2]],
        },
        {"qid": 2, "query": "no answer", "duration": 150, "vid": "y"},
        {
            "qid": 3,
            "query": "parts",
            "duration": 150,
            "vid": "y",
            "relevant_windows": [[1, 1], [5, 9], [160, 170], None],
        },
        {"qid": 4, "query": "nothing", "duration": 150, "vid": "y", "relevant_windows": []},
        {"query": ["no", "text"], "duration": None, "vid": "y", "relevant_windows": [[0, 1]]},
    ]
    lines = "\n".join(map(json.dumps, entries))
    text = json.dumps(entries) if as_list else lines + '\n{"torn": '
    found, report = checked(written(tmp_path / "val.jsonl", text))
    assert found.videos == ("x_210.0_360.0", "y")
    assert [window.tolist() for window in found.windows] == [[[82, 150], [0, 2]], [[5, 9]]]
    assert report.counts == {
        "unreadable": 1 if as_list else 2, "no_query": 1, "no_window": 1, "not_a_time": 1, "no_length": 1, "after_video": 1,
    }  # fmt: skip


def test_a_file_of_one_query_alone_is_read_as_a_list_of_it(tmp_path):
    entry = {"vid": "x", "query": "A girl cooks", "duration": 150, "relevant_windows": [[82, 150], [1, 2, 3]]}
    found, report = checked(written(tmp_path / "one.json", json.dumps(entry, indent=1)))
    assert found.videos == ("x",) and found.windows[0].tolist() == [[82, 150]]
    assert report.counts == {"not_a_time": 1}  # a moment has a start and an end, and no third time


@pytest.mark.parametrize("mark", [",", "\t", ";"])
def test_a_first_line_that_is_wrong_makes_no_other_table(tmp_path, mark):
    """Its cells are divided by what it has most of."""
    lines = [("a.mp4", "one, to be sure", "two", "it\tfalls; once"), ("b.mp4", "3", "4", "it stands")]
    text = "\n".join(mark.join(cell.replace(mark, " ") for cell in line) for line in lines)
    found, report = checked(written(tmp_path / "own.csv", text))
    assert found.videos == ("b.mp4",) and report.counts == {"not_a_time": 1}


@pytest.mark.parametrize("mark", [",", "\t", ";"])
def test_ones_own_table(tmp_path, mark):
    lines = [
        ("Query", "video", "END", "start"),
        ("the dog, barks", "a.mp4", "0:12.5", "2"),
        ("the dog, barks", "a.mp4", "30", "0:00:20"),
        ("xyzzy", "a.mp4", "3", "2"),
        ("runs", "b.mp4", "-1", "-3"),
        ("runs", "b.mp4", "4", "-3"),
        ("short", "b.mp4"),
    ]
    text = "\r\n".join(mark.join(f'"{cell}"' for cell in line) for line in lines)
    rows = written(tmp_path / "own.csv", "\ufeff" + text)
    found, report = checked(rows)
    assert found.queries == ("the dog, barks", "runs")
    assert [window.tolist() for window in found.windows] == [[[2, 12.5], [20, 30]], [[0, 4]]]
    assert report.counts == {"unreadable": 1, "no_known_word": 1, "ends_before_start": 1, "starts_before_video": 1}
    bare = written(tmp_path / "bare.tsv", "a.mp4\t1\t2\tjumps\n")
    assert [replace(row, duration=0) for row in bare] == [Noted("bare.tsv:1", "a.mp4", "jumps", [(1.0, 2.0)], 0)]


def test_windows_of_one_query_are_joined_however_it_is_spaced(tmp_path):
    text = "a.mp4,1,2,the dog barks\na.mp4,3,4,the dog  barks\na.mp4,5,6,the dog barks \n"
    (row,) = written(tmp_path / "own.csv", text)
    assert (row.query, row.windows) == ("the dog barks", [(1.0, 2.0), (3.0, 4.0), (5.0, 6.0)])


@pytest.mark.parametrize("text", ["", "\n \n", "{torn", "what is this\nfile", "[1,", '"text"'])
def test_what_is_no_annotation_is_refused(tmp_path, text):
    with pytest.raises(InputError, match=r"annotations '.*moments"):
        written(tmp_path / "moments", text)


def test_no_file_and_no_text_are_refused(tmp_path):
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00\x81")
    for name in ("bytes", "absent", "."):
        with pytest.raises(InputError, match="cannot be read"):
            read_moments(tmp_path / name)


def test_times():
    assert [seconds(v) for v in (3, "2.5", "1:02.5", "1:00:02", "-1")] == [3, 2.5, 62.5, 3602, -1]
    assert all(math.isnan(seconds(v)) for v in ("", "a", "1:-2", "1:2:3:4", None, True, [1], "nan", 10**400))
    assert checked([Noted("p", "v", "q", [(0.0, math.inf)])])[1].counts == {"not_a_time": 1}


def test_videos_are_found_by_any_usual_name():
    names = VideoNames(
        ["a/AO8RW.mp4", "v_1.mkv", "b/x_210.0_360.0.mp4", "a/same.mp4", "b/same.mp4", "store/store.index/t.avi"]
    )
    assert names.find("AO8RW") == {"a/AO8RW.mp4"} == names.find("AO8RW.avi") == names.find("a/AO8RW")
    assert names.find("x_210.0_360.0") == {"b/x_210.0_360.0.mp4"}
    assert names.find("same") == {"a/same.mp4", "b/same.mp4"} and names.find("b/same.mp4") == {"b/same.mp4"}
    assert names.find("t.mp4") == {"store/store.index/t.avi"}
    assert names.find("x_210.0") == set() == names.find("")


def test_a_name_is_taken_whole_before_its_suffix_is_taken_off():
    """A number behind a dot is no suffix, and a file that is called so comes before one that another name's beginning fits."""
    names = VideoNames(["a/take.mp4", "b/take.avi.mkv", "c/clip.mp4"])
    assert names.find("take") == {"a/take.mp4"} == names.find("take.webm")
    assert names.find("take.avi") == {"b/take.avi.mkv"}
    assert names.find("clip.webm") == {"c/clip.mp4"} and names.find("clip.2") == set()


def test_accents_that_a_mac_writes_otherwise_make_no_other_name():
    """But a file that is called so to the sign comes first."""
    composed, apart = "caf\u00e9", "cafe\u0301"
    for there, asked in ((apart, composed), (composed, apart)):
        names = VideoNames([f"a/{there}.mp4", "a/cafe.mp4"])
        assert all(
            names.find(form.format(asked)) == {f"a/{there}.mp4"} for form in ("{}", "{}.mp4", "{}.avi", "a/{}.mp4")
        )
    names = VideoNames([f"a/{composed}.mp4", f"a/{apart}.mp4"])
    assert names.find(apart) == {f"a/{apart}.mp4"} and names.find(f"{composed}.mp4") == {f"a/{composed}.mp4"}


def test_a_name_that_several_videos_have_is_told_with_them():
    manifest = Manifest.from_rows([row("a/same.mp4", "x"), row("b/same.mp4", "x"), row("b/one.mp4", "x")], Path("/v"))
    rows = [Noted("p:1", "same", "it", [(0.0, 1.0)]), Noted("p:2", "one", "it", [(0.0, 1.0)])]
    found, report = checked([*rows, Noted("p:3", "none", "it", [(0.0, 1.0)])], manifest)
    assert found.videos == ("b/one.mp4",)
    assert report.rows == [("p:1", "several_videos", "a/same.mp4, b/same.mp4"), ("p:3", "missing_video", "none")]


def test_moments_at_the_very_ends_of_a_video():
    """What ends at its beginning or begins at its end shows nothing of it; what rounding adds to an end is cut and not told."""
    windows = [(-2.0, 0.0), (0.0, 1.0), (9.0, 10.0005), (10.0, 11.0)]
    found, report = checked([Noted("p", "v", "it", windows, 10.0)])
    assert found.windows[0].tolist() == [[0.0, 1.0], [9.0, 10.0]]
    assert [kind for _, kind, _ in report.rows] == ["ends_before_start", "after_video"]
    for duration in (0.0, -1.0):  # as a file says it: there is nothing to cut a window to
        found, report = checked([Noted("p", "v", "it", [(-2.0, 3.0)], duration)])
        assert not len(found) and [kind for _, kind, _ in report.rows] == ["after_video"]


def test_a_table_comes_back_as_it_was(tmp_path):
    rows = [Noted("p", "v", "q \n  r", [(0.25, 1.0), (3.0, 4.125)], 9.5), Noted("p", "w", "s", [(0.0, 2.0)])]
    found = joined([checked(rows)[0], checked(rows[1:])[0]])
    found.save(tmp_path / "deep" / "m.parquet")
    again = Annotations.load(tmp_path / "deep" / "m.parquet")
    assert (again.videos, again.queries, again.splits) == (["v", "w", "w"], ["q r", "s", "s"], ["train"] * 3)
    np.testing.assert_array_equal(again.durations, [9.5, np.nan, np.nan])
    assert [w.tolist() for w in again.windows] == [[[0.25, 1.0], [3.0, 4.125]], [[0, 2]], [[0, 2]]]
    assert len(again.of_splits(["test"])) == 0 and len(again.of_splits([])) == 3
    for path, text in ((tmp_path / "no.parquet", "no moments"), (tmp_path / "text.parquet", "no table of moments")):
        if text != "no moments":
            path.write_text("text")
        with pytest.raises(InputError, match=text):
            Annotations.load(path)


@pytest.mark.parametrize(
    ("version", "starts", "ends"), [(2, [0.0], [1.0]), (1, [0.0, 2.0], [1.0]), (1, [], [1.0]), (1, [0.0], [])]
)
def test_a_table_of_another_version_or_of_halves_of_moments_is_refused(tmp_path, version, starts, ends):
    columns = {"video": ["v"], "query": ["q"], "split": ["s"], "duration": [9.0], "starts": [starts], "ends": [ends]}
    notes = {b"unseen moments": json.dumps({"version": version}).encode()}
    write_table(pa.table(columns, SCHEMA.with_metadata(notes)), tmp_path / "m.parquet")
    with pytest.raises(InputError, match="is no table of moments of version 1"):
        Annotations.load(tmp_path / "m.parquet")


@pytest.mark.parametrize("what", ["text", "notes"])
def test_a_table_that_the_disk_has_changed_is_one_error(tmp_path, what):
    row = {"video": ["v"], "query": ["q"], "split": ["s"], "duration": [9.0], "starts": [[0.0]], "ends": [[1.0]]}
    notes = {b"unseen moments": b"[1]" if what == "notes" else json.dumps({"version": 1}).encode()}
    table = pa.table(row, SCHEMA.with_metadata(notes))
    if what == "text":
        no_text = pa.array([b"\xd9"], pa.binary()).view(pa.string())
        table = table.set_column(1, SCHEMA.field("query"), no_text)
    write_table(table, tmp_path / "m.parquet")
    with pytest.raises(InputError, match=r"m.parquet' is no table of moments"):
        Annotations.load(tmp_path / "m.parquet")


def test_a_video_ends_when_a_player_says_so():
    """Shown from 2 to 6 seconds, and one of slides whose last is short: what is annotated there is there."""
    files = {"late.mp4": (4.0, [0, 100], [2.0, 6.0]), "slides.mp4": (36.2, [0, 3, 4, 6], [0.0, 30.0, 30.1, 30.3])}
    rows = [
        row(path, "x", duration=duration, timed_frames=frames, frame_times=times)
        for path, (duration, frames, times) in files.items()
    ]
    manifest = Manifest.from_rows([*rows, row("old.mp4", "x", duration=4.0)], Path("/v"))
    asked = [("late.mp4", 4.5, 6.0), ("late.mp4", 5.2, 5.9), ("slides.mp4", 30.0, 36.0), ("old.mp4", 4.5, 5.0)]
    found, report = checked([Noted(video, video, "it", [(start, end)], 9.0) for video, start, end in asked], manifest)
    assert [tuple(*windows.tolist()) for windows in found.windows] == [(4.5, 6.0), (5.2, 5.9), (30.0, 30.3)]
    assert found.durations.tolist() == [6.0, 6.0, 30.3]
    assert report.rows == [
        ("slides.mp4", "ends_after_video", "30 to 36 s of 30.3 s"), ("old.mp4", "after_video", "4.5 to 5 s of 4 s"),
    ]  # fmt: skip


def test_a_line_ends_where_its_file_says_so(tmp_path):
    """Not within quotes, and not at U+2028, which programs put into texts; blank lines before a table are none of it."""
    text = '\n  \nvideo\tstart\tend\tquery\na.mp4\t0\t2\t"opens\r\nthe door"\nb.mp4\t0\t1\tit\u2028falls\n'
    found, report = checked(written(tmp_path / "own.tsv", text))
    assert not report.rows and found.queries == ("opens the door", "it falls")
    entry = {"vid": "a", "query": "one\u2028two", "duration": 9, "relevant_windows": [[0, 2]]}
    lines = "\n".join(json.dumps(entry | {"vid": vid}, ensure_ascii=False) for vid in "ab")
    found, report = checked(written(tmp_path / "val.jsonl", lines))
    assert not report.rows and found.queries == ("one two", "one two")


@pytest.mark.parametrize("query", ['"open the door', '"open ""the"" door', '"open, the ""door'])
@pytest.mark.parametrize("end", ["a cat sleeps", 'he is 6"', 'he says "hi"', '"a cat"'])
def test_a_quote_that_is_not_closed_costs_its_own_row_alone(tmp_path, query, end):
    rows = [
        ("a.mp4", "0", "2", "a dog runs"),
        ("b.mp4", "1", "3", query),
        ("c.mp4", "2", "4", end),
        ("d.mp4", "5", "6", "x"),
    ]
    for header in ([], [("video", "start", "end", "query")]):
        text = "\n".join(",".join(row) for row in header + rows)
        found = written(tmp_path / "own.csv", text)
        assert [row.video for row in found if isinstance(row, Noted)] == ["a.mp4", "c.mp4", "d.mp4"]
        (told,) = [row for row in found if isinstance(row, Unreadable)]
        assert told == Unreadable(f"own.csv:{2 + len(header)}", "a quote is not closed: close it, or leave it out")
        found, report = checked(written(tmp_path / "own.tsv", "\n".join("\t".join(row) for row in header + rows)))
        assert not report.rows and found.queries[:2] == ("a dog runs", query) and found.videos[2:] == ("c.mp4", "d.mp4")


def test_a_quote_that_is_not_closed_at_the_end_of_a_file_or_in_a_first_column_is_told(tmp_path):
    (row, told) = written(tmp_path / "a.csv", 'a.mp4,0,2,x\nb.mp4,1,3,"open the door')
    assert row.query == "x" and told.place == "a.csv:2" and "not closed" in told.reason
    text = 'query,video,start,end\n"open the door,a.mp4,0,2\nit is 6",b.mp4,1,3\n"one\ntwo",c.mp4,1,3\nruns,d.mp4,1,3\n'
    found = written(tmp_path / "b.csv", text)
    assert [row.place for row in found if isinstance(row, Unreadable)] == ["b.csv:2"]
    assert [(row.place, row.query) for row in found[1:]] == [
        ("b.csv:3", 'it is 6"'),
        ("b.csv:4", "one two"),
        ("b.csv:6", "runs"),
    ]


def test_a_cell_that_is_too_long_is_told(tmp_path):
    text = f'a.mp4,0,2,x\nb.mp4,1,3,{"y" * 200_000}\nc.mp4,1,3,"z"\n'
    rows = written(tmp_path / "own.csv", text)
    assert [type(row) for row in rows] == [Noted, Unreadable, Noted] and "field larger than" in rows[1].reason


def test_a_comma_without_quotes_does_not_cut_a_query_off(tmp_path):
    """Where the query is the last column; where it is not, it is told how to mend it. Blank cells at the end are none."""
    text = "video,start,end,query,,\na.mp4,1,2,a dog, with comma, runs\nb.mp4,1,2,a cat,,\nc.mp4,1,2,,\n"
    found, report = checked(written(tmp_path / "own.csv", text))
    assert found.queries == ("a dog, with comma, runs", "a cat") and report.counts == {"no_query": 1}
    found, _ = checked(written(tmp_path / "own.csv", "a.mp4;1;2;a dog; then a cat\n"))
    assert found.queries == ("a dog; then a cat",)
    text = "video,start,end,query,who\na.mp4,1,2,a dog, with comma,me\nb.mp4,1,2,a cat,me,\n"
    told, row = written(tmp_path / "own.csv", text)
    assert told == Unreadable("own.csv:2", "6 cells in 5 columns: where the query has a ',', quote the query")
    assert row.query == "a cat"


@pytest.mark.parametrize("header", ["", "video,start,end,query,\n"])
def test_a_column_without_a_name_is_no_part_of_a_query(header, tmp_path):
    """Who annotated it: taken for a part of the query, or left out, it would be guessed."""
    with pytest.raises(
        InputError, match=r"own\.csv': each row has 5 cells, and 4 columns are known: name the others in the first line"
    ):
        written(tmp_path / "own.csv", header + "a.mp4,1,2,a dog runs,me\nb.mp4,1,2,a cat,you\n")
    found = written(tmp_path / "own.csv", header + 'a.mp4,1,2,"a cat, asleep",me\nb.mp4,1,2,a cat\n')
    assert isinstance(found[0], Unreadable) and found[1].query == "a cat"


def test_accents_of_one_video_written_in_two_ways_are_windows_of_one_moment(tmp_path):
    (row,) = written(tmp_path / "own.csv", "caf\u00e9.mp4,1,2,a dog\ncafe\u0301.mp4,4,5,a dog\n")
    assert row.windows == [(1, 2), (4, 5)]


def test_a_first_line_that_is_too_long_is_told(tmp_path):
    with pytest.raises(InputError, match=r"own\.csv', its first line: field larger than field limit"):
        written(tmp_path / "own.csv", f"a.mp4,1,2,{'x' * 140_000}\n")


def test_many_windows_of_one_query_take_no_time(tmp_path):
    lines = "".join(f"v,{number},{number + 1},a car\n" for number in range(60_000))
    rows = [replace(row, duration=1e6) for row in written(tmp_path / "own.csv", lines)]
    began = time.process_time()
    found, _ = checked(rows)
    assert (
        len(found.windows[0]) == 60_000 and time.process_time() - began < 5
    )  # each against each would take half a minute


def test_a_row_that_stands_twice_is_one_window(tmp_path):
    """Also once both are cut at the video's end; and a window that stands twice in an entry."""
    text = "v,0,2,x\nv,0:00,2.0,x\nv,5,9,x\nv,5,8,x\n"
    rows = [replace(row, duration=7.0) for row in written(tmp_path / "own.csv", text)]
    found, report = checked(rows)
    assert found.windows[0].tolist() == [[0, 2], [5, 7]]
    assert report.rows == [
        ("own.csv:2", "stands_twice", "0 to 2 s of 7 s"), ("own.csv:3", "ends_after_video", "5 to 9 s of 7 s"),
        ("own.csv:4", "ends_after_video", "5 to 8 s of 7 s"), ("own.csv:4", "stands_twice", "5 to 8 s of 7 s"),
    ]  # fmt: skip
    entry = {"vid": "a", "query": "x", "duration": 9, "relevant_windows": [[0, 2], [3, 4], [0, 2]]}
    found, report = checked(written(tmp_path / "val.jsonl", json.dumps(entry)))
    assert found.windows[0].tolist() == [[0, 2], [3, 4]] and report.counts == {"stands_twice": 1}


def test_a_window_is_told_at_its_own_line_as_it_stands_there(tmp_path):
    text = 'video,start,end,query\nv,0,2,x\nv,"1,5","2,5",x\nw,1,2,y\nv,1s,2s,x\nv,4,3,x\n'
    _, report = checked(written(tmp_path / "own.csv", text))
    assert report.rows == [
        ("own.csv:3", "not_a_time", "'1,5' to '2,5'"), ("own.csv:5", "not_a_time", "'1s' to '2s'"),
        ("own.csv:6", "ends_before_start", "4 to 3 s"),
    ]  # fmt: skip
    _, report = checked(written(tmp_path / "a.txt", "X one 2##a\n"))
    assert report.rows == [("a.txt:1", "not_a_time", "'one' to '2'")]
    entries = {"v": {"duration": 9, "timestamps": [["0:x", 2], [7]], "sentences": ["a", "b"]}}
    _, report = checked(written(tmp_path / "captions.json", json.dumps(entries)))
    assert [(place, says) for place, _, says in report.rows] == [
        ("captions.json: v, sentence 1", "'0:x' to 2"), ("captions.json: v, sentence 2", "[7]"),
    ]  # fmt: skip


def test_a_video_that_stands_twice_in_an_object_keeps_all_its_queries(tmp_path):
    one, other = ({"duration": 9, "timestamps": [[0, 1]], "sentences": [query]} for query in ("a dog", "a cat"))
    text = f'{{"v": {json.dumps(one)}, "w": {json.dumps(one)}, "v": {json.dumps(other)}}}'
    found, report = checked(written(tmp_path / "captions.json", text))
    assert found.videos == ("v", "w", "v") and found.queries == ("a dog", "a dog", "a cat") and not report.rows


@pytest.mark.parametrize("spans", [{"a": 1}, "ab", 3, None])
def test_captions_that_are_no_lists_are_told(tmp_path, spans):
    entries = {"v": {"duration": 9, "timestamps": spans, "sentences": ["x"]}}
    (row,) = written(tmp_path / "captions.json", json.dumps(entries))
    assert isinstance(row, Unreadable) and row.place == "captions.json: v" and "are no lists" in row.reason


def test_half_of_a_character_costs_its_own_row_alone(tmp_path):
    """Which JSON can say, as a query that was cut at a number of UTF-16 units has it: no table can hold it."""
    rows = [
        {"vid": "v", "query": text, "duration": 5, "relevant_windows": [[0, 1]]}
        for text in ("cut \ud83d", "a \U0001f3b8")
    ]
    file = tmp_path / "a.jsonl"
    file.write_text("\n".join(map(json.dumps, [*rows, rows[1] | {"vid": "\udc00"}])))
    torn, whole, unnamed = read_moments(file)
    assert whole.query == "a \U0001f3b8" and isinstance(torn, Unreadable) and isinstance(unnamed, Unreadable)
    assert (torn.place, torn.reason) == ("a.jsonl:1", r"half of a character: 'v', 'cut \ud83d'")


def test_a_first_query_with_many_commas_makes_no_other_table(tmp_path):
    text = "a.mp4\t1.0\t2.0\tfirst, then, at last, and again, it jumps\nb.mp4\t3\t4\tit, falls\n"
    found, report = checked(written(tmp_path / "a.tsv", text))
    assert not report.rows and found.videos == ("a.mp4", "b.mp4")
    assert found.queries[0] == "first, then, at last, and again, it jumps"
    header = "query;video;start;end\na, b, c, d;a.mp4;1;2\n"
    assert checked(written(tmp_path / "b.csv", header))[0].queries == ("a, b, c, d",)
