"""The embedder: order of its steps, averaging over snippets, and a backbone that stays frozen."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from engine.data.batch import ClipFormat
from engine.models.backbones import VideoResNet
from engine.models.config import ModelConfig
from engine.models.embedder import Embedder, build_embedder


def make(**options) -> Embedder:
    torch.manual_seed(0)
    return Embedder(VideoResNet("r2plus1d_18", 4), embed_dim=7, **options)


def clips(count: int = 4) -> torch.Tensor:
    return torch.randn(count, 3, 4, 16, 16, generator=torch.Generator().manual_seed(1))


def test_points_are_of_unit_length_where_it_is_asked_for():
    model = make(unit_norm=True).eval()
    features = model.features(clips(6))
    assert features.shape == (6, 32)
    expected = functional.normalize(features @ model.linear.weight.T + model.linear.bias, dim=1)
    torch.testing.assert_close(model(clips(6)), expected)
    torch.testing.assert_close(expected.norm(dim=1), torch.ones(6))


def test_without_unit_norm_the_output_is_the_linear_layers():
    model = make().eval()
    torch.testing.assert_close(model(clips()), model.linear(model.features(clips())))


def test_dropout_acts_in_training_only():
    model = make(dropout=0.5)
    features = torch.rand(3, 32) + 1
    model.eval()
    assert torch.equal(model.project(features), model.project(features))
    model.train()
    torch.manual_seed(0)
    dropped = model.project(features)
    torch.manual_seed(0)
    torch.testing.assert_close(dropped, model.linear(functional.dropout(features, 0.5)))
    assert not torch.allclose(dropped, model.linear(features))


def test_bf16_autocast_leaves_the_linear_layer_in_fp32():
    model = make().eval()
    with torch.autocast("cpu", torch.bfloat16):
        features = model.features(clips())
        points = model(clips())
    assert features.dtype == torch.bfloat16 and points.dtype == torch.float32
    assert torch.equal(points, model.linear(features.float()))


def train_a_step(model: nn.Module, parameters) -> None:
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    model(clips() * 3 + 1).square().sum().backward()
    optimizer.step()


@pytest.mark.parametrize("wrap", [lambda model: model, nn.Sequential])
def test_frozen_backbone_really_stays(wrap):
    model = make(freeze_backbone=True)
    outer = wrap(model)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    features = model.features(clips())
    for _ in range(2):
        outer.eval()
        outer.train()
        train_a_step(outer, [p for p in model.parameters() if p.requires_grad])
    after = model.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"linear.weight", "linear.bias"}  # no parameter and no statistic of the backbone
    assert torch.equal(model.features(clips()), features)
    assert model.training and model.dropout.training and not any(m.training for m in model.backbone.modules())


def test_free_backbone_learns_and_its_statistics_move():
    model = make()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    train_a_step(model, model.parameters())
    still = {name for name in before if torch.equal(before[name], model.state_dict()[name])}
    assert not still


def test_build_embedder_follows_the_config():
    config = ModelConfig(backbone="mc3_18", width=8, dropout=0.25, unit_norm=True, freeze_backbone=True)
    model = build_embedder(config, ClipFormat(), embed_dim=50)
    assert model.linear.weight.shape == (50, 64) and model.linear.bias.shape == (50,)
    assert model.dropout.p == 0.25 and model.unit_norm and not model.backbone.stem[0].weight.requires_grad
    assert model.weights_from == "random weights"


def test_points_start_about_as_long_as_class_vectors():
    """With torch's default initialisation they are about ten times longer, and the squared loss starts near 100."""
    torch.manual_seed(0)
    model = build_embedder(ModelConfig(backbone="r2plus1d_18", width=16), ClipFormat(16, 1, 32, 32), 300)
    lengths = model(torch.randn(8, 3, 16, 32, 32)).norm(dim=1)
    assert 0.2 < lengths.mean() < 3
