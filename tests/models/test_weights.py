"""Weights from files as they are found in the world, and the one error where they do not fit."""

import urllib.error

import pytest
import torch
from torch import nn
from torchvision.models.video import R2Plus1D_18_Weights, r2plus1d_18

from engine.data.batch import ClipFormat
from engine.errors import InputError
from engine.models.backbones import VideoResNet
from engine.models.c3d import C3D
from engine.models.config import ModelConfig
from engine.models.embedder import Embedder, build_embedder
from engine.models.weights import load_backbone_weights


@pytest.fixture(scope="module")
def donor() -> VideoResNet:
    torch.manual_seed(1)
    network = VideoResNet("r2plus1d_18", 4)
    network.stem[1].running_mean.normal_()  # buffers travel too
    return network


def fresh() -> VideoResNet:
    return VideoResNet("r2plus1d_18", 4)


def assert_same(actual: nn.Module, expected: nn.Module) -> None:
    for name, tensor in expected.state_dict().items():
        assert torch.equal(actual.state_dict()[name], tensor), name


def prefixed(network: nn.Module, prefix: str) -> dict[str, torch.Tensor]:
    return {prefix + name: tensor for name, tensor in network.state_dict().items()}


def test_torchvision_file_without_its_classifier(tmp_path):
    published = r2plus1d_18(weights=None)
    torch.save(published.state_dict(), tmp_path / "tv.pth")
    network = VideoResNet("r2plus1d_18")
    note = load_backbone_weights(network, str(tmp_path / "tv.pth"))
    published.fc = nn.Identity()
    assert_same(network, published)
    assert "tv.pth" in note and note.endswith("left out fc.bias, fc.weight")


@pytest.mark.parametrize(
    ("make", "prefix"),
    [
        (lambda net: prefixed(net, "module."), "module."),
        (lambda net: {"state_dict": prefixed(net, "model."), "epoch": 3, "loops": {"a": [1]}}, "state_dict.model."),
        (lambda net: {"model_state_dict": net.state_dict()}, "model_state_dict."),
        (
            lambda net: {"state_dict": prefixed(net, "module._orig_mod.encoder.")},
            "state_dict.module._orig_mod.encoder.",
        ),
    ],
)
def test_prefixes_and_nesting_are_stripped(tmp_path, donor, make, prefix):
    torch.save(make(donor), tmp_path / "w.ckpt")
    network = fresh()
    note = load_backbone_weights(network, str(tmp_path / "w.ckpt"))
    assert_same(network, donor)
    assert repr(prefix) in note and f"{len(donor.state_dict())} tensors" in note


def test_file_from_before_batch_norm_counted_its_batches(tmp_path, donor):
    state = {name: tensor for name, tensor in donor.state_dict().items() if not name.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "old.pt")
    network = fresh()
    load_backbone_weights(network, str(tmp_path / "old.pt"))
    assert_same(network, donor)


def test_checkpoint_of_our_own_with_optimizer_state(tmp_path, donor):
    embedder = Embedder(donor, embed_dim=5)
    optimizer = torch.optim.Adam(embedder.parameters())
    embedder(torch.randn(2, 3, 4, 16, 16)).sum().backward()
    optimizer.step()
    content = {"format": 1, "model": embedder.state_dict(), "optimizer": optimizer.state_dict(), "train_classes": ["a"]}
    torch.save(content, tmp_path / "best.pt")
    network = fresh()
    note = load_backbone_weights(network, str(tmp_path / "best.pt"))
    assert_same(network, embedder.backbone)
    assert note.endswith("left out model.linear.bias, model.linear.weight")


def test_a_module_of_many_tensors_that_is_left_out_is_one_thing(tmp_path, donor):
    model = {f"backbone.{name}": tensor for name, tensor in donor.state_dict().items()}
    decoder = {f"decoder.blocks.{k}.weight": torch.zeros(1) for k in range(12)}
    torch.save({"model": model | decoder | {"linear.weight": torch.zeros(1)}}, tmp_path / "best.pt")
    note = load_backbone_weights(fresh(), str(tmp_path / "best.pt"))
    assert note.endswith("; left out model.decoder.* (12 tensors), model.linear.weight")


@pytest.mark.parametrize(
    ("config", "which"),
    [
        ({}, "moving average"),
        ({"evaluate": {"weights": "auto"}}, "moving average"),
        ({"evaluate": {"weights": "trained"}}, "as trained"),
    ],
)
def test_a_run_that_averages_its_weights_gives_those_that_it_evaluates(tmp_path, donor, config, which):
    """As it was measured; `train.init_from` takes the same."""
    average, trained = Embedder(donor, embed_dim=5), Embedder(fresh(), embed_dim=5)
    content = {"format": 1, "config": config, "model": trained.state_dict(), "average": average.state_dict()}
    torch.save(content, tmp_path / "best.pt")
    network = fresh()
    note = load_backbone_weights(network, str(tmp_path / "best.pt"))
    assert_same(network, donor if which == "moving average" else trained.backbone)
    assert note.startswith(f"'{tmp_path / 'best.pt'}' ({which}) under 'model.backbone.': ")
    assert note.endswith("left out model.linear.bias, model.linear.weight")


def test_c3d_sports1m_port(tmp_path):
    torch.manual_seed(0)
    names = {"conv1": 3, "conv2": 4, "conv3a": 8, "conv3b": 16, "conv4a": 16, "conv4b": 32, "conv5a": 32, "conv5b": 32}
    port = nn.ModuleDict()
    for (name, inplanes), planes in zip(names.items(), [4, 8, 16, 16, 32, 32, 32, 32], strict=True):
        port[name] = nn.Conv3d(inplanes, planes, 3, padding=1)
    port["fc6"], port["fc7"], port["fc8"] = nn.Linear(128, 256), nn.Linear(256, 256), nn.Linear(256, 487)
    torch.save(port.state_dict(), tmp_path / "c3d.pickle", _use_new_zipfile_serialization=False)  # as the port's own
    network = C3D(16, 32, width=4)
    note = load_backbone_weights(network, str(tmp_path / "c3d.pickle"))
    del port["fc7"], port["fc8"]
    assert_same(network, port)
    assert "fc7.bias, fc7.weight, fc8.bias, fc8.weight" in note


def test_everything_that_does_not_fit_is_in_one_error(tmp_path, donor):
    state = donor.state_dict()
    del state["layer1.0.conv1.1.weight"]
    state["layer9.weight"] = torch.zeros(1)
    state["stem.0.weight"] = torch.zeros(3, 3, 1, 5, 5)
    torch.save(state, tmp_path / "w.pt")
    network = fresh()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(InputError) as error:
        load_backbone_weights(network, str(tmp_path / "w.pt"))
    message = str(error.value)
    assert "1 missing (layer1.0.conv1.1.weight)" in message
    assert "1 unexpected (layer9.weight)" in message
    assert "1 of another shape (stem.0.weight (3, 3, 1, 5, 5) instead of (3, 3, 1, 7, 7))" in message
    assert "w.pt" in message and "r2plus1d_18 of width 4" in message
    for name, tensor in network.state_dict().items():  # all or nothing
        assert torch.equal(tensor, before[name])


def test_another_width_is_one_short_error(tmp_path, donor):
    torch.save(donor.state_dict(), tmp_path / "w.pt")
    with pytest.raises(InputError, match=r"of another shape .* and \d+ more.*model.width") as error:
        load_backbone_weights(VideoResNet("r2plus1d_18", 8), str(tmp_path / "w.pt"))
    assert len(str(error.value)) < 1500


def test_another_network_altogether(tmp_path):
    torch.save({"encoder.weight": torch.zeros(2)}, tmp_path / "w.pt")
    with pytest.raises(InputError, match=r"no part of the network r2plus1d_18: they have encoder\.weight"):
        load_backbone_weights(fresh(), str(tmp_path / "w.pt"))


class Arbitrary:
    """Something that a pickle may hold and we do not run."""


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("gone.pt", lambda path: None, "no file .*gone.pt.*kinetics400"),
        ("text.pt", lambda path: path.write_text("hello"), "text.pt.*cannot be read"),
        ("empty.pt", lambda path: path.write_bytes(b""), "empty.pt.*cannot be read"),
        (
            "code.pt",
            lambda path: torch.save({"x": Arbitrary()}, path),
            r"code.pt.*\(\S*Arbitrary\).*not run for safety.*state_dict",
        ),
    ],
)
def test_unreadable_files(tmp_path, name, write, message):
    write(tmp_path / name)
    with pytest.raises(InputError, match=message):
        load_backbone_weights(fresh(), str(tmp_path / name))


@pytest.mark.parametrize(("is_archive", "kept"), [(True, 10_000), (False, 19)], ids=["of today", "of torch before 1.6"])
def test_truncated_file(tmp_path, donor, is_archive, kept):
    torch.save(donor.state_dict(), tmp_path / "w.pt", _use_new_zipfile_serialization=is_archive)
    content = (tmp_path / "w.pt").read_bytes()
    (tmp_path / "w.pt").write_bytes(content[:kept])
    with pytest.raises(InputError, match=r"w\.pt.*damaged.*Copy it again"):
        load_backbone_weights(fresh(), str(tmp_path / "w.pt"))


def test_kinetics400_comes_from_the_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *a, **k: pytest.fail("must not touch the network"))
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    published = r2plus1d_18(weights=None)
    (tmp_path / "checkpoints").mkdir()
    torch.save(published.state_dict(), tmp_path / "checkpoints" / R2Plus1D_18_Weights.KINETICS400_V1.url.split("/")[-1])
    embedder = build_embedder(ModelConfig(weights="kinetics400"), ClipFormat(), embed_dim=3)
    published.fc = nn.Identity()
    assert_same(embedder.backbone, published)
    assert "kinetics400" in embedder.weights_from and "fc.weight" in embedder.weights_from


def test_kinetics400_without_network_says_what_to_fetch(tmp_path, monkeypatch):
    def no_network(*args, **kwargs):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torch.hub, "urlopen", no_network)
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    url = R2Plus1D_18_Weights.KINETICS400_V1.url
    with pytest.raises(InputError) as error:
        load_backbone_weights(VideoResNet("r2plus1d_18"), "kinetics400")
    assert url in str(error.value) and str(tmp_path / "checkpoints" / url.split("/")[-1]) in str(error.value)


@pytest.mark.parametrize("network", [lambda: VideoResNet("r3d_18", 16), lambda: C3D(16, 32, width=64)])
def test_kinetics400_only_for_published_networks(network):
    with pytest.raises(InputError, match=r"exist for r2plus1d_18, r3d_18, mc3_18 at model\.width 64"):
        load_backbone_weights(network(), "kinetics400")
