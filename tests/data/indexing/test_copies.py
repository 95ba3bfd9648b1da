"""Several copies of a video: the sound one is taken; the same contents in several splits or classes are named."""

import json
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from engine.data.indexing.copies import choose_copies, same_contents
from engine.data.indexing.dataset import IndexSettings, index_dataset
from engine.data.indexing.journal import FileState, Record
from engine.data.layouts import read_layout
from engine.data.layouts.listing import Entry, Listing, Problem
from engine.data.manifests.manifest import Manifest
from engine.data.pyav.encode import write_video
from tests.data.listings import write
from tests.data.videos import numbered_frame

KINETICS = "label,youtube_id,time_start,time_end,split\n"
CLIP = "{}_000000_000010.mp4"


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> list[bytes]:
    """Three videos that differ."""
    place = tmp_path_factory.mktemp("sound")
    for number in range(3):
        write_video(place / f"{number}.mp4", (numbered_frame(number + k, 64, 48) for k in range(8)))
    return [(place / f"{number}.mp4").read_bytes() for number in range(3)]


def put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def index(root: Path, **options):
    """(report, manifest, path -> (class, split))"""
    out = root.parent / "m.parquet"
    report = index_dataset(read_layout("auto", root, **options), root, out, IndexSettings())
    manifest = Manifest.load(out)
    columns = (manifest.strings(name) for name in ("path", "class_name", "split"))
    return report, {path: (name, split) for path, name, split in zip(*columns, strict=True)}


def test_the_replacement_of_kinetics_is_taken(tmp_path, sound):
    root = tmp_path / "k400"
    place = root / "replacement" / "replacement_for_corrupted_k400"
    put(root / "train" / CLIP.format("aaa"), b"corrupt")
    put(place / CLIP.format("aaa"), sound[0])
    put(root / "train" / CLIP.format("bbb"), sound[1])
    put(root / "val" / CLIP.format("ccc"), sound[2][:-500])
    put(place / CLIP.format("ccc"), sound[2])
    write(root / "annotations" / "train.csv", KINETICS + "archery,aaa,0,10,train\nbowling,bbb,0,10,train\n")
    write(root / "annotations" / "val.csv", KINETICS + "archery,ccc,0,10,val\n")
    report, found = index(root)
    prefix = "replacement/replacement_for_corrupted_k400/"
    assert found == {
        prefix + CLIP.format("aaa"): ("archery", "train"),
        "train/" + CLIP.format("bbb"): ("bowling", "train"),
        prefix + CLIP.format("ccc"): ("archery", "val"),
    }
    assert any("2 clips taken from a folder of replacements" in note for note in report.notes)
    assert [(bad.path, bad.kind) for bad in report.files] == [
        ("train/" + CLIP.format("aaa"), "unreadable"), ("val/" + CLIP.format("ccc"), "undecodable"),
    ]  # fmt: skip


@pytest.mark.parametrize("is_first", [True, False])
def test_the_sound_copy_wins_whatever_its_folder(tmp_path, sound, is_first, capsys):
    """The file in the folder of its split and class is asked first, and the other where it cannot be used."""
    root = tmp_path / "set"
    best, other = f"train/run/{CLIP.format('aaa')}", f"backup/{CLIP.format('aaa')}"
    put(root / best, sound[0] if is_first else b"corrupt")
    put(root / other, sound[1])
    write(root / "k.csv", KINETICS + "run,aaa,0,10,train\n")
    report, found = index(root)
    assert found == {best if is_first else other: ("run", "train")}
    assert [(bad.path, bad.kind) for bad in report.files] == ([] if is_first else [(best, "unreadable")])
    assert [each.path for each in report.unused] == ([other] if is_first else [])
    assert ("the sound one is taken" in capsys.readouterr().err) is not is_first
    written = json.loads((tmp_path / "m.parquet.report.json").read_text())
    assert written["notes"] == report.notes
    assert [each["path"] for each in written["unused"]] == [each.path for each in report.unused]


@pytest.mark.parametrize(
    ("contents", "is_taken"),
    [((0, None), True), ((None, 0), True), ((0, 0), True), ((0, 1), False), ((None, None), False)],
)
def test_of_equal_candidates_only_a_sound_one_is_taken(tmp_path, sound, contents, is_taken):
    """Nothing but their contents tells a/aaa.mp4 from b/aaa.mp4; two sound files that differ are not guessed between."""
    root = tmp_path / "set"
    for folder, number in zip("ab", contents, strict=True):
        put(root / folder / CLIP.format("aaa"), b"corrupt" if number is None else sound[number])
    put(root / CLIP.format("bbb"), sound[2])
    write(root / "k.csv", KINETICS + "run,aaa,0,10,train\njump,bbb,0,10,train\n")
    report, found = index(root)
    taken = f"{'a' if contents[0] is not None else 'b'}/{CLIP.format('aaa')}"
    assert (taken in found) is is_taken
    assert len(found) == 1 + is_taken
    assert ("ambiguous" in report.bad) is not is_taken
    assert report.bad.get("unreadable", 0) == contents.count(None)


def test_a_copy_that_was_cut_off_does_not_win(tmp_path, sound):
    root = tmp_path / "set"
    write_video(tmp_path / "short.mp4", (numbered_frame(k, 64, 48) for k in range(5)))
    put(
        root / "train" / CLIP.format("aaa"), (tmp_path / "short.mp4").read_bytes()
    )  # where it should be, but 5 of 8 frames
    put(root / "old" / CLIP.format("aaa"), sound[0])
    put(root / "x" / CLIP.format("bbb"), (tmp_path / "short.mp4").read_bytes())
    put(root / "y" / CLIP.format("bbb"), sound[1])
    write(root / "k.csv", KINETICS + "run,aaa,0,10,train\njump,bbb,0,10,train\n")
    report, found = index(root)
    assert found == {"old/" + CLIP.format("aaa"): ("run", "train"), "y/" + CLIP.format("bbb"): ("jump", "train")}
    assert report.bad == {}
    assert {each.path for each in report.unused} == {"train/" + CLIP.format("aaa"), "x/" + CLIP.format("bbb")}


def test_segments_of_a_video_that_is_there_twice(tmp_path, sound):
    root = tmp_path / "set"
    put(root / "a" / "v_aaa.mp4", b"corrupt")
    put(root / "b" / "v_aaa.mp4", sound[0])
    segments = [{"label": name, "segment": [0.0, 0.2]} for name in ("Run", "Jump")]
    write(root / "x.json", json.dumps({"database": {"aaa": {"subset": "training", "annotations": segments}}}))
    report, _ = index(root)
    assert (report.num_videos, report.num_files, report.bad) == (2, 1, {"unreadable": 1})


def test_the_same_contents_are_named(tmp_path, sound, capsys):
    root = tmp_path / "set"
    for path, number in {"train/run/a.mp4": 0, "test/run/b.mp4": 0, "train/run/c.mp4": 1, "train/jump/d.mp4": 1,
                         "train/jump/e.mp4": 2, "train/jump/f.mp4": 2}.items():  # fmt: skip
        put(root / path, sound[number])
    report, found = index(root)
    assert len(found) == 6
    assert sum("by their contents" in note for note in report.notes) == 3
    text = capsys.readouterr().err
    assert "warning: 1 video in several splits by their contents" in text
    assert "test/run/b.mp4 (test) = train/run/a.mp4 (train)" in text
    assert "warning: 1 video of several classes by their contents" in text
    assert "train/jump/d.mp4 (jump) = train/run/c.mp4 (run)" in text
    assert "1 video there more than once by their contents: train/jump/e.mp4 = train/jump/f.mp4" in text


def test_segments_of_one_file_are_no_copies():
    rows = [
        {"path": "a", "class_name": name, "split": "train", "content_hash": 1, "first_frame": first, "num_frames": 5}
        for name, first in (("run", 0), ("jump", 5))
    ]
    assert same_contents(rows) == []
    assert "several splits" in same_contents([rows[0], {**rows[1], "split": "val"}])[0]
    assert same_contents([{**row, "content_hash": None, "first_frame": 0} for row in rows]) == []


CASES = {  # what an index of each small case must give: the classes, the kinds of problems, and words of its first lines
    "cvdf_replacement/k400": ({"archery": 2, "bowling": 1}, {"unreadable": 1, "empty": 1}, "replacements"),
    "links": ({"one": 2, "real": 2, "two": 2}, {}, "several classes by their contents"),
    "bad_rows/csv_no_label": ({"running": 1}, {"bad-row": 1}, ""),
    "bad_rows/kinetics_no_label": ({"bowling": 1}, {"bad-row": 1}, ""),
    "bad_rows/kinetics_zero_length": ({"bowling": 1}, {"bad-segment": 1}, ""),
    "kinetics_quoted": ({"archery": 1, "bowling": 1}, {}, ""),
    "bom_json": ({"Dancing": 1}, {}, ""),
    "ids": ({"0": 2, "1": 2, "2": 2}, {}, "3 class names in numbers (0, 1, 2)"),
    "twins": (
        {"dance": 1, "dance ": 1, "Dance": 1, "dancing": 1, "running": 2},
        {},
        "'Dance', 'dance', 'dance ', 'dancing'",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_small_cases(shared_data, tmp_path, case):
    """The cases themselves; each has its like, made here, in `test_layouts_folders`, `test_layouts_lists` or above."""
    root = tmp_path / "set"
    shutil.copytree(shared_data / "cases" / case, root, copy_function=shutil.copyfile)
    for folder in (root, *root.rglob("*/")):
        folder.chmod(0o755)
    for link in [path for path in root.iterdir() if case == "links" and path.is_file()]:  # a copy makes files of links
        link.unlink()
        link.symlink_to("real")
    classes, bad, words = CASES[case]
    report, _ = index(root)
    names = Manifest.load(tmp_path / "m.parquet").strings("class_name").tolist()
    assert {name: names.count(name) for name in names} == classes
    assert report.bad == bad
    assert any(words in note for note in report.notes)


def test_the_time_to_settle_undecided_copies_grows_like_their_number():
    seconds = []
    for count in (1_000, 8_000):
        listing, records = Listing("kinetics"), {}
        for i in range(count):
            listing.problems.append(Problem(f"gone{i}", "missing", "not there"))
            listing.add_one_of(f"v{i}", [f"a/v{i}.mp4", f"b/v{i}.mp4"], Entry("", "archery"))
            found = SimpleNamespace(num_frames=100, fps=25.0, damage="")
            for folder, content in (("a", i), ("b", i if i % 2 else -i - 1)):
                records[f"{folder}/v{i}.mp4"] = Record(FileState(1, 1), found, content)
        begun = time.process_time()
        chosen = choose_copies(listing, records)
        seconds.append(time.process_time() - begun)
        assert [entry.path for entry in chosen.entries] == [f"a/v{i}.mp4" for i in range(1, count, 2)]
        assert chosen.problems == [
            each for each in listing.problems if each.path[0] != "v" or int(each.path[1:]) % 2 == 0
        ]
    assert seconds[1] < 24 * seconds[0]  # 64 times as long where each is searched for among all
