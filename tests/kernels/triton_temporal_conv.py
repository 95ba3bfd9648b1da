"""The Triton kernels of temporal_conv against its definition in fp64; run as triton_cosine_topk.py is."""

import pytest
import torch

import kernels.temporal_conv as module
from engine.models.backbones import VideoResNet
from engine.models.flat import _MULTIPLE as FILLED
from kernels.temporal_conv import temporal_conv, temporal_conv_ref
from kernels.temporal_conv_triton import _WALKED as WIDEST
from kernels.temporal_conv_triton import TILES, WALK, config_of
from tests.kernels.interpreter import DEVICE, INTERPRETED, few
from tests.kernels.test_temporal_conv import random_case, statistics_of

# Of the largest element: a rounding of the normalised activations, one of the result, and so for the gradients. The
# interpreter cuts bf16 off instead of rounding it.
TOLERANCE = {torch.float32: 2e-6, torch.float16: 2**-9, torch.bfloat16: 2**-5 if INTERPRETED else 2**-6}
SHAPES = [  # N, T, P, C, C', stride
    (2, 4, 5, 8, 8, 1),
    (1, 3, 49, 40, 16, 1),
    (1, 1, 3, 16, 72, 1),
    (2, 5, 9, 24, 8, 2),
    (1, 4, 30, 72, 24, 2),
]
if not INTERPRETED:
    SHAPES += [(2, 16, 3136, 144, 64, 1), (2, 16, 784, 232, 128, 2), (3, 2, 49, 1152, 512, 1)]


@pytest.fixture(autouse=True, params=["tiles", "walk"])
def form(request, monkeypatch):
    """The kernels are taken for tensors on the CPU and fp32 too; in the interpreter with small blocks."""
    monkeypatch.setattr(module, "takes_triton", lambda dtype, device: dtype != torch.float64)
    if request.param == "tiles":  # for every shape
        monkeypatch.setattr("kernels.temporal_conv_triton._WALKED", (0, 0))
    if INTERPRETED:
        small = {"BLOCK_P": 32, "BLOCK_M": 32, "BLOCK_N": 16, "BLOCK_K": 16, "BLOCK_C": 32}
        for config in (*TILES.values(), *WALK.values()):
            for name in small.keys() & config.keys():
                monkeypatch.setitem(config, name, small[name])
    return request.param


def results(call, x, weight, gamma, beta, mean, var, stride, is_batch):
    """z, sums, and the gradients of a loss of z."""
    inputs = [value.detach().to(DEVICE).requires_grad_() for value in (x, weight, gamma, beta)]
    z, sums = call(*inputs, mean.to(DEVICE), var.to(DEVICE), 1e-5, stride, is_batch=is_batch)
    assert not sums.requires_grad
    weights = torch.linspace(-1, 1, z.numel(), dtype=torch.float64).view(z.shape).mul(9).sin().to(DEVICE)
    (z.double() * weights).mean().backward()
    return [value.detach().cpu().double() for value in (z, sums, *(value.grad for value in inputs))]


@pytest.mark.parametrize("dtype", few(TOLERANCE, rare=torch.float16))
@pytest.mark.parametrize("is_batch", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_the_definition(shape, is_batch, dtype, form):
    if form == "walk" and "BLOCK_P" not in config_of("forward", *shape[3:], torch.device(DEVICE)):
        pytest.skip("takes the tiles")
    if form == "walk" and not INTERPRETED and dtype == torch.float32 and shape[3:5] == WIDEST:
        pytest.skip("fp32, which is no type of the kernels, takes more shared memory than there is")
    x, weight, gamma, beta, _, _ = random_case(shape)
    x, weight = x.to(dtype), weight.to(dtype)
    mean, var = statistics_of(x.double()) if is_batch else (torch.full_like(gamma, 0.2), torch.full_like(gamma, 1.5))
    of_channels = (gamma, beta, mean, var)
    actual = results(temporal_conv, x, weight, *(v.float() for v in of_channels), shape[-1], is_batch)
    expected = results(temporal_conv_ref, x.double(), weight.double(), *of_channels, shape[-1], is_batch)
    for name, one, other in zip(("z", "sums", "x", "weight", "gamma", "beta"), actual, expected, strict=True):
        assert one.shape == other.shape and other.abs().max() > 1e-4, name
        error = (one - other).abs().max() / other.abs().max()
        assert error <= TOLERANCE[dtype], (name, error)


def test_a_shift_that_overflows_spoils_no_gradient():
    """A constant channel far below zero: its shift is beyond fp16, and so is what a frame that is not there would be."""
    x, weight, gamma, beta, *_ = random_case((1, 3, 5, 8, 8, 1))
    x[..., 0] = -250
    of_channels = (gamma, beta, *statistics_of(x))
    actual = results(temporal_conv, x.half(), weight.half(), *(v.float() for v in of_channels), 1, True)
    expected = results(temporal_conv_ref, x, weight, *of_channels, 1, True)
    for one, other in zip(actual[3:], expected[3:], strict=True):
        assert (one - other).abs().max() <= 2**-8 * other.abs().max()


@pytest.mark.parametrize("dtype", [torch.float16])
def test_the_operations_tell_a_compiler_the_truth(dtype):
    """Shapes, types, strides and gradients as `register_fake` and `register_autograd` say them."""
    x, weight, gamma, beta, mean, var = (v.to(DEVICE) for v in random_case((2, 4, 5, 8, 8, 2), torch.float32))
    taps = weight.permute(2, 1, 0).to(dtype).contiguous()
    inputs = [value.requires_grad_() for value in (x.flatten(1, 2).to(dtype), taps, gamma, beta)]
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(module._temporal_conv, (*inputs, mean, var.rsqrt(), 4, 2, True), test_utils=tests)


def train_block(form, place, monkeypatch):
    """A residual block's result, gradients, statistics and the bytes it keeps for the backward pass, in fp32."""
    monkeypatch.setitem(FILLED, DEVICE, 8)
    torch.manual_seed(0)
    network = VideoResNet("r2plus1d_18", 8, form=form).to(DEVICE, memory_format=torch.channels_last_3d)
    block = network.get_submodule(place)
    x = torch.randn(2, 8, 3, 6, 5, device=DEVICE).contiguous(memory_format=torch.channels_last_3d).requires_grad_()
    own, kept = {value.untyped_storage()._cdata for value in (*block.parameters(), *block.buffers())}, {}

    def pack(value):
        storage = value.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage  # alive, so that no address comes twice
        return value

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        z = block(x)
    (z * torch.linspace(-1, 1, z.numel(), device=DEVICE).view(z.shape)).sum().backward()
    found = {"z": z, "x": x.grad, **{n: p.grad for n, p in block.named_parameters()}, **dict(block.named_buffers())}
    return {name: value.detach().cpu() for name, value in found.items()}, sum(s.nbytes() for s in kept.values())


@pytest.mark.parametrize(("place", "stride"), [("layer1.0", 1), ("layer2.0", 2)])
def test_a_residual_block_equals_the_flat_one_and_keeps_less(place, stride, form, monkeypatch):
    actual, kept = train_block("fused", place, monkeypatch)
    expected, kept_flat = train_block("flat", place, monkeypatch)
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(actual[name], value, rtol=2e-4, atol=2e-5 * value.abs().max().item(), msg=name)
        assert value.abs().max() > 0
    # What lies normalised between the convolutions, filled up to a multiple of 8.
    frames, pixels, channels = (2 * 3, 2 * 3), (30, 30), (24, 24)
    if stride == 2:
        frames, pixels, channels = (2 * 3, 2 * 2), (9, 9), (32, 32)
    less = sum(4 * a * b * c for a, b, c in zip(frames, pixels, channels, strict=True))
    assert kept_flat - kept == pytest.approx(less, rel=0.1)
