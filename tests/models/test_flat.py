"""The flat form is the published function: outputs, gradients, statistics, state dicts, and a whole training curve."""

import pytest
import torch
from torch import nn
from torchvision.models import video
from torchvision.models.video.resnet import Conv3DNoTemporal

from engine.models.backbones import RESNETS, VideoResNet, choose_form
from engine.models.config import ModelConfig
from engine.models.flat import _MULTIPLE as FILLED
from engine.models.flat import FlatConv2Plus1D, FlatConv3DNoTemporal, aligned
from kernels.clip_normalize import clip_normalize


def pair(name: str, width: int = 5) -> tuple[VideoResNet, VideoResNet]:
    """The two forms with the same random weights, fp64; most widths between the convolutions are not aligned."""
    torch.manual_seed(0)
    published = VideoResNet(name, width).double()
    flat = VideoResNet(name, width, form="flat").double().to(memory_format=torch.channels_last_3d)
    flat.load_state_dict(published.state_dict())
    return published, flat


def assert_same_state(actual: nn.Module, expected: nn.Module) -> None:
    assert list(actual.state_dict()) == list(expected.state_dict())
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(actual.state_dict()[name], value, rtol=1e-9, atol=1e-9, msg=name)


@pytest.mark.parametrize(  # channels as they are (CPU) and filled (GPU); r3d_18 has nothing flat
    ("name", "width", "multiple"), [("r2plus1d_18", 64, 1), ("r2plus1d_18", 5, 8), ("mc3_18", 5, 1)]
)
def test_same_function_and_gradients_as_torchvision(name, width, multiple, monkeypatch):
    """Torchvision's own at its width; narrow ones are held to the published form (tests/models/test_backbones.py)."""
    monkeypatch.setitem(FILLED, "cpu", multiple)
    torch.manual_seed(0)
    published = (getattr(video, name)(weights=None) if width == 64 else VideoResNet(name, width)).double()
    published.fc, head = nn.Identity(), nn.Linear(8 * width, 400).double()
    flat = VideoResNet(name, width, form="flat").double().to(memory_format=torch.channels_last_3d)
    flat.load_state_dict(published.state_dict())  # strict
    clips = torch.randn(2, 3, 3, 12, 18, dtype=torch.float64)
    results = []
    for network in (published, flat):
        x = clips.clone().requires_grad_()
        features = network(x)
        (features @ head.weight.T).logsumexp(dim=1).sum().backward()
        results.append((features.detach(), x.grad, {n: p.grad for n, p in network.named_parameters()}))
    expected, actual = results
    assert expected[0].std() > 0.05
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)
    assert all(gradient.abs().max() > 0 for gradient in actual[2].values())
    assert_same_state(flat, published)  # the running statistics moved alike
    published.eval(), flat.eval()
    with torch.no_grad():
        torch.testing.assert_close(flat(clips), published(clips), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("layout", [torch.channels_last_3d, torch.contiguous_format])
@pytest.mark.parametrize("size", [(1, 3, 1, 9, 9), (2, 3, 5, 17, 19), (3, 3, 16, 8, 8)])
def test_any_size_and_memory(size, layout):
    published, flat = pair("r2plus1d_18")
    published.eval(), flat.eval()
    clips = torch.randn(size, dtype=torch.float64).contiguous(memory_format=layout)
    torch.testing.assert_close(flat(clips), published(clips), rtol=1e-9, atol=1e-9)


def test_fp32_differs_by_rounding_only():
    published, flat = pair("r2plus1d_18", 16)
    clips = torch.randn(4, 3, 8, 24, 24, dtype=torch.float64)
    exact = published.eval()(clips)
    published, flat, clips = published.float(), flat.float().eval(), clips.float()
    own = (published(clips).double() - exact).abs().max()
    error = (flat(clips).double() - exact).abs().max()
    assert 0 < error < 4 * own + 1e-7


def loss_curve(network: nn.Module, clips: torch.Tensor, targets: torch.Tensor, lr: float) -> list[float]:
    """The losses of fifty steps."""
    optimizer = torch.optim.SGD(network.parameters(), lr=lr)
    curve = []
    for _ in range(50):
        optimizer.zero_grad()
        loss = (network(clips) - targets).square().mean()
        loss.backward()
        optimizer.step()
        curve.append(loss.item())
    return curve


def test_fifty_steps_give_the_same_loss_curve():
    """At a gentle rate: at 0.002 a change of the weights by 1e-16 of themselves already parts the curves in 20 steps."""
    torch.manual_seed(1)
    clips = torch.randn(8, 3, 2, 24, 24, dtype=torch.float64).contiguous(memory_format=torch.channels_last_3d)
    targets = torch.randn(8, 24, dtype=torch.float64)
    curves = []
    for network in pair("r2plus1d_18", 3):
        curves.append(loss_curve(network, clips, targets, lr=1e-4))
    assert curves[0][-1] < 0.8 * curves[0][0]
    # Rounding grows from step to step (at the end 1e-7 on two threads); a form that computes something else parts at once.
    assert curves[1][:10] == pytest.approx(curves[0][:10], rel=1e-11)
    assert curves[1] == pytest.approx(curves[0], rel=1e-5)


def test_between_channels_are_aligned_and_stay_zero(monkeypatch):
    """As on a GPU: the convolutions see multiples of 8, and the filling is exactly zero after training steps."""
    monkeypatch.setitem(FILLED, "cpu", 8)
    _, network = pair("r2plus1d_18")
    seen = []
    convolve = nn.functional.conv2d
    monkeypatch.setattr(nn.functional, "conv2d", lambda *a: seen.append((a[0], a[1])) or convolve(*a))
    optimizer = torch.optim.Adam(network.parameters(), lr=0.1)
    for _ in range(3):
        seen.clear()
        network(torch.randn(2, 3, 4, 12, 12, dtype=torch.float64)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    between = [network.stem[0].out_channels] + [
        block.get_submodule(conv)[0][0].out_channels
        for stage in (network.layer1, network.layer2, network.layer3, network.layer4)
        for block in stage
        for conv in ("conv1", "conv2")
    ]
    assert len(seen) == 2 * len(between) and any(planes % 8 for planes in between)
    assert network.clip_channels == 8
    for (activations, weight), planes in zip(seen[1::2], between, strict=True):
        assert activations.shape[1] % 8 == 0 == weight.shape[1] % 8
        assert not activations[:, planes:].any() and activations[:, :planes].any()


@pytest.mark.parametrize(
    ("channels", "filled"), [(3, 8), (45, 48), (100, 104), (128, 128), (136, 136), (230, 256), (460, 512), (576, 576)]
)
def test_channels_as_a_device_wants_them(channels, filled):
    """On a GPU few channels become a multiple of 8, many one of 64 unless they are one of 8; a CPU takes any."""
    assert aligned(channels, torch.device("cuda")) == filled
    assert aligned(channels, torch.device("cpu")) == channels


def test_a_convolution_in_space_keeps_clips_and_their_frames_apart():
    """By itself: two in a row, as in a residual block, would put right what one of them turns over."""
    flat = FlatConv3DNoTemporal(3, 4)
    published = Conv3DNoTemporal(3, 4)
    published.load_state_dict(flat.state_dict())
    clips = torch.randn(2, 3, 5, 6, 7)
    torch.testing.assert_close(flat(clips), published(clips))


def test_bf16_weight_gradients_on_a_cpu():
    """Over 2 frames torch 2.15's bf16 conv3d (oneDNN) reads memory it never wrote: gradients of up to 1e34."""
    torch.manual_seed(0)
    block = FlatConv2Plus1D(8, 16, 460).to(memory_format=torch.channels_last_3d)
    clips = torch.randn(4, 8, 2, 7, 7).contiguous(memory_format=torch.channels_last_3d)
    gradients = []
    for dtype in (torch.float32, *[torch.bfloat16] * 20):
        torch.full((1 << 20,), 3e38)  # leaves huge values in the memory that is handed out next
        block.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            block(clips).float().sum().backward()
        gradients.append(block[3].weight.grad.clone())
    for gradient in gradients[1:]:
        assert (gradient - gradients[0]).abs().max() < 0.02 * gradients[0].abs().max()


def test_clips_with_channels_filled_by_clip_normalize():
    published, flat = pair("r2plus1d_18")
    frames = torch.randint(0, 256, (2, 4, 12, 12, 3), dtype=torch.uint8)
    expected = published(clip_normalize(frames, torch.float64))
    actual = flat(clip_normalize(frames, torch.float64, channels=8))
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", RESNETS)
def test_the_forms_start_from_the_same_random_weights(name):
    states = []
    for form in ("published", "flat"):
        torch.manual_seed(3)
        states.append(VideoResNet(name, 4, form=form).state_dict())
    assert list(states[0]) == list(states[1])
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@pytest.mark.parametrize(
    ("backbone", "form", "device", "expected"),
    [
        ("r2plus1d_18", "auto", "cpu", "flat"),
        ("mc3_18", "auto", "cpu", "flat"),
        ("r2plus1d_18", "auto", "cuda", "flat"),
        ("r2plus1d_18", "auto", "mps", "published"),
        ("r2plus1d_18", "flat", "cuda", "flat"),
        ("r2plus1d_18", "published", "cpu", "published"),
        ("r3d_18", "flat", "cpu", "published"),
        ("c3d", "auto", "cpu", "published"),
    ],
)
def test_which_form_runs(backbone, form, device, expected):
    chosen, why = choose_form(ModelConfig(backbone=backbone, form=form), torch.device(device))
    assert chosen == expected
    assert ("has no other" in why) == (backbone in ("r3d_18", "c3d"))


def test_a_compiled_network_on_a_cpu_is_published_but_for_bf16():
    config, cpu = ModelConfig(backbone="r2plus1d_18"), torch.device("cpu")
    assert choose_form(config, cpu, "fp32", is_compiled=True)[0] == "published"
    assert choose_form(config, cpu, "bf16", is_compiled=True)[0] == "flat"


@pytest.mark.parametrize("multiple", [1, 8])  # channels as they are (CPU) and filled (GPU), but not before that one
def test_another_batch_norm_in_its_place_is_called(multiple, monkeypatch):
    """As SyncBatchNorm's conversion does it."""
    monkeypatch.setitem(FILLED, "cpu", multiple)
    published, flat = pair("r2plus1d_18")

    class Counting(nn.BatchNorm2d):
        calls = 0

        def forward(self, x):
            Counting.calls += 1
            return super().forward(x)

    norm = Counting(flat.stem[0].out_channels).double()
    norm.load_state_dict(flat.stem[1].state_dict())
    flat.stem[1] = norm
    clips = torch.randn(2, 3, 4, 12, 12, dtype=torch.float64)
    torch.testing.assert_close(flat(clips), published(clips), rtol=1e-9, atol=1e-9)
    assert Counting.calls == 1


@pytest.mark.parametrize("form", ["published", "flat", "summed", "fused"])
@pytest.mark.parametrize("multiple", [1, 8])
def test_gradients_have_the_strides_of_their_weights(form, multiple, monkeypatch):
    """DDP copies those that have others, and warns."""
    monkeypatch.setitem(FILLED, "cpu", multiple)
    model = VideoResNet("r2plus1d_18", 5, form=form).to(memory_format=torch.channels_last_3d)
    clips = torch.randn(2, 3, 4, 24, 24).contiguous(memory_format=torch.channels_last_3d)
    model(clips).sum().backward()
    others = [name for name, weight in model.named_parameters() if weight.grad.stride() != weight.stride()]
    assert others == []
