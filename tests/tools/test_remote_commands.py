"""Commands that are given a store in object storage: the results are those of the same store in a local folder."""

import json
import shutil

import numpy as np
import pytest

from engine.data.indexing.dataset import index_folder
from engine.data.manifests.manifest import Manifest
from engine.data.store import reader as reader_module
from engine.data.store.index import StoreSettings
from engine.data.store.ingest import WorkSettings, ingest
from engine.features.cache import FeatureCache
from tests.encoded import fade, write_colors
from tests.object_server import ObjectServer
from tests.s3 import s3_server
from tests.small_run import call_tool, write_run

pytest.importorskip("aiohttp")
COLORS = {"red": (230, 20, 20), "green": (20, 230, 20), "blue": (20, 20, 230)}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """store/: two videos of each of three colours; run/: a model."""
    home = tmp_path_factory.mktemp("home")
    for name, color in COLORS.items():
        for number in range(2):
            write_colors(home / "raw" / name / f"{number}.mp4", fade(color, (10, 50, 90), 12 + number))
    index_folder(home / "raw", home / "raw" / "manifest.parquet")
    raw = Manifest.load(home / "raw" / "manifest.parquet")
    ingest(raw, home / "store", StoreSettings(short_side=48, gop=4), WorkSettings())
    write_run(home / "run")
    return home


@pytest.fixture(params=["http", pytest.param("s3", marks=pytest.mark.slow)])
def remote(request, home, tmp_path, monkeypatch):
    """The address of the store."""
    monkeypatch.setattr(reader_module, "_READERS", {})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if request.param == "http":
        with ObjectServer(home) as server:
            yield f"{server.url}/store"
        return
    with s3_server(tmp_path, monkeypatch):
        from engine.data.remote.objects import upload

        for path in (home / "store").iterdir():
            upload(path, f"s3://bucket/store/{path.name}")
        yield "s3://bucket/store"


@pytest.mark.slow  # it draws
def test_evaluate_and_class_overlap(remote, home, tmp_path, monkeypatch, capsys):
    found = []
    for store in (remote, home / "store"):
        manifest, out = f"{store}/manifest.parquet", tmp_path / str(len(found))
        words = ("--data", manifest, "--device", "cpu", "--out", out)
        assert call_tool("evaluate.py", home / "run", *words, monkeypatch=monkeypatch) == 0
        (tested,) = json.loads((out / "results.json").read_text())["tests"].values()
        found.append({name: value for name, value in tested.items() if name not in ("seconds",)})
    assert found[0] == found[1] and found[0]["name"] == "store"
    capsys.readouterr()
    sets = ("--train", f"{remote}/manifest.parquet", "--test", f"other={home / 'store'}/manifest.parquet")
    assert call_tool("class_overlap.py", "--report", *sets, "--out", tmp_path / "o", monkeypatch=monkeypatch) == 0
    printed = capsys.readouterr().out
    assert "0 of 3 training classes are left" in printed
    (row,) = [line.split() for line in printed.splitlines() if line.startswith("other")]
    assert row[-2:] == ["6", "6"]  # files, of which it was trained on


def test_features_are_those_of_the_local_store(remote, home, tmp_path, monkeypatch, capsys):
    for name, store in (("remote", remote), ("local", home / "store")):
        words = (f"{store}/manifest.parquet", "--model", home / "run", "--out", tmp_path / name, "--device", "cpu")
        assert call_tool("extract_features.py", *words, "--threads", 1, monkeypatch=monkeypatch) == 0
    caches = [FeatureCache(tmp_path / name) for name in ("remote", "local")]
    assert caches[0].videos == caches[1].videos and len(caches[0].videos) == 6
    for video in caches[0].videos:
        assert np.array_equal(caches[0][video].features, caches[1][video].features)
        assert np.abs(caches[0][video].features).max() > 0
    capsys.readouterr()
    manifest = Manifest.load(f"{remote}/manifest.parquet")
    assert FeatureCache(tmp_path / "remote", manifest=manifest).windows(manifest)[0].tolist() == list(range(6))


@pytest.mark.slow  # an installed network of ImageNet looks at the videos
def test_moments_are_found(remote, tmp_path, monkeypatch, capsys):
    words = ("--query", "the open sea", "--top", 2, "--index", tmp_path / "i", "--device", "cpu", "--json")
    assert call_tool("find_moments.py", remote, *words, monkeypatch=monkeypatch) == 0
    found = json.loads(capsys.readouterr().out)
    assert [moment["video"].startswith(f"{remote}/store.index/") for moment in found] == [True, True]
    assert call_tool("find_moments.py", *words, monkeypatch=monkeypatch) == 0
    assert json.loads(capsys.readouterr().out) == found
    words = ("--query", "the open sea", "--top", 1, "--cut", tmp_path / "cut", "--html", tmp_path / "p.html")
    assert call_tool("find_moments.py", f"{remote}/manifest.parquet", *words, monkeypatch=monkeypatch) == 0
    assert (
        len(list((tmp_path / "cut").iterdir())) == 1 and f"{remote}/store.index/" in (tmp_path / "p.html").read_text()
    )


@pytest.mark.parametrize(
    ("tool", "words", "told"),
    [
        ("find_moments.py", ("REMOTE/a.mp4", "--query", "a dog"), "'REMOTE/a.mp4' is no manifest and no snippet store"),
        ("predict.py", ("REMOTE/a.mp4", "--model", "RUN", "--classes", "red,walk"), "single videos are read as files"),
        ("index_dataset.py", ("REMOTE", "--out", "x.parquet"), "videos are indexed where they are files"),
        ("index_dataset.py", ("raw", "--out", "s3://b/x.parquet"), "--out: 's3://b/x.parquet' is in object storage"),
        ("evaluate.py", ("RUN", "--data", "REMOTE/manifest.parquet", "--out", "s3://b/x"), "--out: 's3://b/x' is in"),
        ("evaluate.py", ("RUN", "--data", "REMOTE/none.parquet"), "no manifest at 'REMOTE/none.parquet'"),
        ("evaluate.py", ("RUN", "--data", "REMOTE/manifest.parquet:b"), "'REMOTE/manifest.parquet' knows no splits"),
        (
            "ingest.py",
            ("REMOTE/manifest.parquet", "--out", "y"),
            "'REMOTE/manifest.parquet' is the manifest of a store",
        ),
        ("fit_head.py", ("y", "REMOTE/none.parquet", "--num-train", "1"), "no manifest at 'REMOTE/none.parquet'"),
    ],
)
def test_what_cannot_be_is_one_line(home, tool, words, told, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    shutil.copytree(home / "raw", tmp_path / "raw")
    with ObjectServer(home) as server:
        named = [word.replace("REMOTE", f"{server.url}/store").replace("RUN", str(home / "run")) for word in words]
        assert call_tool(tool, *named, monkeypatch=monkeypatch) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.startswith("error:") for line in lines] == [True], lines
    assert told.replace("REMOTE", f"{server.url}/store") in lines[0]
