"""The Triton kernels: run in Triton's interpreter, and run on a GPU where there is one.

Triton reads TRITON_INTERPRET when it is imported, and it is imported once in a process; hence the processes.
"""

import subprocess
import sys
from collections.abc import Generator

import pytest
import torch

from kernels.clip_normalize import clip_normalize
from kernels.cosine_topk import cosine_topk
from tests.environment import ROOT, environment
from tests.kernels.test_clip_normalize import random_frames
from tests.kernels.test_cosine_topk import random_rows

pytest.importorskip("triton", reason="Triton comes with torch on Linux only")
# Two processes, as a small machine has two cores and the imports take seconds.
CASES = {
    "cosine_topk": ["tests/kernels/triton_cosine_topk.py"],
    "others": [f"tests/kernels/triton_{name}.py" for name in ("temporal_conv", "clip_normalize", "channel_sums")],
}


def start(cases: str, interpret: str, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *CASES[cases], *words],
        cwd=ROOT,
        env=environment(TRITON_INTERPRET=interpret),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def check(process: subprocess.Popen[str]) -> None:
    try:
        printed, _ = process.communicate(timeout=1200)
    finally:
        process.kill()
    assert process.returncode == 0, printed[-8000:]
    assert " passed" in printed


@pytest.fixture(scope="module")
def interpreted() -> Generator[dict[str, subprocess.Popen[str]]]:
    """The cases in the interpreter, both processes at once: each computes on one core."""
    started = {cases: start(cases, "1") for cases in CASES}
    yield started
    for process in started.values():
        process.kill()
        process.wait()


@pytest.mark.parametrize("cases", CASES)
def test_in_the_interpreter(cases, interpreted):
    check(interpreted[cases])


@pytest.mark.slow
@pytest.mark.parametrize("cases", CASES)
def test_in_fp16_in_the_interpreter(cases):
    check(start(cases, "1", "-m", "slow"))


@pytest.mark.gpu
@pytest.mark.parametrize("cases", CASES)
def test_on_the_gpu(cases):
    check(start(cases, "0"))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_on_a_gpu_that_is_not_the_current_one():
    frames, queries = random_frames((2, 2, 8, 8, 3)), random_rows(5, 16)
    clips = clip_normalize(frames.to("cuda:1"))
    torch.testing.assert_close(clips.cpu(), clip_normalize(frames), rtol=1e-6, atol=1e-6)
    assert torch.equal(cosine_topk(queries.to("cuda:1"), queries.to("cuda:1"), 1)[1].cpu(), torch.arange(5)[:, None])


def test_old_gpus_and_cpus_take_the_torch_path(monkeypatch):
    from kernels.triton_support import can_use_triton

    found = {}
    for capability in ((7, 0), (7, 5), (8, 0), (9, 0)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _, result=capability: result)
        can_use_triton.cache_clear()
        found[capability] = can_use_triton(torch.device("cuda", 0))
    can_use_triton.cache_clear()
    assert found == {(7, 0): False, (7, 5): False, (8, 0): True, (9, 0): True}
    assert not can_use_triton(torch.device("cpu"))
