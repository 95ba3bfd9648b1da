"""clip_normalize against fp64 arithmetic in numpy, and the memory it leaves behind."""

import numpy as np
import pytest
import torch

from kernels.clip_normalize import KINETICS_MEAN, KINETICS_STD, clip_normalize, clip_normalize_ref

SHAPES = [(2, 16, 112, 112, 3), (1, 1, 1, 1, 3), (3, 5, 7, 11, 3), (0, 4, 8, 8, 3)]
DTYPES = {
    torch.float32: 2**-24,
    torch.bfloat16: 2**-9,
    torch.float16: 2**-12,
    torch.float64: 2**-53,
}  # half an ulp of 1


def random_frames(shape) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("function", [clip_normalize, clip_normalize_ref])
@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_layout(function, shape, dtype, channels_last):
    frames = random_frames(shape)
    clips = function(frames, dtype, channels_last=channels_last)
    expected = (frames.numpy() / 255 - np.array(KINETICS_MEAN)) / np.array(KINETICS_STD)
    expected = np.moveaxis(expected, -1, 1)
    assert clips.dtype == dtype and clips.shape == expected.shape
    layout = torch.channels_last_3d if channels_last else torch.contiguous_format
    assert clips.is_contiguous(memory_format=layout)
    # One rounding of values up to 2.7, and a few of fp32 on the way (fp64 for fp64).
    error = np.abs(clips.double().numpy() - expected)
    work = DTYPES[torch.float64 if dtype == torch.float64 else torch.float32]
    assert (error <= DTYPES[dtype] * np.maximum(np.abs(expected), 2**-6) * 2 + 8 * work).all()


def test_black_and_white_by_hand():
    frames = torch.tensor([0, 0, 0, 255, 255, 255], dtype=torch.uint8).view(1, 1, 1, 2, 3)
    clips = clip_normalize(frames)
    black = torch.tensor([-1.895189, -1.782190, -1.734881])
    white = torch.tensor([2.490199, 2.733502, 2.873648])
    torch.testing.assert_close(clips[0, :, 0, 0, 0], black, atol=2e-6, rtol=0)
    torch.testing.assert_close(clips[0, :, 0, 0, 1], white, atol=2e-6, rtol=0)


def test_own_constants_and_channel_count():
    frames = random_frames((2, 3, 4, 5, 2))
    clips = clip_normalize(frames, mean=(0.0, 1.0), std=(1 / 255, 0.5))
    torch.testing.assert_close(clips[:, 0], frames[..., 0].float())
    torch.testing.assert_close(clips[:, 1], (frames[..., 1] / 255 - 1) * 2)


def test_frames_that_are_not_contiguous():
    frames = random_frames((2, 6, 9, 8, 3))
    view = frames[:, ::2, 1:, 2:6]
    torch.testing.assert_close(clip_normalize(view), clip_normalize_ref(view))
    assert torch.equal(frames, random_frames((2, 6, 9, 8, 3)))  # and the input is left alone


@pytest.mark.parametrize("channels_last", [True, False])
def test_padded(channels_last):
    frames = random_frames((3, 2, 5, 6, 3))
    clips = clip_normalize(frames, torch.float16, channels=8, channels_last=channels_last)
    assert torch.equal(clips[:, :3], clip_normalize(frames, torch.float16))
    assert not clips[:, 3:].any() and clips.shape == (3, 8, 2, 5, 6)
    layout = torch.channels_last_3d if channels_last else torch.contiguous_format
    assert clips.is_contiguous(memory_format=layout)
    reference = clip_normalize_ref(frames, torch.float16, channels=8, channels_last=channels_last)
    assert reference.is_contiguous(memory_format=layout)
    torch.testing.assert_close(clips, reference)


def test_constants_made_in_evaluation_serve_training():
    mean = (0.1, 0.2, 0.7)  # not used elsewhere, so made here
    with torch.inference_mode():
        clip_normalize(random_frames((1, 2, 4, 4, 3)), mean=mean)
    clips = clip_normalize(random_frames((1, 2, 4, 4, 3)), mean=mean)
    weight = torch.ones(3, requires_grad=True)
    (clips.permute(0, 2, 3, 4, 1) * weight).sum().backward()
    torch.testing.assert_close(weight.grad, clips.sum(dim=(0, 2, 3, 4)))


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match="must be uint8"):
        clip_normalize(torch.zeros(1, 1, 1, 1, 3))
    with pytest.raises(ValueError, match="4 channels need as many means"):
        clip_normalize(torch.zeros(1, 1, 1, 1, 4, dtype=torch.uint8))
    with pytest.raises(ValueError, match="2 channels cannot hold the 3"):
        clip_normalize(random_frames((2, 1, 2, 2, 3)), channels=2)
