"""What turns the frames of windows into features: one contract for every network that can.

A new kind of network is a class with what `Encoder` asks for, and an entry in `_BUILDERS` (by a name of its own) or a line in
`build_encoder` (by what --model looks like).
"""

import hashlib
import importlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from engine.data.batch import ClipFormat
from engine.errors import InputError
from engine.evaluate import Inference, snippet_features
from engine.tasks.zero_shot.trained import load_for_inference

_BUILDERS: Mapping[str, tuple[str, str]] = {  # --model -> module, and its function device -> Encoder
    "installed": ("engine.models.installed", "build_installed"),
}


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

    def __call__(self, frames: np.ndarray | torch.Tensor) -> torch.Tensor:
        """Clips uint8 [N, T, H, W, 3], on any device -> features float32 [N, D] on the encoder's."""
        ...


class RunEncoder:
    """The backbone of a trained run: features before the linear layer, f_v of the paper (Sec. 3.1).

    Before it, because a video is the mean of its features *there* (Sec. 4.4): the linear layer over a mean of them gives the
    run's own answer, and a new layer can be fitted to them. Computed in float32 on every device, so that they can be repeated.

    Args:
        path: a run folder or a checkpoint file.

    Raises:
        InputError: there is no such model.
    """

    normalised = False

    def __init__(self, path: Path, device: torch.device) -> None:
        loaded = load_for_inference(path, device)
        self.model, self.clip = loaded.model, loaded.config.clip
        self.width = self.model.backbone.feature_dim
        self.name = f"{loaded.path.resolve().parent.parent.name}/{loaded.path.name} (step {loaded.step})"
        self.digest = digest_of(self.model.backbone.state_dict(), self.clip, loaded.config.model.backbone)
        self._how = Inference(self.clip, 1, 1, device, torch.float32, progress=False)

    def __call__(self, frames: np.ndarray | torch.Tensor) -> torch.Tensor:
        """See `Encoder`."""
        with torch.inference_mode():
            return snippet_features(self.model, torch.as_tensor(frames), self._how)


def build_encoder(model: str, device: torch.device) -> Encoder:
    """The encoder that --model names: a run's folder or checkpoint file, or one of `_BUILDERS`.

    Raises:
        InputError: there is no such model.
    """
    if model in _BUILDERS:
        module, name = _BUILDERS[model]
        try:
            build: Callable[[torch.device], Encoder] = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise InputError(
                f"--model {model}: this version has no such network ({error}): name a run's folder or a checkpoint file"
            ) from error
        return build(device)
    if not Path(model).exists():
        raise InputError(
            f"--model is '{model}': there is no run folder or checkpoint file of that name; other models: {', '.join(_BUILDERS)}"
        )
    return RunEncoder(Path(model), device)


def digest_of(weights: Mapping[str, torch.Tensor], clip: ClipFormat, architecture: str) -> str:
    """128 bits, as hexadecimal digits, of all tensors with their names, the clip format, and what tells equal weights apart."""
    shape = (clip.num_frames, clip.stride, clip.short_side, clip.crop)
    digest = hashlib.blake2b(json.dumps([architecture, *shape]).encode(), digest_size=16)
    for name, tensor in sorted(weights.items()):
        array = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {array.dtype} {tuple(array.shape)}\0".encode())
        digest.update(array.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
