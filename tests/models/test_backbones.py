"""The residual networks against torchvision's own."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import get_model_weights, video

from engine.data.batch import ClipFormat
from engine.models.backbone import Backbone, build_backbone
from engine.models.backbones import RESNETS, VideoResNet
from engine.models.catalogue import BACKBONES
from engine.models.config import ModelConfig


def num_parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("name", RESNETS)
def test_same_function_and_gradients_as_torchvision(name):
    torch.manual_seed(0)
    published = getattr(video, name)(weights=None).double()
    ours = VideoResNet(name).double()
    head = published.fc
    published.fc = torch.nn.Identity()
    ours.load_state_dict(published.state_dict())  # strict: the very same names and shapes
    clips = torch.randn(2, 3, 3, 12, 18, dtype=torch.float64)
    results = []
    for network in (published, ours):
        network.train()
        x = clips.clone().requires_grad_()
        features = network(x)
        (features @ head.weight.T).logsumexp(dim=1).sum().backward()
        results.append((features.detach(), x.grad, {n: p.grad for n, p in network.named_parameters()}))
    expected, actual = results
    assert expected[0].shape == (2, 512) and expected[0].std() > 0.05
    torch.testing.assert_close(actual[0], expected[0], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(actual[1], expected[1], rtol=1e-9, atol=1e-9)
    for parameter, gradient in expected[2].items():
        assert gradient.abs().max() > 0
        torch.testing.assert_close(actual[2][parameter], gradient, rtol=1e-9, atol=1e-9)
    for buffer, value in published.named_buffers():  # batch-norm saw the same statistics
        torch.testing.assert_close(ours.get_buffer(buffer), value, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", RESNETS)
def test_parameters_and_multiply_adds_are_the_published_ones(name):
    published = get_model_weights(name).DEFAULT.meta
    with torch.device("meta"):
        network = VideoResNet(name)
    head = 400 * 512 + 400
    assert num_parameters(network) + head == published["num_params"]
    with FlopCounterMode(display=False) as counter:
        assert network(torch.empty(1, 3, 16, 112, 112, device="meta")).shape == (1, 512)
    assert counter.get_total_flops() / 2e9 == pytest.approx(published["_ops"], abs=1e-3)


def test_r2plus1d_has_31_505_325_parameters_with_a_400_class_layer():
    assert num_parameters(VideoResNet("r2plus1d_18")) + 400 * 512 + 400 == 31_505_325


@pytest.mark.parametrize("name", RESNETS)
@pytest.mark.parametrize("width", [4, 10, 16])
def test_narrow_siblings(name, width):
    backbone = build_backbone(ModelConfig(backbone=name, width=width), ClipFormat())
    assert backbone.feature_dim == 8 * width
    assert backbone.layer4[1].conv2[1].num_features == 8 * width
    features = backbone(torch.randn(2, 3, 5, 17, 19))
    assert features.shape == (2, 8 * width) and torch.isfinite(features).all()
    assert features.abs().max() > 0.05 and not torch.allclose(features[0], features[1])


def test_stem_between_planes_scale():
    planes = {width: VideoResNet("r2plus1d_18", width).stem[0].out_channels for width in (64, 32, 16, 4)}
    assert planes == {64: 45, 32: 23, 16: 12, 4: 3}


def test_initialisation_is_kaiming_fan_out():
    torch.manual_seed(0)
    convolution = VideoResNet("r3d_18").layer4[0].conv1[0]  # 256 -> 512
    expected = (2 / (512 * 27)) ** 0.5
    assert convolution.weight.std().item() == pytest.approx(expected, rel=0.01)


def test_memory_format_does_not_change_the_function():
    torch.manual_seed(0)
    backbone = VideoResNet("r2plus1d_18", 8).double().eval()
    clips = torch.randn(2, 3, 4, 16, 16, dtype=torch.float64)
    expected = backbone(clips)
    backbone.to(memory_format=torch.channels_last_3d)
    actual = backbone(clips.contiguous(memory_format=torch.channels_last_3d))
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", [name for name in BACKBONES if name != "timm:*"])
def test_every_backbone_says_what_the_others_need_of_it(name):
    clip = ClipFormat(num_frames=16, short_side=16, crop=16)
    backbone = build_backbone(ModelConfig(backbone=name, width=2), clip).eval()
    assert isinstance(backbone, Backbone) and backbone.name == name
    assert backbone.width == {"vit_tiny": 192, "vit_small": 384, "vit_base": 768}.get(name, 2)
    x = clips = torch.randn(2, backbone.clip_channels, 16, 16, 16)
    for stage in backbone.stages():
        x = stage(x)
    features = backbone.pool(x)
    assert features.shape == (2, backbone.feature_dim) and features.std() > 0
    assert torch.equal(backbone(clips), features)
    assert not {name.split(".")[0] for name in backbone.state_dict()} & set(backbone.classifier)
    assert backbone.classifier or name.startswith("vit_")  # of published weights; a transformer has none
