"""An object that is replaced while it is read: one error that names it, at once, and never bytes of both."""

import os
import time

import pytest

from engine.data.remote import direct, file_systems
from engine.data.remote.config import RemoteConfig
from engine.data.remote.ranges import Ranges
from engine.data.remote.settings import use
from engine.data.remote.states import State, States, state_in
from engine.errors import SourceGone
from tests.environment import wait_until
from tests.object_server import ObjectServer
from tests.s3 import SECRET, s3_server

pytest.importorskip("aiohttp")
OLD, NEW = bytes(range(256)) * 40, bytes(range(255, -1, -1)) * 40
NAME = "a b/00000.h264"
WAYS = ["libcurl", "fsspec"]


@pytest.fixture(autouse=True)
def _defaults(monkeypatch):
    monkeypatch.setattr(direct, "_RESTING", {})
    monkeypatch.setattr(direct, "_SIGNED", {})
    monkeypatch.setattr(direct, "_INSISTS", {})
    use(RemoteConfig(patience_s=20))
    yield
    use(RemoteConfig())


@pytest.fixture
def server(tmp_path):
    (tmp_path / "served" / "a b").mkdir(parents=True)
    (tmp_path / "served" / NAME).write_bytes(OLD)
    with ObjectServer(tmp_path / "served") as server:
        yield server


def go(way, monkeypatch):
    if way == "libcurl":
        pytest.importorskip("pycurl")
        assert direct._has_curl()
    else:
        monkeypatch.setattr(direct, "_has_curl", lambda: False)


def planned(store, url, start, end):
    """Bytes that were begun before they were asked for."""
    (held,) = store.begin([(url, start, end)])
    try:
        return store.read(url, start, end - start)
    finally:
        store.release(held)


@pytest.mark.parametrize("is_planned", [False, True])
@pytest.mark.parametrize(("etags", "put"), [
    ("strong", NEW), ("strong", OLD[:100]), ("ignored", NEW), ("weak", NEW), ("none", NEW + b"more"), ("none", OLD[:100]),
], ids=lambda value: value if isinstance(value, str) else f"{len(value)} bytes")  # fmt: skip
@pytest.mark.parametrize("way", WAYS)
def test_a_replaced_object_is_one_error_at_once(server, monkeypatch, way, etags, put, is_planned):
    go(way, monkeypatch)
    url, server.etags, store = f"{server.url}/{NAME}", etags, Ranges("")
    assert store.read(url, 2000, 50) == OLD[2000:2050]
    assert planned(store, url, 2010, 2050) == OLD[2010:2050]  # again: nothing is wrong with it
    if way == "libcurl" and etags in ("strong", "ignored"):
        wait_until(lambda: server.num_gets == 3)  # whether the server heeds If-Match is asked beside the reading
    server.replace(NAME, put)
    asked, began = server.num_gets, time.monotonic()
    with pytest.raises(SourceGone, match=rf"^'{url}' was replaced while it was read \(.*again") as told:
        planned(store, url, 2000, 2050) if is_planned else store.read(url, 2000, 50)
    assert told.value.__cause__ is None and time.monotonic() - began < 2
    assert server.num_gets - asked <= (
        1 if way == "fsspec" else 3
    )  # what libcurl is refused the file system is asked for
    assert (server.num_refused > 0) == (etags == "strong")  # else the answer tells
    if etags != "none":
        assert "ETag" in str(told.value)
    else:
        assert f"it has {len(put)} bytes, not {len(OLD)}" in str(told.value)
    if len(put) > 2000:
        assert Ranges("").read(url, 2000, 50) == put[2000:2050]  # who begins now reads what is there


@pytest.mark.parametrize("way", WAYS)
def test_an_object_that_stays_is_read_on_after_an_outage(server, monkeypatch, way):
    go(way, monkeypatch)
    url, store = f"{server.url}/{NAME}", Ranges("")
    assert store.read(url, 0, 9) == OLD[:9]
    server.stop()
    server.start()
    server.failures = 0.4
    assert [store.read(url, start, 9) for start in range(9)] == [OLD[start : start + 9] for start in range(9)]
    os.utime(server.folder / NAME)  # another ETag, and the same bytes: that cannot be told
    with pytest.raises(SourceGone, match="replaced"):
        store.read(url, 0, 9)


def test_what_one_request_insists_on_is_not_asked_of_the_next(server):
    """One connection reads objects of several states, and some without."""
    pytest.importorskip("pycurl")
    use(RemoteConfig(patience_s=20, reads_in_flight=1))
    (server.folder / "other").write_bytes(NEW)
    os.utime(server.folder / "other", (1, 1))
    store = Ranges("")
    for _ in range(2):
        assert store.read(f"{server.url}/{NAME}", 0, 9) == OLD[:9]
        assert store.read(f"{server.url}/other", 0, 9) == NEW[:9]
    assert Ranges("").read(f"{server.url}/other", 5, 9) == NEW[5:14]
    assert not direct._RESTING and server.num_gets == 5 + 1 and server.num_refused == 1  # asked whether it insists
    assert [store.read(f"{server.url}/{name}", 3, 9) for name in (NAME, "other")] == [OLD[3:12], NEW[3:12]]
    assert server.num_gets == 8


@pytest.mark.parametrize(("etags", "insists"), [("strong", True), ("ignored", False)])
def test_headers_are_read_unless_the_server_insists(server, monkeypatch, etags, insists):
    pytest.importorskip("pycurl")
    use(RemoteConfig(patience_s=20, reads_in_flight=2))
    server.etags, store, url = etags, Ranges(""), f"{server.url}/{NAME}"
    told, take = [], Ranges._take
    monkeypatch.setattr(Ranges, "_take", lambda self, held, found: (told.append(found.state), take(self, held, found)))
    for start in range(6):
        assert planned(store, url, start, start + 9) == OLD[start : start + 9]
        if start == 1:  # the question goes beside the reads
            wait_until(lambda: server.num_gets == 3 and direct._INSISTS[server.url] == insists)
    assert [state == State() for state in told] == [False, False, *(4 * [insists])]
    assert {server.url: insists} == direct._INSISTS and server.num_gets == 7
    server.replace(NAME, NEW)
    with pytest.raises(SourceGone, match="ETag"):
        planned(store, url, 9, 18)


def test_whether_a_server_insists_is_asked_until_it_says(server):
    curl = pytest.importorskip("engine.data.remote.curl", exc_type=ImportError)
    known, asked = [], []

    class Reads:
        def begin(self, wanted):
            asked.append(wanted)

    for found in (curl.Unanswered("status 503"), curl.Declined(403), curl.Declined(412)):
        assert not direct._insists(server.url, server.url, Reads())
        assert not direct._insists(server.url, server.url, Reads())  # one question at a time
        asked[-1].ended(found)
        known.append(dict(direct._INSISTS))
    assert known == [{}, {}, {server.url: True}] and len(asked) == 3
    assert direct._insists(server.url, server.url, Reads()) and {each.if_match for each in asked} == {'"of-nothing"'}


def test_kept_ranges_are_those_of_one_object(server, tmp_path):
    use(RemoteConfig(cache_folder=str(tmp_path / "cache"), cache_gb=0.1))
    url = f"{server.url}/{NAME}"
    first = Ranges("index")
    assert [first.read(url, start, 9) for start in (0, 9, 0)] == [OLD[:9], OLD[9:18], OLD[:9]]
    wait_until(lambda: server.num_gets - server.num_refused == 2)  # whether it insists is asked beside the reading
    server.replace(NAME, NEW)
    assert first.read(url, 9, 9) == OLD[9:18]  # still of the object that was there
    with pytest.raises(SourceGone, match="replaced"):
        first.read(url, 18, 9)
    second = Ranges("index")  # another process, or later
    assert [second.read(url, start, 9) for start in (0, 9, 0)] == [NEW[:9], NEW[9:18], NEW[:9]]


@pytest.mark.slow  # importing gcsfs is
def test_a_google_bucket_tells_by_generations(server, monkeypatch):
    gcsfs = pytest.importorskip("gcsfs")
    files = gcsfs.core.GCSFileSystem(token="anon", endpoint_url=server.url, skip_instance_cache=True)
    monkeypatch.setattr(file_systems, "file_system", lambda url: files)
    folder = server.folder / "download/storage/v1/b/bucket/o/k"
    folder.mkdir(parents=True)
    (folder / "0.h264").write_bytes(OLD)
    url, server.etags, store = "gs://bucket/k/0.h264", "none", Ranges("")
    monkeypatch.setattr(
        files, "url", lambda path: f"{server.url}/download/storage/v1/b/bucket/o/{path.partition('/')[2]}"
    )
    assert [store.read(url, start, 9) for start in (0, 90)] == [OLD[:9], OLD[90:99]]
    server.replace("download/storage/v1/b/bucket/o/k/0.h264", NEW)
    with pytest.raises(SourceGone, match=r"'gs://bucket/k/0\.h264' was replaced"):
        store.read(url, 0, 9)


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_an_object_of_s3_that_is_replaced(tmp_path, monkeypatch, way):
    go(way, monkeypatch)
    with s3_server(tmp_path, monkeypatch):
        files, url = file_systems.file_system("s3://bucket"), "s3://bucket/k 1/00000.h264"
        files.pipe("bucket/k 1/00000.h264", OLD)
        store = Ranges("")
        assert [store.read(url, start, 9) for start in (0, 90)] == [OLD[:9], OLD[90:99]]
        assert store._states.if_match(url) and store._states.of(url).length == len(OLD)
        assert store.read(url, len(OLD) - 4, 9) == OLD[-4:]
        assert bool(direct._SIGNED) == (way == "libcurl") and not direct._RESTING
        for address, _ in direct._SIGNED.values():  # so a request may have If-Match and Range
            assert "AWSAccessKeyId=" in address or "X-Amz-SignedHeaders=host&" in address
        for put in (NEW, OLD[:100]):
            files.pipe("bucket/k 1/00000.h264", put)
            with pytest.raises(SourceGone, match=r"^'s3://bucket/k 1/00000\.h264' was replaced .*ETag") as told:
                store.read(url, 2000, 9)
            assert SECRET not in str(told.value) and "Signature" not in str(told.value)


def test_states_that_tell_little():
    seen = States()
    seen.check("u", State())
    seen.check("u", State("", 10))
    seen.check("u", State('W/"a"'))
    seen.check("u", State('"a"', 10))  # a proxy may weaken an ETag
    assert seen.of("u") == State('W/"a"', 10) and seen.if_match("u") == ""
    for other, why in ((State('"b"', 10), "ETag"), (State("", 11), "11 bytes, not 10"), (State('W/"a"', 9), "9 bytes")):
        with pytest.raises(SourceGone, match=why):
            seen.check("u", other)
    seen.check("other", State('"b"', 11))
    assert seen.if_match("other") == '"b"' and seen.of("none") is None
    for etag in ("b", '"ä"', '"a b"', ""):
        seen.check(etag, State(etag))
        assert seen.if_match(etag) == ""
    assert state_in({"etag": ' "x" ', "content-range": "bytes 0-9/100"}) == State('"x"', 100)
    assert state_in({"content-range": "bytes 0-9/*"}) == State() == state_in({})
    assert state_in({"content-range": "bytes */7"}) == State("", 7)


def test_a_length_is_remembered_over_answers_that_tell_none():
    seen = States()
    for state in (State('"a"', 10), State('"a"'), State("", None)):
        seen.check("u", state)
    assert seen.of("u") == State('"a"', 10)
    with pytest.raises(SourceGone, match="11 bytes, not 10"):
        seen.check("u", State("", 11))


def test_a_redirect_is_told_by_what_it_leads_to():
    pytest.importorskip("pycurl")
    from engine.data.remote.curl import _state

    first = 'HTTP/1.1 302 Found\r\nETag: "old"\r\nLocation: /x\r\n\r\n'
    assert _state(f'{first}HTTP/1.1 206 P\r\nEtag:"new"\r\ncontent-range: bytes 0-1/5\r\n\r\n'.encode()) == State(
        '"new"', 5
    )
    assert _state(f"{first}HTTP/1.1 206 P\r\nVia: HTTP/1.1 p\r\n\r\n".encode()) == State()
