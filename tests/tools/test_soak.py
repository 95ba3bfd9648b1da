"""The soak: its fit on curves that are known, and a short one of a real decoder in a process of its own."""

import json
import mmap
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import options
import pytest
import soak
import torch
from bench import resources

from engine.errors import InputError
from engine.records import recording_into
from tests.environment import ROOT, environment, is_alive, wait_until
from tests.small_run import call_tool


def an_hour(memory, files=lambda k: 9.0):
    return [
        resources.Sample(5.0 * k, 100 * k, {"memory": memory(k), "open files": files(k), "threads": 4.0})
        for k in range(720)
    ]


def test_growth_is_found_under_peaks_and_a_warm_up_is_not_growth():
    noise = np.random.default_rng(0).normal(0, 3, 720)

    def leaking(k):  # 60 MB an hour, under evaluations that take 300 MB for every tenth sample
        return 500 + k / 12 + noise[k] + 300 * (k % 10 == 0)

    def warming(k):
        return 500 - 200 * np.exp(-k / 10) + noise[k] + 300 * (k % 10 == 0)

    found = resources.trends(an_hour(leaking, files=lambda k: 9 + k // 300), warm_up=0.1)
    assert found["memory"].per_hour == pytest.approx(60, rel=0.03)
    assert found["memory"].per_1000_snippets == pytest.approx(60 / 72, rel=0.03)
    assert [found[name].is_flat for name in ("memory", "open files", "threads")] == [False, False, True]
    assert all(half == pytest.approx(60, rel=0.15) for half in found["memory"].halves)
    assert resources.trends(an_hour(warming), warm_up=0.1)["memory"].is_flat
    with pytest.raises(
        InputError, match=r"4 samples after the warm-up, and 8 are needed: 5 s .* run it for 85 s or more"
    ):
        resources.trends(an_hour(warming)[:8], warm_up=0.5)
    resources.trends(an_hour(warming)[:18], warm_up=0.5)  # of 85 s
    with pytest.raises(InputError, match="9 samples with no work"):
        resources.trends([replace(sample, done=1) for sample in an_hour(warming)[:10]], warm_up=0.1)


def test_pages_of_mapped_files_are_not_memory_and_what_is_asked_for_is(tmp_path):
    size = 64 * 2**20
    (tmp_path / "mapped").write_bytes(bytes(size))
    before = resources.held_by([os.getpid()])["memory"]
    pages = np.memmap(tmp_path / "mapped", mode="r")
    assert pages.sum() == 0  # all of them are resident now
    mapped = resources.held_by([os.getpid()])["memory"]
    # Straight from the kernel: malloc may hand out memory that earlier tests freed and this process still holds.
    with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as held:
        held.write(b"1" * size)
        asked = resources.held_by([os.getpid()])["memory"]
    assert abs(mapped - before) < 0.1 * size / 1e6
    assert asked - mapped == pytest.approx(size / 1e6, rel=0.1)


def test_computing_of_a_tree_counts_children_that_live_and_those_that_ended():
    burn = "import time\nwhile time.process_time() < 0.4: pass\n"
    command = [sys.executable, "-S", "-c", burn + "print(flush=True); input()"]
    before = resources.computing_s(resources.process_tree(os.getpid()))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        of_child = resources.computing_s([child.pid])
        with_living = resources.computing_s(resources.process_tree(os.getpid())) - before
        child.communicate(b"\n")
    with_ended = resources.computing_s(resources.process_tree(os.getpid())) - before
    tick = 0.05  # and its like: what is counted is rounded for each process
    assert of_child > 0.4 - tick and with_living > of_child - tick and with_ended > with_living - tick
    assert with_ended < of_child + 1
    assert resources.computing_s([child.pid]) == 0


def test_a_short_soak_watches_the_process_it_started(monkeypatch, tmp_path, capsys):
    # Spawned, as a user's: a dead one stays readable until it is joined, and so is its last sample.
    monkeypatch.setattr(multiprocessing, "get_context", multiprocessing.context._default_context.get_context)
    monkeypatch.setattr(soak, "PICTURES", tmp_path)
    words = ["decode", "pyav", "--snippets", "800", "--damaged", "0.25", "--every", "0.05"]
    monkeypatch.setattr(sys, "argv", ["soak.py", *words])
    with recording_into(tmp_path), pytest.raises(SystemExit) as ended:
        soak.main(options.soak(soak.__doc__))
    assert ended.value.code in (0, 1)  # so short a run may still be warming up
    assert "decode_pyav: 800 snippets" in capsys.readouterr().out
    record = json.loads((tmp_path / "soak.jsonl").read_text())
    assert (record["part"], record["snippets"], record["device_type"]) == ("decode_pyav", 800, "cpu")
    assert 50 < record["failed"] < 350  # of the quarter of the files that were damaged
    assert 100 < record["trends"]["memory"]["last"] < 3000
    assert (tmp_path / "soak_decode_pyav.png").is_file()


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "words", [pytest.param(("train", "--minutes", "30"), marks=pytest.mark.slow), ("decode", "pyav")]
)
def test_nothing_of_it_goes_on_when_it_is_stopped(words, number, tmp_path):
    command = [sys.executable, ROOT / "tools" / "soak.py", *words, "--every", "0.1", "--no-record"]
    pipe = subprocess.PIPE
    tool = subprocess.Popen(
        command, env=environment(TMPDIR=str(tmp_path)), cwd=ROOT, stderr=pipe, stdout=pipe, text=True
    )
    wait_until(lambda: len(resources.process_tree(tool.pid)) >= 3)
    time.sleep(1)
    processes = resources.process_tree(tool.pid)
    tool.send_signal(number)
    _, said = tool.communicate(timeout=60)
    wait_until(lambda: not any(map(is_alive, processes)), 20)
    if number == signal.SIGTERM:
        assert (tool.returncode, said.splitlines()[-1]) == (130, "interrupted")
        assert not [*tmp_path.iterdir()]


def test_a_training_too_short_to_judge_is_refused_before_it_begins(monkeypatch, capsys):
    assert call_tool("soak.py", "train", "--minutes", 0.5, monkeypatch=monkeypatch) == 2
    assert capsys.readouterr().err.startswith(
        "error: --minutes 0.5 is too short to judge: 44 s of work are needed with"
    )


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("store", "--manifest", "nowhere.parquet"), "error: no manifest at 'nowhere.parquet'"),
        (("pyav", "--manifest", "clips.parquet", "--damaged", "0.5"), "error: --damaged is for drawn videos"),
        (("store", "--damaged", "0.5"), "error: --damaged is for files: a store was made from what decodes"),
        (("dali",), "error: data.decoder is dali, but DALI decodes on NVIDIA GPUs, not on cpu"),
        pytest.param(
            ("store", "--device", "cuda"),
            "error: run.device or --device is 'cuda' but torch sees no GPU",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"),
        ),
    ],
)
def test_mistakes_are_told_before_another_process_begins(words, says, monkeypatch, capsys):
    assert call_tool("soak.py", "decode", *words, monkeypatch=monkeypatch) == 2
    said = capsys.readouterr().err
    assert said.startswith(says)
    assert said.count("\n") == 1
