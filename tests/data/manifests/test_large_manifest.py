"""Large manifests: the same rows as the manifests they are joined of, read one by one; what trains, what is held out."""

import json
import shlex
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from engine.data.config import DataConfig, SourceConfig, ValidationConfig
from engine.data.manifests.contents import file_identities, rows_of_files
from engine.data.manifests.joining import join, write_large
from engine.data.manifests.large_manifest import LargeManifest, open_large, read_manifest
from engine.data.manifests.manifest import Manifest, concatenate
from engine.data.nvdec import NvdecRule, refusal_counts, refusals
from engine.data.sets.footage import Footage
from engine.data.sets.sources import class_lookup, load_source, load_training, same_videos
from engine.data.sets.trained import load_held_out, load_trained
from engine.errors import InputError
from tests.rows import row

CODECS = ("h264", "mpeg4", "image/jpeg")


@pytest.fixture(autouse=True)
def few_are_many(monkeypatch):
    monkeypatch.setattr("engine.data.manifests.large_manifest.FEW_ROWS", 60)
    monkeypatch.setattr("engine.data.manifests.joining.PART_ROWS", 50)


def rows_of(count: int, first: int = 0, **values: object) -> list[dict]:
    return [
        row(
            f"d{i % 4}/ü {i}.mp4", f"class {(i * 7) % 5}", split="train" if i % 3 else "test", group="" if i % 2 else f"g{i // 10}",
            num_frames=20 + i, file_frames=20 + i, codec=CODECS[i % 3], content_hash=1000 + i // 2, mtime_ns=i,
            key_frames=list(range(0, 20 + i, 9)), key_pts=list(range(0, 20 + i, 9)), **values,
        )
        for i in range(first, first + count)
    ]  # fmt: skip


@pytest.fixture
def small(tmp_path) -> Manifest:
    """As one manifest in memory."""
    return Manifest.from_rows(rows_of(230), tmp_path / "videos")


@pytest.fixture
def folder(tmp_path, small) -> Path:
    write_large([small.select(np.arange(70)), small.select(np.arange(70, 230))], tmp_path / "large")
    return tmp_path / "large"


def all_of(manifest: Manifest) -> list:
    return [manifest.video(each) for each in range(len(manifest))]


def test_it_has_the_rows_it_was_joined_of(folder, small):
    large = open_large(folder)
    assert [len(part) for part in large.parts] == [50, 50, 50, 50, 30]
    assert large.is_large and large.settled() is large and len(large) == 230
    assert large.classes == small.classes and large.root == small.root
    assert all_of(large) == all_of(small)
    rows = np.random.default_rng(0).integers(0, 230, 400)
    assert large.frames_of(rows).tolist() == small.frames_of(rows).tolist()
    assert large.classes_of(rows).tolist() == small.classes_of(rows).tolist()
    assert [large.path(each) for each in rows.tolist()] == [small.path(each) for each in rows.tolist()]
    assert large.videos(rows[:70].tolist()) == [small.video(each) for each in rows[:70].tolist()]
    assert (
        small.videos(rows[:70].tolist()) == large.videos(rows[:70].tolist())
        and small.videos([]) == large.videos([]) == []
    )
    assert large.num_frames.tolist() == small.num_frames.tolist()
    assert str(large.table.to_pylist()) == str(small.table.to_pylist())  # nan is not equal to nan
    for name in ("class_name", "split", "group"):
        assert large.names(name) == small.names(name) == set(small.strings(name))
        wanted = sorted(small.names(name))[:2]
        assert large.is_one_of(name, wanted).tolist() == small.is_one_of(name, wanted).tolist()
        assert small.is_one_of(name, wanted).tolist() == np.isin(small.strings(name), wanted).tolist()


def test_what_is_read_is_mapped_and_not_copied(folder):
    before = pa.total_allocated_bytes()
    large = open_large(folder)
    large.videos(list(range(0, 230, 7)))
    assert pa.total_allocated_bytes() - before < 5000  # bookkeeping; the five files have some 60,000 bytes


def test_parts_of_it_have_the_same_rows(folder, small):
    large, generator = open_large(folder), np.random.default_rng(1)
    first = generator.random(230) < 0.7
    kept, same = large.select(first), small.select(first)
    second = np.sort(generator.permutation(len(same))[:90])
    middle = np.arange(50, 150)
    pairs = [(kept, same), (kept.select(second), same.select(second)), (large.select(middle), small.select(middle))]
    for part, other in pairs:
        assert part.is_large and all_of(part) == all_of(other) and part.classes == other.classes
        assert part.class_index.tolist() == other.class_index.tolist() == part.classes_of(np.arange(len(part))).tolist()
        assert part.names("group") == other.names("group")
        rows = generator.integers(0, len(other), 300)
        assert part.frames_of(rows).tolist() == other.frames_of(rows).tolist()
        assert part.frames_of(rows[:0]).tolist() == []
    one = large.select(np.arange(230) % 3 == 0).settled()  # 77 rows: still many
    assert one.is_large
    few = large.select(small.is_one_of("class_name", ["class 2"])).settled()
    assert not few.is_large and few.classes == ("class 2",)
    assert all_of(few) == all_of(small.select(small.is_one_of("class_name", ["class 2"])))
    with pytest.raises(ValueError, match="in their order"):
        large.select(np.array([3, 2]))


@pytest.mark.parametrize("keys", [
    {}, {"splits": ["train"]}, {"classes": ["class 1", "class 3"]}, {"exclude_classes": ["class 0"]}, {"groups": ["g3", ""]},
    {"class_split": {"seed": 1, "num_train": 3}, "part": "train"},
], ids=str)  # fmt: skip
def test_a_source_takes_of_it_what_it_takes_of_a_small_one(folder, small, tmp_path, keys):
    from engine.schema.parser import parse

    small.save(tmp_path / "small.parquet")
    of_large, of_small = (
        load_source(parse(SourceConfig, {"manifest": str(path), **keys})).manifest
        for path in (folder, tmp_path / "small.parquet")
    )
    assert all_of(of_large) == all_of(of_small) and of_large.is_large == (len(of_small) >= 60)
    with pytest.raises(InputError, match=r"has no split 'trian'; near: 'train'"):
        load_source(SourceConfig(str(folder), splits=["trian"]))


@pytest.mark.parametrize("keys", [
    {}, {"video_share": 0.5}, {"class_split": {"seed": 1, "num_train": 3}, "part": "train"},
    {"published_split": "truze-ucf101", "part": "train"},
], ids=str)  # fmt: skip
def test_a_source_that_takes_nothing_of_it_is_told(folder, keys):
    from engine.schema.parser import parse

    classes = [f"class {each}" for each in range(5)]
    with pytest.raises(InputError, match=r"/large': no video is left after its splits, groups and classes are applied"):
        load_source(parse(SourceConfig, {"manifest": str(folder), "exclude_classes": classes, **keys}))


def groups_of(manifest: Manifest) -> set[tuple[str, str]]:
    """The pairs of class and group."""
    return set(zip(*(manifest.table.column(name).to_pylist() for name in ("class_name", "group")), strict=True))


def training(folder: Path, share: float, num_classes: int = 0, **keys: object):
    config = DataConfig([SourceConfig(str(folder), **keys)], validation=ValidationConfig(share, num_classes, seed=3))
    return config, load_training(config)


def test_held_out_sources_are_whole_and_the_draw_is_the_same_again(folder):
    config, data = training(folder, 0.3, 1)
    train, held, classes = data.train.manifest, data.held_out_videos.manifest, data.held_out_classes.manifest
    assert len(train) + len(held) + len(classes) == 230 and len(data.weights) == len(train)
    assert 25 < len(held) < 100 and len(classes) == 46 and not set(classes.classes) & {*train.classes, *held.classes}
    sides = [groups_of(each) for each in (train, held)]
    assert {group for _, group in sides[0] & sides[1]} <= {""}
    alone = [each.select(each.is_one_of("group", [""])) for each in (train, held)]
    assert not set(file_identities(alone[0])) & set(file_identities(alone[1]))  # equal contents on one side
    again = load_training(config)
    assert all_of(again.train.manifest) == all_of(train)
    other = training(folder, 0.3, video_share=0.5)[1]
    assert (
        0.1
        < len(other.held_out_videos.manifest) / (len(other.train.manifest) + len(other.held_out_videos.manifest))
        < 0.5
    )
    later = load_trained(config, train.classes, data.footage)
    assert all_of(later.train.manifest) == all_of(train) and all_of(later.held_out_videos.manifest) == all_of(held)
    assert all_of(load_held_out(config, train.classes, data.footage).held_out_videos.manifest) == all_of(held)
    with pytest.raises(InputError, match="holds out all training videos"):
        training(folder, 1.0)


def grouped(count: int) -> list[dict]:
    """Rows of 20 classes in groups of one name in each class."""
    return [row(f"{i}.mp4", f"class {i % 20}", group=f"g{i // 20 % 10:02d}", content_hash=i + 1) for i in range(count)]


def test_groups_of_one_name_in_several_classes_are_held_out_each_by_itself(tmp_path):
    """As the groups of UCF101: otherwise all of a name, or none at all, would be held out."""
    write_large([Manifest.from_rows(grouped(2000), tmp_path)], tmp_path / "large")
    for seed in range(8):
        config = DataConfig([SourceConfig(str(tmp_path / "large"))], validation=ValidationConfig(0.1, 0, seed=seed))
        data = load_training(config)
        assert 80 < len(data.held_out_videos.manifest) < 320
        sides = [groups_of(each.manifest) for each in (data.train, data.held_out_videos)]
        assert not sides[0] & sides[1]


def test_a_video_with_several_classes_is_on_one_side_wherever_its_rows_are(tmp_path):
    """As in ActivityNet, whose group is the video: segments of it may be of other classes, and in another file of rows."""
    rows = [
        row(
            f"v{i}.mp4", f"class {(i + part) % 7}", group=f"v{i}", content_hash=i + 1,
            first_frame=10 * part, num_frames=10, file_frames=30, segment_start=1.0 * part, segment_end=part + 1.0,
        )
        for part in range(3)
        for i in range(100)
    ]  # fmt: skip
    manifests = [Manifest.from_rows(rows[first : first + 60], tmp_path) for first in range(0, 300, 60)]
    write_large(manifests, tmp_path / "large")
    write_large([read_manifest(tmp_path / "large")], tmp_path / "again")
    write_large(manifests, tmp_path / "same")
    for name in ("large", "again", "same"):
        data = training(tmp_path / name, 0.3)[1]
        sides = [set(each.manifest.table.column("path").to_pylist()) for each in (data.train, data.held_out_videos)]
        assert not sides[0] & sides[1] and 15 < len(sides[1]) < 45
    digests = [[part.digest for part in open_large(tmp_path / name).parts] for name in ("large", "same")]
    assert digests[0] == digests[1]
    data = load_training(
        DataConfig(
            [SourceConfig(str(tmp_path / "large")), SourceConfig(_saved(manifests[0].select(np.arange(9)), tmp_path))],
            validation=ValidationConfig(0.3, 0, seed=3),
        )
    )
    assert len(data.train.manifest) + len(data.held_out_videos.manifest) == 309


def test_a_run_knows_that_its_videos_would_be_held_out_by_other_sources(tmp_path, monkeypatch):
    """A folder that was joined by a version that had other sources has another digest, so that a run of it is not gone on with."""
    manifest = Manifest.from_rows(grouped(100), tmp_path)
    write_large([manifest], tmp_path / "now")
    monkeypatch.setattr("engine.data.manifests.joining.source_keys", lambda _, files: files + 1)
    write_large([manifest], tmp_path / "then")
    kept, now = (training(tmp_path / name, 0.1)[1].footage for name in ("then", "now"))
    assert kept.difference(now) == (2, 2)


def test_that_nothing_is_held_out_is_told(tmp_path):
    from engine.data.sets.holding_out import nothing_held_out

    rows = [each | {"group": "one", "class_name": "only"} for each in grouped(100)]
    write_large([Manifest.from_rows(rows, tmp_path)], tmp_path / "large")
    config, data = training(tmp_path / "large", 0.05)
    (note,) = nothing_held_out(config.validation, data.held_out_videos)
    assert note.startswith("warning: data.validation.video_share is 0.05, but no video is held out")
    assert not nothing_held_out(ValidationConfig(0.0), None) and not nothing_held_out(config.validation, data.train)


def test_what_a_run_trained_on_is_found_though_whole_files_of_rows_are_of_other_classes(tmp_path):
    """As in manifests that are sorted by class."""
    rows = sorted(rows_of(400), key=lambda each: each["class_name"])
    write_large([Manifest.from_rows(rows, tmp_path / "videos")], tmp_path / "sorted")
    config, data = training(tmp_path / "sorted", 0.2, 2)
    later = load_trained(config, data.train.classes, data.footage)
    assert len(data.footage.rows) == 8 and len(data.train.classes) == 3
    assert all_of(later.train.manifest) == all_of(data.train.manifest)
    assert all_of(later.held_out_videos.manifest) == all_of(data.held_out_videos.manifest)


def test_nothing_held_out_is_the_manifest_itself(folder):
    _, data = training(folder, 0)
    assert [part.kept for part in data.train.manifest.parts] == [None] * 5
    assert data.held_out_videos is data.held_out_classes is None and len(data.weights.values) == 1


def test_sets_of_either_size_are_joined_with_their_weights(folder, small, tmp_path):
    other = Manifest.from_rows(rows_of(9, 500), tmp_path / "elsewhere")
    other.save(tmp_path / "other.parquet")
    sources = [SourceConfig(str(folder), weight=2), SourceConfig(str(tmp_path / "other.parquet"), weight=0.5)]
    data = load_training(DataConfig(sources, validation=ValidationConfig(0)), without=["class 4"])
    expected = concatenate([small, other]).select(~concatenate([small, other]).is_one_of("class_name", ["class 4"]))
    assert all_of(data.train.manifest) == all_of(expected) and data.train.classes == expected.classes
    assert [data.train.manifest.path(each) for each in range(len(expected))] == expected.paths
    is_second = expected.num_frames >= 500
    assert data.weights.each().tolist() == np.where(is_second, 0.5, 2.0).tolist() and 0 < is_second.sum() < 9
    lookup = class_lookup(data.train.manifest, data.train.classes)
    assert lookup[data.train.manifest.classes_of(np.arange(len(expected)))].tolist() == expected.class_index.tolist()
    assert not join([other, other]).is_large


def test_a_run_remembers_files_of_rows(folder, tmp_path, small):
    _, data = training(folder, 0.1)
    kept = Footage.from_state({"videos": data.footage.to_state()})
    assert (
        kept.is_large and len(kept.rows) == 5 and not len(kept.trained_files) and not any(kept.difference(data.footage))
    )
    assert not kept.is_rearranged(data.footage, drawn=True)
    now = {"reordered": small.select(np.r_[50:100, 0:50, 100:230]), "one less": small.select(np.arange(229))}
    found = {}
    for name, manifest in now.items():
        write_large([manifest], tmp_path / name)
        found[name] = kept.difference(training(tmp_path / name, 0.1)[1].footage)
    assert found == {"reordered": (5, 5), "one less": (1, 1)}
    whole = load_training(DataConfig([SourceConfig(_saved(small, tmp_path))], validation=ValidationConfig(0.1))).footage
    assert whole.difference(kept) == (230, 5) and kept.difference(whole) == (5, 230)
    assert not whole.is_rearranged(kept, drawn=True)
    with pytest.raises(InputError, match="not what the run was trained on"):
        load_trained(training(tmp_path / "one less", 0.1)[0], small.classes, kept)


def _saved(manifest: Manifest, folder: Path) -> str:
    manifest.save(folder / "saved.parquet")
    return str(folder / "saved.parquet")


def test_videos_that_are_tested_too_are_found_by_their_contents(folder, small, tmp_path):
    large = load_source(SourceConfig(str(folder), name="crawl"))
    files = file_identities(small)[[3, 100, 229]]
    assert (
        rows_of_files(large.manifest, files).tolist()
        == rows_of_files(small, files).tolist()
        == [2, 3, 100, 101, 228, 229]
    )
    assert rows_of_files(large.manifest, np.array([0, 5])).tolist() == []
    tested = load_source(
        SourceConfig(_saved(Manifest.from_rows(rows_of(3, 227), tmp_path / "other"), tmp_path), name="test")
    )
    (note,) = same_videos(large, [tested])
    assert note.startswith("warning: 3 of the 3 videos of 'test' are trained on too")


def test_limits_are_held_against_each_row_that_is_read(tmp_path):
    rows = rows_of(70)
    rows[13] |= {"width": 40000, "height": 40000}
    rows[14] |= {"duration": 90000.0}
    rows[15] |= {"path": "../out.mp4"}
    rows[16] |= {"path": "/etc/passwd"}
    rows[17] |= {"path": "link/x.mp4"}
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "link").symlink_to("/usr")
    write_large([Manifest.from_rows(rows, tmp_path / "videos")], tmp_path / "large")
    source = SourceConfig(str(tmp_path / "large"))
    manifest = load_source(source).manifest
    told = {
        13: "over max_pixels",
        14: "over max_hours",
        15: "goes up by",
        16: "it is absolute",
        17: "a symbolic link leads out",
    }
    for place in range(70):
        if place in told:
            with pytest.raises(InputError, match=told[place]):
                manifest.video(place)
        else:
            manifest.video(place)
    free = load_source(
        SourceConfig(str(tmp_path / "large"), allow_outside=True, max_hours=30, max_pixels=2**31)
    ).manifest
    assert len(all_of(free)) == 70
    with pytest.raises(InputError, match="over max_pixels"):  # what is small is gone over as a whole
        load_source(SourceConfig(str(tmp_path / "large"), splits=["train"]))


def test_what_a_decoder_takes_is_told_by_the_kinds(folder, small):
    large = open_large(folder)
    rule = NvdecRule.of([small])
    counted = refusal_counts(rule, [small])
    assert NvdecRule.of([large]) == rule and refusal_counts(rule, [large]) == counted
    assert counted.total() == sum(reason is not None for reason in refusals(rule, small)) > 0


def test_what_no_row_knows_takes_no_room(tmp_path):
    rows = [each | {"content_hash": None, "mtime_ns": None} for each in rows_of(70)]
    small = Manifest.from_rows(rows, tmp_path)
    write_large([small], tmp_path / "large")
    large = open_large(tmp_path / "large")
    assert "content_hash" not in large.parts[0].columns and all_of(large) == all_of(small)
    assert large.table.column("content_hash").null_count == 70
    data = training(tmp_path / "large", 0.3)[1]
    assert len(data.train.manifest) + len(data.held_out_videos.manifest) == 70


def test_videos_may_move_with_the_manifest_or_apart(tmp_path):
    small = Manifest.from_rows(rows_of(70), tmp_path / "a" / "videos")
    write_large([small], tmp_path / "a" / "large")
    (tmp_path / "a").rename(tmp_path / "b")
    assert open_large(tmp_path / "b" / "large").video(0).path.is_relative_to(tmp_path / "b" / "videos")
    assert open_large(tmp_path / "b" / "large", Path("/v")).video(0).path.is_relative_to("/v")


def test_a_root_that_is_given_counts_from_where_the_manifest_lies(folder, small, tmp_path, monkeypatch):
    """As of a file beside the folder."""
    file = Path(_saved(small, tmp_path))
    monkeypatch.chdir(tmp_path.parent)
    for home in ("v", "../v", "/v"):
        assert open_large(folder, Path(home)).root == Manifest.load(file, Path(home)).root
        beside = Path(tmp_path.name)
        (root,) = {
            open_large(beside / "large", Path(home)).root,
            Manifest.load(beside / file.name, Path(home)).root.absolute(),
        }
        assert root.is_absolute()


def test_large_ones_are_joined_again(folder, small, tmp_path):
    more = Manifest.from_rows(rows_of(20, 900), small.root)
    write_large([read_manifest(folder), more], tmp_path / "more")
    assert all_of(open_large(tmp_path / "more")) == all_of(small) + all_of(more)
    with pytest.raises(InputError, match="is there already"):
        write_large([more], tmp_path / "more")


@pytest.mark.parametrize("harm", ["cut", "other", "version", "columns", "nulls", "batches", "empty"])
def test_what_is_no_large_manifest_is_told(folder, harm, tmp_path):
    file = folder / "part-00002.arrow"
    if harm == "cut":
        file.write_bytes(file.read_bytes()[:1000])
    elif harm == "other":
        file.write_bytes(b"hello")
    elif harm == "empty":
        for each in folder.iterdir():
            each.unlink()
    else:
        table = pa.ipc.open_file(file).read_all()
        notes = json.loads(table.schema.metadata[b"unseen"])
        if harm == "version":
            table = table.replace_schema_metadata({b"unseen": json.dumps(notes | {"version": "2"}).encode()})
        elif harm == "columns":
            table = table.drop_columns(["num_frames"])
        elif harm == "nulls":
            place = table.schema.get_field_index("num_frames")
            table = table.set_column(place, table.schema.field(place), pa.nulls(len(table), pa.int32()))
        with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=20 if harm == "batches" else None)
    with pytest.raises(
        InputError, match="is no large manifest" if harm == "empty" else r"part-00002.arrow' is no part of"
    ):
        load_source(SourceConfig(str(folder)))


def test_a_folder_that_is_no_manifest_is_told_what_makes_one_of_it(tmp_path):
    videos = tmp_path / "it's my videos"
    (videos / "archery").mkdir(parents=True)
    with pytest.raises(InputError) as caught:
        load_source(SourceConfig(str(videos)))
    assert shlex.split(str(caught.value).partition("index them with ")[2])[:5] == [
        "python", "tools/index_dataset.py", str(videos), "--out", "NAME.parquet,",
    ]  # fmt: skip
    (videos / "some.parquet").touch()
    with pytest.raises(InputError, match=r"name a file, or make one with tools/join_manifests\.py"):
        load_source(SourceConfig(str(videos)))


def test_a_folder_is_named_in_a_config(folder):
    assert isinstance(load_source(SourceConfig.parse(str(folder))).manifest, LargeManifest)
