"""timm's networks over the frames of clips: against timm itself, with and without the order of frames."""

import re

import pytest
import timm
import torch
from torch import nn

from engine.config import Config
from engine.data.batch import ClipFormat
from engine.errors import InputError
from engine.models.backbone import Backbone, build_backbone
from engine.models.config import ModelConfig
from engine.models.embedder import Embedder, build_embedder
from engine.models.image_network import ImageNetwork, _shift_branches, fold_norms, shift_in_time
from engine.processes.distributed import Ranks
from engine.schema.parser import parse
from engine.training.network import as_called, placed
from engine.training.precision import Precision

RANKS = Ranks(torch.device("cpu"))


def build(name: str = "tf_efficientnet_lite0", temporal: str = "none", frames: int = 4, crop: int = 32) -> Backbone:
    torch.manual_seed(0)
    config = parse(ModelConfig, {"backbone": f"timm:{name}", "temporal": temporal})
    backbone = build_backbone(config, ClipFormat(num_frames=frames, short_side=crop, crop=crop))
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):  # timm starts the last one of a residual branch at zero
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return backbone.eval()


def clips(frames: int = 4, crop: int = 32, count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, frames, crop, crop, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", ["test_efficientnet", "test_resnet", "test_vit", "convnext_atto"])
def test_features_are_the_mean_of_what_timm_says_of_each_frame(name):
    backbone = build(name)
    published = timm.create_model(name, num_classes=0, **({"img_size": 32} if "vit" in name else {})).eval()
    published.load_state_dict(backbone.published.state_dict())  # strict: the very same names and shapes
    expected = torch.stack([published(clips()[:, :, t]) for t in range(4)]).mean(dim=0)
    features = backbone(clips())
    assert features.shape == (2, backbone.feature_dim) and features.std() > 1e-3
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(backbone.pool(backbone.of_frames(clips())), features)


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "test_resnet", "test_vit"])
def test_the_order_of_frames_counts_only_where_it_is_asked_for(name):
    for temporal in ("none", "shift", "difference"):
        backbone = build(name, temporal)
        forward, backward = backbone(clips()), backbone(clips().flip(2))
        assert forward.shape == (2, backbone.feature_dim)
        apart = (forward - backward).norm() / forward.norm()
        assert (apart < 1e-5) if temporal == "none" else (apart > 1e-3), temporal


def test_difference_is_what_rises_from_frame_to_frame_beside_the_mean():
    plain, backbone = build(), build(temporal="difference")
    frames = plain.of_frames(clips())
    rises = sum((frames[:, t + 1] - frames[:, t]).clamp(min=0) for t in range(3)) / 3
    torch.testing.assert_close(backbone(clips()), torch.cat([frames.mean(dim=1), rises], dim=1))
    still = clips(frames=1).expand(-1, -1, 4, -1, -1)
    assert backbone(still)[:, plain.feature_dim :].abs().max() < 1e-5


@pytest.mark.parametrize("shape", [(16, 2, 3), (5, 16)])
def test_shift_takes_an_eighth_from_either_neighbour(shape):
    x = torch.randn(2 * 3, *shape)
    channel = 0 if len(shape) == 3 else 1
    rows = x.unflatten(0, (2, 3)).movedim(channel + 2, 0)  # [C, N, T, ...]
    shifted = shift_in_time(x, 3).unflatten(0, (2, 3)).movedim(channel + 2, 0)
    assert torch.equal(shifted[:2, :, 1:], rows[:2, :, :-1]) and not shifted[:2, :, 0].any()
    assert torch.equal(shifted[2:4, :, :-1], rows[2:4, :, 1:]) and not shifted[2:4, :, -1].any()
    assert torch.equal(shifted[4:], rows[4:])


def test_shifted_clips_do_not_reach_into_each_other():
    backbone = build(temporal="shift")
    torch.testing.assert_close(backbone(clips())[:1], backbone(clips()[:1]), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="built for clips of 4 frames, not 6"):
        backbone(clips(frames=6))


@pytest.mark.parametrize(("name", "entry"), [
    ("test_resnet", "layer_._.conv1"),  # of two kinds of blocks
    ("convnext_atto", "stages._.blocks._.conv_dw"),
    ("test_vit", "blocks._.attn"),
    ("tf_efficientnet_lite0", "blocks._._.conv_pw"),
    ("tf_efficientnetv2_b0", "blocks._._.conv_(exp|pw)"),
])  # fmt: skip
def test_shift_is_at_the_entry_of_every_residual_branch_and_nowhere_else(name, entry):
    with torch.device("meta"):
        network = timm.create_model(name)
    entries = {each for each, _ in network.named_modules() if re.fullmatch(entry.replace("_.", r"\d+."), each)}
    residual = {each for each in entries if getattr(network.get_submodule(each.rpartition(".")[0]), "has_skip", True)}
    assert (residual < entries) == name.startswith("tf_")  # some blocks have no branch beside them
    _shift_branches(network, 4, name)
    assert {each for each, module in network.named_modules() if module._forward_pre_hooks} == residual


def run_config(**train: object) -> Config:
    model = {"backbone": "timm:tf_efficientnet_lite0", "temporal": "shift", "dropout": 0.0}
    return parse(Config, {"model": model, "train": train, "clip": {"num_frames": 4, "short_side": 32, "crop": 32}})


@pytest.mark.parametrize("channels_last", [True, False])
def test_memory_order_does_not_change_the_function(channels_last):
    config = run_config(channels_last=channels_last)
    torch.manual_seed(0)
    model = build_embedder(config.model, config.clip, 7).eval()
    expected = model(clips())
    model = placed(model, config, RANKS, Precision("fp32", None))
    kernel = model.backbone.network.conv_stem.weight
    assert kernel.is_contiguous(memory_format=torch.channels_last) == channels_last
    frames = torch.randint(0, 255, (2, 4, 32, 32, 3), dtype=torch.uint8)
    normalised = model.normalisation(frames, torch.float32, channels_last=channels_last)
    pictures = normalised.transpose(1, 2).flatten(0, 1)
    if channels_last:  # the clips' own memory, as pictures
        assert pictures.is_contiguous(memory_format=torch.channels_last)
        assert pictures.data_ptr() == normalised.data_ptr()
    x = clips().contiguous(memory_format=torch.channels_last_3d) if channels_last else clips()
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)


def test_pixels_are_scaled_as_the_weights_want_them():
    frames = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16, 1).expand(-1, -1, -1, -1, 3)
    lite = ImageNetwork("timm:tf_efficientnet_lite0", 1, 32)
    pixels = frames.permute(0, 4, 1, 2, 3).float()
    torch.testing.assert_close(lite.normalisation(frames, torch.float32), (pixels - 127) / 128, rtol=0, atol=1e-6)
    clip = build("test_resnet")  # its own entry in timm says 0.5 and 0.5
    torch.testing.assert_close(clip.normalisation(frames, torch.float32), pixels / 127.5 - 1, rtol=0, atol=1e-6)


def test_bf16_gives_nearly_the_same_features():
    backbone = build()
    expected = backbone(clips())
    with torch.autocast("cpu", torch.bfloat16):
        features = backbone(clips())
    assert ((features - expected).norm() / expected.norm()) < 0.03


def train_a_step(model: nn.Module) -> dict[str, torch.Tensor]:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.train()(clips()).square().sum().backward()
    torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1).step()
    return {name: tensor for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}


def test_it_trains_end_to_end_or_stays_frozen_with_its_batch_norms():
    for temporal in ("none", "shift"):
        changed = train_a_step(Embedder(build(temporal=temporal), 5))
        assert {"backbone.network.conv_stem.weight", "backbone.network.bn1.running_mean", "linear.weight"} <= set(
            changed
        )
    assert set(train_a_step(Embedder(build(), 5, freeze_backbone=True))) == {"linear.weight", "linear.bias"}


def test_activations_are_computed_twice_where_no_batch_norm_would_count_twice():
    gradients = []
    for recompute in (False, True):
        backbone = build("test_vit").train()
        backbone.recompute = recompute
        backbone(clips()).square().sum().backward()
        gradients.append({name: parameter.grad for name, parameter in backbone.named_parameters()})
    assert backbone.network.grad_checkpointing
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)
    with pytest.raises(InputError, match="batch-norms of 'timm:tf_efficientnet_lite0' would count every batch twice"):
        build().recompute = True
    with pytest.raises(
        InputError, match="timm cannot compute the activations of 'timm:pit_ti_224' twice: leave it off"
    ):
        build("pit_ti_224", crop=224).recompute = True


@pytest.mark.slow
def test_compiled_it_is_the_same_function():
    config = run_config(compile="yes")
    torch.manual_seed(0)
    model = placed(build_embedder(config.model, config.clip, 7), config, RANKS, Precision("fp32", None)).eval()
    x = clips().contiguous(memory_format=torch.channels_last_3d)
    expected = model(x)
    torch.testing.assert_close(as_called(model, config, RANKS)(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("eficientnet_lite0", "did you mean timm:efficientnet_lite0, .*no network of that name"),
        ("", "no network of that name"),
        ("hf-hub:somebody/something", "no network of that name"),  # never fetched
        ("tf_efficientnet_lite0.imagenet", "has no weights 'imagenet' of tf_efficientnet_lite0: it has in1k"),
    ],
)
def test_unknown_networks(name, message):
    with pytest.raises(InputError, match=message):
        build(name)


def test_frames_that_a_network_does_not_take():
    with pytest.raises(InputError, match=r"does not take frames of clip.crop=8 .* its own size is 160"):
        build("test_vit", crop=8)
    with pytest.raises(InputError, match="shift needs snippets of at least 2 frames"):
        build(temporal="shift", frames=1)
    with pytest.raises(InputError, match=r"'timm:test_nfnet' has no residual blocks .*: take difference"):
        build("test_nfnet", "shift")


def test_keys_that_belong_to_the_other_kind_of_network_are_refused(tmp_path):
    from engine.config import load_config

    (tmp_path / "a.yaml").write_text("model: {backbone: timm:test_vit}\n")
    assert load_config(tmp_path / "a.yaml", ["model.temporal=shift"]).model.temporal == "shift"
    for override, need in (("model.width=16", "'model.width' needs"), ("model.form=flat", "'model.form' needs")):
        with pytest.raises(InputError, match=need):
            load_config(tmp_path / "a.yaml", [override])
    (tmp_path / "a.yaml").write_text("model: {backbone: c3d}\n")
    with pytest.raises(InputError, match=r"'model.temporal' needs model.backbone timm:\* \(here c3d\)"):
        load_config(tmp_path / "a.yaml", ["model.temporal=shift"])


def test_folded_norms_change_rounding_alone():
    network = timm.create_model("tf_efficientnet_lite0").eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):  # as trained ones are, and not as they begin
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    pictures = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        before = network(pictures)
        fold_norms(network)
        after = network(pictures)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    assert before.std() > 1e-2
    torch.testing.assert_close(after, before, atol=1e-4 * before.abs().max().item(), rtol=0)
