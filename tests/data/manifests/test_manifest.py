"""The manifest: what goes in comes out, parts can be taken, wrong files are named."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.data.manifests.joining import write_large
from engine.data.manifests.large_manifest import open_large
from engine.data.manifests.manifest import Manifest, concatenate
from engine.errors import InputError
from engine.files.addresses import as_path, url_of
from tests.rows import row


def test_round_trip(tmp_path):
    rows = [
        row("b/1.mp4", "b"),
        row("a/2.mp4", "a", num_frames=7, first_frame=3, rotation=90),
        row("b/3.mp4", "b", split="test"),
    ]
    path = tmp_path / "set" / "manifest.parquet"
    Manifest.from_rows(rows, Path("/videos")).save(path, layout="folder")
    manifest = Manifest.load(path)
    assert manifest.classes == ("a", "b")
    assert manifest.class_index.tolist() == [1, 0, 1]
    assert manifest.num_frames.tolist() == [40, 7, 40]
    assert manifest.strings("split").tolist() == ["train", "train", "test"]
    video = manifest.video(1)
    assert (video.path, video.num_frames, video.first_frame, video.rotation) == (Path("/videos/a/2.mp4"), 7, 3, 90)
    assert video.key_frames == (0, 12)
    assert video.key_pts == (0, 6144)
    assert [entry.name for entry in path.parent.iterdir()] == ["manifest.parquet"]  # nothing half-written is left


def test_root_can_move_and_may_be_relative_to_the_manifest(tmp_path):
    Manifest.from_rows([row("x.mp4", "a")], Path()).save(tmp_path / "m.parquet")
    assert Manifest.load(tmp_path / "m.parquet").video(0).path == tmp_path / "x.mp4"
    assert Manifest.load(tmp_path / "m.parquet", Path("/else")).video(0).path == Path("/else/x.mp4")


def test_a_part_is_saved_anywhere_by_a_text_as_path(tmp_path, monkeypatch):
    """As docs/pretrained.md makes third.parquet; the videos stay where they are, wherever the part is written."""
    monkeypatch.chdir(tmp_path)
    Manifest.from_rows([row(f"{name}.mp4", "a") for name in "xyz"], Path()).save("set/m.parquet")
    whole = Manifest.load("set/m.parquet")
    for name in ("third.parquet", "parts/third.parquet", "set/third.parquet"):
        whole.select(np.arange(0, len(whole), 2)).save(name)
        paths = [Path(path).resolve() for path in (Manifest.load(name).video(index).path for index in (0, 1))]
        assert paths == [tmp_path / "set" / "x.mp4", tmp_path / "set" / "z.mp4"]
    with pytest.raises(InputError, match=r"'s3://bucket/m\.parquet': a manifest is written as a file"):
        whole.save("s3://bucket/m.parquet")


def test_select_renumbers_classes_and_keeps_order():
    manifest = Manifest.from_rows([row(f"{i}.mp4", name) for i, name in enumerate("cabca")], Path("/v"))
    part = manifest.select(np.array([4, 0, 3]))
    assert part.classes == ("a", "c")
    assert part.class_index.tolist() == [0, 1, 1]
    assert [part.video(i).path.name for i in range(3)] == ["4.mp4", "0.mp4", "3.mp4"]
    assert manifest.select(manifest.class_index == 0).strings("class_name").tolist() == ["a", "a"]


def test_concatenate_joins_different_roots_and_classes():
    first = Manifest.from_rows([row("1.mp4", "b")], Path("/one"))
    second = Manifest.from_rows([row("2.mp4", "a"), row("3.mp4", "b")], Path("/two"))
    both = concatenate([first, second])
    assert both.classes == ("a", "b")
    assert both.class_index.tolist() == [1, 0, 1]
    assert [both.video(i).path for i in range(3)] == [Path("/one/1.mp4"), Path("/two/2.mp4"), Path("/two/3.mp4")]


def test_joined_manifests_that_were_named_relative_to_the_working_folder_keep_their_videos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):  # roots beside their manifests, so noted relative to them
        Manifest.from_rows([row("1.mp4", name)], Path()).save(tmp_path / name / "manifest.parquet")
    both = concatenate([Manifest.load(Path(name, "manifest.parquet")) for name in ("one", "two")])
    assert [both.video(i).path for i in range(2)] == [tmp_path / "one" / "1.mp4", tmp_path / "two" / "1.mp4"]


def test_wrong_files_are_named(tmp_path):
    with pytest.raises(InputError, match="no manifest at"):
        Manifest.load(tmp_path / "none.parquet")
    (tmp_path / "text.parquet").write_text("path,label\n")
    with pytest.raises(InputError, match=r"text.parquet' is not a readable Parquet file"):
        Manifest.load(tmp_path / "text.parquet")
    pq.write_table(pa.table({"path": ["x"]}), tmp_path / "other.parquet")
    with pytest.raises(InputError, match="is not a manifest of version 1"):
        Manifest.load(tmp_path / "other.parquet")
    damaged = (tmp_path / "other.parquet").read_bytes().replace(b"path", b"p\xffth")
    (tmp_path / "damaged.parquet").write_bytes(damaged)
    with pytest.raises(InputError, match=r"damaged.parquet' is not a readable Parquet file"):
        Manifest.load(tmp_path / "damaged.parquet")


def test_a_manifest_with_texts_that_are_not_utf_8_is_named_with_its_column(tmp_path):
    path = tmp_path / "m.parquet"
    Manifest.from_rows([row(f"{i}.mp4", "walk") for i in range(3)], tmp_path).save(path)
    table = pq.read_table(path)
    names = pa.Array.from_buffers(pa.string(), 3, pa.array([b"wal\xff"] * 3).buffers())  # as from a damaged page
    field = table.schema.field("class_name")
    pq.write_table(table.set_column(table.schema.get_field_index("class_name"), field, names.cast(field.type)), path)
    with pytest.raises(InputError, match=r"m.parquet' is not a manifest of version 1 \(damaged values in class_name: "):
        Manifest.load(path)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda table: table.slice(0, 0), "lists no video"),
        (lambda table: table.drop_columns(["codec"]), "columns missing: codec"),
        (lambda table: with_column(table, "num_frames", pa.array(["many"])), "Failed to parse string: 'many'"),
        (
            lambda table: with_column(table, "class_name", pa.array([None], pa.string())),
            "values missing in: class_name",
        ),
        (lambda table: table.replace_schema_metadata({"unseen": '{"version": 1'}), "Expecting"),
        (lambda table: table.replace_schema_metadata({"unseen": "[1]"}), "no attribute"),
        (lambda table: table.replace_schema_metadata({"unseen": '{"version": 9}'}), "another tool or version wrote it"),
    ],
)
def test_a_parquet_file_that_is_no_manifest_is_one_error(tmp_path, damage, says):
    Manifest.from_rows([row("x.mp4", "a")], tmp_path).save(tmp_path / "m.parquet")
    pq.write_table(damage(pq.read_table(tmp_path / "m.parquet")), tmp_path / "damaged.parquet")
    with pytest.raises(InputError, match=rf"damaged.parquet.*{says}.*: index the data set again"):
        Manifest.load(tmp_path / "damaged.parquet")


def with_column(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    return table.set_column(table.schema.get_field_index(name), name, values)


@pytest.mark.parametrize(
    ("root", "path", "expected"),
    [
        (as_path("s3://bucket/k400"), "store.index/1", True),
        (Path("/"), "s3:/bucket/store.index/1", True),
        (Path("/videos"), "/s3:/bucket/store.index/1", True),
        (Path("/videos"), "store.index/1", False),
    ],
)
def test_whether_videos_are_remote_is_asked_of_the_videos(tmp_path, root, path, expected):
    """And not of where the manifest lies, which is here."""
    manifest = Manifest.from_rows([row("store.index/0", "a"), row(path, "b", content_hash=1)], root)
    assert manifest.is_remote is expected
    assert bool(url_of(manifest.video(1).path)) is expected
    write_large([manifest.select(np.array([1]))], tmp_path / "large")
    assert open_large(tmp_path / "large").is_remote is expected
