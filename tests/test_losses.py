"""Losses against numbers worked out by hand."""

import pytest
import torch

from engine.config import LossConfig
from engine.losses import build_loss

PREDICTION = torch.tensor([[1.0, 2.0], [3.0, 0.0], [0.0, 4.0]])
TARGET = torch.tensor([[1.0, 0.0], [0.0, 4.0], [0.0, 1.0]])
# squared distances 4, 25, 9; cosines 1 / sqrt(5), 0, 1
EXPECTED = {"squared": 38 / 3, "mse": 38 / 6, "cosine": 1 - (5**-0.5 + 0 + 1) / 3}


@pytest.mark.parametrize("name", EXPECTED)
def test_by_hand(name):
    loss = build_loss(LossConfig(name))(PREDICTION, TARGET)
    assert loss.shape == () and loss.item() == pytest.approx(EXPECTED[name], rel=1e-6)


def test_gradient_of_squared_does_not_depend_on_the_batch_size():
    loss = build_loss(LossConfig("squared"))
    gradients = []
    for repeats in (1, 4):
        bias = torch.zeros(2, requires_grad=True)
        loss(PREDICTION.repeat(repeats, 1) + bias, TARGET.repeat(repeats, 1)).backward()
        gradients.append(bias.grad)
    torch.testing.assert_close(gradients[0], 2 * (PREDICTION - TARGET).mean(0))
    torch.testing.assert_close(gradients[1], gradients[0])


@pytest.mark.parametrize("name", EXPECTED)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_fp32_arithmetic_whatever_autocast(name, dtype):
    torch.manual_seed(0)
    prediction, target = torch.randn(64, 300).to(dtype), torch.randn(64, 300)
    expected = build_loss(LossConfig(name))(prediction.double(), target.double())
    with torch.autocast("cpu", torch.bfloat16):
        loss = build_loss(LossConfig(name))(prediction, target)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_cosine_of_a_zero_vector_is_distance_one_with_a_finite_gradient():
    prediction = torch.zeros(1, 2, requires_grad=True)
    loss = build_loss(LossConfig("cosine"))(prediction, TARGET[:1])
    loss.backward()
    assert loss.item() == 1 and torch.isfinite(prediction.grad).all()


@pytest.mark.parametrize("name", EXPECTED)
def test_shapes_that_would_broadcast_are_refused(name):
    with pytest.raises(ValueError, match=r"\(3, 2\) and target \(2,\)"):
        build_loss(LossConfig(name))(PREDICTION, TARGET[0])
