"""Ranges by libcurl: the bytes that were asked for, or one of two errors; what it declines is read through the file system."""

import time
from concurrent.futures import Future, ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from engine.data.remote import direct, file_systems, objects
from engine.data.remote.config import RemoteConfig
from engine.data.remote.ranges import Ranges
from engine.data.remote.settings import use
from engine.data.remote.states import Answer
from engine.errors import InputError, SourceGone
from tests.object_server import ObjectServer

pytest.importorskip("aiohttp")
pytest.importorskip("pycurl")
from engine.data.remote.curl import Declined, Unanswered

DATA = bytes(range(256)) * 1000


@pytest.fixture(autouse=True)
def _defaults(monkeypatch):
    monkeypatch.setattr(direct, "_RESTING", {})
    monkeypatch.setattr(direct, "_SIGNED", {})
    monkeypatch.setattr(direct, "_INSISTS", {})
    use(RemoteConfig(patience_s=5))
    yield
    use(RemoteConfig())


@pytest.fixture
def server(tmp_path):
    (tmp_path / "a b").mkdir()
    (tmp_path / "a b" / "ä+1.bin").write_bytes(DATA)
    with ObjectServer(tmp_path) as server:
        yield server


def begin(url, start, end, connections=4):
    """A future of what came; None where nothing was begun."""
    found = Future()

    def ended(what):
        if isinstance(what, Answer):
            found.set_result(what.data)
        else:
            found.set_exception(what)

    return found if direct.begin(url, start, end, connections, ended) else None


def test_threads_that_read_first_at_the_same_time_share_the_connections(monkeypatch):
    opened = []

    def slowly(count):
        time.sleep(0.05)
        opened.append(count)
        return count

    monkeypatch.setattr(direct, "_OPEN", {})
    monkeypatch.setattr("engine.data.remote.curl.Connections", slowly)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda _: direct._connections(0, 2), range(8))) == [2] * 8
    assert opened == [2]


def test_many_ranges_over_few_connections(server):
    url = f"{server.url}/a b/ä+1.bin"
    wanted = [(start, start + 1 + 700 * start % 90_000) for start in range(0, 200_000, 3000)]
    found = [begin(url, start, end) for start, end in wanted]
    assert [each.result(20) for each in found] == [DATA[start:end] for start, end in wanted]
    assert begin(url, 255_990, 256_100).result(20) == DATA[255_990:]
    assert server.num_gets == len(wanted) + 1


@pytest.mark.parametrize(("status", "error", "rests"), [
    (503, Unanswered, False), (429, Unanswered, False), (404, Declined, False), (403, Declined, True), (400, Declined, True),
])  # fmt: skip
def test_answers_that_pass_and_those_that_do_not(server, status, error, rests):
    url, server.status = f"{server.url}/a b/ä+1.bin", status
    with pytest.raises(error, match=str(status)):
        begin(url, 0, 10).result(20)
    server.status = None
    if rests:
        assert begin(url, 0, 10) is None
        assert objects.read_range(url, 3, 10) == DATA[3:13]  # through the file system
    else:
        assert begin(url, 0, 10).result(20) == DATA[:10]


def test_a_server_that_is_away_is_no_answer(server):
    server.stop()
    with pytest.raises(Unanswered):
        begin(f"{server.url}/a b/ä+1.bin", 0, 10).result(20)


def test_a_server_that_reads_no_ranges_is_named(server):
    url, server.reads_ranges = f"{server.url}/a b/ä+1.bin", False
    with pytest.raises(Declined, match="status 200"):
        begin(url, 0, 10).result(20)
    with pytest.raises(InputError, match="does not read ranges"):
        objects.read_range(url, 0, 10)


def test_an_address_of_s3_is_signed_once_and_again_after_a_refusal(server, monkeypatch):
    signed = []

    def sign(key, expiration):
        signed.append(key)
        return f"{server.url}/a%20b/%C3%A4%2B1.bin?X-Amz-Signature=HIDDEN{len(signed)}"

    def refused(url, start, end, if_match):
        raise PermissionError(url)

    monkeypatch.setattr(file_systems, "file_system", lambda url: SimpleNamespace(sign=sign))
    monkeypatch.setattr(file_systems, "read_range", refused)
    for start in range(3):
        assert objects.read_range("s3://bucket/key", start, 9) == DATA[start : start + 9]
    assert signed == ["bucket/key"]
    server.status = 403
    with pytest.raises(SourceGone, match="'s3://bucket/key' is refused") as told:
        objects.read_range("s3://bucket/key", 0, 9)
    assert "HIDDEN" not in str(told.value) and not direct._SIGNED
    server.status = None
    direct._RESTING.clear()
    assert objects.read_range("s3://bucket/key", 0, 9) == DATA[:9] and len(signed) == 2


def test_a_thread_that_ends_by_a_defect_leaves_nobody_waiting(server, monkeypatch):
    connections = direct._connections(0, 3)  # of no other test

    def broken():
        raise ValueError("a defect")

    monkeypatch.setattr(direct, "_connections", lambda process, count: connections)
    monkeypatch.setattr(connections, "_collect", broken)
    url = f"{server.url}/a b/ä+1.bin"
    with pytest.raises(Declined, match="a defect"):
        begin(url, 0, 10).result(20)
    assert objects.read_range(url, 0, 10) == DATA[:10]


@pytest.mark.parametrize("answer", [Unanswered("away"), Declined(404)])
def test_a_store_that_is_away_while_it_is_asked_whether_it_insists(server, monkeypatch, answer):
    url = f"{server.url}/a b/ä+1.bin"
    begun = []

    def away(wanted):
        begun.append(wanted)
        wanted.ended(answer)  # at once, as the other thread may

    monkeypatch.setattr(direct, "_connections", lambda process, count: SimpleNamespace(begin=away))
    for _ in range(2):
        told = []
        assert direct.begin(url, 0, 10, 4, told.append, if_match='"one"') and told == [answer]
    assert len(begun) == 4 and not direct._INSISTS  # it is asked each time


def test_ranges_that_cannot_be_begun_are_not_held(server, monkeypatch):
    url, ranges = f"{server.url}/a b/ä+1.bin", Ranges("")

    def defect(*_):
        raise ValueError("a defect")

    with monkeypatch.context() as patch:
        patch.setattr(direct, "begin", defect)
        with pytest.raises(ValueError, match="a defect"):
            ranges.begin([(url, 0, 10), (url, 20, 30)])
    assert not ranges._held[url] and ranges.read(url, 3, 4) == DATA[3:7]
