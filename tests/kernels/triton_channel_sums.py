"""The Triton kernels of `channel_sums` against NumPy in fp64. Run by tests/kernels/test_triton.py in a process of its own: in
Triton's interpreter (TRITON_INTERPRET=1, CPU tensors), and compiled where there is a GPU."""

import numpy as np
import pytest
import torch

from kernels import channel_sums_triton
from kernels.channel_sums_triton import channel_moments_triton, gradient_sums_triton
from tests.kernels.interpreter import DEVICE, INTERPRETED
from tests.kernels.test_channel_sums import expected_sums, random_case

# Rows x columns: one row, less than a block, ragged ends, columns that divide no block and some that do, several blocks a program.
SIZES = [(1, 8), (7, 45), (301, 48), (700, 232), (40_000, 5), (2000, 144), (700, 64), (3, 2048), (30_000, 1)]
DTYPES = [torch.float32, torch.float16] if INTERPRETED else [torch.float32, torch.float16, torch.bfloat16]


def on_device(case):
    return [each.to(DEVICE) for each in case]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "columns"), SIZES)
def test_moments(rows, columns, dtype):
    _, x, *_ = random_case(rows, columns, dtype, mean=30)
    mean, var = channel_moments_triton(x.to(DEVICE))
    assert mean.dtype == var.dtype == torch.float32 and mean.shape == var.shape == (columns,)
    np.testing.assert_allclose(mean.cpu(), x.double().numpy().mean(0), rtol=1e-5)
    np.testing.assert_allclose(var.cpu(), x.double().numpy().var(0), rtol=1e-3, atol=1e-4)


def test_a_variance_is_never_negative():
    """Far from the first row, rounding outweighs what the others differ by; below zero a batch-norm's root is no number."""
    x = torch.tensor([[1234.56], [3333.3]]).repeat(1, 2_000_000)
    x[:, 0] = 0
    for column in x:
        assert channel_moments_triton(column[:, None].to(DEVICE))[1].item() >= 0


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "columns"), SIZES)
def test_gradients(rows, columns, dtype, relu):
    case = random_case(rows, columns, dtype)
    found = gradient_sums_triton(*on_device(case), relu)
    for mine, theirs in zip(found, expected_sums(*case, relu), strict=True):
        np.testing.assert_allclose(mine.cpu(), theirs, rtol=1e-3, atol=2e-3 * rows**0.5)


def test_several_blocks_come_to_a_program():
    x = torch.zeros(40_000, 5, device=DEVICE)
    programs, blocks = channel_sums_triton._division(x)
    assert programs % 5 == 0 and blocks > 1 and programs * blocks * channel_sums_triton._BLOCK >= x.numel()
