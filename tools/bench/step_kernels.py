"""Cases of `kernels` from a training step: sums over channels, and a convolution in time with the batch-norm before it.

The sizes are those of R(2+1)D-18's first stage, where most of a step's memory is.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch.nn import functional

from bench.cases import Case, Problem
from bench.peaks import DTYPES
from kernels.channel_sums import channel_moments, gradient_sums, gradient_sums_ref
from kernels.temporal_conv import temporal_conv

_EPS = 1e-5


def build_step_problems(device: torch.device, clips: int, half: str) -> list[Problem]:
    """Of so many clips of 16x112x112 on a GPU; of 4x28x28 on a CPU."""
    length, side = (16, 56) if device.type == "cuda" else (4, 14)
    size = (clips, length, side * side)
    problems = [
        Problem(f"channel_moments {clips} clips, 144 channels", partial(_moments_case, size, 144, half, device))
    ]
    problems.append(Problem(f"gradient_sums {clips} clips, 144 channels", partial(_sums_case, size, 144, half, device)))
    for channels in (48, 144):
        name = f"temporal_conv {clips} clips, {channels} to 64"
        problems.append(Problem(name, partial(_conv_case, size, channels, half, device, backward=False)))
        backward = partial(_conv_case, size, channels, half, device, backward=True)
        problems.append(Problem(f"{name}, with gradients", backward))
    return problems


def _moments_case(size: tuple[int, int, int], channels: int, precision: str, device: torch.device) -> Case:
    x = _random((size[0] * size[1] * size[2], channels), precision, device)

    def unfused(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        var, mean = torch.var_mean(x.float(), dim=0, correction=0)
        return mean, var

    return _case((x,), channel_moments, unfused, x.nbytes, 3 * x.numel(), precision)


def _sums_case(size: tuple[int, int, int], channels: int, precision: str, device: torch.device) -> Case:
    grad, x = (_random((size[0] * size[1] * size[2], channels), precision, device) for _ in range(2))
    mean, scale, shift = (torch.rand(channels, device=device) for _ in range(3))
    ours = partial(gradient_sums, relu=True)
    return _case(
        (grad, x, mean, scale, shift),
        ours,
        partial(gradient_sums_ref, relu=True),
        2 * x.nbytes,
        6 * x.numel(),
        precision,
    )


def _conv_case(
    size: tuple[int, int, int], channels: int, precision: str, device: torch.device, *, backward: bool
) -> Case:
    x = _random((*size, channels), precision, device).requires_grad_(backward)
    weight = (torch.randn(64, channels, 3, device=device) / (3 * channels) ** 0.5).requires_grad_(backward)
    gamma, beta = (torch.rand(channels, device=device).requires_grad_(backward) for _ in range(2))
    grad = _random((*size, 64), precision, device)

    def ours() -> tuple[torch.Tensor, torch.Tensor]:
        mean, var = channel_moments(x.detach().flatten(0, 2))  # as a step has to, and the rival does
        return temporal_conv(x, weight, gamma, beta, mean, var, _EPS)

    def unfused() -> tuple[torch.Tensor, torch.Tensor]:
        norm = functional.batch_norm(x.permute(0, 3, 1, 2), None, None, gamma, beta, True, 0.0, _EPS)
        z = functional.conv2d(functional.relu(norm), weight.to(x.dtype)[..., None], None, 1, (1, 0)).permute(0, 2, 3, 1)
        wide = z.detach().flatten(0, 2).float()
        return z, torch.stack((wide.sum(0), wide.square().sum(0)))

    def with_gradients(forward: Callable[[], tuple[torch.Tensor, torch.Tensor]]) -> tuple[torch.Tensor, ...]:
        return torch.autograd.grad(forward()[0], (x, weight, gamma, beta), grad)

    calls = [partial(with_gradients, each) if backward else each for each in (ours, unfused)]
    moved = 2 * x.nbytes + grad.nbytes  # its statistics need a pass of their own
    if backward:
        moved += 2 * x.nbytes + grad.nbytes  # again x and the gradient, then dx
    flop = 2 * size[0] * size[1] * size[2] * 3 * channels * 64 * (3 if backward else 1)
    return _case((), *calls, moved, flop, precision, arithmetic=precision)


def _random(size: tuple[int, ...], precision: str, device: torch.device) -> torch.Tensor:
    return torch.randn(size, device=device).add_(1).to(DTYPES[precision])


def _case(
    inputs: tuple[torch.Tensor, ...], ours: Callable[..., object], unfused: Callable[..., object],
    moved: int, flop: int, dtype: str, arithmetic: str = "fp32",
) -> Case:  # fmt: skip
    return Case(inputs, {"kernel": ours}, unfused, moved, flop, dtype, arithmetic)
