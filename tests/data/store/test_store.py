"""The snippet store: the frames of a snippet are those of the normalised video, and what is damaged is found."""

import dataclasses
import io
import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch

from engine.data.batch import ClipFormat, SnippetRequest
from engine.data.config import DataConfig, SourceConfig
from engine.data.geometry import crop_window, snippet_frames
from engine.data.indexing.dataset import index_folder
from engine.data.loading.loader import ClipLoader, StreamPlan
from engine.data.manifests.manifest import Manifest
from engine.data.pyav.convert import FrameConverter
from engine.data.pyav.decode import PyAVDecoder, split_into_jobs
from engine.data.pyav.encode import write_video
from engine.data.pyav.gops import split_runs
from engine.data.pyav.snippets import cut
from engine.data.sets.sources import load_source
from engine.data.store import reader as reader_module
from engine.data.store.index import StoreIndex, StoreSettings, split_stored_path, write_index
from engine.data.store.ingest import WorkSettings, ingest
from engine.data.store.reader import StoreReader, find_entry
from engine.data.store.verify import verify
from engine.errors import InputError
from tests.data.videos import numbered_frame, numbers
from tests.environment import no_more_files
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
        write_video(root / name, (numbered_frame(number, *size) for number in range(count)), gop=30)
    (root / "diving" / "broken.mp4").write_text("<html>404</html>")
    index_folder(root, root / "manifest.parquet")
    return Manifest.load(root / "manifest.parquet")


@pytest.fixture(scope="module", params=[{}, {"b_frames": 3}, {"codec": "hevc"}], ids=["no-b", "b", "hevc"])
def store(raw, tmp_path_factory, request):
    folder = tmp_path_factory.mktemp("store") / "s"
    ingest(raw, folder, dataclasses.replace(SETTINGS, **request.param), WorkSettings(shard_bytes=10_000))
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
    with av.open(io.BytesIO(data), format=index.settings.codec) as container:
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
    for index in range(len(manifest)):
        video = manifest.video(index)
        frames = normalised_frames(store, video)
        assert len(frames) == video.num_frames
        requests = [SnippetRequest(video, start, 0.3, 0.8, bool(start % 2)) for start in range(video.num_frames)]
        for chosen in (requests, requests[-1:], requests[::7]):  # all in one pass; alone
            found = decoder.decode(chosen)
            assert not found.failures
            expected = np.stack([by_hand(frames, request, clip) for request in chosen])
            assert np.array_equal(found.frames.numpy(), expected)
    decoder.close()


def test_snippets_show_the_frames_of_the_source(store, raw, decoder):
    manifest = Manifest.load(store / "manifest.parquet")
    for index in range(len(manifest)):
        video, original = manifest.video(index), raw.video(index)
        assert str(video.path).endswith(f"{original.path.relative_to(raw.root)}#{index}")
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
    assert len({split_stored_path(manifest.video(index).path) for index in range(len(manifest))}) == len(LENGTHS)
    assert load_source(SourceConfig(manifest=str(store / "manifest.parquet"), classes=["diving"])).classes == (
        "diving",
    )
    codec = StoreIndex(store / "store.index").settings.codec
    assert set(manifest.table.column("codec").to_pylist()) == {codec}
    assert len(list(store.glob(f"*.{codec}"))) > 1
    assert verify(store, 99).problems == []


def test_training_sees_the_same_snippets_from_the_store_as_from_the_raw_files(store, raw):
    clip, batches = ClipFormat(num_frames=4, short_side=64, crop=56), []
    for manifest in (raw, Manifest.load(store / "manifest.parquet")):
        decoder = PyAVDecoder(clip, CPU, 2)
        loader = ClipLoader(
            manifest, np.arange(len(manifest.classes)), decoder, clip, StreamPlan(0, 8, 0, 1, True), DataConfig()
        )
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
            [SnippetRequest(manifest.video(index), 0, 0, 0, False) for index in range(len(manifest))]
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


def test_labelled_segments_of_one_file_share_its_video(raw, tmp_path, decoder):
    source = next(line for line in raw.table.to_pylist() if line["path"] == "surfing/long.mp4")
    rows = [{**source, "first_frame": first, "num_frames": count} for first, count in ((0, 45), (10, 20), (40, 5))]
    report = ingest(Manifest.from_rows(rows, raw.root), tmp_path / "s", SETTINGS, WorkSettings())
    assert (report.num_rows, report.num_videos) == (3, 1)
    manifest = Manifest.load(tmp_path / "s" / "manifest.parquet")
    found = decoder.decode([SnippetRequest(manifest.video(index), 2, 0, 0, False) for index in range(3)])
    assert [numbers(clip)[0] for clip in found.frames.numpy()] == [2, 12, 42]
    assert numbers(found.frames.numpy()[2]) == [42, 43, 44, 44, 44, 44]


def test_damage_is_found_and_fails_one_sample(raw, tmp_path, decoder):
    out = tmp_path / "s"
    ingest(raw, out, SETTINGS, WorkSettings())
    assert verify(out, 99) == dataclasses.replace(verify(out, 99), num_videos=5, num_decoded=5, problems=[])
    manifest, shard = Manifest.load(out / "manifest.parquet"), out / "00000.h264"
    requests = [SnippetRequest(manifest.video(index), 0, 0, 0, False) for index in range(len(manifest))]
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


class Told(list):
    """In place of a `StoreIndex`: what it tells of two videos, of 16 and 3 frames, 25 and 7 bytes, one behind the other."""

    settings, has_motion = SETTINGS, False

    def __init__(self, path: Path, **changed: list[int]) -> None:
        columns = {"shard": [0, 0], "offset": [0, 25], "first_group": [0, 2, 3], "group_end": [10, 25, 7]}
        columns |= {"num_frames": [16, 3], **changed}
        self.path, self.columns = path, {name: np.array(values, np.uint64) for name, values in columns.items()}
        super().__init__(SimpleNamespace(num_frames=n, num_bytes=b) for n, b in ((16, 25), (3, 7)))


STORED = [
    row("store.index/a.mp4#0", "x", file_frames=16, file_bytes=25),
    row("store.index/b.mp4#1", "x", file_frames=3, file_bytes=7),
]


@pytest.mark.parametrize(
    ("changed", "rows", "told"),
    [
        ({}, STORED, None),
        ({}, [*STORED, *STORED], None),  # segments
        ({"offset": [25, 0]}, STORED, r"cut short: 32 bytes of 50"),
        ({"offset": [0, 26]}, STORED, r"cut short: 32 bytes of 33"),
        ({"offset": [0, 24]}, STORED, "videos overlap in shard 00000.h264"),
        ({"group_end": [10, 26, 7]}, STORED, "videos overlap in shard 00000.h264"),
        ({"first_group": [0, 1, 3], "group_end": [25, 3, 7]}, STORED, "other numbers of GOPs"),
        ({"first_group": [0, 2, 4], "group_end": [10, 25, 3, 7]}, STORED, "other numbers of GOPs"),
        ({}, STORED[:1], "1 videos of the store are not in its manifest"),
        ({}, [*STORED, STORED[1] | {"path": "store.index/c.mp4#2"}], "c.mp4#2' of the manifest names no video"),
        ({}, [*STORED, STORED[1] | {"path": "c.mp4"}], "'c.mp4' of the manifest names no video"),
        ({}, [STORED[0], STORED[1] | {"file_frames": 4}], "b.mp4#1' of the manifest has other frames or bytes"),
        ({}, [STORED[0], STORED[1] | {"file_bytes": 8}], "b.mp4#1' of the manifest has other frames or bytes"),
    ],
)
def test_an_index_that_does_not_fit_its_shards_or_its_manifest_is_found(tmp_path, monkeypatch, changed, rows, told):
    """Though no video is read."""
    (tmp_path / "00000.h264").write_bytes(bytes(32))
    Manifest.from_rows(rows, tmp_path).save(tmp_path / "manifest.parquet")
    monkeypatch.setattr("engine.data.store.verify.StoreIndex", lambda path: Told(path, **changed))
    problems = verify(tmp_path, 0).problems
    assert len(problems) == (told is not None), problems
    assert all(re.search(told, problem) for problem in problems)


@pytest.fixture(scope="module")
def with_motion(raw, tmp_path_factory):
    folder = tmp_path_factory.mktemp("moved") / "s"
    ingest(raw, folder, SETTINGS, WorkSettings(motion=True))
    return folder


@pytest.mark.parametrize("value", [0, 2**31, 2**63 - 1, 2**64 - 1])
@pytest.mark.parametrize("name", ["offset", "first_group", "group_end", "num_frames", "width", "motion_offset"])
def test_a_number_of_the_index_that_the_disk_has_changed_fails_its_video_alone(with_motion, tmp_path, name, value):
    """Whatever it asks for: more than memory holds, bytes before the beginning, GOPs that are not there."""
    shutil.copytree(with_motion, tmp_path / "s")
    index, manifest = StoreIndex(tmp_path / "s/store.index"), Manifest.load(tmp_path / "s/manifest.parquet")
    columns = {column: values.copy() for column, values in index.columns.items()}
    place = int(columns["first_group"][3]) if name == "group_end" else 3
    columns[name][place] = value % (np.iinfo(columns[name].dtype).max + 1)
    del index
    write_index(tmp_path / "s/store.index", SETTINGS, columns)
    assert verify(tmp_path / "s", 99).problems
    decoder = PyAVDecoder(dataclasses.replace(CLIP, motion=True), CPU, 1)
    videos = [manifest.video(row) for row in range(5)]
    clips = decoder.decode([SnippetRequest(video, 0, 0.5, 0.5, False) for video in videos])
    decoder.close()
    may_fail = [row for row, video in enumerate(videos) if split_stored_path(video.path)[1] in (2, 3)]
    assert set(clips.failures) <= set(may_fail)


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


def test_runs_of_neighbouring_groups():
    assert split_runs([0, 7, 8, 15], 8) == [[0, 7, 8, 15]]
    assert split_runs([7, 16, 17, 40], 8) == [[7], [16, 17], [40]]


def test_all_threads_share_a_stored_video(store):
    video = Manifest.load(store / "manifest.parquet").video(0)
    requests = [SnippetRequest(video, start, 0, 0, False) for start in range(3)]
    assert len(split_into_jobs(requests, 3)) == 3


def test_too_few_open_files_is_no_fault_of_a_stored_video(with_motion, decoder):
    videos = [Manifest.load(with_motion / "manifest.parquet").video(row) for row in (0, 1)]
    asked = [SnippetRequest(video, 0, 0, 0, False) for video in videos]
    decoder.decode(asked[:1])
    for forget in (reader_module._READERS.clear, lambda: find_entry(videos[0])[0].close()):  # the index, then the shard
        forget()
        with no_more_files(), pytest.raises(OSError, match="Too many open files"):
            decoder.decode(asked)
        assert not decoder.decode(asked).failures


def test_more_shards_than_may_stay_open(raw, tmp_path, monkeypatch):
    monkeypatch.setattr("engine.data.store.reader._MOST_KEPT", 1)
    ingest(raw, tmp_path / "store", SETTINGS, WorkSettings(shard_bytes=1))
    assert len(list((tmp_path / "store").glob("*.h264"))) == len(LENGTHS)
    assert verify(tmp_path / "store", len(LENGTHS)).problems == []
    reader = StoreReader(StoreIndex(tmp_path / "store" / "store.index"))
    for _ in range(2):
        for number in range(len(LENGTHS)):
            assert len(reader.read(reader.index[number], 0, 0)) > 0
    assert len(reader._files) == 1
    reader.close()
