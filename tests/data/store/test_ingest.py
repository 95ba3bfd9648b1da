"""What ingest does with the files of a manifest: those that changed, segments, odd ones."""

import dataclasses
import errno
import os
from fractions import Fraction

import av
import pytest

from engine.data.indexing.dataset import index_folder
from engine.data.manifests.manifest import Manifest
from engine.data.pyav import normalise
from engine.data.pyav.encode import write_video
from engine.data.store.index import StoreSettings
from engine.data.store.ingest import INGEST_REASONS, WorkSettings, build_manifest, ingest
from engine.data.store.verify import verify
from engine.data.store.writer import StoredVideo, StoreWriter
from engine.errors import InputError
from engine.features.reading import timed_videos
from tests.data.videos import numbered_frame, pack_rows
from tests.rows import row

SETTINGS = StoreSettings(short_side=64, gop=8, preset="veryfast")


def test_ingesting_again_keeps_what_is_there_and_redoes_what_changed(tmp_path, capsys):
    root, out = tmp_path / "raw", tmp_path / "s"
    for name, count in (("a/x.mp4", 12), ("a/y.mp4", 9)):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        write_video(root / name, (numbered_frame(number, 96, 96) for number in range(count)))
    index_folder(root, root / "m.parquet")
    ingest(Manifest.load(root / "m.parquet"), out, SETTINGS, WorkSettings())
    first = (out / "00000.h264").read_bytes()
    write_video(root / "a/y.mp4", (numbered_frame(number, 96, 96) for number in range(20)))
    write_video(root / "a/z.mp4", (numbered_frame(number, 96, 96) for number in range(5)))
    index_folder(root, root / "m.parquet")
    capsys.readouterr()
    report = ingest(Manifest.load(root / "m.parquet"), out, SETTINGS, WorkSettings())
    assert "1 of 3 files are in the store and unchanged" in capsys.readouterr().err
    assert report.num_frames == 12 + 20 + 5
    assert (out / "00000.h264").read_bytes().startswith(first)  # a reader of the old index is not disturbed
    assert verify(out, 10).problems == []
    (root / "a/x.mp4").unlink()  # what is stored needs its original no more
    assert ingest(Manifest.load(root / "m.parquet"), out, SETTINGS, WorkSettings()).num_frames == 37
    assert "codec" not in (out / "journal.jsonl").read_text().partition("\n")[0]  # as before there was a choice
    with pytest.raises(InputError, match="was begun with codec h264 \\(now hevc\\)"):
        ingest(Manifest.load(root / "m.parquet"), out, dataclasses.replace(SETTINGS, codec="hevc"), WorkSettings())
    with pytest.raises(InputError, match="was begun with gop 8 \\(now 16\\)"):
        ingest(Manifest.load(root / "m.parquet"), out, dataclasses.replace(SETTINGS, gop=16), WorkSettings())
    with pytest.raises(InputError, match="is the manifest of a store already"):
        ingest(Manifest.load(out / "manifest.parquet"), tmp_path / "t", SETTINGS, WorkSettings())
    still = Manifest.from_rows([row("a/photo.jpg", "a", codec="image/jpeg")], root)
    with pytest.raises(InputError, match=r"1 still picture\(s\), the first is 'a/photo.jpg'"):
        ingest(still, tmp_path / "t", SETTINGS, WorkSettings())
    with (
        StoreWriter(out, SETTINGS, 2**30),
        pytest.raises(InputError, match="another process is writing"),
    ):
        StoreWriter(out, SETTINGS, 2**30)


def test_other_files_in_the_folder_of_a_store_are_left_alone(tmp_path):
    root, out = tmp_path / "raw", tmp_path / "s"
    (root / "a").mkdir(parents=True)
    out.mkdir()
    write_video(root / "a/x.mp4", (numbered_frame(number, 96, 96) for number in range(12)))
    index_folder(root, root / "m.parquet")
    others = [out / name for name in ("clip.h264", "1.h264", "00001 copy.h264", "²²²²².h264")]
    for path in others:
        path.write_bytes(b"of another")
    for _ in range(2):
        assert ingest(Manifest.load(root / "m.parquet"), out, SETTINGS, WorkSettings()).num_shards == 1
        assert verify(out, 10).problems == []
    assert {path.read_bytes() for path in others} == {b"of another"}


def test_a_store_of_before_with_other_frames_is_made_anew(tmp_path, capsys):
    """As earlier versions had it where stamps were of decoding, or the rate variable."""
    (tmp_path / "raw" / "a").mkdir(parents=True)
    for name, count in (("x", 12), ("y", 9)):
        write_video(tmp_path / "raw" / "a" / f"{name}.mp4", (numbered_frame(number, 96, 96) for number in range(count)))
    index_folder(tmp_path / "raw", tmp_path / "m.parquet")
    source, out = Manifest.load(tmp_path / "m.parquet"), tmp_path / "s"
    ingest(source, out, SETTINGS, WorkSettings())
    journal = out / "journal.jsonl"
    journal.write_text(journal.read_text().replace('"num_frames": 12', '"num_frames": 13'))
    capsys.readouterr()
    assert ingest(source, out, SETTINGS, WorkSettings()).num_frames == 21
    assert "1 of 2 files are in the store and unchanged" in capsys.readouterr().err
    assert verify(out, 10).problems == []


def test_a_line_of_the_journal_in_which_a_letter_has_changed_is_made_again(tmp_path, capsys):
    (tmp_path / "raw" / "a").mkdir(parents=True)
    for name in "xyz":
        write_video(tmp_path / "raw" / "a" / f"{name}.mp4", (numbered_frame(number, 96, 96) for number in range(9)))
    index_folder(tmp_path / "raw", tmp_path / "m.parquet")
    source, out = Manifest.load(tmp_path / "m.parquet"), tmp_path / "s"
    ingest(source, out, SETTINGS, WorkSettings())
    for line, word in ((1, '"mtime_ns"'), (2, '"group_bytes"'), (3, '"path"')):
        lines = (out / "journal.jsonl").read_text().splitlines(keepends=True)
        lines[line] = lines[line].replace(word, word.upper())
        (out / "journal.jsonl").write_text("".join(lines))
        capsys.readouterr()
        assert ingest(source, out, SETTINGS, WorkSettings()).num_frames == 27
        assert "2 of 3 files are in the store and unchanged" in capsys.readouterr().err
        assert verify(out, 10).problems == []


def test_a_file_that_changed_since_it_was_indexed_is_refused(tmp_path):
    """Another video of the same size in bytes; ingested before, or not."""
    root = tmp_path / "raw"
    for name, count in (("a/x.mp4", 12), ("a/y.mp4", 9)):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        write_video(root / name, (numbered_frame(number, 96, 96) for number in range(count)))
    x, y = root / "a/x.mp4", root / "a/y.mp4"
    y.write_bytes(y.read_bytes().ljust(x.stat().st_size, b"\0"))
    index_folder(root, root / "m.parquet")
    manifest = Manifest.load(root / "m.parquet")
    os.utime(y, ns=(1, 1))  # touched, and equal
    assert ingest(manifest, tmp_path / "before", SETTINGS, WorkSettings()).num_videos == 2
    y.write_bytes(x.read_bytes())
    for folder in (tmp_path / "before", tmp_path / "new"):
        report = ingest(manifest, folder, SETTINGS, WorkSettings())
        text = "the file has changed since it was indexed: index it again"
        assert report.files == [{"path": "a/y.mp4", "kind": "changed", "text": text}]
        stored = Manifest.load(folder / "manifest.parquet").video(0)
        assert stored.mtime_ns is None  # its bytes have checksums of their own
        assert stored.content_hash == manifest.video(0).content_hash  # the same video, raw and stored
        index_folder(root, tmp_path / "again.parquet")
        again = ingest(Manifest.load(tmp_path / "again.parquet"), folder, SETTINGS, WorkSettings())
        assert (again.num_frames, again.files) == (24, [])


def two_videos(root):
    for name, count in (("a/x.mp4", 12), ("a/y.mp4", 9)):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        write_video(root / name, (numbered_frame(number, 96, 96) for number in range(count)))
    index_folder(root, root / "m.parquet")
    return Manifest.load(root / "m.parquet")


def test_a_file_that_failed_is_tried_again_once_the_manifest_says_another_thing(tmp_path, capsys):
    good, out = two_videos(tmp_path / "raw"), tmp_path / "s"
    rows = good.table.to_pylist()
    wrong = Manifest.from_rows([{**rows[0], "file_frames": 15, "num_frames": 15}, rows[1]], good.root)
    text = "12 frames decode where the manifest says 15: index it again with --full-decode"
    for known in (0, 2):
        capsys.readouterr()
        report = ingest(wrong, out, SETTINGS, WorkSettings())
        assert report.files == [{"path": "a/x.mp4", "kind": "undecodable", "text": text}]
        assert (f"{known} of 2 files are in the store" in capsys.readouterr().err) == (known > 0)
    assert ingest(good, out, SETTINGS, WorkSettings()).files == []
    assert "1 of 2 files are in the store" in capsys.readouterr().err
    assert verify(out, 10).problems == []


@pytest.mark.parametrize("number", [errno.EIO, errno.EMFILE, errno.ENOMEM, errno.EAGAIN])
def test_what_the_machine_failed_to_read_is_tried_again(tmp_path, monkeypatch, number):
    source, out, read = two_videos(tmp_path / "raw"), tmp_path / "s", normalise.open_video

    def failing(path, **options):
        if path.name == "x.mp4":
            av.error.err_check(-number)
        return read(path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(normalise, "open_video", failing)
        report = ingest(source, out, SETTINGS, WorkSettings())
    assert report.files == [{"path": "a/x.mp4", "kind": "io-error", "text": os.strerror(number)}]
    assert report.bad.keys() <= INGEST_REASONS.keys()
    assert ingest(source, out, SETTINGS, WorkSettings()).files == []


def test_segments_keep_their_time_at_another_rate(tmp_path):
    file = {"file_frames": 100, "timed_frames": [0, 100], "frame_times": [2.0, 6.0]}
    rows = [
        row("a.mp4", "x", num_frames=100, **file),
        row("a.mp4", "x", first_frame=10, num_frames=25, **file),
        row("a.mp4", "x", first_frame=13, num_frames=1, **file),  # of which the store has no picture: the next one
    ]
    halved = StoredVideo(0, 0, (50,) * 7, 50, 64, 64, 12.5, 0)
    settings = dataclasses.replace(SETTINGS, fps=12.5)
    manifest = build_manifest(Manifest.from_rows(rows, tmp_path), {"a.mp4": halved}, tmp_path, settings)
    found = [(video.first_frame, video.num_frames) for video in map(manifest.video, range(3))]
    assert found == [(0, 50), (5, 13), (7, 1)]
    ((_, timeline), *_) = timed_videos(manifest, range(3))
    assert timeline.seconds == (2.0, 6.0) and timeline.frames == (0, 50)  # as of the file, which does not begin at 0


def test_a_rate_is_given_to_a_store_only_where_times_are_known(tmp_path):
    source = Manifest.from_rows([row("a.mp4", "x")], tmp_path)
    with pytest.raises(InputError, match="index the data set again, or ingest without --fps"):
        ingest(source, tmp_path / "s", dataclasses.replace(SETTINGS, fps=12.5), WorkSettings())


def test_a_file_whose_times_cannot_be_told_is_left_out_of_a_store_of_one_rate_alone(tmp_path):
    (tmp_path / "raw/a").mkdir(parents=True)
    frames = [numbered_frame(number, 96, 96) for number in range(10)]
    write_video(tmp_path / "raw/a/x.mp4", frames)
    write_nanoseconds(tmp_path / "raw/a/y.mp4", frames)
    index_folder(tmp_path / "raw", tmp_path / "m.parquet")
    source = Manifest.load(tmp_path / "m.parquet")
    assert source.table.column("fps").to_pylist() == [25, 0]
    report = ingest(source, tmp_path / "s", dataclasses.replace(SETTINGS, fps=12.5), WorkSettings())
    text = "nothing tells when its frames are shown, which --fps needs"
    assert (report.num_videos, report.files) == (1, [{"path": "a/y.mp4", "kind": "undecodable", "text": text}])
    assert ingest(source, tmp_path / "t", SETTINGS, WorkSettings()).num_videos == 2


def write_nanoseconds(path, frames):
    """A file whose frames are a nanosecond apart."""
    with av.open(str(path), "w", options={"video_track_timescale": str(10**9)}) as container:
        stream = container.add_stream("libx264", rate=25, width=96, height=96, options={"bf": "0"})
        stream.time_base = stream.codec_context.time_base = Fraction(1, 10**9)
        for number, frame in enumerate(frames):
            image = av.VideoFrame.from_ndarray(frame, "rgb24")
            image.pts, image.time_base = number, stream.time_base
            container.mux(stream.encode(image))
        container.mux(stream.encode(None))


def test_the_pack_of_odd_files_is_ingested_or_refused_with_a_reason(shared_data, tmp_path):
    """Files of at most 300 frames; what the index takes must come out whole."""
    wanted = tmp_path / "pack" / "odd"
    wanted.mkdir(parents=True)
    for path, _ in pack_rows(shared_data, max_frames=300):
        if path.stat().st_size < 300_000:
            (wanted / path.name).symlink_to(path)
    index_folder(tmp_path / "pack", tmp_path / "m.parquet")
    source = Manifest.load(tmp_path / "m.parquet")
    settings = dataclasses.replace(SETTINGS, preset="ultrafast")
    report = ingest(source, tmp_path / "s", settings, WorkSettings())
    assert len(source) > 25
    assert report.files == []
    assert verify(tmp_path / "s", 10**6).problems == []


def test_a_manifest_that_lies_where_the_store_would_is_kept(tmp_path):
    there = tmp_path / "manifest.parquet"
    there.write_bytes(b"of the raw videos")
    with pytest.raises(
        InputError, match=r"manifest.parquet. is of no store and would be overwritten: name another --out"
    ):
        StoreWriter(tmp_path, StoreSettings(), 2**20)
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.parquet"]
    assert there.read_bytes() == b"of the raw videos"
