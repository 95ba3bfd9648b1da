"""Batch-norm of clips: torchvision's function, whichever way its sums are made, eager and traced."""

import pytest
import torch
from torch import nn

from engine.models import norm as norm_module
from engine.models.backbones import VideoResNet
from engine.models.flat import _MULTIPLE as FILLED
from engine.models.flat import aligned
from engine.models.norm import ClipBatchNorm, normalise, use_clip_batch_norm
from kernels import channel_sums
from kernels.channel_sums import channel_moments_ref
from tests.models.test_flat import loss_curve


def network(form: str) -> VideoResNet:
    torch.manual_seed(0)
    return VideoResNet("r2plus1d_18", 5, form=form).double().to(memory_format=torch.channels_last_3d)


def by_sums(model: VideoResNet) -> None:
    for module in model.modules():
        if isinstance(module, ClipBatchNorm):
            module.by_sums = True


def results(model: VideoResNet, call: nn.Module, clips: torch.Tensor) -> list[dict[str, torch.Tensor]]:
    """Features, gradients and running statistics of a step."""
    features = call(clips)
    features.square().sum().backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    return [{"features": features.detach()}, gradients, dict(model.named_buffers())]


@pytest.mark.parametrize(
    ("form", "multiple", "backend"),
    [
        ("published", 1, None), ("flat", 1, None), ("flat", 8, None), ("published", 1, "aot_eager"),
        ("flat", 8, "aot_eager"), pytest.param("flat", 1, "aot_eager", marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_with_sums_of_its_own_it_is_the_same_function(form, multiple, backend, monkeypatch):
    monkeypatch.setitem(FILLED, "cpu", multiple)
    clips = torch.randn(2, 3, 4, 24, 24, dtype=torch.float64).contiguous(memory_format=torch.channels_last_3d)
    published, model = network("published"), network(form)
    if backend is not None:  # two of the four stages: compiling takes the time
        for each in (published, model):
            each.layer3 = each.layer4 = nn.Sequential()
    by_sums(model)
    assert list(model.state_dict()) == list(published.state_dict())
    call = model if backend is None else torch.compile(model, backend=backend, fullgraph=True)
    expected = results(published, published, clips)
    torch.testing.assert_close(results(model, call, clips), expected, rtol=1e-9, atol=1e-9)
    assert all(gradient.abs().max() > 0 for gradient in expected[1].values())
    published.eval(), model.eval()
    with torch.no_grad():
        torch.testing.assert_close(model(clips), published(clips), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("form", ["published", "flat"])
def test_fifty_steps_give_the_same_loss_curve(form):
    clips = torch.randn(8, 3, 2, 24, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    clips = clips.contiguous(memory_format=torch.channels_last_3d)
    targets = torch.randn(8, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    curves = []
    for has_sums in (False, True):
        model = network(form)
        if has_sums:
            by_sums(model)
        curves.append(loss_curve(model, clips, targets, lr=2e-5))
    assert curves[0][-1] < 0.97 * curves[0][0]
    # Rounding grows from step to step; a function that is another one parts at once.
    assert curves[1][:20] == pytest.approx(curves[0][:20], rel=1e-10)
    assert curves[1] == pytest.approx(curves[0], rel=1e-6)


@pytest.mark.parametrize("videos", [1, 2])
def test_sums_are_of_a_matrix_that_lies_in_one_run_of_memory(videos, monkeypatch):
    """That the kernels take it for: of a single picture in [C, H, W] memory a view would be its transposed."""
    taken = []

    def take(x):
        taken.append(x.is_contiguous())
        return channel_moments_ref(x)

    monkeypatch.setattr(channel_sums, "channel_moments_ref", take)
    norm = ClipBatchNorm(6)
    norm.by_sums = True
    x = torch.randn(videos, 6, 3, 4) + 2
    expected = nn.BatchNorm2d(6)(x)
    torch.testing.assert_close(norm_module.batch_norm(x, norm), expected)
    convolution = network("fused").layer1[0].conv1.float().train()
    clips = torch.randn(videos, convolution[0][0].in_channels, 1, 8, 8)
    convolution(clips)
    assert len(taken) == 2 and all(taken)


def test_a_batch_norm_by_itself():
    """With both ways of summing, and clips whose memory is not channels-last."""
    torch.manual_seed(0)
    clips = torch.randn(3, 4, 2, 5, 6, dtype=torch.float64)
    plain = nn.BatchNorm3d(4).double()
    nn.init.normal_(plain.weight)
    ours = nn.Sequential(nn.BatchNorm3d(4)).double()
    ours[0].load_state_dict(plain.state_dict())
    for has_sums in (False, True):
        use_clip_batch_norm(ours, by_sums=has_sums)
        ours[0].by_sums = has_sums
        for layout in (torch.channels_last_3d, torch.contiguous_format):
            torch.testing.assert_close(ours(clips.contiguous(memory_format=layout)), plain(clips))
            torch.testing.assert_close(ours[0].state_dict(), plain.state_dict())
    with pytest.raises(ValueError, match="more than one value"):
        ours[0].train()(clips[:1, :, :1, :1, :1].contiguous(memory_format=torch.channels_last_3d))


def test_normalising_with_known_statistics_has_batch_norms_gradient():
    torch.manual_seed(0)
    x = (torch.randn(3, 4, 2, 5, dtype=torch.float64) + 1).requires_grad_()
    norm = ClipBatchNorm(4).double()
    nn.init.uniform_(norm.weight), nn.init.normal_(norm.bias)
    inputs = (x, norm.weight, norm.bias)
    var, mean = torch.var_mean(x.detach(), dim=(0, 2, 3), correction=0)
    for relu in (False, True):
        expected = nn.functional.batch_norm(x, None, None, norm.weight, norm.bias, True, 0.0, norm.eps)
        expected = expected.relu() if relu else expected
        actual = normalise(x, norm, mean, var, relu=relu)
        torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)
        gradients = [torch.autograd.grad(y.sin().sum(), inputs) for y in (actual, expected)]
        torch.testing.assert_close(*gradients, rtol=1e-11, atol=1e-12)
        assert gradients[0][0].abs().max() > 0.01


def test_channels_are_filled_as_tensor_cores_want_them():
    gpu = torch.device("cuda")
    assert [aligned(channels, gpu) for channels in (3, 45, 144, 230, 288, 460, 576, 921)] == [
        8, 48, 144, 256, 288, 512, 576, 960,
    ]  # fmt: skip
    assert aligned(45, torch.device("cpu")) == 45
