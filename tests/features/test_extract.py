"""Features of real files: the right frames of every video, grown, mended, dropped, killed and gone on with."""

import errno
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from engine.data.manifests.manifest import Manifest
from engine.errors import InputError
from engine.features import cache as cache_module
from engine.features.cache import CachedVideo, FeatureCache, Stamp
from engine.features.encoder import build_encoder
from engine.features.extract import Work, extract
from engine.features.windows import SECONDS, WindowGrid
from engine.features.writer import FeatureWriter
from engine.files.parquet import read_table, write_table
from tests.data.videos import numbered_frame
from tests.environment import ROOT
from tests.features.small_set import LENGTHS, FrameReader, expected, index, write_set
from tests.rows import row as row_of
from tests.small_run import run_tool, write_run

GRID = WindowGrid(8, 4)
WORK = Work(batch_size=3, num_threads=2)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    root = tmp_path_factory.mktemp("videos")
    write_set(root)
    return root


@pytest.fixture
def root(original, tmp_path):
    """A copy of the small set that a test may spoil."""
    shutil.copytree(original, tmp_path / "root")
    return tmp_path / "root"


def run(root, encoder=None, **changes):
    given = {"grid": GRID, "work": WORK, **changes}
    manifest = Manifest.load(root / "videos.parquet")
    return extract(manifest, encoder or FrameReader(), root / "features", given["grid"], given["work"])


def check(root, lengths=None, first=None):
    """That the cache holds these videos, each with its own frames and times, and nothing else."""
    cache = FeatureCache(root / "features", manifest=Manifest.load(root / "videos.parquet"))
    lengths = LENGTHS if lengths is None else lengths
    assert sorted(cache.videos) == [f"shown/{name}" for name in lengths]
    for name, length in lengths.items():
        found = cache[f"shown/{name}"]
        assert np.array_equal(found.features, expected(length, (first or {}).get(name, 0)))
        starts = 4 * np.arange(len(found.features)) / 25
        assert np.allclose(found.start_s, starts, atol=2e-3)
        assert np.allclose(found.end_s, np.minimum(starts + 8 / 25, length / 25), atol=2e-3)
        assert found.duration_s == pytest.approx(length / 25, abs=2e-3)
    assert len(cache.features) == len(cache.spans) == sum(len(expected(length)) for length in lengths.values())
    assert [cache.videos[place] for place in np.unique(cache.video_of)] == list(cache.videos)
    return cache


def test_the_page_reads_them_as_it_says(root, monkeypatch):
    monkeypatch.chdir(root)
    write_run(root / "runs" / "k664")
    Manifest.load("videos.parquet").save("data/videos.parquet")
    encoder = build_encoder("runs/k664", torch.device("cpu"))
    extract(Manifest.load("data/videos.parquet"), encoder, Path("features/videos"), GRID, WORK)
    page = (ROOT / "docs" / "features.md").read_text(encoding="utf-8")
    names = {}
    exec(re.search(r"```python\n(.*?)```", page, re.DOTALL)[1], names)
    assert names["rows"].tolist() == [0, 1, 2, 3] and names["features"].shape == (4, encoder.width)
    assert names["video"] in names["cache"] and len(names["found"].features) == len(names["windows"][0])


def test_every_window_has_its_own_frames_and_times(root):
    encoder = FrameReader()
    report = run(root, encoder)
    cache = check(root)
    assert cache.features.dtype == np.float16
    assert isinstance(cache.features, np.memmap)
    assert max(encoder.batches) <= WORK.batch_size
    assert (report.num_videos, report.num_new, report.num_windows, report.files) == (4, 4, len(cache.features), [])
    assert report.video_s == pytest.approx(sum(LENGTHS.values()) / 25, abs=0.01)
    assert 0 < report.decode_share < 1
    assert json.loads((root / "features" / "report.json").read_text())["num_new"] == 4


def test_windows_in_seconds(root):
    run(root, grid=WindowGrid(0.4, 0.2, SECONDS))
    found = FeatureCache(root / "features")["shown/d.webm"]
    assert found.features[:, :4].tolist() == [[5 * k + add for add in (1, 3, 6, 8)] for k in range(7)]
    assert np.allclose(found.end_s - found.start_s, 0.4)


def test_run_again_nothing_is_decoded(root, monkeypatch):
    run(root)
    before = {path.name: path.stat().st_mtime_ns for path in (root / "features").glob("*.npy")}
    encoder = FrameReader()
    assert run(root, encoder).num_new == 0
    assert encoder.batches == []
    check(root)
    assert before.keys() == {path.name for path in (root / "features").glob("*.npy")}


def test_only_what_is_new_is_extracted_and_what_is_gone_is_dropped(root):
    run(root)
    (root / "set" / "shown" / "b.mp4").unlink()
    write_set(root, {"e.mp4": 30})
    encoder = FrameReader()
    report = run(root, encoder)
    assert (report.num_new, report.num_dropped) == (1, 1)
    assert sum(encoder.batches) == len(expected(30))
    check(root, {name: length for name, length in (LENGTHS | {"e.mp4": 30}).items() if name != "b.mp4"})
    assert [path.name for path in sorted((root / "features").glob("*.npy"))] == ["features-2.npy", "spans-2.npy"]
    run(root)
    assert run(root).num_new == 0


def test_a_file_that_changed_is_extracted_anew_and_one_that_was_only_touched_is_not(root):
    run(root)
    write_set(root, {"c.mkv": 33}, first=100)
    os.utime(root / "set" / "shown" / "d.webm", ns=(1, 1))
    index(root)
    report = run(root)
    assert report.num_new == 1
    check(root, LENGTHS | {"c.mkv": 33}, {"c.mkv": 100})


def test_a_file_that_changed_but_was_not_indexed_again_loses_its_features(root):
    run(root)
    file = root / "set" / "shown" / "c.mkv"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert FeatureCache(root / "features").change("shown/c.mkv") is not None
    assert FeatureCache(root / "features").change("shown/d.webm") is None
    report = run(root)
    assert [(each["path"], "index it again" in each["text"]) for each in report.files] == [("shown/c.mkv", True)]
    with pytest.raises(InputError, match=r"shown/c.mkv.*changed since it was indexed"):
        FeatureCache(root / "features")["shown/c.mkv"]
    assert len(FeatureCache(root / "features")) == 3


def test_originals_that_are_gone_keep_their_features(root):
    run(root)
    shutil.rmtree(root / "set")
    assert run(root).num_new == 0
    check(root)


def test_bad_files_are_listed_and_stop_nothing(root):
    (root / "set" / "shown" / "b.mp4").unlink()
    damaged = root / "set" / "shown" / "c.mkv"
    damaged.write_bytes(damaged.read_bytes()[:-100])
    report = run(root)
    assert {each["path"]: each["text"].split(":")[0][:19] for each in report.files} == {
        "shown/b.mp4": "the file is missing",
        "shown/c.mkv": "it has "
        + str(damaged.stat().st_size)
        + " bytes, but had"[: 12 - len(str(damaged.stat().st_size))],
    }
    cache = FeatureCache(root / "features", manifest=Manifest.load(root / "videos.parquet"))
    assert sorted(cache.videos) == ["shown/a.mp4", "shown/d.webm"]
    assert sorted(cache.failures) == ["shown/b.mp4", "shown/c.mkv"]
    write_set(root)  # both are mended
    assert run(root).files == []
    check(root)


def test_a_folder_of_bad_files_alone_is_an_error_that_names_them(root):
    shutil.rmtree(root / "set")
    with pytest.raises(InputError, match=r"none of the 4 videos can be used \(shown/a.mp4: the file is missing"):
        run(root)


def test_a_video_without_frames_is_none(root):
    table = Manifest.load(root / "videos.parquet").table.to_pylist()
    table[1] |= {"file_frames": 0, "num_frames": 0, "timed_frames": [], "frame_times": []}
    Manifest.from_rows(table, root / "set").save(root / "videos.parquet")
    assert [each["text"] for each in run(root).files] == ["it has no frames"]


@pytest.mark.parametrize("grid", [GRID, WindowGrid(1, 1), WindowGrid(2.0, 0.5, SECONDS)])
def test_a_picture_is_one_window_that_shows_it(root, grid):
    """In whatever windows the videos are cut; its centre where it is no square, and a damaged one is named."""
    shown = root / "set" / "shown"
    wide = np.pad(numbered_frame(77, 64, 64), ((0, 0), (40, 40), (0, 0)))
    Image.fromarray(wide).save(shown / "e.png")
    Image.fromarray(wide).save(shown / "f.png")
    done = run_tool("index_dataset.py", root / "set", "--layout", "images", "--out", root / "pictures.parquet")
    assert done.returncode == 0, done.stderr
    rows = [
        each for name in ("videos", "pictures") for each in Manifest.load(root / f"{name}.parquet").table.to_pylist()
    ]
    Manifest.from_rows(rows, root / "set").save(root / "videos.parquet")
    (shown / "f.png").write_bytes((shown / "f.png").read_bytes()[:-30])
    report = run(root, grid=grid)
    assert [each["path"] for each in report.files] == ["shown/f.png"]
    found = FeatureCache(root / "features")["shown/e.png"]
    assert found.features.tolist() == [[77, 77, 77, 77, 4 * 77]]
    assert (found.start_s.tolist(), found.end_s.tolist()) == ([0.0], [2.0 if grid.unit == SECONDS else 1.0])


def test_features_that_are_no_numbers_are_a_failure_of_their_video_alone(root):
    class Broken(FrameReader):
        def __call__(self, frames):
            features = super().__call__(frames)
            features[features[:, 0] >= 32] = torch.nan
            return features

    report = run(root, Broken())
    assert [each["path"] for each in report.files] == ["shown/d.webm"]
    assert "not finite" in report.files[0]["text"]
    assert len(FeatureCache(root / "features")) == 3


def test_segments_of_one_file_are_decoded_once(root):
    rows = Manifest.load(root / "videos.parquet").table.to_pylist()
    ends = [(0.0, 0.5), (0.6, 1.2), (1.59, 1.6)]
    rows += [rows[3] | {"segment_start": start, "segment_end": end, "class_name": "part"} for start, end in ends]
    Manifest.from_rows(rows, root / "set").save(root / "videos.parquet")
    encoder = FrameReader()
    assert run(root, encoder).num_videos == 4
    assert sum(encoder.batches) == sum(len(expected(length)) for length in LENGTHS.values())
    cache = FeatureCache(root / "features", manifest=Manifest.load(root / "videos.parquet"))
    given, means = cache.means(Manifest.load(root / "videos.parquet"))
    whole = expected(LENGTHS["d.webm"])
    assert given.tolist() == list(range(7))
    assert np.allclose(means[3], whole.mean(axis=0), rtol=1e-3)
    assert np.allclose(
        means[4], whole[[0, 1, 2]].mean(axis=0)
    )  # windows at 0, 0.16, 0.32 s have their middle before 0.5 s
    assert np.allclose(means[5], whole[[3, 4, 5, 6]].mean(axis=0))
    assert np.allclose(means[6], whole[-1])  # the nearest


@pytest.mark.parametrize(
    ("encoder", "changes", "told"),
    [
        (
            {"digest": "f" * 16, "name": "other"},
            {},
            r"of the model reader, digest 0123456789ab \(now other, ffffffffffff\)",
        ),
        ({}, {"grid": WindowGrid(8, 2)}, r"of windows 8 frames every 4 \(now 8 frames every 2\)"),
        ({}, {"grid": WindowGrid(8, 4, SECONDS)}, "of windows 8 frames every 4"),
        ({}, {"work": Work(dtype="float32")}, r"of dtype float16 \(now float32\)"),
    ],
)
def test_features_of_another_kind_are_refused_by_name(root, encoder, changes, told):
    run(root)
    other = FrameReader()
    for name, value in encoder.items():
        setattr(other, name, value)
    with pytest.raises(InputError, match=told):
        run(root, other, **changes)
    check(root)


def test_a_reader_refuses_another_model_and_other_videos(root):
    run(root)
    with pytest.raises(InputError, match="of the model reader, digest 0123456789ab, not of ffff"):
        FeatureCache(root / "features", digest="ffff")
    assert FeatureCache(root / "features", digest=FrameReader.digest).stamp.grid == GRID
    write_set(root, {"c.mkv": 33, "e.mp4": 9})
    with pytest.raises(InputError, match=r"1 of its videos have changed since \(shown/c.mkv\): run tools/extract"):
        FeatureCache(root / "features", manifest=Manifest.load(root / "videos.parquet"))
    with pytest.raises(InputError, match=r"nothing of 'shown/e.mp4': not among the 4 videos"):
        FeatureCache(root / "features")["shown/e.mp4"]


def test_a_second_writer_and_a_folder_of_something_else_are_refused(root):
    run(root)
    stamp = FeatureCache(root / "features").stamp
    with FeatureWriter(root / "features", stamp), pytest.raises(InputError, match="another process is writing"):
        run(root)
    (root / "features" / "journal.jsonl").write_text('{"store": 1}\n')
    with pytest.raises(InputError, match="of another version or of something else"):
        run(root)
    (root / "features" / "journal.jsonl").unlink()
    with pytest.raises(InputError, match="features without a journal"):
        run(root)


def test_a_line_of_the_journal_in_which_a_letter_has_changed_is_extracted_again(root):
    run(root)
    journal = root / "features" / "journal.jsonl"
    head, first, *rest = journal.read_text().splitlines(keepends=True)
    journal.write_text(head + first.replace('"num_windows"', '"num_wandows"') + "".join(rest))
    assert run(root).num_new == 1
    check(root)
    journal.write_text(head.replace('"generation"', '"degeneration"') + first + "".join(rest))
    with pytest.raises(InputError, match=r"journal.jsonl' is damaged \(it lacks 'generation'\): choose another --out"):
        run(root)


def test_features_of_which_nothing_is_left_are_told(root):
    run(root)
    (root / "features" / "features-1.npy").write_bytes(b"")
    with pytest.raises(
        InputError, match=r"features-1.npy' cannot be read \(No data left in file\): copy the features again"
    ):
        FeatureCache(root / "features")


def test_what_is_not_finished_or_damaged_is_not_read(root, tmp_path):
    with pytest.raises(InputError, match=r"it has no videos.parquet"):
        FeatureCache(tmp_path / "nothing")
    run(root)
    (root / "features" / "spans-1.npy").unlink()
    with pytest.raises(InputError, match=r"spans-1.npy' cannot be read"):
        FeatureCache(root / "features")
    (root / "features" / "videos.parquet").write_bytes(b"no parquet")
    with pytest.raises(InputError, match="is not an index of features"):
        FeatureCache(root / "features")
    (root / "features" / "videos.parquet").unlink()
    with pytest.raises(InputError, match="extraction has not come to its end"):
        FeatureCache(root / "features")


@pytest.mark.parametrize("damage", ["column", "note"])
def test_an_index_in_which_a_letter_has_changed_is_one_error(root, damage):
    run(root)
    path = root / "features" / "videos.parquet"
    table = read_table(path)
    ((key, notes),) = table.schema.metadata.items()
    if damage == "column":
        table = table.rename_columns(["duration_z" if name == "duration_s" else name for name in table.column_names])
    else:
        notes = notes.replace(b'"root"', b'"boot"')
    write_table(table.replace_schema_metadata({key: notes}), path)
    with pytest.raises(InputError, match=r"videos.parquet' is not an index of features .*(duration_z|it lacks root)"):
        FeatureCache(root / "features")


def test_a_kill_at_any_moment_of_the_rewriting_loses_nothing(root, monkeypatch):
    """Dropping a video writes the arrays anew; here the process ends before each of the steps."""
    run(root)
    (root / "set" / "shown" / "a.mp4").unlink()
    index(root)
    rest = {name: length for name, length in LENGTHS.items() if name != "a.mp4"}
    shutil.copytree(root / "features", root / "before")
    steps = [
        "engine.features.writer.JsonLines.append",
        "engine.features.writer.atomic_write",
        "engine.features.writer.write_index",
    ]
    for step in steps:
        shutil.rmtree(root / "features")
        shutil.copytree(root / "before", root / "features")
        with monkeypatch.context() as patch:
            patch.setattr(step, lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                run(root)
        assert len(FeatureCache(root / "features")) == 4  # who reads meanwhile has what was there
        assert run(root).num_new == 0
        check(root, rest)


def test_who_reads_while_the_arrays_are_written_anew_has_the_new_ones(root, monkeypatch):
    """Those that the index named are gone before they are opened."""
    run(root)
    (root / "set" / "shown" / "a.mp4").unlink()
    index(root)
    mapped, seen = cache_module._mapped, []

    def late(path: Path, num_rows: int) -> np.ndarray:
        seen.append(path.name)
        if len(seen) == 1:
            run(root)
        return mapped(path, num_rows)

    monkeypatch.setattr(cache_module, "_mapped", late)
    assert sorted(FeatureCache(root / "features").videos) == [f"shown/{name}" for name in LENGTHS if name != "a.mp4"]
    assert seen == ["features-1.npy", "features-2.npy", "spans-2.npy"]


def test_an_end_that_a_full_disk_refuses_leaves_what_was_there(root, monkeypatch):
    """The arrays have rows of new videos then, and the index does not know them."""
    run(root)
    write_set(root, {"e.mp4": 30})

    def refuse(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr("engine.features.writer.write_index", refuse)
        run(root)
    cache = FeatureCache(root / "features")
    assert len(cache) == 4
    assert (
        len(cache.features) == len(cache.spans) == len(cache.video_of) == sum(map(len, map(expected, LENGTHS.values())))
    )
    assert isinstance(cache.features, np.memmap) and Path(cache.features.filename).name == "features-1.npy"
    for place, video in enumerate(cache.videos):
        assert np.array_equal(cache.features[cache.video_of == place], cache[video].features)
    assert run(root).num_new == 0
    check(root, LENGTHS | {"e.mp4": 30})


def test_arrays_with_fewer_rows_than_the_index_are_refused(root):
    run(root)
    path = root / "features" / "features-1.npy"
    np.save(path, np.load(path)[:-1])
    with pytest.raises(InputError, match=r"features-1.npy' cannot be read \(it has \d+ of \d+ windows\)"):
        FeatureCache(root / "features")


def test_a_manifest_that_says_other_times_has_its_videos_extracted_anew(root):
    """As one that was written before times were noted, and was then written again."""
    rows = Manifest.load(root / "videos.parquet").table.to_pylist()
    for row in rows:
        row |= {"timed_frames": None, "frame_times": None, "fps": 10.0}
    Manifest.from_rows(rows, root / "set").save(root / "videos.parquet")
    run(root)
    assert FeatureCache(root / "features")["shown/d.webm"].duration_s == pytest.approx(4.0)
    index(root)
    with pytest.raises(
        InputError, match=r"4 of its videos have changed since \(.*: run tools/extract_features.py again"
    ):
        FeatureCache(root / "features", manifest=Manifest.load(root / "videos.parquet"))
    assert run(root).num_new == 4
    check(root)
    assert run(root).num_new == 0


def test_a_video_that_is_turned_in_another_way_is_extracted_anew(root):
    run(root)
    rows = Manifest.load(root / "videos.parquet").table.to_pylist()
    rows[1]["rotation"] = 180
    Manifest.from_rows(rows, root / "set").save(root / "videos.parquet")
    assert run(root).num_new == 1


def test_a_video_that_failed_and_was_mended_is_missed(root):
    file = root / "set" / "shown" / "c.mkv"
    sound = file.read_bytes()
    file.write_bytes(sound[:-100])
    assert len(run(root).files) == 1
    manifest = Manifest.load(root / "videos.parquet")
    assert list(FeatureCache(root / "features", manifest=manifest).failures) == ["shown/c.mkv"]
    file.write_bytes(sound + bytes(8))
    index(root)
    with pytest.raises(InputError, match=r"1 of its videos have changed since \(shown/c.mkv\): run tools/extract"):
        FeatureCache(root / "features", manifest=Manifest.load(root / "videos.parquet"))
    assert (run(root).num_new, run(root).files) == (1, [])
    check(root)


def test_features_of_versions_that_noted_less_are_read_and_added_to(root):
    """Neither how frames are shown nor what failed files were stood in the index and the journal."""
    file = root / "set" / "shown" / "b.mp4"
    sound = file.read_bytes()
    file.unlink()
    run(root)
    path = root / "features" / "videos.parquet"
    table = read_table(path)
    rows = [row | {"file_bytes": None} if row["failure"] else row for row in table.to_pylist()]
    write_table(pa.Table.from_pylist(rows, table.schema).drop_columns(["shown"]), path)
    journal = root / "features" / "journal.jsonl"
    journal.write_text(re.sub(r', "shown": -?\d+', "", journal.read_text()))
    manifest = Manifest.load(root / "videos.parquet")
    assert len(FeatureCache(root / "features", manifest=manifest)) == 3
    file.write_bytes(sound)
    assert run(root).num_new == 1
    check(root)


NOTES = {"root": "/v", "videos_digest": ""}


def written(folder: Path, then: str = "") -> FeatureWriter:
    """A writer into a folder, with videos of as many windows, one a second, as the place of their letter, and such features."""
    writer = FeatureWriter(folder, Stamp("reader", "0123", 2, False, GRID, "float32"))
    for name in then:
        count, spool = ord(name) - ord("a") + 1, writer.spool()
        starts = np.arange(count, dtype=np.float64)
        spool.append(np.stack([np.full(count, count), starts], axis=1), np.stack([starts, starts + 1], axis=1))
        writer.add(spool, CachedVideo(name, 0, 0, float(count), 9, None, None if name == "a" else count, count))
        spool.close()
    return writer


def assert_kept(folder: Path, names: str) -> None:
    """That these are there in this order, each with its own, and nothing else."""
    cache = FeatureCache(folder)
    assert "".join(cache.videos) == names
    for name in names:
        count, found = ord(name) - ord("a") + 1, cache[name]
        assert found.features.tolist() == [[count, place] for place in range(count)]
        assert (found.start_s.tolist(), found.end_s.tolist()) == ([*range(count)], [*range(1, count + 1)])
    arrays = [np.load(path) for path in sorted(folder.glob("*.npy"))]
    assert [len(array) for array in arrays] == 2 * [sum(ord(name) - ord("a") + 1 for name in names)]


@pytest.mark.parametrize("array", ["features-1.npy", "spans-1.npy"])
def test_videos_of_which_a_power_cut_lost_windows_are_made_again(tmp_path, array):
    """The journal is on the disk, and a part of one array is not."""
    with written(tmp_path, "bdc"):
        pass
    os.truncate(tmp_path / array, (tmp_path / array).stat().st_size - 1)
    with written(tmp_path) as writer:
        assert list(writer.records) == ["b", "d"]
    with written(tmp_path, "ec") as writer:
        writer.finish("bcde", {}, NOTES)
    assert_kept(tmp_path, "bdec")


def test_a_writer_goes_on_behind_what_it_wrote_anew(tmp_path):
    """What an earlier try of that left behind is not among it, and videos stay in the order in which they came."""
    with written(tmp_path, "dbc") as writer:
        (tmp_path / "features-2.npy").write_bytes(bytes(500))
        writer.finish("cd", {}, NOTES)
        assert_kept(tmp_path, "dc")
    with written(tmp_path, "a") as writer:
        writer.finish("acd", {}, NOTES)
    assert_kept(tmp_path, "dca")
    cache = FeatureCache(tmp_path)
    assert [cache.contents(name) for name in "dca"] == [4, 3, "a"]  # what is in the file, where that is known


def test_windows_of_a_segment_have_their_middle_in_it_or_are_the_nearest_one(tmp_path):
    with written(tmp_path, "d") as writer:
        writer.finish("d", {}, NOTES)
    segments = {
        (0.5, 2.5): [0, 1],
        (0.6, 3.4): [1, 2],
        (0.9, 1.3): [1],
        (10.0, 11.0): [3],
        (float("nan"),) * 2: [0, 1, 2, 3],
    }
    rows = [row_of("d", "x", segment_start=start, segment_end=end) for start, end in segments]
    given, windows = FeatureCache(tmp_path).windows(Manifest.from_rows([*rows, row_of("e", "x")], Path("/v")))
    assert given.tolist() == [0, 1, 2, 3, 4]
    assert [each[:, 1].tolist() for each in windows] == list(segments.values())
