"""Transformers for clips: tokens, positions, and the same in every way that a run may call them."""

import math

import pytest
import torch
from torch import nn

from engine.config import Config
from engine.data.batch import ClipFormat
from engine.errors import InputError
from engine.models.backbone import build_backbone
from engine.models.config import ModelConfig
from engine.models.embedder import Embedder, build_embedder
from engine.models.video_transformer import (
    PATCH_VALUES,
    Block,
    VideoTransformer,
    from_patches,
    resized,
    take,
    to_patches,
)
from engine.models.weights import load_backbone_weights
from engine.processes.distributed import Ranks
from engine.schema.parser import parse
from engine.tasks.masked.config import MaskedConfig
from engine.tasks.masked.network import MaskedAutoencoder
from engine.training.network import as_called, placed
from engine.training.optim import build_optimizer
from engine.training.precision import Precision

RANKS = Ranks(torch.device("cpu"))
GRID = (2, 2, 3)


def network(grid: tuple[int, int, int] = GRID, name: str = "vit_tiny") -> VideoTransformer:
    torch.manual_seed(0)
    return VideoTransformer(name, grid).eval()


def clips(grid: tuple[int, int, int] = GRID, count: int = 2) -> torch.Tensor:
    sizes = (2 * grid[0], 16 * grid[1], 16 * grid[2])
    return torch.randn(count, 3, *sizes, generator=torch.Generator().manual_seed(1))


def test_a_token_is_two_frames_of_sixteen_pixels_squared_in_the_order_time_row_column():
    frames = torch.arange(4 * 32 * 48 * 3).reshape(1, 4, 32, 48, 3)
    patches = to_patches(frames)
    assert patches.shape == (1, 12, PATCH_VALUES)
    token = (1 * 2 + 1) * 3 + 2  # time 1, row 1, column 2
    assert torch.equal(patches[0, token].reshape(2, 16, 16, 3), frames[0, 2:4, 16:32, 32:48])
    assert torch.equal(from_patches(patches, GRID), frames)


@pytest.mark.parametrize(("name", "millions"), [("vit_tiny", 5.6), ("vit_small", 21.9), ("vit_base", 86.8)])
def test_sizes_are_those_of_the_image_networks_of_these_names(name, millions):
    """DeiT's parameters: what is longer here is a patch (two frames) and what is shorter the position table."""
    with torch.device("meta"):
        model = VideoTransformer(name, (8, 7, 7))
        assert model(torch.empty(2, 3, 16, 112, 112)).shape == (2, model.feature_dim)
    blocks = 12 * (12 * model.width**2 + 13 * model.width)
    rest = (PATCH_VALUES + 1 + 392 + 2) * model.width
    assert sum(p.numel() for p in model.parameters()) == blocks + rest
    assert (blocks + rest) / 1e6 == pytest.approx(millions, rel=0.02)


def test_a_block_computes_what_it_says():
    """Head by head of 64 values, with the exact GELU: weights that were trained keep their meaning."""
    torch.manual_seed(0)
    block, x = Block(192).double(), torch.randn(2, 5, 192, dtype=torch.float64)
    query, key, value = (part.split(64, dim=2) for part in block.qkv(block.norm1(x)).split(192, dim=2))
    heads = [(q @ k.mT / 8).softmax(dim=2) @ v for q, k, v in zip(query, key, value, strict=True)]
    expected = x + block.proj(torch.cat(heads, dim=2))
    inner = block.fc1(block.norm2(expected))
    expected = expected + block.fc2(inner * (1 + (inner / 2**0.5).erf()) / 2)
    torch.testing.assert_close(block(x), expected)


def test_positions_begin_as_sines_and_cosines_of_each_axis():
    """A third of the values an axis, the slowest of them of a wavelength that no clip is as long as; linear layers without bias."""
    model = network()
    share = 192 // 6
    for axis, place in enumerate((1, 0, 2)):
        values = model.position[0, 2 * share * axis : 2 * share * (axis + 1), 1, 0, 2]
        angles = [place / 10000 ** (k / share) for k in range(share)]
        expected = [math.sin(angle) for angle in angles] + [math.cos(angle) for angle in angles]
        assert values.tolist() == pytest.approx(expected, abs=1e-5)
    assert not any(module.bias.any() for module in model.modules() if isinstance(module, nn.Linear))


def test_what_is_not_visible_is_never_read():
    model, x = network(), clips()
    visible = torch.tensor([[0, 3, 7, 11], [9, 2, 4, 5]])
    tokens = model.encode(x, visible)
    assert tokens.shape == (2, 4, 192) and tokens.std() > 0.1
    spoilt = to_patches(x.permute(0, 2, 3, 4, 1))
    for clip, seen in enumerate(visible):
        hidden = [token for token in range(12) if token not in seen]
        spoilt[clip, hidden] = float("nan")
    spoilt = from_patches(spoilt, GRID).permute(0, 4, 1, 2, 3)
    assert torch.equal(model.encode(spoilt, visible), tokens)  # bit for bit
    other = x.clone()
    other[0, :, 0, 0, 0] += 1  # in token 0, which the first clip shows and the second hides
    assert not torch.equal(model.encode(other, visible)[0], tokens[0])
    torch.testing.assert_close(model.encode(x, torch.arange(12).expand(2, -1)), model.encode(x))


def test_visible_tokens_know_their_places_and_not_their_order():
    model, x = network(), clips(count=1)
    visible = torch.tensor([[1, 4, 6]])
    tokens, turned = model.encode(x, visible), model.encode(x, visible.flip(1))
    torch.testing.assert_close(turned.flip(1), tokens, rtol=1e-4, atol=1e-5)
    alike = torch.zeros_like(x)  # what looks the same everywhere
    apart = model.encode(alike)[0]
    assert torch.cdist(apart, apart)[~torch.eye(12, dtype=torch.bool)].min() > 1e-2
    assert torch.equal(take(torch.arange(12.0).reshape(1, 12, 1), visible).flatten(), torch.tensor([1.0, 4.0, 6.0]))


def test_positions_are_interpolated_to_another_clip_size():
    model = network()
    for grid in ((4, 2, 3), (2, 4, 4), (1, 1, 1)):
        assert model(clips(grid)).shape == (2, 192)
    ramp = torch.arange(4.0).reshape(1, 1, 1, 4, 1).expand(1, 6, 2, 4, 4)
    halved = resized(ramp, (2, 2, 4))
    torch.testing.assert_close(halved[0, 0, 0, :, 0], torch.tensor([0.5, 2.5]))
    assert resized(ramp, (2, 4, 4)) is ramp


@pytest.mark.parametrize("prefix", ["", "model.backbone."])
def test_weights_of_another_clip_size_are_taken_over(tmp_path, prefix):
    donor, larger = network(), network((4, 3, 3))
    torch.save({prefix + name: tensor for name, tensor in donor.state_dict().items()}, tmp_path / "a.pt")
    with torch.no_grad():
        larger.patch_embed.weight.zero_()
    note = load_backbone_weights(larger, str(tmp_path / "a.pt"))
    assert "149 tensors; resized to these clips position" in note
    assert torch.equal(larger.patch_embed.weight, donor.patch_embed.weight)
    torch.testing.assert_close(larger.position, resized(donor.position, (4, 3, 3)))
    with pytest.raises(InputError, match="do not fit vit_small of width 384"):
        load_backbone_weights(network(name="vit_small"), str(tmp_path / "a.pt"))


def test_clips_of_broken_patches_are_refused():
    config = parse(ModelConfig, {"backbone": "vit_tiny"})
    assert str(config) == "vit_tiny"
    for clip in (
        ClipFormat(num_frames=15),
        ClipFormat(num_frames=1),
        ClipFormat(crop=44),
        ClipFormat(crop=8, short_side=8),
    ):
        with pytest.raises(InputError, match=r"'vit_tiny' takes clips of whole patches of 2x16x16: clip.num_frames="):
            build_backbone(config, clip)


def run_config(**train: object) -> Config:
    clip = {"num_frames": 4, "short_side": 32, "crop": 32}
    return parse(Config, {"model": {"backbone": "vit_tiny", "dropout": 0.0}, "train": train, "clip": clip})


@pytest.mark.parametrize("channels_last", [True, False])
def test_memory_order_does_not_change_the_function(channels_last):
    config = run_config(channels_last=channels_last)
    torch.manual_seed(0)
    model, grid = build_embedder(config.model, config.clip, 7).eval(), (2, 2, 2)
    expected = model(clips(grid))
    model = placed(model, config, RANKS, Precision("fp32", None))
    order = torch.channels_last_3d if channels_last else torch.contiguous_format
    torch.testing.assert_close(model(clips(grid).contiguous(memory_format=order)), expected, rtol=1e-4, atol=1e-5)
    frames = torch.randint(0, 255, (2, 4, 32, 32, 3), dtype=torch.uint8)
    assert model(model.normalisation(frames, torch.float32, channels_last=channels_last)).shape == (2, 7)
    with torch.autocast("cpu", torch.bfloat16):
        close = model(clips(grid))
    assert (close - expected).norm() < 0.05 * expected.norm()


@pytest.mark.parametrize("channels_last", [True, False])
def test_gradients_lie_in_memory_as_their_parameters_do(channels_last):
    """Where they do not, torch warns of it with several ranks."""
    model = MaskedAutoencoder(network(), MaskedConfig())
    model = placed(model, run_config(channels_last=channels_last), RANKS, Precision("fp32", None))
    order = torch.channels_last_3d if channels_last else torch.contiguous_format
    visible, hidden = torch.arange(6).repeat(2, 1), torch.arange(6, 12).repeat(2, 1)
    model(clips().contiguous(memory_format=order), visible, hidden).square().sum().backward()
    model.backbone(clips().contiguous(memory_format=order)).sum().backward()
    apart = [name for name, weight in model.named_parameters() if weight.grad.stride() != weight.stride()]
    assert not apart


def test_it_trains_end_to_end_or_stays_frozen():
    for freeze in (False, True):
        model = Embedder(network(), 5, freeze_backbone=freeze).train()
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        model(clips()).square().sum().backward()
        torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1).step()
        changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
        wanted = {name for name in before if not freeze or name.startswith("linear.")}
        assert changed == wanted


def test_activations_are_computed_twice_for_the_same_gradients():
    gradients = []
    for recompute in (False, True):
        model = network().train()
        model.recompute = recompute
        model(clips()).square().sum().backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


def test_weight_decay_spares_positions_norms_and_biases():
    config = run_config(optimizer="adamw", weight_decay=0.1, beta2=0.95).train
    model = network()
    decayed, spared = build_optimizer(model, config, RANKS.device).param_groups
    assert decayed["betas"] == spared["betas"] == (0.9, 0.95)
    linear = {id(module.weight) for module in model.modules() if isinstance(module, nn.Linear)}
    assert {id(p) for p in decayed["params"]} == linear and decayed["weight_decay"] == 0.1
    assert len(spared["params"]) == len(list(model.parameters())) - len(linear) and spared["weight_decay"] == 0


@pytest.mark.slow
def test_compiled_it_is_the_same_function():
    config = run_config(compile="yes")
    torch.manual_seed(0)
    model = placed(build_embedder(config.model, config.clip, 7), config, RANKS, Precision("fp32", None)).eval()
    x = clips((2, 2, 2)).contiguous(memory_format=torch.channels_last_3d)
    called = as_called(model, config, RANKS)
    for visible in (None, torch.tensor([[0, 3, 7], [1, 2, 5]])):  # all tokens, and some
        torch.testing.assert_close(called(x, visible), model(x, visible), rtol=1e-4, atol=1e-5)
