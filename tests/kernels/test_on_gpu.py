"""The public calls where they take their Triton kernels: on a GPU, beside what the same call gives on the CPU."""

import pytest
import torch

from kernels.clip_normalize import clip_normalize, clip_normalize_ref
from kernels.cosine_topk import cosine_topk, has_kernel, prepare_classes
from kernels.triton_support import can_use_triton
from tests.kernels.test_clip_normalize import random_frames
from tests.kernels.test_cosine_topk import random_rows

pytestmark = pytest.mark.gpu
HALF = [torch.float16, torch.bfloat16]


def test_the_kernels_are_taken_where_triton_supports_the_gpu():
    device = torch.device("cuda", 0)
    assert can_use_triton(device) == (torch.cuda.get_device_capability(device) >= (8, 0))


@pytest.mark.parametrize("dtype", [*HALF, torch.float32, torch.float64])
@pytest.mark.parametrize("channels_last", [True, False])
def test_clip_normalize_equals_the_cpus(dtype, channels_last):
    frames = random_frames((5, 3, 17, 23, 3))
    clips = clip_normalize(frames.cuda(), dtype, channels=8, channels_last=channels_last)
    expected = clip_normalize_ref(frames, dtype, channels=8, channels_last=channels_last)
    assert clips.is_cuda and clips.stride() == expected.stride()
    torch.testing.assert_close(clips.cpu(), expected, rtol=torch.finfo(dtype).eps, atol=2e-6)


@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
@pytest.mark.parametrize(("n", "c", "k"), [(1, 1, 1), (33, 101, 5), (2049, 700, 32)])
def test_cosine_topk_equals_the_cpus(n, c, k, dtype):
    queries, classes = random_rows(n, 300, dtype=dtype), random_rows(c, 300, seed=1, dtype=dtype)
    with torch.autocast("cuda", torch.bfloat16):  # changes nothing
        scores, indices = cosine_topk(queries.cuda(), classes.cuda(), k)
        prepared = prepare_classes(classes.cuda())
        assert (prepared.inverse is not None) == has_kernel(prepared.rows.device)
        again = cosine_topk(queries.cuda(), prepared, k)
    assert torch.equal(again[0], scores) and torch.equal(again[1], indices)
    expected, _ = cosine_topk(queries, classes, k)
    assert scores.dtype == torch.float32 and scores.is_cuda
    torch.testing.assert_close(scores.cpu(), expected, rtol=0, atol=6e-6)
    unit = [torch.nn.functional.normalize(rows.double(), dim=1) for rows in (queries, classes)]
    at_indices = (unit[0][:, None] * unit[1][indices.cpu()]).sum(dim=2)
    torch.testing.assert_close(
        at_indices, expected.double(), rtol=0, atol=6e-6
    )  # where two are alike, either may be named


def test_kernels_wait_for_the_callers_stream_and_their_results_for_them():
    """What is queued before, on a stream that is not the default one, is what they see."""
    stream = torch.cuda.Stream()
    frames = torch.zeros(8, 16, 112, 112, 3, dtype=torch.uint8, device="cuda")
    classes = torch.eye(64, device="cuda")
    queries = torch.zeros(512, 64, device="cuda")
    clip_normalize(frames), cosine_topk(queries, classes, 2)  # compiled before the clock matters
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)
        frames.fill_(255)
        queries[:, 7] = 1
        clips, (scores, indices) = clip_normalize(frames), cosine_topk(queries, classes, 2)
    stream.synchronize()
    torch.testing.assert_close(clips.amin(dim=(0, 2, 3, 4)).cpu(), torch.tensor([2.490199, 2.733502, 2.873648]))
    assert (indices[:, 0] == 7).all() and (scores[:, 0] == 1).all()
