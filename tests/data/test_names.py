"""Files of any name, byte by byte, from the folder to the decoder and into every file that names them."""

import csv
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.data.batch import ClipFormat, SnippetRequest
from engine.data.indexing.dataset import index_folder
from engine.data.manifests.manifest import Manifest, concatenate
from engine.data.manifests.manifest_table import path_as_text, path_of_text
from engine.data.pyav.decode import PyAVDecoder
from engine.data.pyav.encode import write_video
from engine.data.store.index import MANIFEST_NAME, StoreSettings
from engine.data.store.ingest import WorkSettings, ingest
from engine.data.store.verify import verify
from engine.evaluation.inference import manifest_of_files
from engine.results.table import Table
from tests.data.videos import numbered_frame, numbers

NAMES = [
    b"caf\xe9", b"\xff\xfe", b"\xed\xa0\x80", "e\u0301".encode(), "\U0001f600".encode(), "\u2028".encode(), b"new\nline", b"cr\rx",
    b"tab\tx", b"\x1b[2Jx", b"\x7f", b"\x01", b"quote\"'`", b"-leading", b" leading", b"end ", b"dot. ", b"~", b"x" * 251,
    b"%d%s%03d", b"a#1", b"q?x=1", b"http:x", b"file:y", b"concat:a|b", b"pipe:0", b"back\\slash", b"*[a]?", b"$(x)", b"a,b;c",
    b"&amp;<b>", b"{1}", b"store.index#3", b"CON",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One video under all names, in a class folder: its manifest and the paths."""
    root = tmp_path_factory.mktemp("names")
    write_video(root / "one.mp4", (numbered_frame(number, 96, 96) for number in range(5)))
    (root / "raw" / "run").mkdir(parents=True)
    for name in NAMES:
        shutil.copy(root / "one.mp4", root / "raw" / "run" / os.fsdecode(name + b".mp4"))
    index_folder(root / "raw", root / "raw" / "m.parquet")
    return root


def names_of(manifest: Manifest) -> list[bytes]:
    return sorted(os.fsencode(Path(path).name) for path in manifest.paths)


def shows_all(manifest: Manifest) -> bool:
    """Whether every row decodes to its frames."""
    decoder = PyAVDecoder(ClipFormat(num_frames=5, stride=1, short_side=96, crop=96), torch.device("cpu"), 2)
    try:
        done = decoder.decode([SnippetRequest(manifest.video(row), 0, 0, 0, False) for row in range(len(manifest))])
    finally:
        decoder.close()
    assert done.failures == {}
    return all(numbers(clip) == [0, 1, 2, 3, 4] for clip in done.frames.numpy())


def test_names_of_any_bytes_are_indexed_and_opened_as_files(folder):
    manifest = Manifest.load(folder / "raw" / "m.parquet")
    assert names_of(manifest) == sorted(name + b".mp4" for name in NAMES)
    assert shows_all(manifest)
    assert shows_all(concatenate([manifest, manifest.select(np.arange(2))]))
    report = json.loads((folder / "raw" / "m.parquet.report.json").read_text())
    assert (report["num_videos"], report["files"]) == (len(NAMES), [])


def test_indexing_again_knows_them(folder, capsys):
    before = (folder / "raw" / "m.parquet").read_bytes()
    index_folder(folder / "raw", folder / "raw" / "m.parquet")
    assert f"{len(NAMES)} of {len(NAMES)} files are known and unchanged" in capsys.readouterr().err
    assert (folder / "raw" / "m.parquet").read_bytes() == before


def test_a_store_keeps_their_names(folder):
    settings = StoreSettings(short_side=96, preset="ultrafast")
    ingest(Manifest.load(folder / "raw" / "m.parquet"), folder / "store", settings, WorkSettings())
    assert verify(folder / "store", len(NAMES)).problems == []
    manifest = Manifest.load(folder / "store" / MANIFEST_NAME)
    assert sorted(name.rpartition(b"#")[0] for name in names_of(manifest)) == sorted(name + b".mp4" for name in NAMES)
    assert shows_all(manifest)


def test_files_named_on_a_command_line(folder):
    paths = [folder / "raw" / path for path in Manifest.load(folder / "raw" / "m.parquet").paths]
    manifest, unreadable = manifest_of_files(paths)
    assert unreadable == {}
    assert [Path("/", path) for path in manifest.paths] == paths


def test_a_csv_gives_the_names_back_byte_by_byte_and_a_table_keeps_its_lines(tmp_path):
    rows = [[os.fsdecode(name), 1] for name in NAMES]
    table = Table(["path", "n"], rows)
    table.write_csv(tmp_path / "t.csv")
    with (tmp_path / "t.csv").open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        assert [os.fsencode(row[0]) for row in csv.reader(file)][1:] == NAMES
    for text in (table.text(), table.markdown()):
        assert len(text.split("\n")) == len(NAMES) + 2
        text.encode("utf-8")
        assert all(letter.isprintable() or letter == "\n" for letter in text)


def test_a_manifest_itself_may_have_any_name(folder):
    manifest = Manifest.load(folder / "raw" / "m.parquet")
    for name in (b"caf\xe9.parquet", b"http:x.parquet", b"s3:x \n.parquet", "\U0001f600.parquet".encode()):
        path = folder / "raw" / os.fsdecode(name)
        manifest.save(path)
        assert Manifest.load(path).paths == manifest.paths


def test_paths_as_text_are_themselves_where_they_are_utf_8():
    assert path_as_text("a/é\n\\x.mp4") == "a/é\n\\x.mp4"
    for name in NAMES:
        path = os.fsdecode(name)
        path_as_text(path).encode("utf-8")
        assert path_of_text(path_as_text(path)) == path


def test_folders_named_in_latin_1_name_their_classes(folder, tmp_path, capsys):
    for name in (b"caf\xe9 bar", "été".encode(), b"run"):
        (tmp_path / os.fsdecode(name)).mkdir()
        shutil.copy(folder / "one.mp4", tmp_path / os.fsdecode(name) / "x.mp4")
        (tmp_path / os.fsdecode(name) / os.fsdecode(b"n\xf6te.txt")).write_text("of no use")
    report = index_folder(tmp_path, tmp_path / "m.parquet")
    manifest = Manifest.load(tmp_path / "m.parquet")
    assert set(manifest.classes) == {"café bar", "été", "run"}
    assert "1 name of no UTF-8, read as Latin-1: 'café bar'" in report.notes
    assert shows_all(manifest)
    assert os.fsencode(manifest.paths[0]) == b"caf\xe9 bar/x.mp4"
