"""What `--cluster` means where there is no cluster, and what a node's worker does with a piece."""

import os
import pickle
import sys
from pathlib import Path

import pytest

from engine.cluster import remote
from engine.cluster.pool import LocalPool, open_pool
from engine.cluster.programs import LocalPrograms, open_programs
from engine.errors import InputError
from engine.processes.process_pool import Lost
from tests.rows import row
from tests.small_run import call_tool


def test_without_a_cluster_the_work_stays_here(tmp_path):
    with open_pool(None, [tmp_path / "of no interest"]) as pool:
        assert pool is None
    with open_programs(None, 3, [], "auto") as programs:
        assert isinstance(programs, LocalPrograms) and programs.slots == 3
    assert dict(LocalPool(0).run(eval, ["1", "1 + 1"], 60.0)) == {"1": 1, "1 + 1": 2}


def test_ray_is_asked_for_where_it_is_missing(tmp_path, monkeypatch, capsys):
    from engine.data.manifests.manifest import Manifest

    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "engine.cluster.nodes", raising=False)
    with (
        pytest.raises(InputError, match=r"--cluster needs Ray.*pip install -e '\.\[cluster\]'"),
        open_pool("auto", []),
    ):
        pass
    Manifest.from_rows([row("a.mp4", "x")], tmp_path).save(tmp_path / "m.parquet")
    words = (tmp_path / "m.parquet", "--out", tmp_path / "store", "--cluster", "auto")
    assert call_tool("ingest.py", *words, monkeypatch=monkeypatch) == 2
    assert "pip install -e '.[cluster]'" in capsys.readouterr().err


@pytest.fixture
def worker():
    """As Ray's worker has no process for pieces at its start."""
    assert remote._working is None
    yield
    if remote._working is not None:
        remote._working[1].stop()
        remote._working = None


def test_the_process_of_a_worker_stays_for_a_job_and_a_gpu(worker, tmp_path, monkeypatch):
    folder = str(Path.cwd())
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def piece(job: str, text: str, limit_s: float = 60.0):
        done = remote.do_piece(job, pickle.dumps(eval), pickle.dumps(text), limit_s, folder)
        return pickle.loads(done) if isinstance(done, bytes) else done

    pid = "__import__('os').getpid()"
    first = piece("one", pid)
    assert piece("one", pid) == first != os.getpid()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    second = piece("one", pid)
    assert second not in (first, os.getpid())
    third = piece("two", pid)
    assert third not in (first, second)
    assert piece("two", "__import__('os')._exit(3)") == Lost(False, "the process that read it died (exit code 3)")
    assert piece("two", "6 * 7") == 42
    assert piece("two", "__import__('time').sleep(60)", 0.3) == Lost(True, "stopped after 0.3 s")


def test_what_a_node_lacks(tmp_path):
    look = remote.look_around([str(tmp_path), str(tmp_path / "not there")])
    assert look == remote.Look(remote.code_digest(), (str(tmp_path / "not there"),))
