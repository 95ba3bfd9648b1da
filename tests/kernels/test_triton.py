"""The Triton kernels: run in Triton's interpreter, and run on a GPU where there is one.

Triton reads TRITON_INTERPRET when it is imported, and it is imported once in a process; hence the process.
"""

import subprocess
import sys

import pytest
import torch

from kernels.clip_normalize import clip_normalize
from kernels.cosine_topk import cosine_topk
from tests.environment import ROOT, environment
from tests.kernels.test_clip_normalize import random_frames
from tests.kernels.test_cosine_topk import random_rows

pytest.importorskip("triton", reason="Triton comes with torch on Linux only")
KERNELS = ("cosine_topk", "temporal_conv", "clip_normalize", "channel_sums")
FILES = [f"tests/kernels/triton_{kernel}.py" for kernel in KERNELS]


def check(interpret: str, *words: str) -> None:
    """Run the cases of all kernels in one process, whose imports take seconds, without those of tests/conftest.py."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--noconftest", *FILES, *words],
        cwd=ROOT,
        env=environment(TRITON_INTERPRET=interpret),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=1200,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8000:]
    assert " passed" in done.stdout


def test_in_the_interpreter():
    check("1")


@pytest.mark.slow
def test_in_fp16_in_the_interpreter():
    check("1", "-m", "slow")


@pytest.mark.gpu
def test_on_the_gpu():
    check("0")


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
