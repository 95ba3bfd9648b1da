"""Any 2-D network of timm on the frames of a snippet, averaged over time: `model.backbone: timm:NAME`.

    clips [N, 3, T, H, W] ──▶ frames [N * T, 3, H, W] ──▶ timm's network ──▶ [N, T, F] ──▶ over time ──▶ [N, F']

Frames in channels_last_3d memory are channels_last pictures as they lie: nothing is copied between the two forms.

The mean over time forgets in which order the frames came. `model.temporal` brings it back:

    shift       an eighth of the channels comes from the frame before and an eighth from the one after, at the entry of
                every residual branch (temporal shift: Lin, Gan and Han, ICCV 2019). No parameters; published weights
                were trained without it, so it is to be trained end to end.
    difference  beside the mean of the features the mean of what rises from each frame to the next, relu(f[t+1] - f[t]);
                F' = 2 F. It leaves the network as it is, so it serves frozen features too.
"""

import difflib
from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from engine.data.batch import ClipFormat
from engine.errors import InputError
from engine.models.backbone import Backbone
from engine.models.config import ModelConfig

# The authors of the Lite networks trained them on (pixel - 127) / 128; timm's own entry rounds that to 0.5 and 0.5.
_LITE, _LITE_MEAN, _LITE_STD = "tf_efficientnet_lite", (127 / 255,) * 3, (128 / 255,) * 3
# timm's residual blocks -> the module that their branch begins with.
_BRANCHES = {
    "InvertedResidual": "conv_pw",
    "EdgeResidual": "conv_exp",
    "BasicBlock": "conv1",
    "Bottleneck": "conv1",
    "ConvNeXtBlock": "conv_dw",
    "Block": "attn",
}


class ImageNetwork(Backbone):
    """A network of timm over the frames of clips.

    Args:
        name: as `model.backbone` has it: timm:ARCHITECTURE or timm:ARCHITECTURE.TAG, a tag of timm's weights.
        num_frames, crop: snippet size; transformers are built for pictures of that side.
        temporal: none, shift or difference, see above.
        with_classifier: keep the layer behind the pooled features; features are its outputs then.

    Input float [N, 3, num_frames, crop, crop], output [N, feature_dim].

    Raises:
        InputError: timm has no such network, or it does not take such frames.
    """

    def __init__(
        self, name: str, num_frames: int, crop: int, temporal: str = "none", *, with_classifier: bool = False
    ) -> None:
        super().__init__()
        import timm  # seconds that only those pay who ask for it

        self.name, self.num_frames, self.temporal = name, num_frames, temporal
        self.architecture = _known(name.removeprefix("timm:"))
        settings = timm.get_pretrained_cfg(self.architecture)
        self.options: dict[str, Any] = {} if with_classifier else {"num_classes": 0}
        if settings.fixed_input_size:
            self.options["img_size"] = crop
        try:
            self.network = timm.create_model(self.architecture, **self.options)
            self.frame_dim = self._frame_dim(crop)
        except (RuntimeError, ValueError, TypeError, AssertionError, ArithmeticError, LookupError) as error:
            raise InputError(
                f"model.backbone '{name}' does not take frames of clip.crop={crop} ({' '.join(str(error).split())[:160]}): "
                f"its own size is {settings.input_size[-1]}"
            ) from error
        kept = () if with_classifier else settings.classifier or ()
        self.classifier = (kept,) if isinstance(kept, str) else tuple(kept)
        is_lite = self.architecture.startswith(_LITE)
        self.mean = _LITE_MEAN if is_lite else tuple(settings.mean)
        self.std = _LITE_STD if is_lite else tuple(settings.std)
        self.feature_dim = self.width = self.frame_dim * (2 if temporal == "difference" else 1)
        if temporal != "none" and num_frames < 2:
            raise InputError(
                f"model.temporal {temporal} needs snippets of at least 2 frames, not clip.num_frames={num_frames}"
            )
        self.any_length = temporal != "shift"
        self.fewest_frames = 2 if temporal == "difference" else 1
        if temporal == "shift":
            _shift_branches(self.network, num_frames, name)

    @classmethod
    def build(cls, config: ModelConfig, clip: ClipFormat) -> Self:
        return cls(config.backbone, clip.num_frames, clip.crop, config.temporal, with_classifier=not config.linear)

    @property
    def published(self) -> nn.Module:
        return self.network

    @property
    def recompute(self) -> bool:
        """timm's networks compute activations again within themselves, block by block, where they do it at all."""
        return False

    @recompute.setter
    def recompute(self, value: bool) -> None:
        if not value:
            return
        if any(isinstance(module, _BatchNorm) for module in self.network.modules()):
            raise InputError(
                f"train.checkpoint_activations: the batch-norms of '{self.name}' would count every batch twice: leave it "
                "off, or take a network without batch-norm (a transformer)"
            )
        try:
            self.network.set_grad_checkpointing(True)
        except AssertionError as error:  # of a network for which timm has not written it
            raise InputError(
                f"train.checkpoint_activations: timm cannot compute the activations of '{self.name}' twice: leave it off, or "
                "take another network"
            ) from error

    def stages(self) -> Sequence[Any]:
        return (self.of_frames,)

    def of_frames(self, clips: torch.Tensor) -> torch.Tensor:
        """Clips [N, 3, T, H, W] -> what the network says of each frame, [N, T, F]."""
        frames = clips.transpose(1, 2).flatten(0, 1)
        return self.network(frames).unflatten(0, (clips.shape[0], clips.shape[2]))

    def before_classifier(self, clips: torch.Tensor) -> torch.Tensor:
        """Clips [N, 3, T, H, W] -> what the layer behind the pooled features sees of each frame, [N, T, F]."""
        frames = clips.transpose(1, 2).flatten(0, 1)
        seen = self.network.forward_head(self.network.forward_features(frames), pre_logits=True)
        return seen.unflatten(0, (clips.shape[0], clips.shape[2]))

    def classify(self, seen: torch.Tensor) -> torch.Tensor:
        """What that layer makes of it, [..., feature_dim]."""
        return self.network.get_classifier()(seen)

    def pool(self, x: torch.Tensor) -> torch.Tensor:
        """Of frames, [N, T, F] -> features [N, feature_dim]."""
        mean = x.mean(dim=1)
        if self.temporal != "difference":
            return mean
        return torch.cat([mean, functional.relu(x[:, 1:] - x[:, :-1]).mean(dim=1)], dim=1)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        if not self.any_length and clips.shape[2] != self.num_frames:
            raise ValueError(f"this network was built for clips of {self.num_frames} frames, not {clips.shape[2]}")
        return super().forward(clips)

    def _frame_dim(self, crop: int) -> int:
        """The length of a frame's features, by looking at a black one."""
        was_training = self.network.training
        with torch.no_grad():
            features = self.network.eval()(torch.zeros(1, 3, crop, crop))
        self.network.train(was_training)
        if not isinstance(features, torch.Tensor) or features.ndim != 2:
            raise ValueError("it gives no single vector for a picture")
        return features.shape[1]


def _known(name: str) -> str:
    """A name that timm knows, with its tag if any.

    Raises:
        InputError: it does not; with near spellings.
    """
    import timm

    architecture, dot, tag = name.partition(".")
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(architecture, timm.list_models(), n=3, cutoff=0.5)
        hint = f"did you mean {', '.join(f'timm:{each}' for each in near)}? " if near else ""
        raise InputError(
            f"model.backbone 'timm:{name}': {hint}timm {timm.__version__} has no network of that name; "
            "timm.list_models() lists those it has"
        )
    tags = [each.partition(".")[2] for each in timm.list_pretrained(f"{architecture}.*")]
    if dot and tag not in tags:
        raise InputError(
            f"model.backbone 'timm:{name}': timm {timm.__version__} has no weights '{tag}' of {architecture}: "
            f"{'it has ' + ', '.join(tags) if tags else 'it has none at all'}"
        )
    return name


def _shift_branches(network: nn.Module, num_frames: int, name: str) -> None:
    """Let every residual branch begin with a shift in time.

    Raises:
        InputError: the network has no residual blocks that are known here.
    """

    def before(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return (shift_in_time(inputs[0], num_frames), *inputs[1:])

    blocks = [block for block in network.modules() if getattr(block, "has_skip", True)]
    entries = [getattr(block, _BRANCHES.get(type(block).__name__, ""), None) for block in blocks]
    if not any(entries):
        raise InputError(
            f"model.temporal shift: '{name}' has no residual blocks of a known kind ({', '.join(_BRANCHES)}): take difference"
        )
    for entry in filter(None, entries):
        entry.register_forward_pre_hook(before)


def shift_in_time(x: torch.Tensor, num_frames: int) -> torch.Tensor:
    """An eighth of the channels from the frame before, an eighth from the one after, zeros past the ends of a clip.

    Args:
        x: of frames, [N * num_frames, C, H, W] of a picture or [N * num_frames, tokens, C].
    """
    rows = x.permute(0, 2, 3, 1) if x.ndim == 4 else x
    clips = rows.unflatten(0, (-1, num_frames))
    part = clips.shape[-1] // 8
    before, after, still = clips.split([part, part, clips.shape[-1] - 2 * part], dim=-1)
    edge = torch.zeros_like(before[:, :1])
    before, after = torch.cat([edge, before[:, :-1]], dim=1), torch.cat([after[:, 1:], edge], dim=1)
    shifted = torch.cat([before, after, still], dim=-1).flatten(0, 1)
    return shifted.permute(0, 3, 1, 2) if x.ndim == 4 else shifted


def fold_norms(network: nn.Module) -> None:
    """Put each batch norm into the convolution that it follows, for inference: the same outputs but for rounding.

    Of a module whose children are called in the order of their names, as in timm's EfficientNets.
    """
    for module in list(network.modules()):
        conv = None
        for name, child in list(module.named_children()):
            if isinstance(child, nn.BatchNorm2d) and conv is not None:
                setattr(module, conv, fuse_conv_bn_eval(getattr(module, conv), child))
                setattr(module, name, getattr(child, "act", nn.Identity()))  # timm's norms have the activation within
            conv = name if isinstance(child, nn.Conv2d) else None
