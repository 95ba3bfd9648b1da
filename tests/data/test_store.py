"""The snippet store: the frames of a snippet are those of the normalised video, and what is damaged is found."""

import csv
import dataclasses
import io
import json
import time
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from engine.config import DataConfig, SourceConfig
from engine.data.batch import ClipFormat, SnippetRequest
from engine.data.geometry import crop_window, snippet_frames
from engine.data.indexing import index_folder
from engine.data.loader import ClipLoader, StreamPlan
from engine.data.manifest import Manifest
from engine.data.pyav.convert import FrameConverter
from engine.data.pyav.decode import PyAVDecoder, split_into_jobs
from engine.data.pyav.encode import write_video
from engine.data.pyav.groups import split_runs
from engine.data.pyav.snippets import cut
from engine.data.sources import load_source
from engine.data.store.index import StoreIndex, StoreSettings, is_stored, split_stored_path, stored_path, write_index
from engine.data.store.ingest import WorkSettings, build_manifest, ingest
from engine.data.store.reader import StoreReader
from engine.data.store.verify import verify
from engine.data.store.writer import StoredVideo, StoreWriter
from engine.errors import InputError
from tests.data.videos import numbers, picture
from tests.rows import row

CPU = torch.device("cpu")
CLIP = ClipFormat(num_frames=6, stride=1, short_side=64, crop=64)
WIDE = ClipFormat(num_frames=6, stride=1, short_side=64, crop=56)
LENGTHS = {
    "surfing/long.mp4": 45,
    "surfing/two.mp4": 16,
    "diving/short.mp4": 3,
    "diving/one.mp4": 1,
    "diving/odd.mp4": 41,
}
SETTINGS = StoreSettings(short_side=64, gop=8, preset="veryfast")


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """Square numbered videos of several lengths, indexed."""
    root = tmp_path_factory.mktemp("raw")
    for name, count in LENGTHS.items():
        (root / name).parent.mkdir(exist_ok=True)
        size = (130, 98) if "odd" in name else (96, 96)
        write_video(root / name, (picture(number, *size) for number in range(count)), gop=30)
    (root / "diving" / "broken.mp4").write_text("<html>404</html>")
    index_folder(root, root / "manifest.parquet")
    return Manifest.load(root / "manifest.parquet")


@pytest.fixture(scope="module", params=[0, 3], ids=["no-b", "b"])
def store(raw, tmp_path_factory, request):
    folder = tmp_path_factory.mktemp("store") / "s"
    ingest(raw, folder, dataclasses.replace(SETTINGS, b_frames=request.param), WorkSettings(shard_bytes=20_000))
    return folder


@pytest.fixture
def decoder():
    decoder = PyAVDecoder(CLIP, CPU, 2)
    yield decoder
    decoder.close()


def normalised_frames(folder, video):
    """All frames of a stored video, decoded in one go by FFmpeg's own reader of raw streams."""
    index = StoreIndex(folder / "store.index")
    entry = index[split_stored_path(video.path)[1]]
    data = StoreReader(index).read(entry, 0, len(entry.group_end) - 1)
    with av.open(io.BytesIO(data), format="h264") as container:
        return list(container.decode(video=0))


def by_hand(frames, request, clip):
    window, convert = crop_window(request, clip), FrameConverter()
    snippet = np.empty((clip.num_frames, clip.crop, clip.crop, 3), np.uint8)
    for square, number in zip(snippet, snippet_frames(request.video, request.start, clip), strict=True):
        cut(convert(frames[number], window.width, window.height), window, square)
    return snippet


@pytest.mark.parametrize(
    "clip", [CLIP, WIDE, dataclasses.replace(CLIP, stride=5), dataclasses.replace(CLIP, stride=20)]
)
def test_a_snippet_is_the_frames_of_the_normalised_video(store, clip):
    manifest = Manifest.load(store / "manifest.parquet")
    decoder = PyAVDecoder(clip, CPU, 2)
    for place in range(len(manifest)):
        video = manifest.video(place)
        frames = normalised_frames(store, video)
        assert len(frames) == video.num_frames
        requests = [SnippetRequest(video, start, 0.3, 0.8, bool(start % 2)) for start in range(video.num_frames)]
        for chosen in (requests, requests[-1:], requests[::7]):  # all in one pass; alone
            found = decoder.decode(chosen)
            assert not found.failures
            expected = np.stack([by_hand(frames, request, clip) for request in chosen])
            assert np.array_equal(found.frames.numpy(), expected)
    decoder.close()


def test_snippets_show_the_pictures_of_the_source(store, raw, decoder):
    manifest = Manifest.load(store / "manifest.parquet")
    for place in range(len(manifest)):
        video, original = manifest.video(place), raw.video(place)
        assert str(video.path).endswith(f"{original.path.relative_to(raw.root)}#{place}")
        assert (video.num_frames, video.rotation, min(video.width, video.height)) == (original.num_frames, 0, 64)
        if original.width == original.height:
            starts = range(video.num_frames)
            found = decoder.decode([SnippetRequest(video, start, 0, 0, False) for start in starts])
            assert not found.failures
            for start, clip in zip(starts, found.frames.numpy(), strict=True):
                last = video.num_frames - 1
                assert numbers(clip) == [min(start + k, last) for k in range(CLIP.num_frames)]


def test_the_manifest_is_the_source_s_with_other_facts(store, raw):
    manifest = Manifest.load(store / "manifest.parquet")
    assert manifest.classes == raw.classes
    for column in ("class_name", "split", "group", "num_frames", "first_frame", "fps"):
        assert manifest.table.column(column).to_pylist() == raw.table.column(column).to_pylist(), column
    assert len({split_stored_path(manifest.video(place).path) for place in range(len(manifest))}) == len(LENGTHS)
    assert load_source(SourceConfig(manifest=str(store / "manifest.parquet"), classes=["diving"])).classes == (
        "diving",
    )
    assert len(list(store.glob("*.h264"))) > 1


def test_training_sees_the_same_snippets_from_the_store_as_from_the_raw_files(store, raw):
    clip, batches = ClipFormat(num_frames=4, short_side=64, crop=56), []
    for manifest in (raw, Manifest.load(store / "manifest.parquet")):
        decoder = PyAVDecoder(clip, CPU, 2)
        loader = ClipLoader(manifest, manifest.class_index, decoder, clip, StreamPlan(0, 8, 0, 1, True), DataConfig())
        batches.append([next(loader) for _ in range(4)])
        loader.close()
    for ours, theirs in zip(*batches, strict=True):
        assert not ours.failures
        assert not theirs.failures
        for name in ("video", "start", "class_index"):
            assert torch.equal(getattr(ours, name), getattr(theirs, name))
        assert (ours.frames.float() - theirs.frames.float()).abs().mean() < 4  # levels of 255; coded twice


def test_a_store_moves_as_a_folder_and_has_a_relative_name_too(raw, tmp_path, monkeypatch, decoder):
    ingest(raw, tmp_path / "a", SETTINGS, WorkSettings())
    (tmp_path / "a").rename(tmp_path / "b")
    monkeypatch.chdir(tmp_path / "b")
    for manifest in (Manifest.load(tmp_path / "b" / "manifest.parquet"), Manifest.load(Path("manifest.parquet"))):
        found = decoder.decode(
            [SnippetRequest(manifest.video(place), 0, 0, 0, False) for place in range(len(manifest))]
        )
        assert not found.failures


def test_a_file_that_fails_is_listed_and_missing_from_the_manifest(raw, tmp_path):
    rows = [{**line, "class_name": line["class_name"]} for line in raw.table.to_pylist()]
    rows.append(row("diving/broken.mp4", "diving", file_bytes=(raw.root / "diving/broken.mp4").stat().st_size))
    rows.append(row("diving/absent.mp4", "diving"))
    report = ingest(Manifest.from_rows(rows, raw.root), tmp_path / "s", SETTINGS, WorkSettings())
    assert report.bad == {"unreadable": 1, "missing": 1}
    assert [(file["path"], file["kind"]) for file in report.files] == [
        ("diving/broken.mp4", "unreadable"),
        ("diving/absent.mp4", "missing"),
    ]
    assert json.loads((tmp_path / "s" / "report.json").read_text())["files"] == report.files
    assert (report.num_rows, report.num_videos, report.num_frames) == (5, 5, sum(LENGTHS.values()))
    assert report.num_bytes == sum(file.stat().st_size for file in (tmp_path / "s").glob("*.h264"))
    with pytest.raises(InputError, match="none of the 2 files can be used"):
        ingest(Manifest.from_rows(rows[-2:], raw.root), tmp_path / "t", SETTINGS, WorkSettings())


def test_ingesting_again_keeps_what_is_there_and_redoes_what_changed(tmp_path, capsys):
    root, out = tmp_path / "raw", tmp_path / "s"
    for name, count in (("a/x.mp4", 12), ("a/y.mp4", 9)):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        write_video(root / name, (picture(number, 96, 96) for number in range(count)))
    index_folder(root, root / "m.parquet")
    ingest(Manifest.load(root / "m.parquet"), out, SETTINGS, WorkSettings())
    first = (out / "00000.h264").read_bytes()
    write_video(root / "a/y.mp4", (picture(number, 96, 96) for number in range(20)))
    write_video(root / "a/z.mp4", (picture(number, 96, 96) for number in range(5)))
    index_folder(root, root / "m.parquet")
    capsys.readouterr()
    report = ingest(Manifest.load(root / "m.parquet"), out, SETTINGS, WorkSettings())
    assert "1 of 3 files are in the store and unchanged" in capsys.readouterr().err
    assert report.num_frames == 12 + 20 + 5
    assert (out / "00000.h264").read_bytes().startswith(first)  # a reader of the old index is not disturbed
    assert verify(out, 10).problems == []
    (root / "a/x.mp4").unlink()  # what is stored needs its original no more
    assert ingest(Manifest.load(root / "m.parquet"), out, SETTINGS, WorkSettings()).num_frames == 37
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


def test_a_manifest_that_lies_where_the_store_would_is_kept(tmp_path):
    there = tmp_path / "manifest.parquet"
    there.write_bytes(b"of the raw videos")
    with pytest.raises(
        InputError, match=r"manifest.parquet. is of no store and would be overwritten: name another --out"
    ):
        StoreWriter(tmp_path, StoreSettings(), 2**20)
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.parquet"]
    assert there.read_bytes() == b"of the raw videos"


def test_labelled_segments_of_one_file_share_its_video(raw, tmp_path, decoder):
    source = next(line for line in raw.table.to_pylist() if line["path"] == "surfing/long.mp4")
    rows = [{**source, "first_frame": first, "num_frames": count} for first, count in ((0, 45), (10, 20), (40, 5))]
    report = ingest(Manifest.from_rows(rows, raw.root), tmp_path / "s", SETTINGS, WorkSettings())
    assert (report.num_rows, report.num_videos) == (3, 1)
    manifest = Manifest.load(tmp_path / "s" / "manifest.parquet")
    found = decoder.decode([SnippetRequest(manifest.video(place), 2, 0, 0, False) for place in range(3)])
    assert [numbers(clip)[0] for clip in found.frames.numpy()] == [2, 12, 42]
    assert numbers(found.frames.numpy()[2]) == [42, 43, 44, 44, 44, 44]


def test_segments_keep_their_time_at_another_rate(tmp_path):
    rows = [
        row("a.mp4", "x", num_frames=100, file_frames=100),
        row("a.mp4", "x", first_frame=10, num_frames=25, file_frames=100),
    ]
    halved = StoredVideo(0, 0, (50,) * 7, 50, 64, 64, 12.5, 0)
    manifest = build_manifest(Manifest.from_rows(rows, tmp_path), {"a.mp4": halved}, tmp_path)
    assert [(video.first_frame, video.num_frames) for video in map(manifest.video, range(2))] == [(0, 50), (5, 13)]


def test_damage_is_found_and_fails_one_sample(raw, tmp_path, decoder):
    out = tmp_path / "s"
    ingest(raw, out, SETTINGS, WorkSettings())
    assert verify(out, 99) == dataclasses.replace(verify(out, 99), num_videos=5, num_decoded=5, problems=[])
    manifest, shard = Manifest.load(out / "manifest.parquet"), out / "00000.h264"
    requests = [SnippetRequest(manifest.video(place), 0, 0, 0, False) for place in range(len(manifest))]
    whole = shard.read_bytes()
    entry = StoreIndex(out / "store.index")[2]
    flipped = bytearray(whole)
    flipped[entry.offset + entry.num_bytes // 2] ^= 0xFF
    shard.write_bytes(flipped)
    problems = verify(out, 99).problems
    assert len(problems) == 1
    assert str(manifest.video(2).path).split("/s/")[1] in problems[0]
    assert "checksum" in problems[0]
    shard.write_bytes(whole[: entry.offset + 10])
    assert any("is cut short" in problem for problem in verify(out, 0).problems)
    failures = decoder.decode(requests).failures
    assert sorted(failures) == [2, 3, 4]
    assert "is cut short" in failures[2]
    shard.unlink()
    assert any("is missing" in problem for problem in verify(out, 0).problems)
    (out / "store.index").unlink()
    assert "there is no snippet store" in decoder.decode(requests).failures[0]
    with pytest.raises(InputError, match="no snippet store at"):
        verify(out, 1)


def test_a_manifest_of_another_store_is_refused(raw, tmp_path, decoder):
    ingest(raw, tmp_path / "s", SETTINGS, WorkSettings())
    manifest = Manifest.load(tmp_path / "s" / "manifest.parquet")
    video = dataclasses.replace(manifest.video(0), file_bytes=5)
    beyond = dataclasses.replace(video, path=tmp_path / "s" / "store.index" / "x.mp4#77")
    for each in (video, beyond):
        assert (
            "has changed since this manifest was written"
            in decoder.decode([SnippetRequest(each, 0, 0, 0, False)]).failures[0]
        )


def test_an_index_that_is_none(tmp_path):
    for content in (b"", b"PAR1" + bytes(5000)):
        (tmp_path / "store.index").write_bytes(content)
        with pytest.raises(InputError):
            StoreIndex(tmp_path / "store.index")


def test_a_large_index_opens_at_once(tmp_path):
    count = 541_624
    columns = {
        name: np.zeros(count, np.uint64) for name in ("shard", "offset", "num_frames", "width", "height", "crc32")
    }
    columns |= {"first_group": np.arange(count + 1) * 19, "group_end": np.arange(count * 19) % 19 + 1}
    write_index(tmp_path / "store.index", StoreSettings(), columns)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        entry = StoreIndex(tmp_path / "store.index")[count - 1]
        times.append(time.perf_counter() - start)
    assert entry.num_bytes == 19
    assert min(times) < 0.005


def test_paths_into_a_store():
    assert stored_path(12, "a/b#3.mp4") == "store.index/a/b#3.mp4#12"
    assert stored_path(0, "/data/../a.mp4") == "store.index/data/a.mp4#0"  # never leads out of the store
    assert split_stored_path(Path("/d/s/store.index/a/b#3.mp4#12")) == (Path("/d/s/store.index"), 12)
    assert split_stored_path(Path("store.index/a.mp4#7")) == (Path("store.index"), 7)
    assert split_stored_path(Path("/d/a.mp4#7")) is None
    assert is_stored("store.index/a/b.mp4#12")
    assert not is_stored("my.store.index.mp4")
    assert not is_stored("restore.index/12/b.mp4")


def test_runs_of_neighbouring_groups():
    assert split_runs([0, 7, 8, 15], 8) == [[0, 7, 8, 15]]
    assert split_runs([7, 16, 17, 40], 8) == [[7], [16, 17], [40]]


def test_all_threads_share_a_stored_video(store):
    video = Manifest.load(store / "manifest.parquet").video(0)
    requests = [SnippetRequest(video, start, 0, 0, False) for start in range(3)]
    assert len(split_into_jobs(requests, 3)) == 3


def test_the_pack_of_odd_files_is_ingested_or_refused_with_a_reason(shared_data, tmp_path):
    """Files of at most 300 frames; what the index takes must come out whole."""
    pack, wanted = shared_data / "decode_pack", tmp_path / "pack" / "odd"
    wanted.mkdir(parents=True)
    with (pack / "MANIFEST.csv").open() as file:
        for line in csv.DictReader(file):
            if float(line["frames"] or 0) <= 300 and (pack / line["file"]).stat().st_size < 300_000:
                (wanted / line["file"]).symlink_to(pack / line["file"])
    index_folder(tmp_path / "pack", tmp_path / "m.parquet")
    source = Manifest.load(tmp_path / "m.parquet")
    settings = dataclasses.replace(SETTINGS, preset="ultrafast")
    report = ingest(source, tmp_path / "s", settings, WorkSettings())
    assert len(source) > 25
    assert report.files == []
    assert verify(tmp_path / "s", 10**6).problems == []
