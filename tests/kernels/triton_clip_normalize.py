"""The Triton kernel of clip_normalize against its reference; run as triton_cosine_topk.py is."""

import pytest
import torch

from kernels.clip_normalize import clip_normalize_ref, scales_and_shifts
from kernels.clip_normalize_triton import clip_normalize_triton
from tests.kernels.interpreter import DEVICE, INTERPRETED
from tests.kernels.test_clip_normalize import random_frames

# Beside fp32's roundings, one of the result of up to 2.9; the interpreter cuts bf16 off instead of rounding it.
TOLERANCE = {torch.float32: 1e-6, torch.float16: 2**-10, torch.bfloat16: 2**-6 if INTERPRETED else 2**-7}
SHAPES = [(1, 1, 1, 1, 3), (3, 5, 7, 11, 3), (2, 4, 20, 28, 3), (2, 2, 5, 6, 1), (2, 2, 3, 5, 4), (0, 4, 8, 8, 3)]
if not INTERPRETED:
    SHAPES += [(64, 16, 112, 112, 3), (3, 17, 113, 111, 3)]


def normalize(frames, dtype, mean, std, channels):
    return clip_normalize_triton(frames.to(DEVICE), dtype, *scales_and_shifts(mean, std), channels)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("extra_channels", [0, 1, 5])
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_the_reference(shape, extra_channels, dtype):
    frames, channels = random_frames(shape), shape[-1] + extra_channels
    mean, std = (0.5, 0.4, 0.3, 0.2)[: shape[-1]], (0.25, 0.2, 0.3, 0.5)[: shape[-1]]
    clips = normalize(frames, dtype, mean, std, channels)
    expected = clip_normalize_ref(frames, dtype, mean, std, channels=channels)
    assert clips.dtype == dtype and clips.shape == expected.shape
    assert clips.is_contiguous(memory_format=torch.channels_last_3d)
    torch.testing.assert_close(clips.cpu(), expected, rtol=0, atol=TOLERANCE[dtype])
    if clips.numel() and frames.numel() > 30:
        assert clips[:, : shape[-1]].abs().max() > 0.5 and not clips[:, shape[-1] :].any()


@pytest.mark.skipif(INTERPRETED, reason="takes minutes there")
def test_more_clips_than_an_axis_of_programs_has_places():
    frames = random_frames((70_000, 1, 2, 2, 3))
    clips = normalize(frames, torch.float16, (0.0,) * 3, (1.0,) * 3, 3)
    torch.testing.assert_close(clips.cpu(), clip_normalize_ref(frames, torch.float16, (0.0,) * 3, (1.0,) * 3))


def test_frames_that_are_not_contiguous():
    view = random_frames((2, 6, 9, 8, 3))[:, ::2, 1:, 2:6]
    clips = normalize(view, torch.float32, (0.0,) * 3, (1.0,) * 3, 3)
    torch.testing.assert_close(clips.cpu(), clip_normalize_ref(view, mean=(0.0,) * 3, std=(1.0,) * 3))
