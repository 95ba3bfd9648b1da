"""Activations that are computed again: same gradients, effects once, less memory, also under torch.compile."""

import copy

import pytest
import torch
from torch import nn

from engine.models.backbones import VideoResNet
from engine.models.c3d import C3D
from engine.models.recompute import recomputed


def part() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv3d(3, 5, 3), nn.BatchNorm3d(5), nn.ReLU(), nn.Dropout3d(0.5), nn.Conv3d(5, 4, 1)
    ).double()


def gradients(network: nn.Module, call, clips: torch.Tensor) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    call(clips).square().sum().backward()
    return {name: parameter.grad for name, parameter in network.named_parameters()}


@pytest.mark.parametrize("is_compiled", [False, True])
def test_gradients_are_equal_and_effects_happen_once(is_compiled):
    kept, again = part(), part()
    if is_compiled:  # a compiled graph draws other numbers for dropout
        kept[3], again[3] = nn.Identity(), nn.Identity()
    clips = torch.randn(4, 3, 4, 6, 6, dtype=torch.float64)
    call = lambda x: recomputed(again, x)  # noqa: E731
    if is_compiled:
        call = torch.compile(call, backend="aot_eager")
    expected = gradients(kept, kept, clips)
    actual = gradients(again, call, clips)
    assert all(gradient.abs().max() > 0 for name, gradient in expected.items() if name != "0.bias")
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(again.state_dict(), kept.state_dict(), rtol=1e-12, atol=1e-12)
    assert int(again[1].num_batches_tracked) == 1
    assert again[1].running_mean is dict(again[1].named_buffers())["running_mean"]


def test_without_gradients_nothing_is_set_up():
    network = part().eval()
    clips = torch.randn(2, 3, 4, 6, 6, dtype=torch.float64)
    with torch.no_grad():
        assert torch.equal(recomputed(network, clips), network(clips))


@pytest.mark.parametrize(
    "build",
    [lambda: VideoResNet("r2plus1d_18", 4, form="flat"), lambda: VideoResNet("mc3_18", 4), lambda: C3D(16, 32, 4)],
)
def test_backbones_keep_less_memory_and_give_the_same_gradients(build):
    torch.manual_seed(0)
    kept = build().double()
    again = copy.deepcopy(kept)
    again.recompute = True
    clips = torch.randn(2, 3, 16, 32, 32, dtype=torch.float64)
    found, num_bytes = [], []
    for network in (kept, again):
        saved: dict[int, int] = {}

        def note(tensor: torch.Tensor, saved: dict[int, int] = saved) -> torch.Tensor:
            saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            features = network(clips)
        num_bytes.append(sum(saved.values()) - sum(p.untyped_storage().nbytes() for p in network.parameters()))
        features.square().sum().backward()
        found.append({name: parameter.grad for name, parameter in network.named_parameters()})
    assert all(torch.equal(gradient, found[1][name]) for name, gradient in found[0].items())
    assert num_bytes[1] < 0.5 * num_bytes[0]
