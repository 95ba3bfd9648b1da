"""Sums of columns: against NumPy in fp64, as operations of torch.library, and where the digits are."""

import numpy as np
import pytest
import torch

from kernels.channel_sums import channel_moments, gradient_sums


def random_case(rows, columns, dtype, mean=3.0):
    """grad, x [M, C] and a batch-norm's mean, scale and shift."""
    generator = torch.Generator().manual_seed(rows + columns)
    grad, x = (torch.randn(rows, columns, generator=generator).to(dtype) for _ in range(2))
    x = (x + mean).to(dtype)
    wide = torch.promote_types(dtype, torch.float32)
    scale, shift = (torch.randn(columns, generator=generator, dtype=wide) for _ in range(2))
    return grad, x, x.to(wide).mean(dim=0), scale, shift - scale * mean


def expected_sums(grad, x, mean, scale, shift, relu):
    grad, x, mean, scale, shift = (each.double().numpy() for each in (grad, x, mean, scale, shift))
    if relu:
        grad = np.where(x * scale + shift > 0, grad, 0)
    return grad.sum(0), (grad * (x - mean)).sum(0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_moments_are_numpys(dtype):
    _, x, *_ = random_case(301, 5, dtype)
    mean, var = channel_moments(x)
    assert mean.dtype == var.dtype == torch.promote_types(dtype, torch.float32)
    np.testing.assert_allclose(mean.double(), x.double().numpy().mean(0), rtol=1e-6)
    np.testing.assert_allclose(var.double(), x.double().numpy().var(0), rtol=1e-5)


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_gradients_sums_are_numpys(dtype, relu):
    case = random_case(301, 5, dtype)
    found = gradient_sums(*case, relu)
    for mine, theirs in zip(found, expected_sums(*case, relu), strict=True):
        np.testing.assert_allclose(mine.double(), theirs, rtol=1e-4, atol=2e-3)
    assert (found[0] != gradient_sums(*case, not relu)[0]).any()


def test_a_large_mean_costs_no_digits():
    _, x, *_ = random_case(1000, 3, torch.float32, mean=1e4)
    np.testing.assert_allclose(channel_moments(x)[1], x.double().numpy().var(0), rtol=1e-3)


def test_they_are_operations_that_the_compiler_can_take():
    grad, x, mean, scale, shift = random_case(9, 4, torch.bfloat16)
    checks = ("test_schema", "test_faketensor")
    torch.library.opcheck(torch.ops.unseen.channel_moments, (x,), test_utils=checks)
    torch.library.opcheck(torch.ops.unseen.gradient_sums, (grad, x, mean, scale, shift, True), test_utils=checks)


@pytest.mark.parametrize("layout", [torch.channels_last_3d, torch.contiguous_format])
@pytest.mark.parametrize("shape", [(2, 5, 3, 4, 6), (1, 5, 1, 4, 6), (3, 1, 2, 4, 4), (2, 5, 1, 1, 1)])
def test_clips_are_the_matrix_of_their_channels(shape, layout):
    """Also where strides say little about the order: one clip of one frame, one channel, one pixel."""
    matrices = random_case(shape[0] * shape[2] * shape[3] * shape[4], shape[1], torch.float32)
    grad, x = (each.view(shape[0], *shape[2:], shape[1]).movedim(-1, 1) for each in matrices[:2])
    clips = [each.contiguous(memory_format=layout) for each in (grad, x)]
    torch.testing.assert_close(channel_moments(clips[1]), channel_moments(matrices[1]))
    torch.testing.assert_close(gradient_sums(*clips, *matrices[2:], True), gradient_sums(*matrices, True))
