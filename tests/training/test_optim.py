"""The optimiser's parameter groups and steps, and the learning rate's course in explicit numbers."""

import copy

import pytest
import timm
import torch
from torch import nn

from engine.config import TrainConfig
from engine.models.backbones import VideoResNet
from engine.models.embedder import Embedder
from engine.training.optim import build_optimizer, clip_gradients, learning_rate, load_optimizer, set_learning_rate

CPU = torch.device("cpu")


def small_model(**options) -> Embedder:
    torch.manual_seed(0)
    return Embedder(VideoResNet("r2plus1d_18", 4), embed_dim=3, **options)


def test_weight_decay_spares_batch_norm_and_biases():
    model = small_model()
    optimizer = build_optimizer(model, TrainConfig(optimizer="adamw", weight_decay=0.1), CPU)
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert len(decay) == len(list(model.parameters()))
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            spared = isinstance(module, nn.BatchNorm3d) or name == "bias"
            assert decay[id(parameter)] == (0.0 if spared else 0.1)


class Learnt(nn.Module):
    """Parameters of all kinds, in an order in which those that are spared lie between the others."""

    def __init__(self) -> None:
        super().__init__()
        self.cls_token, self.pos_embed = (nn.Parameter(torch.ones(1, count, 2)) for count in (1, 3))
        self.first, self.position = nn.Linear(2, 2), nn.Parameter(torch.ones(2, 2))
        self.centres, self.words = nn.Parameter(torch.ones(3, 2)), nn.Embedding(3, 2)
        self.attention, self.recurrent = nn.MultiheadAttention(2, 1), nn.GRU(2, 2)
        self.norm = nn.LayerNorm(2)


DECAYED = {"first.weight", "attention.in_proj_weight", "attention.out_proj.weight", "recurrent.weight_ih_l0",
           "recurrent.weight_hh_l0"}  # fmt: skip


def test_weight_decay_is_for_the_weights_of_layers_alone():
    model = Learnt()
    optimizer = build_optimizer(model, TrainConfig(optimizer="adamw", weight_decay=0.1), CPU)
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert decay == {id(p): 0.1 if name in DECAYED else 0.0 for name, p in model.named_parameters()}


def test_a_timm_transformer_is_decayed_as_timm_says():
    model = timm.create_model("vit_tiny_patch16_224", depth=1)
    groups = build_optimizer(model, TrainConfig(optimizer="adamw", weight_decay=0.1), CPU).param_groups
    decayed = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    spared = model.no_weight_decay()
    assert {"cls_token", "pos_embed"} <= spared
    for name, parameter in model.named_parameters():
        assert (id(parameter) in decayed) == (name not in spared and parameter.ndim > 1)


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_a_state_saved_in_other_groups_is_gone_on_with(name):
    """Earlier versions had two groups: all of several axes but `position`, then the others."""

    def stepped(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, torch.Tensor]:
        for place, parameter in enumerate(model.parameters()):
            parameter.grad = torch.full_like(parameter, 1.0 + place)
        optimizer.step()
        return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}

    config = TrainConfig(optimizer=name, lr=0.1)
    before, again = Learnt(), Learnt()
    is_second = {key: p.ndim <= 1 or key == "position" for key, p in before.named_parameters()}
    groups = [{"params": [p for key, p in before.named_parameters() if is_second[key] == each]} for each in (0, 1)]
    if name == "sgd":
        old = torch.optim.SGD(groups, lr=0.1, momentum=config.momentum, fused=True)
    else:
        old = torch.optim.AdamW(groups, lr=0.1, betas=(0.9, config.beta2), weight_decay=0.0, fused=True)
    stepped(old, before)
    optimizer = build_optimizer(again, config, CPU)
    again.load_state_dict(before.state_dict())
    load_optimizer(optimizer, copy.deepcopy(old.state_dict()))
    torch.testing.assert_close(stepped(optimizer, again), stepped(old, before), rtol=0, atol=0)
    with pytest.raises(ValueError, match="17 parameters, this one 2"):
        load_optimizer(build_optimizer(nn.Linear(1, 1), config, CPU), old.state_dict())


def test_frozen_parameters_are_left_out():
    model = small_model(freeze_backbone=True)
    optimizer = build_optimizer(model, TrainConfig(), CPU)
    held = [p for group in optimizer.param_groups for p in group["params"]]
    assert {id(p) for p in held} == {id(model.linear.weight), id(model.linear.bias)}


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        # Two steps from weight 1 with gradient 2, learning rate 0.1, weight decay 0.5 by the optimisers' definitions.
        ("sgd", [1 - 0.1 * 2.5, 0.75 - 0.1 * (0.9 * 2.5 + 2.375)]),
        ("adam", [1 - 0.1, None]),
        ("adamw", [1 * (1 - 0.1 * 0.5) - 0.1, None]),
    ],
)
def test_steps_by_hand(name, steps):
    model = nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(1.0)
    optimizer = build_optimizer(model, TrainConfig(optimizer=name, lr=0.1, weight_decay=0.5, momentum=0.9), CPU)
    for expected in steps:
        model.weight.grad = torch.full_like(model.weight, 2.0)
        optimizer.step()
        if expected is not None:
            assert model.weight.item() == pytest.approx(expected, rel=1e-6)


def test_set_learning_rate_reaches_every_group():
    model = small_model()
    optimizer = build_optimizer(model, TrainConfig(optimizer="sgd", momentum=0.0), CPU)
    set_learning_rate(optimizer, 0.25)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.detach(), before[name] - 0.25)


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_a_state_saved_in_another_memory_order_is_gone_on_with(name):
    start = torch.randn(8, 4, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    ends = []
    for saved_in in (torch.channels_last_3d, torch.contiguous_format):
        state, order, weight = None, saved_in, start
        for step in range(2):
            model = nn.Conv3d(4, 8, 3, bias=False)
            model.weight.data = weight.clone(memory_format=order)
            optimizer = build_optimizer(model, TrainConfig(optimizer=name, lr=0.1), CPU)
            if state is not None:
                load_optimizer(optimizer, state)
            model.weight.grad = torch.empty_like(model.weight).copy_(start.roll(step + 1, 0))
            optimizer.step()
            weight, state, order = model.weight.detach(), optimizer.state_dict(), torch.channels_last_3d
        ends.append(weight)
    torch.testing.assert_close(*ends, rtol=0, atol=0)


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_options_are_the_runs_own_and_not_the_saved_ones(momentum):
    """A resumed run may have another weight decay or momentum; its first step is then taken with it."""

    def begun(**options: float) -> tuple[nn.Linear, torch.optim.Optimizer]:
        model = nn.Linear(1, 1, bias=False)
        model.weight.data.fill_(1.0)
        model.weight.grad = torch.full_like(model.weight, 2.0)
        return model, build_optimizer(model, TrainConfig(optimizer="sgd", lr=0.1, **options), CPU)

    _, saved = begun(weight_decay=0.5, momentum=momentum)
    saved.step()
    model, optimizer = begun(weight_decay=0.25, momentum=0.9)
    load_optimizer(optimizer, saved.state_dict())
    optimizer.step()
    before = 2.5 if momentum else 0.0
    assert model.weight.item() == pytest.approx(1 - 0.1 * (0.9 * before + 2.25))
    assert optimizer.param_groups[0]["lr"] == 0.1 and optimizer.param_groups[0]["momentum"] == 0.9


def test_papers_milestones():
    config = TrainConfig()  # 150 epochs, 1e-3, a tenth at 60 and 120
    rates = {p: learning_rate(config, p) for p in (0, 59.99, 60, 119.99, 120, 149.99)}
    assert rates == pytest.approx({0: 1e-3, 59.99: 1e-3, 60: 1e-4, 119.99: 1e-4, 120: 1e-5, 149.99: 1e-5}, rel=1e-9)


def test_warmup_is_linear_and_multiplies_the_schedule():
    config = TrainConfig(lr=1.0, warmup_epochs=2.0, milestones=[1], gamma=0.5)
    rates = [learning_rate(config, p) for p in (0, 0.5, 1, 2, 3)]
    assert rates == pytest.approx([0.01, 0.2575, 0.505 * 0.5, 0.5, 0.5], rel=1e-9)


def test_cosine_falls_from_the_end_of_the_warmup_to_zero():
    config = TrainConfig(lr=2.0, epochs=11, schedule="cosine", warmup_epochs=1.0)
    rates = [learning_rate(config, p) for p in (1, 3.5, 6, 8.5)]
    assert rates == pytest.approx([2.0, 1 + 2**-0.5, 1.0, 1 - 2**-0.5], rel=1e-9)
    assert learning_rate(config, 11) == pytest.approx(0, abs=1e-12)
    assert learning_rate(config, 12) == pytest.approx(0, abs=1e-12)  # never up again


def test_constant():
    config = TrainConfig(lr=0.3, schedule="constant")
    assert {learning_rate(config, p) for p in (0, 70, 150)} == {0.3}


def test_warmup_longer_than_the_run():
    config = TrainConfig(lr=1.0, epochs=2, warmup_epochs=4.0, schedule="cosine")
    assert learning_rate(config, 2) == pytest.approx(0.505)


def test_clip_gradients():
    model = nn.Linear(2, 1)
    model.weight.grad, model.bias.grad = torch.tensor([[3.0, 0.0]]), torch.tensor([4.0])
    assert clip_gradients(model, 1.0).item() == pytest.approx(5)
    torch.testing.assert_close(model.weight.grad, torch.tensor([[0.6, 0.0]]))
    torch.testing.assert_close(model.bias.grad, torch.tensor([0.8]))
    assert clip_gradients(model, 10.0).item() == pytest.approx(1)
    torch.testing.assert_close(model.bias.grad, torch.tensor([0.8]))
