"""Stores in object storage: the same stream as from files, through failures and outages, with nothing secret and little kept."""

import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import fsspec
import numpy as np
import pytest
import torch

from engine.data.batch import ClipFormat
from engine.data.config import DataConfig, SourceConfig
from engine.data.indexing.dataset import index_folder
from engine.data.loading.loader import ClipLoader, StreamPlan
from engine.data.manifests.manifest import Manifest, concatenate
from engine.data.pyav.decode import PyAVDecoder
from engine.data.pyav.encode import write_video
from engine.data.pyav.processes import ProcessDecoder
from engine.data.remote import direct, objects, ranges
from engine.data.remote.cache import RangeCache
from engine.data.remote.config import RemoteConfig
from engine.data.remote.settings import given_up_when, patience, use
from engine.data.sets.sources import load_source
from engine.data.store import reader as reader_module
from engine.data.store.index import StoreSettings
from engine.data.store.ingest import WorkSettings, ingest
from engine.errors import InputError, SourceGone
from engine.files.addresses import as_path, shown, url_of
from tests.data.videos import numbered_frame
from tests.object_server import ObjectServer

pytest.importorskip("aiohttp")
CLIP = ClipFormat(num_frames=6, short_side=64, crop=56)
SETTINGS = StoreSettings(short_side=64, gop=8, preset="veryfast")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    root = tmp_path_factory.mktemp("raw")
    for number, count in enumerate((45, 16, 9, 30, 41, 24)):
        path = root / f"class{number % 2}" / f"{number} ä#1.mp4"
        path.parent.mkdir(exist_ok=True)
        write_video(path, (numbered_frame(7 * number + frame, 96, 96) for frame in range(count)), gop=30)
    index_folder(root, root / "manifest.parquet")
    folder = tmp_path_factory.mktemp("served") / "a store"
    ingest(Manifest.load(root / "manifest.parquet"), folder, SETTINGS, WorkSettings(shard_bytes=10_000))
    return folder


@pytest.fixture(autouse=True)
def _defaults(tmp_path, monkeypatch):
    """A cache of its own, and no reader of another test's server."""
    monkeypatch.setattr(reader_module, "_READERS", {})
    use(RemoteConfig(cache_folder=str(tmp_path / "cache"), patience_s=20))
    yield
    use(RemoteConfig())


@pytest.fixture
def server(store):
    with ObjectServer(store.parent) as server:
        yield server


def stream(manifest, steps, decoder=None):
    """Frames and videos of the first batches, and that no sample was replaced."""
    loader = ClipLoader(
        manifest,
        np.arange(2),
        decoder or PyAVDecoder(CLIP, torch.device("cpu"), 2),
        CLIP,
        StreamPlan(0, 4, 0, 1, True),
        DataConfig(),
    )
    try:
        found = []
        for _ in range(steps):
            batch = next(loader)
            assert not batch.failures
            found.append((batch.frames, batch.video))
        return torch.cat([frames for frames, _ in found]), torch.cat([videos for _, videos in found])
    finally:
        loader.close()


def remote_manifest(server):
    return load_source(SourceConfig(manifest=f"{server.url}/a store/manifest.parquet")).manifest


@pytest.mark.parametrize("has_curl", [True, False])
def test_the_stream_is_that_of_local_files_through_failures(store, server, has_curl, monkeypatch):
    if not has_curl:
        monkeypatch.setattr(direct, "_has_curl", lambda: False)
    server.failures, server.latency_s = 0.1, 0.01
    local = stream(load_source(SourceConfig(manifest=str(store / "manifest.parquet"))).manifest, 12)
    remote = stream(remote_manifest(server), 12)
    assert torch.equal(local[0], remote[0]) and torch.equal(local[1], remote[1])
    assert remote[0].float().std() > 1


def test_reads_are_under_way_before_they_are_asked_for(server):
    manifest = remote_manifest(server)
    stream(manifest, 1)
    server.latency_s = 0.1
    began = time.monotonic()
    stream(manifest, 8)
    assert time.monotonic() - began < 0.1 * 32 / 2 / 2  # two threads would take 32 reads one after the other


def test_a_store_that_is_away_is_waited_for(store, server, monkeypatch, capsys):
    monkeypatch.setattr(objects, "_TOLD_AFTER_S", 0.2)
    manifest = remote_manifest(server)
    stream(manifest, 1)
    server.stop()
    threading.Timer(1.0, server.start).start()
    remote = stream(manifest, 12)
    local = stream(Manifest.load(store / "manifest.parquet"), 12)
    assert torch.equal(local[0], remote[0])
    told = capsys.readouterr().err
    assert told.count(f"warning: '{server.url}") == 1 and told.count("answers again") == 1


def test_a_store_that_is_gone_ends_the_stream_by_its_name(server, tmp_path):
    manifest = remote_manifest(server)
    stream(manifest, 1)
    use(RemoteConfig(cache_folder=str(tmp_path / "cache"), patience_s=0.5))
    server.stop()
    with pytest.raises(SourceGone, match=rf"'{server.url}/a store/0000\d.h264' cannot be read .*patience_s"):
        stream(manifest, 12)


@pytest.mark.slow
def test_processes_read_for_themselves_and_wait_too(store, server, tmp_path):
    def processes(patience_s=20):
        use(RemoteConfig(cache_folder=str(tmp_path / "cache"), patience_s=patience_s, reads_in_flight=8))
        return ProcessDecoder(CLIP, torch.device("cpu"), 2, 4, time_limit_s=0.5)  # a snippet; an outage does not count

    server.failures, server.latency_s = 0.1, 0.01
    manifest = remote_manifest(server)
    local = stream(Manifest.load(store / "manifest.parquet"), 12)
    assert torch.equal(stream(manifest, 12, processes())[0], local[0])
    server.failures = 0
    for away_s in (3, None):
        threading.Thread(target=_take_away, args=(server, server.num_gets + 10, away_s)).start()
        if away_s:
            assert torch.equal(stream(manifest, 12, processes())[0], local[0])
            continue
        with pytest.raises(SourceGone, match=rf"'{server.url}/a store/0000\d.h264' cannot be read .*patience_s"):
            stream(manifest, 400, processes(1))
    asked, began = threading.Event(), time.monotonic()
    threading.Timer(8, asked.set).start()
    with given_up_when(asked.is_set), pytest.raises(SourceGone, match="not wanted any more"):
        stream(manifest, 12, processes(60))
    assert time.monotonic() - began < 30


def _take_away(server, num_gets, seconds):
    """Once so much was asked for, be away for a while, or for good."""
    while server.num_gets < num_gets:
        time.sleep(0.001)
    server.stop()
    if seconds:
        time.sleep(seconds)
        server.start()


def test_a_store_is_not_waited_for_once_the_process_wants_to_end(server):
    manifest, asked = remote_manifest(server), threading.Event()
    stream(manifest, 1)
    server.stop()
    threading.Timer(0.5, asked.set).start()
    began = time.monotonic()
    with given_up_when(asked.is_set), pytest.raises(SourceGone, match="not wanted any more"):
        stream(manifest, 12)
    assert time.monotonic() - began < 10  # of a patience of 20 s


def test_nothing_is_held_once_a_stream_is_closed(server):
    stream(remote_manifest(server), 2)
    ((_, reader),) = reader_module._READERS.values()
    assert reader.ranges._held and not any(reader.ranges._held.values())


@pytest.mark.parametrize("fails", [False, True])
def test_a_range_that_is_released_while_another_reads_it_is_read_again(monkeypatch, fails):
    """An evaluation and the training's reads ahead share the ranges of a store."""
    asked, is_released = [], threading.Event()

    def read(url, start, length, stop, states):
        asked.append(start)
        if stop is not None and start == 0:  # what was begun; one that waits behind it is cancelled instead
            assert is_released.wait(10)
            if fails:
                raise SourceGone("not wanted any more")
        return bytes(range(start, start + length))

    monkeypatch.setattr(ranges, "read_range", read)
    monkeypatch.setattr(ranges, "_threads", ranges.functools.cache(lambda: ThreadPoolExecutor(1)))
    found = ranges.Ranges("")
    held = [*found.begin([("memory://a", 0, 8)]), *found.begin([("memory://b", 20, 28)])]
    with ThreadPoolExecutor(2) as readers:
        reads = [readers.submit(found.read, "memory://a", 2, 3), readers.submit(found.read, "memory://b", 21, 4)]
        while not all(each.running() for each in reads):
            time.sleep(0.001)
        time.sleep(0.05)  # both wait for what was begun
        for each in held:
            found.release(each)
        is_released.set()
        assert [each.result(10) for each in reads] == [bytes((2, 3, 4)), bytes((21, 22, 23, 24))]
    assert sorted(asked) == ([0, 2, 21] if fails else [0, 21])


def test_what_is_refused_is_not_tried_again(server):
    server.status = 403
    began = time.monotonic()
    with pytest.raises(SourceGone, match=r"a store/manifest.parquet' is refused .*credentials"):
        remote_manifest(server)
    assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(22, "Bad Request"), "OSError: Bad Request"),
        (TimeoutError(), "TimeoutError: it says no more"),
        (ConnectionError("3 bytes of 4"), "ConnectionError: 3 bytes of 4"),
        (ValueError("no answer of http://h/a?sig=SECRET, at all.\nSECRET"), "ValueError: no answer of ... at all"),
        (PermissionError("'b/a?X-Amz-Signature=SECRET' is closed"), "PermissionError: ... is closed"),
    ],
)
def test_a_reason_has_words_and_no_address(error, reason):
    with patience(0), pytest.raises(SourceGone, match=rf"\({re.escape(reason)}\)"):
        objects.patiently(lambda: failing(error), "s3://nowhere/a")


def failing(error):
    raise error


def test_an_outage_of_long_ago_does_not_count(monkeypatch):
    """Else the first read that fails after a rest would end the work, as if it had been tried all the while."""
    clock, url = [1000.0], "s3://elsewhere/a"
    monkeypatch.setattr(objects, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(objects, "_sleep", lambda seconds: clock.__setitem__(0, clock[0] + 1))
    took_s = []
    for _ in range(3):
        began = clock[0]
        with patience(10), pytest.raises(SourceGone, match=r"tried for \d+ s"):
            objects.patiently(lambda: failing(ConnectionError("away")), url)
        took_s.append(clock[0] - began)
    assert took_s[0] > 5 and took_s[2] == 0  # soon it is known to be away, by whoever asks
    clock[0] += 3600
    answers = iter([ConnectionError("reset"), None])
    with patience(10):
        objects.patiently(lambda: (error := next(answers)) and failing(error), url)
    assert next(answers, "all taken") == "all taken"


def test_what_is_not_there(server):
    with pytest.raises(InputError, match=rf"no manifest at '{server.url}/other.parquet'"):
        Manifest.load(f"{server.url}/other.parquet")


@pytest.mark.parametrize(
    "address",
    [
        "s3://KEY:SECRET@bucket/manifest.parquet",
        "https://host/m.parquet?X-Amz-Signature=SECRET",
        "https://u:SECRET@h/m",
    ],
)
def test_credentials_in_an_address_are_refused_and_not_shown(address):
    for ask in (lambda: SourceConfig(manifest=address), lambda: Manifest.load(address), lambda: as_path(Path(address))):
        with pytest.raises((InputError, ValueError), match="holds a user") as found:
            ask()
        assert "SECRET" not in str(found.value)


def test_addresses():
    for text in ("s3://b/k/m.parquet", "s3:/b/k/m.parquet", "/s3:/b/k/m.parquet"):
        assert as_path(text) == as_path(Path(text)) == Path("/s3:/b/k/m.parquet")
        assert shown(Path(text)) == url_of(text) == "s3://b/k/m.parquet"
    assert as_path("https://host:80/a").parent.parent == Path("/https:")
    for text in ("a/b", "/x/s3:/b", "s3", "C:/x", "ucf:train"):
        assert url_of(text) is None and as_path(text) == Path(text)
    source = SourceConfig.parse("s3://b/k/manifest.parquet:train,test")
    assert (source.manifest, source.splits) == ("s3://b/k/manifest.parquet", ["train", "test"])
    assert SourceConfig.parse("s3://b/k/manifest.parquet").splits == []
    source = SourceConfig.parse("http://host:8080/k/manifest.parquet")
    assert (source.manifest, source.splits) == ("http://host:8080/k/manifest.parquet", [])
    source = SourceConfig.parse("http://host:8080/k/manifest.parquet:test")
    assert (source.manifest, source.splits) == ("http://host:8080/k/manifest.parquet", ["test"])


def test_a_manifest_of_any_file_system(store):
    memory = fsspec.filesystem("memory")
    memory.put(str(store), "/bucket/k", recursive=True)
    manifest = concatenate(
        [Manifest.load("memory://bucket/k/manifest.parquet"), Manifest.load(store / "manifest.parquet")]
    )
    remote, local = np.arange(6), np.arange(6, 12)
    assert torch.equal(stream(manifest.select(remote), 3)[0], stream(manifest.select(local), 3)[0])


def test_plain_files_in_object_storage_are_refused(store, tmp_path):
    (tmp_path / "a.mp4").write_bytes((store / "00000.h264").read_bytes())
    manifest = Manifest.load(store / "manifest.parquet")
    names = manifest.table.column("path").to_pylist()
    plain = manifest.table.set_column(0, "path", [[name.replace("store.index/", "x/") for name in names]])
    Manifest(plain.cast(manifest.table.schema), Path("s3://b/raw")).save(tmp_path / "raw.parquet")
    with pytest.raises(InputError, match="ingest them into a snippet store"):
        Manifest.load(tmp_path / "raw.parquet")


@pytest.mark.parametrize("ask", [objects.size_of, objects.state_of])
def test_a_server_that_tells_no_length(monkeypatch, ask):
    monkeypatch.setattr(objects, "_info", lambda url: {"size": None})  # as fsspec has it of an answer in chunks
    with pytest.raises(InputError, match="the server of 'https://h/a' does not tell its length: use one that does"):
        ask("https://h/a")


def test_where_no_range_can_be_kept_all_are_read(server, tmp_path):
    """A disk that is full or may not be written is no fault of a shard."""
    manifest = remote_manifest(server)
    expected = stream(manifest, 6)
    (tmp_path / "cache" / "ranges").write_text("in the way")
    use(RemoteConfig(cache_folder=str(tmp_path / "cache"), cache_gb=0.1))
    assert torch.equal(stream(manifest, 6)[0], expected[0])


def test_kept_ranges_are_read_once_and_never_wrong(server, tmp_path):
    use(RemoteConfig(cache_folder=str(tmp_path / "cache"), cache_gb=0.1))
    manifest = remote_manifest(server)
    first = stream(manifest, 6)
    kept = [path for path in (tmp_path / "cache" / "ranges").glob("*/*") if not path.suffix]  # others are being written
    asked = server.num_gets
    assert torch.equal(stream(manifest, 6)[0], first[0])
    assert kept and server.num_gets - asked < asked / 2
    for path in kept:
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
    assert torch.equal(stream(manifest, 6)[0], first[0])


def test_the_cache_keeps_what_was_used_last_within_its_bound(tmp_path):
    cache = RangeCache(tmp_path / "c", 10_000)
    for number in range(100):
        cache.put(f"range {number}", bytes([number]) * 500)
        assert cache.get("range 0") == bytes(500)
    assert sum(path.stat().st_size for path in (tmp_path / "c").glob("*/*")) <= 10_000
    assert cache.get("range 99") == bytes([99]) * 500 and cache.get("range 50") is None
