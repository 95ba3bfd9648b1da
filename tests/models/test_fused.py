"""The fused form is the published function: outputs, gradients, statistics, state dicts, and a whole training curve."""

import pytest
import torch
from torch import nn
from torchvision.models import video

from engine.models.backbones import VideoResNet, choose_form
from engine.models.config import ModelConfig
from engine.models.flat import _MULTIPLE as FILLED
from engine.models.fused import FusedConvolution
from tests.models.test_flat import assert_same_state, loss_curve


def trio(width: int = 5) -> list[VideoResNet]:
    """The three forms with the same random weights, fp64."""
    torch.manual_seed(0)
    published = VideoResNet("r2plus1d_18", width).double()
    others = [
        VideoResNet("r2plus1d_18", width, form=form).double().to(memory_format=torch.channels_last_3d)
        for form in ("flat", "fused")
    ]
    for network in others:
        network.load_state_dict(published.state_dict())
    return [published, *others]


@pytest.mark.parametrize(("width", "multiple"), [(64, 1), (5, 8)])  # channels as they are (CPU) and filled (GPU)
def test_same_function_and_gradients_as_torchvision(width, multiple, monkeypatch):
    """Torchvision's own at its width; a narrow one is held to the published form (tests/models/test_backbones.py)."""
    monkeypatch.setitem(FILLED, "cpu", multiple)
    torch.manual_seed(0)
    published = (video.r2plus1d_18(weights=None) if width == 64 else VideoResNet("r2plus1d_18", width)).double()
    published.fc = nn.Identity()
    fused = VideoResNet("r2plus1d_18", width, form="fused").double().to(memory_format=torch.channels_last_3d)
    fused.load_state_dict(published.state_dict())  # strict
    clips = torch.randn(2, 3, 3, 12, 18, dtype=torch.float64)
    results = []
    for network in (published, fused):
        x = clips.clone().requires_grad_()
        features = network(x)
        (features * torch.linspace(-1, 1, 8 * width)).logsumexp(dim=1).sum().backward()
        results.append((features.detach(), x.grad, {n: p.grad for n, p in network.named_parameters()}))
    expected, actual = results
    assert expected[0].std() > 0.05
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)
    assert all(gradient.abs().max() > 0 for gradient in actual[2].values())
    assert_same_state(fused, published)  # the running statistics moved alike
    published.eval(), fused.eval()
    frozen = []
    for network in (published, fused):  # with gradients through statistics that stand still
        x = clips.clone().requires_grad_()
        features = network(x)
        features.square().sum().backward()
        frozen.append((features.detach(), x.grad))
    torch.testing.assert_close(frozen[1], frozen[0], rtol=1e-9, atol=1e-9)
    assert_same_state(fused, published)  # and did stand still


@pytest.mark.parametrize("layout", [torch.channels_last_3d, torch.contiguous_format])
@pytest.mark.parametrize("size", [(2, 3, 1, 9, 9), (2, 3, 5, 17, 19), (1, 3, 16, 8, 8)])
def test_any_size_and_memory(size, layout):
    published, _, fused = trio()
    clips = torch.randn(size, dtype=torch.float64).contiguous(memory_format=layout)
    torch.testing.assert_close(fused(clips), published(clips), rtol=1e-9, atol=1e-9)


def test_fifty_steps_give_the_same_loss_curve():
    """In fp64 to 1e-9, at a rate at which rounding has not grown past that yet (tests/models/test_flat.py)."""
    torch.manual_seed(1)
    clips = torch.randn(8, 3, 2, 24, 24, dtype=torch.float64).contiguous(memory_format=torch.channels_last_3d)
    targets = torch.randn(8, 24, dtype=torch.float64)
    curves = []
    for network in trio(3):
        curves.append(loss_curve(network, clips, targets, lr=2e-5))
    published, flat, fused = curves
    assert fused[-1] < 0.8 * fused[0]
    assert flat == pytest.approx(published, rel=1e-9)  # so much is rounding
    assert fused == pytest.approx(published, rel=1e-9)


def test_another_batch_norm_in_its_place_is_called():
    """As SyncBatchNorm's conversion does it, in any of the places."""
    published, _, fused = trio()

    class Counting(nn.BatchNorm3d):
        calls = 0

        def _check_input_dim(self, x):
            """Any number, as SyncBatchNorm takes."""

        def forward(self, x):
            Counting.calls += 1
            return super().forward(x)

    for sequence, place in ((fused.stem, 4), (fused.layer1[0].conv1[0], 1), (fused.layer2[1].conv2, 1)):
        norm = Counting(sequence[place].num_features).double()
        norm.load_state_dict(sequence[place].state_dict())
        sequence[place] = norm
    clips = torch.randn(2, 3, 4, 12, 12, dtype=torch.float64)
    torch.testing.assert_close(fused(clips), published(clips), rtol=1e-9, atol=1e-9)
    assert Counting.calls == 3
    assert_same_state(fused, published)


def test_one_value_a_channel_is_refused_as_everywhere():
    _, _, fused = trio()
    with pytest.raises(ValueError, match="more than one value"):
        fused(torch.randn(1, 3, 1, 8, 8, dtype=torch.float64))


def test_who_has_a_fused_form():
    chosen, _ = choose_form(ModelConfig(backbone="r2plus1d_18", form="fused"), torch.device("cuda"))
    assert chosen == "fused"
    assert choose_form(ModelConfig(backbone="r3d_18", form="fused"), torch.device("cuda"))[0] == "published"
    blocks = [m for m in VideoResNet("r2plus1d_18", 4, form="fused").modules() if isinstance(m, FusedConvolution)]
    assert len(blocks) == 16
    mixed = VideoResNet("mc3_18", 4, form="fused")  # has nothing to fuse, and is flat
    assert not any(isinstance(m, FusedConvolution) for m in mixed.modules())
