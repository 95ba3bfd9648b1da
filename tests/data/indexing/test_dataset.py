"""From listed videos to a manifest: rows, segments, reasons, and what a journal is good for."""

import errno
import importlib
import json
import math
import os

import av
import pytest

from engine.data.indexing import dataset
from engine.data.indexing.dataset import IndexSettings, index_dataset, index_folder
from engine.data.indexing.journal import Failure, FileState, Journal, Record
from engine.data.layouts import Entry, Listing, read_layout
from engine.data.manifests.identity import content_hash
from engine.data.manifests.manifest import Manifest
from engine.data.pyav.encode import write_video
from engine.errors import InputError
from tests.data.videos import numbered_frame

SIZE, COUNT, FPS = (64, 48), 50, 25


def write(path, count=COUNT, **settings):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, (numbered_frame(number, *SIZE) for number in range(count)), **{"gop": 10, "fps": FPS, **settings})
    return path


@pytest.fixture
def root(tmp_path):
    """Three sound videos and three that are not, in two classes and two splits."""
    root = tmp_path / "set"
    write(root / "train" / "surfing" / "a.mp4", options={"bf": "2", "x264-params": "scenecut=0"})
    write(root / "train" / "archery" / "b.webm", codec="libvpx-vp9", count=20)
    write(root / "test" / "archery" / "c.mp4", rotation=90, count=7)
    (root / "train" / "surfing" / "empty.mp4").touch()
    (root / "test" / "archery" / "page.mp4").write_text("<html>")
    (root / "test" / "loose.mp4").touch()
    return root


@pytest.fixture
def probed(monkeypatch):
    """The names of the files that are really looked into."""
    names, look = [], dataset.refuse_unfit

    def watch(path):
        names.append(path.name)
        look(path)

    monkeypatch.setattr(dataset, "refuse_unfit", watch)
    return names


def test_rows_hold_what_the_files_hold(root):
    report = index_folder(root, root / "manifest.parquet")
    manifest = Manifest.load(root / "manifest.parquet")
    assert manifest.strings("path").tolist() == ["test/archery/c.mp4", "train/archery/b.webm", "train/surfing/a.mp4"]
    assert manifest.classes == ("archery", "surfing")
    assert manifest.strings("split").tolist() == ["test", "train", "train"]
    video = manifest.video(2)
    assert video.path.is_file()
    assert (video.num_frames, video.first_frame, video.file_frames) == (COUNT, 0, COUNT)
    assert (video.width, video.height, video.codec) == (*SIZE, "h264")
    assert (video.file_bytes, video.mtime_ns) == (video.path.stat().st_size, video.path.stat().st_mtime_ns)
    assert video.content_hash == content_hash(video.path)
    assert video.key_frames == (0, 10, 20, 30, 40)
    assert len(video.key_pts) == 5
    row = manifest.table.slice(2, 1).to_pylist()[0]
    assert (row["fps"], row["duration"], row["pixel_format"]) == (pytest.approx(FPS), pytest.approx(2), "yuv420p")
    assert math.isnan(row["segment_start"])
    assert manifest.video(0).rotation == 90
    assert (report.num_videos, report.num_files, report.num_classes, report.num_frames) == (3, 3, 2, 77)
    assert report.hours == pytest.approx(77 / FPS / 3600, abs=1e-4)


def test_the_report_names_each_bad_file(root):
    report = index_folder(root, root / "manifest.parquet")
    written = json.loads((root / "manifest.parquet.report.json").read_text())
    found = {bad["path"]: bad["kind"] for bad in written["files"]}
    assert found == {
        "test/loose.mp4": "no-class",
        "test/archery/page.mp4": "unreadable",
        "train/surfing/empty.mp4": "empty",
    }
    assert written["bad"] == report.bad == {"no-class": 1, "unreadable": 1, "empty": 1}
    assert all(bad["text"] for bad in written["files"])


def test_a_set_moves_with_its_manifest(root, tmp_path):
    index_folder(root, root / "manifest.parquet")
    index_folder(root, tmp_path / "beside.parquet")
    index_folder(root, tmp_path / "far" / "away.parquet")
    (tmp_path / "moved").mkdir()
    for name in ("set", "beside.parquet"):
        (tmp_path / name).rename(tmp_path / "moved" / name)
    for path in ("set/manifest.parquet", "beside.parquet"):
        assert Manifest.load(tmp_path / "moved" / path).video(0).path.is_file()
    stayed = Manifest.load(tmp_path / "far" / "away.parquet")
    assert stayed.root == root
    assert Manifest.load(tmp_path / "far" / "away.parquet", tmp_path / "moved" / "set").video(0).path.is_file()


def segments(*entries):
    return Listing(
        "test", [Entry("a.mp4", name, segment_start=a, segment_end=b, **more) for name, a, b, more in entries]
    )


def test_segments_become_frames(tmp_path):
    write(tmp_path / "a.mp4")  # 50 frames in 2 s
    listing = segments(
        ("exact", 0.4, 0.8, {}),  # from frame 10 until frame 20 is shown
        ("within", 0.41, 0.79, {}),  # the same frames are on the screen
        ("whole", 0.0, 2.0, {}),
        ("late", 1.9, 60.0, {}),  # longer than the file
        ("outside", 2.5, 3.0, {}),
        ("cut", 30.0, 32.0, {"may_be_cut": True}),  # a source of 30 s and more: this file is the clip itself
        ("uncut", 0.4, 0.8, {"may_be_cut": True}),  # five times as long as the segment: the source
    )
    report = index_dataset(listing, tmp_path, tmp_path / "m.parquet", IndexSettings())
    manifest = Manifest.load(tmp_path / "m.parquet")
    found = dict(zip(manifest.strings("class_name"), map(manifest.video, range(len(manifest))), strict=True))
    frames = {name: (video.first_frame, video.num_frames) for name, video in found.items()}
    assert frames == {
        "exact": (10, 10), "within": (10, 10), "whole": (0, 50), "late": (47, 3), "cut": (0, 50), "uncut": (10, 10),
    }  # fmt: skip
    assert {video.file_frames for video in found.values()} == {50}
    assert {video.content_hash for video in found.values()} == {content_hash(tmp_path / "a.mp4")}
    starts = dict(zip(manifest.strings("class_name"), manifest.table.column("segment_start").to_pylist(), strict=True))
    assert starts["exact"] == pytest.approx(0.4)
    assert math.isnan(starts["cut"])
    assert [(bad.path, bad.kind) for bad in report.files] == [("a.mp4", "outside")]
    assert (report.num_videos, report.num_files) == (6, 1)


def test_nothing_is_probed_twice(root, probed):
    out = root / "manifest.parquet"
    index_folder(root, out)
    first, content = sorted(probed), out.read_bytes()
    assert first == ["a.mp4", "b.webm", "c.mp4", "empty.mp4", "page.mp4"]
    probed.clear()
    index_folder(root, out)
    assert probed == []
    assert out.read_bytes() == content


def test_new_and_changed_files_are_probed(root, probed):
    out = root / "manifest.parquet"
    index_folder(root, out)
    probed.clear()
    write(root / "train" / "surfing" / "new.mp4", count=5)
    write(root / "train" / "surfing" / "empty.mp4", count=6)
    os.utime(root / "test" / "archery" / "c.mp4", ns=(1, 1))
    (root / "train" / "archery" / "b.webm").unlink()
    report = index_folder(root, out)
    assert sorted(probed) == ["c.mp4", "empty.mp4", "new.mp4"]
    assert (report.num_videos, report.num_frames) == (4, COUNT + 5 + 6 + 7)
    assert Manifest.load(out).strings("path").tolist()[-1] == "train/surfing/new.mp4"


@pytest.mark.parametrize("where", ["indexing.dataset.content_hash", "pyav.probe.open_video"])
@pytest.mark.parametrize("number", [errno.EIO, errno.EMFILE, errno.ESTALE, errno.ENOMEM, errno.EAGAIN])
def test_what_the_machine_failed_to_read_is_tried_again(root, probed, monkeypatch, where, number):
    out, (module, _, name) = root / "manifest.parquet", where.rpartition(".")
    read = getattr(importlib.import_module(f"engine.data.{module}"), name)

    def failing(path, **options):
        if path.name == "a.mp4" and module == "indexing.dataset":
            raise OSError(number, os.strerror(number))
        if path.name == "a.mp4":
            av.error.err_check(-number)
        return read(path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(f"engine.data.{where}", failing)
        report = index_folder(root, out)
    assert report.bad["io-error"] == 1 and "io-error" in dataset.ALL_REASONS
    assert [bad.text for bad in report.files if bad.kind == "io-error"] == [os.strerror(number)]
    probed.clear()
    assert "io-error" not in index_folder(root, out).bad
    assert probed == ["a.mp4"]


def test_a_file_that_a_journal_of_before_blames_for_missing_threads_is_tried_again(root, probed):
    out = root / "manifest.parquet"
    index_folder(root, out)
    with Journal(root / "manifest.parquet.journal") as journal:
        path = "train/surfing/a.mp4"
        state = FileState.of(root / path)
        text = f"after 33 frames of 50 packets: {os.strerror(errno.EAGAIN)}"
        journal.add(path, Record(state, Failure("undecodable", text), None))
    probed.clear()
    assert "undecodable" not in index_folder(root, out).bad
    assert probed == ["a.mp4"]


def test_a_torn_journal_is_carried_on(root, probed):
    out, journal = root / "manifest.parquet", root / "manifest.parquet.journal"
    index_folder(root, out)
    content = out.read_bytes()
    whole = journal.read_bytes()
    lines = whole.splitlines(keepends=True)
    for cut in (len(whole) - 1, len(whole) - 20, len(b"".join(lines[:3])) + 1, len(lines[0]) - 3, 0):
        journal.write_bytes(whole[:cut])
        out.unlink()
        probed.clear()
        index_folder(root, out)
        assert out.read_bytes() == content, cut
        assert probed, cut
        probed.clear()
        index_folder(root, out)  # and what was added after the tear is read back
        assert probed == [], cut
    journal.write_bytes(
        whole.replace(b'"mtime_ns"', b'"mtime_ls"', 1)
    )  # a line with a letter that the disk has changed
    index_folder(root, out)
    assert out.read_bytes() == content
    assert len(probed) == 1


def test_a_journal_of_another_version_is_not_believed(root, probed):
    out, journal = root / "manifest.parquet", root / "manifest.parquet.journal"
    index_folder(root, out)
    lines = journal.read_text().splitlines()
    journal.write_text("\n".join(['{"journal": 0}', *lines[1:]]) + "\n")
    probed.clear()
    index_folder(root, out)
    assert len(probed) == 5


def test_a_second_process_is_refused_unless_it_has_nothing_to_add(root, probed):
    out, path = root / "manifest.parquet", root / "manifest.parquet.journal"
    index_folder(root, out)
    with Journal(path) as journal:
        journal.lock()
        index_folder(root, out)  # all is known
        write(root / "train" / "surfing" / "new.mp4", count=6)
        with pytest.raises(
            InputError, match=r"another process is writing '.*manifest.parquet.journal': wait for it or stop it"
        ):
            index_folder(root, out)
    probed.clear()
    index_folder(root, out)
    assert probed == ["new.mp4"]


def test_two_processes_that_begin_a_journal_at_once_give_it_one_head(root):
    path = root / "manifest.parquet.journal"
    with Journal(path) as first, Journal(path) as second:
        first.lock()
        first.add("a.mp4", Record(FileState(1, 1), Failure("empty", "it is empty"), None))
        first.__exit__(None, None, None)
        second.lock()
        assert list(second.records) == ["a.mp4"]
    assert path.read_text().count('"journal"') == 1


def test_a_journal_with_two_heads_is_read(root, probed):
    """As versions wrote it that two processes could begin at once."""
    out, journal = root / "manifest.parquet", root / "manifest.parquet.journal"
    index_folder(root, out)
    head, rest = journal.read_text().split("\n", 1)
    journal.write_text(f"{head}\n{head}\n{rest}")
    probed.clear()
    index_folder(root, out)
    assert probed == []


def test_a_disk_without_locks_is_indexed_on(root, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", refuse)
    assert index_folder(root, root / "manifest.parquet").num_videos == 3


def test_a_journal_without_hashes_keeps_only_its_failures(root, probed):
    out, journal = root / "manifest.parquet", root / "manifest.parquet.journal"
    index_folder(root, out)
    content = out.read_bytes()
    lines = map(json.loads, journal.read_text().splitlines())
    old = [{key: value for key, value in line.items() if key != "content_hash"} for line in lines]
    journal.write_text("".join(json.dumps(line) + "\n" for line in old))
    probed.clear()
    index_folder(root, out)
    assert sorted(probed) == ["a.mp4", "b.webm", "c.mp4"]
    assert out.read_bytes() == content


def test_full_decode_probes_again_what_was_only_counted(root, probed, monkeypatch):
    from engine.data.pyav import packets

    out = root / "manifest.parquet"
    monkeypatch.setattr(packets, "DECODE_BUDGET", 0)
    index_folder(root, out)
    probed.clear()
    listing = read_layout("folder", root)
    index_dataset(listing, root, out, IndexSettings(full_decode=True))
    assert sorted(probed) == ["a.mp4", "c.mp4"]  # VP9 was decoded the first time


def test_workers_and_order_change_nothing(root):
    one, two = root / "one.parquet", root / "two.parquet"
    index_folder(root, one)
    index_dataset(read_layout("folder", root), root, two, IndexSettings(num_workers=2))
    assert one.read_bytes() == two.read_bytes()
    report = [path.with_name(path.name + ".report.json").read_text() for path in (one, two)]
    assert report[0] == report[1]


def test_a_file_that_is_too_slow_is_tried_again(root, monkeypatch):
    out = root / "manifest.parquet"
    report = index_dataset(Listing("test", [Entry("train/surfing/a.mp4", "x"), Entry("train/archery/b.webm", "x")]), root, out,
                           IndexSettings())  # fmt: skip
    assert report.num_videos == 2
    out.with_name(out.name + ".journal").unlink()
    entry = Entry("train/surfing/a.mp4", "x")
    with pytest.raises(InputError, match="none of the 1 listed videos"):
        index_dataset(Listing("test", [entry]), root, out, IndexSettings(time_limit_s=1e-9))
    written = json.loads(out.with_name(out.name + ".report.json").read_text())
    assert written["bad"] == {"too-slow": 1}
    assert index_dataset(Listing("test", [entry]), root, out, IndexSettings()).num_videos == 1


def test_names_that_are_not_utf8_are_names_like_others(root):
    (root / "test" / "archery" / "c.mp4").rename(os.fsdecode(os.fsencode(root / "test" / "archery") + b"/\xff.mp4"))
    report = index_folder(root, root / "manifest.parquet")
    assert report.num_videos == 3
    assert os.fsdecode(b"test/archery/\xff.mp4") in Manifest.load(root / "manifest.parquet").paths


def test_places_that_cannot_be_written(root, tmp_path):
    with pytest.raises(InputError, match="is a folder"):
        index_folder(root, tmp_path)
    with pytest.raises(InputError, match="cannot write"):
        index_folder(root, root / "train" / "surfing" / "a.mp4" / "m.parquet")


def test_real_clips_by_two_processes(shared_data, tmp_path):
    """One clip of each class of the UCF101 sample; frames as a decoding in one go gives them."""
    root = shared_data / "videos" / "ucf101"
    listing = read_layout("auto", root)
    assert (listing.layout, len(listing.entries)) == ("ucf101", 1509)
    listing.entries = list({entry.class_name: entry for entry in listing.entries}.values())
    report = index_dataset(listing, root, tmp_path / "m.parquet", IndexSettings(num_workers=2))
    assert (report.num_videos, report.num_classes, report.bad) == (15, 15, {})
    manifest = Manifest.load(tmp_path / "m.parquet")
    for row in range(0, 15, 5):
        video = manifest.video(row)
        with av.open(str(video.path)) as container:
            frames = [(frame.width, frame.height) for frame in container.decode(video=0)]
        assert (len(frames), frames[0]) == (video.num_frames, (video.width, video.height))
    assert set(manifest.strings("group")) <= {f"g{number:02d}" for number in range(1, 26)}
