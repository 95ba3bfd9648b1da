"""The benchmark of object storage: its server's ranges and failures, its ratios, and the whole of it at a small size."""

import json
import os
from argparse import Namespace
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from bench import storage
from bench.cores import usable_numbers
from bench.object_servers import Manners, RangeServer
from bench.storage import _rows
from bench.storage_reader import Turn
from bench.turns import Turns

from engine.errors import InputError

DATA = bytes(range(256)) * 20


def get(port, name, wanted=None, method="GET", **headers):
    """Status, facts and bytes of an answer."""
    headers = {name.replace("_", "-"): value for name, value in headers.items()} | ({"Range": wanted} if wanted else {})
    request = Request(f"http://127.0.0.1:{port}/{name}", headers=headers, method=method)
    try:
        with urlopen(request, timeout=20) as answer:
            return answer.status, dict(answer.headers), answer.read()
    except HTTPError as error:
        return error.code, dict(error.headers), error.read()


def test_the_server_reads_ranges_and_fails_by_its_share(tmp_path):
    (tmp_path / "a b").write_bytes(DATA)
    (tmp_path.parent / "outside").write_bytes(DATA)
    server = RangeServer(tmp_path)
    status, facts, data = get(server.port, "a%20b?X-Amz-Signature=1", "bytes=1000-1999")
    assert (status, data, facts["Content-Range"]) == (206, DATA[1000:2000], "bytes 1000-1999/5120")
    assert get(server.port, "a%20b", "bytes=5000-9999")[2] == DATA[5000:]
    assert (
        get(server.port, "a%20b")[2] == DATA and get(server.port, "a%20b", method="HEAD")[1]["Content-Length"] == "5120"
    )
    assert get(server.port, "a%20b", "bytes=0-9", if_match=facts["ETag"])[2] == DATA[:10]
    assert get(server.port, "a%20b", "bytes=0-9", if_match='"other"')[0] == 412
    refused = ("c", None), ("../outside", None), ("a%20b", "bytes=5120-")
    assert [get(server.port, name, wanted)[0] for name, wanted in refused] == [404, 404, 416]
    found = []
    for _ in range(2):
        server.behave(Manners(failures=0.3))
        found.append([get(server.port, "a%20b")[0] for _ in range(40)])
    assert found[0] == found[1] and set(found[0]) == {200, 503} and 4 <= found[0].count(503) <= 20


def test_ratios_are_of_neighbouring_turns():
    turns = Turns({"local files": None, "HTTP": None, "gone": None})
    turns.samples["local files"] = [(Turn(100, seconds, 2.0), 0.0) for seconds in (1.0, 2.0, 4.0)]
    turns.samples["HTTP"] = [(Turn(100, seconds, 2.5, untimed=25), 0.5) for seconds in (2.0, 2.5, 4.0)]
    turns.drop("gone", "why")
    _, http, gone = _rows(turns, Namespace(batches=10))
    assert http.values == {
        "clips_per_s": 40.0,
        "of_local": 0.8,
        "of_local_cpu": 0.8,
        "client_cpu_s": 0.025,
        "server_cpu_s": 0.004,
    }
    assert http.seconds["p50"] == 0.25 and gone.note == "why" and gone.seconds is None


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="Linux alone keeps a process to some cores")
def test_servers_and_readers_have_cores_of_their_own(monkeypatch):
    monkeypatch.setattr(storage, "Apart", lambda build, *_, limit_s: (build, sorted(os.sched_getaffinity(0))))
    monkeypatch.setattr(storage, "usable_numbers", lambda: usable)
    usable = usable_numbers()
    if len(usable) < 2:
        pytest.skip("needs two cores")
    for apart, readers, servers in ((True, usable[:-1], usable[-1:]), (False, usable, usable)):
        started = []
        begin = storage._beginner(Namespace(apart=apart), started)
        assert (begin(storage.Reader, 1), begin(RangeServer, 2)) == tuple(started)
        assert started == [(storage.Reader, readers), (RangeServer, servers)]
        assert usable_numbers() == usable  # as before
    usable = usable[:1]
    with pytest.raises(InputError, match="--apart needs two cores"):
        storage.run(Namespace(apart=True))


@pytest.mark.slow
def test_the_whole_at_a_small_size(program, tmp_path):
    pytest.importorskip("s3fs")
    words = [
        "--num-videos",
        6,
        "--rounds",
        2,
        "--batches",
        2,
        "--batch",
        4,
        "--reads",
        4,
        "--latency",
        2,
        "--threads",
        1,
    ]
    status, printed = program("storage", *words, "--only", "http", "--only", "s3", "--snippets", 60, "--failures", 0.1)
    assert status == 0, printed
    record = json.loads((tmp_path / "out" / "records" / "storage.jsonl").read_text())
    names = [row["case"] for row in record["results"]]
    assert names == ["local files", "HTTP", "HTTP, none late", "S3, cheap server", "S3, cheap server, none late"]
    assert all(row["values"]["clips_per_s"] > 0 and row["values"]["client_cpu_s"] > 0 for row in record["results"])
    assert record["results"][1]["values"]["server_cpu_s"] > 0 and record["results"][0]["values"]["of_local"] == 1
    assert all(after > 0 and abs(end / after - 1) < 0.2 for after, end in record["memory_mb"].values())
    assert "are equal, bit by bit: local files, HTTP" in printed


@pytest.mark.parametrize(("words", "told"), [
    (["--failures", "1"], "--failures is a share"), (["--latency", "-1"], "not negative"), (["--latency", "nan"], "not negative"),
    (["--reads", "0"], "--reads is 0"),
])  # fmt: skip
def test_options_out_of_range(words, told, program):
    status, printed = program("storage", *words)
    assert status == 2 and told in printed
