"""An index of one's own videos on a disk that fails for a moment, and of videos that are damaged, half written, or gone."""

import errno
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from engine.data.indexing import dataset
from engine.data.manifests.identity import content_hash
from engine.data.manifests.manifest import Manifest
from engine.data.pyav import in_order
from engine.data.pyav.files import Unusable
from engine.data.remote.settings import patience, settings
from engine.data.store import reader as reader_module
from engine.data.store.index import StoreSettings
from engine.data.store.ingest import WorkSettings, ingest
from engine.errors import InputError
from engine.features.cache import INDEX_NAME, read_index, write_index
from engine.features.extract import extract
from engine.files.addresses import as_path
from engine.moments import index as index_module
from engine.moments.index import FeatureKind, open_index
from engine.moments.named import each_once
from tests.features.small_set import FrameReader, write_set
from tests.moments.test_index import opened
from tests.object_server import ObjectServer


@pytest.fixture
def home(tmp_path):
    write_set(tmp_path, {"a.mp4": 30, "b.mp4": 50})
    return tmp_path


def away(monkeypatch, path):
    """The file is not there while features are extracted."""

    def without(*how, **beside):
        path.rename(path.with_suffix(".away"))
        try:
            return extract(*how, **beside)
        finally:
            path.with_suffix(".away").rename(path)

    monkeypatch.setattr(index_module, "extract", without)


def out_of_time(monkeypatch, path):
    """Decoding takes longer than one file may."""
    start = in_order.start_clock
    monkeypatch.setattr(in_order, "start_clock", lambda video, s: start(video, -1.0 if video.path == path else s))


def failing(code):
    """The system refuses to open a file while it is decoded."""

    def fail(monkeypatch, path):
        original = in_order.FileFrames

        def opened(video, *how):
            if video.path == path:
                raise OSError(code, os.strerror(code))
            return original(video, *how)

        monkeypatch.setattr(in_order, "FileFrames", opened)

    return fail


@pytest.mark.parametrize("fail", [away, out_of_time, failing(errno.EIO), failing(errno.EMFILE)])
def test_a_failure_of_the_extraction_that_passes_is_tried_again(home, monkeypatch, fail):
    shown, out = home / "set" / "shown", home / "index"
    a, b = (shown / name for name in ("a.mp4", "b.mp4"))
    with monkeypatch.context() as patch:
        fail(patch, a)
        for named in ([shown], []):
            _, videos, bad = opened(named, out, FrameReader())
            assert videos == [str(b)] and list(bad) == [str(a)]
    reader = FrameReader()
    cache, videos, bad = opened([shown], out, reader)
    assert set(videos) == {str(a), str(b)} and not bad and sum(reader.batches) == len(cache[str(a)].features)
    reader = FrameReader()
    assert set(opened([], out, reader)[1]) == {str(a), str(b)} and not reader.batches


def test_damaged_contents_stay_known_and_are_told_by_each_search(home, monkeypatch):
    shown, out = home / "set" / "shown", home / "index"
    a, b = (str(shown / name) for name in ("a.mp4", "b.mp4"))

    def damaged(self, video, timeline):
        if str(video.path) == a:
            raise Unusable("the decoder fails")
        return frames(self, video, timeline)

    frames = in_order.InOrderDecoder.frames
    monkeypatch.setattr(in_order.InOrderDecoder, "frames", damaged)
    for named in ([shown], [shown], []):
        reader = FrameReader()
        _, videos, bad = opened(named, out, reader)
        assert videos == [b] and bad == {a: "the decoder fails"}
    assert not reader.batches
    with monkeypatch.context() as patch:
        patch.setattr(index_module, "extract", None)  # nothing is tried again
        assert opened([], out, FrameReader())[2] == {a: "the decoder fails"}
        assert opened([shown / "b.mp4"], out, FrameReader())[2] == {}
    stamp, kept, failed, notes = read_index(out)
    del notes["num_passing"]  # an index of before, which may have kept what has passed
    write_index(out / INDEX_NAME, stamp, list(kept.values()), failed, notes)
    monkeypatch.setattr(in_order.InOrderDecoder, "frames", frames)
    assert opened([], out, FrameReader())[1:] == ([b, a], {})


@pytest.mark.parametrize("is_alone", [True, False])
def test_a_video_that_the_disk_refuses_for_a_moment_keeps_its_features(home, monkeypatch, is_alone):
    shown, out = home / "set" / "shown", home / "index"
    a, b = (str(shown / name) for name in ("a.mp4", "b.mp4"))
    before = opened([shown], out, FrameReader())[0][a].features.copy()
    os.utime(a)
    with monkeypatch.context() as patch:
        probe_in_this_process(patch)
        patch.setattr(dataset, "content_hash", lambda path: refused(path, a))
        if not is_alone:
            write_set(home, {"c.mp4": 30})
        _, videos, bad = opened([] if is_alone else [shown], out, FrameReader())
        assert a not in videos and b in videos and bad == {a: "Input/output error"}
    reader = FrameReader()
    cache, videos, bad = opened([], out, reader)
    assert {a, b} <= set(videos) and not bad and not reader.batches
    assert np.array_equal(cache[a].features, before)


def refused(path, which):
    if str(path) == which:
        raise OSError(errno.EIO, "Input/output error")
    return content_hash(path)


def probe_in_this_process(patch):
    settings = index_module.IndexSettings
    patch.setattr(index_module, "IndexSettings", lambda **given: settings(**{**given, "num_workers": 0}))


def test_a_file_that_was_half_written_is_told_until_it_is_whole(home):
    shown, out = home / "set" / "shown", home / "index"
    a, c = shown / "a.mp4", shown / "c.mp4"
    whole = a.read_bytes()
    for path in (a, c):  # of the index and a new one
        opened([shown], out, FrameReader())
        path.write_bytes(whole[:200])
        for named in ([shown], [], []):
            _, videos, bad = opened(named, out, FrameReader())
            assert str(path) not in videos and list(bad) == [str(path)]
        path.write_bytes(whole)
        _, videos, bad = opened([], out, FrameReader())
        assert str(path) in videos and not bad
    c.write_bytes(b"")
    opened([], out, FrameReader())
    c.unlink()
    _, videos, bad = opened([], out, FrameReader())
    assert len(videos) == 2 and not bad


def test_what_is_missing_of_a_video_that_is_searched_is_known(home):
    shown, out = home / "set" / "shown", home / "index"
    write_set(home, {"c.mkv": 60})
    whole = (shown / "c.mkv").read_bytes()
    (shown / "c.mkv").write_bytes(whole[: len(whole) - 100])
    for named in ([shown], [], [shown / "a.mp4"]):
        index = open_index(named, out, FeatureKind(FrameReader.digest, FrameReader))
        assert list(index.damaged) == [str(shown / "c.mkv")] * (len(index.videos) == 3) and not index.failures
    assert len(open_index([], out, FeatureKind(FrameReader.digest, FrameReader)).damaged) == 1


def test_where_all_videos_are_gone_nothing_is_said_to_be_dropped(home, capsys):
    shown, out = home / "set" / "shown", home / "index"
    opened([shown], out, FrameReader())
    shown.rename(home / "set" / "elsewhere")
    capsys.readouterr()
    with pytest.raises(
        InputError, match=r"^no video: of the 2 of '.*index' none is there any more \(.*a\.mp4; .*b\.mp4\)"
    ):
        opened([], out, FrameReader())
    assert "dropped" not in "".join(capsys.readouterr())
    (home / "set" / "elsewhere").rename(shown)
    reader = FrameReader()
    assert len(opened([], out, reader)[1]) == 2 and not reader.batches


def stored(home, *names):
    """A store of some of the videos, made anew."""
    shutil.rmtree(home / "store", ignore_errors=True)
    manifest = Manifest.load(home / "videos.parquet")
    chosen = manifest.select(np.array([Path(path).name in names for path in manifest.paths]))
    ingest(chosen, home / "store", StoreSettings(short_side=64, gop=8), WorkSettings())
    return home / "store"


def test_a_store_that_was_copied_in_part_is_tried_again(home):
    store, out = stored(home, "a.mp4", "b.mp4"), home / "index"
    (shard,) = store.glob("*.h264")
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-2000])
    _, videos, bad = opened([store], out, FrameReader())
    assert len(videos) == 1 and all("is cut short" in why for why in bad.values()) and len(bad) == 1
    shard.write_bytes(whole)
    assert len(opened([], out, FrameReader())[1]) == 2


def test_videos_that_a_store_has_no_longer_are_told_once(home):
    out = home / "index"
    assert len(opened([stored(home, "a.mp4", "b.mp4")], out, FrameReader())[1]) == 2
    stored(home, "a.mp4")
    _, videos, bad = opened([], out, FrameReader())
    assert len(videos) == 1 and list(bad.values()) == ["its store has no such video"]
    assert opened([], out, FrameReader())[1:] == (videos, {})


def test_a_failed_file_that_may_not_be_looked_at_ends_no_search(home, monkeypatch):
    shown, out = home / "set" / "shown", home / "index"
    bad = shown / "bad.mp4"
    bad.write_bytes(os.urandom(3000))
    assert list(opened([shown], out, FrameReader())[2]) == [str(bad)]
    exists = Path.exists

    def refused(path, **how):
        if path == bad:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return exists(path, **how)

    monkeypatch.setattr(Path, "exists", refused)
    assert len(opened([], out, FrameReader())[1]) == 2
    assert opened([shown / "a.mp4"], out, FrameReader())[1] == [str(shown / "a.mp4")]


def test_a_failed_file_that_is_gone_had_no_features_to_drop(home, capsys):
    shown, out = home / "set" / "shown", home / "index"
    (shown / "bad.mp4").write_bytes(os.urandom(3000))
    opened([shown], out, FrameReader())
    (shown / "bad.mp4").unlink()
    capsys.readouterr()
    assert opened([], out, FrameReader())[2] == {}
    assert "dropped" not in "".join(capsys.readouterr())


def test_a_store_that_cannot_be_read_ends_no_search_and_its_features_stay(home, capsys):
    store, out, a = stored(home, "a.mp4", "b.mp4"), home / "index", home / "set" / "shown" / "a.mp4"
    features, videos, _ = opened([store, a], out, FrameReader())
    before = features[videos[0]].features.copy()
    whole = (store / "manifest.parquet").read_bytes()
    for damaged in (whole[:-100], None):
        (store / "manifest.parquet").unlink()
        if damaged:
            (store / "manifest.parquet").write_bytes(damaged)
        capsys.readouterr()
        for named in ([], [], [a]):
            reader = FrameReader()
            cache, found, bad = opened(named, out, reader)
            assert found == [str(a)] and len(cache) == 3 and not reader.batches
            assert set(bad) == (set() if named else set(videos[:2]))
            assert all("manifest" in why and "store" in why for why in bad.values())
        assert "dropped" not in "".join(capsys.readouterr())
    (store / "manifest.parquet").write_bytes(whole)
    reader = FrameReader()
    cache, found, bad = opened([], out, reader)
    assert set(found) == set(videos) and not bad and not reader.batches
    assert np.array_equal(cache[videos[0]].features, before)


def test_an_object_store_that_is_away_is_waited_for_shortly_and_told(home, monkeypatch):
    pytest.importorskip("aiohttp")
    out, a = home / "index", home / "set" / "shown" / "a.mp4"
    stored(home, "a.mp4", "b.mp4")
    monkeypatch.setattr(reader_module, "_READERS", {})
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    with ObjectServer(home) as server:
        address = f"{server.url}/store"
        videos = opened([as_path(address), a], out, FrameReader())[1]
    patiences, look = [], index_module.stored_rows
    monkeypatch.setattr(
        index_module, "stored_rows", lambda paths: patiences.append(settings().patience_s) or look(paths)
    )
    with patience(0.5):
        for named in ([], [a]):
            reader = FrameReader()
            cache, found, bad = opened(named, out, reader)
            assert found == [str(a)] and len(cache) == 3 and not reader.batches
            assert set(bad) == (set() if named else set(videos[:2]))
            assert all(why.startswith(f"'{address}/manifest.parquet' cannot be read") for why in bad.values())
        with pytest.raises(InputError, match=rf"'{address}/manifest\.parquet' cannot be read"):
            opened([as_path(address)], out, FrameReader())
    with server:
        assert set(opened([], out, FrameReader())[1]) == set(videos)
    assert patiences == [0.5, 0.5, index_module._STORE_PATIENCE_S]


def test_footage_of_an_index_that_can_only_be_read_waits_shortly_for_a_store(home, monkeypatch):
    out, patiences, look = home / "index", [], index_module.stored_rows
    opened([stored(home, "a.mp4", "b.mp4")], out, FrameReader())
    monkeypatch.setattr(
        index_module, "stored_rows", lambda paths: patiences.append(settings().patience_s) or look(paths)
    )
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != out)
    reader = FrameReader()
    index = open_index([], out, FeatureKind(reader.digest, lambda: reader))
    assert set(index.footage(index.videos, home)[0]) == set(index.videos) and len(index.videos) == 2
    assert patiences == [index_module._STORE_PATIENCE_S] and settings().patience_s > patiences[0]


def test_a_search_that_names_nothing_does_not_ask_what_is_new(home, monkeypatch):
    shown, out, looks = home / "set" / "shown", home / "index", []
    opened([shown], out, FrameReader())
    monkeypatch.setattr(index_module, "each_once", lambda paths: looks.append(1) or each_once(paths))
    opened([], out, FrameReader())
    assert len(looks) == 2  # those of the index, and those that are there


def test_videos_of_object_stores_are_named_by_their_addresses(home, monkeypatch):
    pytest.importorskip("aiohttp")
    store, out = stored(home, "a.mp4", "b.mp4"), home / "index"
    monkeypatch.setattr(reader_module, "_READERS", {})
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    (shard,) = store.glob("*.h264")
    whole = shard.read_bytes()
    with ObjectServer(home) as server:
        address = f"{server.url}/store"
        shard.unlink()
        with pytest.raises(
            InputError, match=rf"none of the 2 videos can be used \({address}/store\.index/.*a\.mp4#0: "
        ):
            opened([as_path(address)], out, FrameReader())
        shard.write_bytes(whole)
        assert len(opened([as_path(address)], out, FrameReader())[1]) == 2
        server.stop()
        lost = rf"none of the 2 videos can be used: {address}/store\.index/.*#\d: '{address}/manifest\.parquet' cannot be read"
        with patience(0.2), pytest.raises(InputError, match=lost):
            opened([], out, FrameReader())
        server.start()
        shutil.rmtree(store)
        with pytest.raises(InputError, match=rf"none is there any more \({address}/store\.index/"):
            opened([], out, FrameReader())
