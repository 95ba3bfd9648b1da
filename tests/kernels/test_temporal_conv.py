"""temporal_conv's definition: against torchvision's own modules, and its gradients against differences in fp64."""

import pytest
import torch
from torch import nn

from kernels.channel_sums import channel_moments
from kernels.temporal_conv import temporal_conv

SHAPES = [  # N, T, P, C, C', stride
    (2, 4, 6, 5, 3, 1),
    (1, 1, 7, 3, 4, 1),
    (2, 5, 3, 4, 6, 2),
    (1, 2, 9, 9, 2, 2),
]


def random_case(shape, dtype=torch.float64, seed=0):
    """x, weight, gamma, beta, then mean and biased variance of x; the means are not near zero."""
    batch, length, pixels, channels, out_channels, _ = shape
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, length, pixels, channels, generator=generator, dtype=torch.float64)
    x = (x * torch.linspace(0.5, 2, channels) + torch.linspace(-1, 1.5, channels)).to(dtype)
    weight = torch.randn(out_channels, channels, 3, generator=generator, dtype=torch.float64) / (3 * channels) ** 0.5
    gamma = torch.rand(channels, generator=generator, dtype=torch.float64) + 0.5
    beta = torch.randn(channels, generator=generator, dtype=torch.float64) / 2
    return x, weight.to(dtype), gamma.to(dtype), beta.to(dtype), *statistics_of(x)


def statistics_of(x):
    return channel_moments(x.flatten(0, -2))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("training", [True, False])
def test_is_batch_norm_relu_and_conv3d(shape, training):
    x, weight, gamma, beta, mean, var = random_case(shape)
    channels, out_channels, stride = shape[3:]
    norm = nn.BatchNorm3d(channels, dtype=torch.float64)
    conv = nn.Conv3d(channels, out_channels, (3, 1, 1), (stride, 1, 1), (1, 0, 0), bias=False, dtype=torch.float64)
    with torch.no_grad():
        norm.weight.copy_(gamma), norm.bias.copy_(beta), conv.weight.copy_(weight[..., None, None])
        if not training:
            mean, var = mean + 0.5, var * 3
            norm.running_mean.copy_(mean), norm.running_var.copy_(var)
    expected = conv(norm.train(training)(x.permute(0, 3, 1, 2)[..., None]).relu())[..., 0].permute(0, 2, 3, 1)
    z, sums = temporal_conv(x, weight, gamma, beta, mean, var, norm.eps, stride, is_batch=training)
    torch.testing.assert_close(z, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(sums, torch.stack((z.sum((0, 1, 2)), z.square().sum((0, 1, 2)))), rtol=1e-12, atol=1e-12)
    assert z.abs().max() > 0.1


@pytest.mark.parametrize("shape", SHAPES[::2])
@pytest.mark.parametrize("is_batch", [True, False])
def test_gradients(shape, is_batch):
    x, weight, gamma, beta, mean, var = random_case(shape)

    def call(x, weight, gamma, beta):
        return temporal_conv(x, weight, gamma, beta, mean, var, 1e-5, shape[-1], is_batch=is_batch)[0]

    # With the batch's statistics they follow x within the definition, so differences see them move too.
    inputs = [value.requires_grad_() for value in (x, weight, gamma, beta)]
    assert torch.autograd.gradcheck(call, inputs)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"x": torch.zeros(2, 3, 4)}, "x must be floating"),
        ({"x": torch.zeros(2, 3, 4, 5, dtype=torch.int64)}, "x must be floating"),
        ({"weight": torch.zeros(4, 6, 3)}, r"weight must be \[C', 5, 3\]"),
        ({"gamma": torch.zeros(4)}, "must be \\[5\\]"),
        ({"stride": 3}, "stride must be 1 or 2, not 3"),
    ],
)
def test_refused(change, reason):
    of_channels = {name: torch.ones(5) for name in ("gamma", "beta", "mean", "var")}
    good = {"x": torch.zeros(2, 3, 4, 5), "weight": torch.zeros(4, 5, 3), **of_channels, "eps": 1e-5, "stride": 1}
    with pytest.raises(ValueError, match=reason):
        temporal_conv(**{**good, **change})
