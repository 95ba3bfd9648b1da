"""The residual 3-D CNNs (paper Sec. 3.1, 4.4).

They are torchvision's (Tran et al. 2018), put together from torchvision's own blocks under
its own module names, because its `VideoResNet` fixes the widths: at width 64 its state dicts load unchanged
and the output is its model's without the last layer `fc`.
"""

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import nn
from torchvision.models.video.resnet import BasicBlock, Conv2Plus1D, Conv3DNoTemporal, Conv3DSimple

from engine.data.batch import ClipFormat
from engine.models.backbone import Backbone
from engine.models.config import ModelConfig
from engine.models.flat import FlatConv2Plus1D, FlatConv3DNoTemporal, FlatFactorisedStem, aligned
from engine.models.fused import FusedFactorisedStem, fuse
from engine.models.norm import NormedConvolution, use_clip_batch_norm

PUBLISHED_WIDTH = 64
_CONVOLUTIONS: dict[str, list[type[nn.Module]]] = {  # of the four stages
    "r2plus1d_18": [Conv2Plus1D] * 4,
    "r3d_18": [Conv3DSimple] * 4,
    "mc3_18": [Conv3DSimple] + [Conv3DNoTemporal] * 3,
}
RESNETS = tuple(_CONVOLUTIONS)
_FLAT: dict[type[nn.Module], type[nn.Module]] = {Conv2Plus1D: FlatConv2Plus1D, Conv3DNoTemporal: FlatConv3DNoTemporal}


class VideoResNet(Backbone):
    """An 18-layer video residual network without its classifier.

    Args:
        name: one of `RESNETS`.
        width: channels of the first stage; the others have 2, 4 and 8 times as many.
        form: `published` computes with torchvision's modules, `flat` the same function from the same parameters with 2-D
            convolutions where a kernel is flat in space or in time (engine/models/flat.py), `summed` like flat, batch-norms'
            sums being `kernels.channel_sums`, `fused` like summed and in (2+1)D blocks without batch-norms' own passes over
            memory (engine/models/fused.py).

    Input float [N, 3, T, H, W] of any size, output [N, feature_dim] with feature_dim = 8 * width.
    """

    classifier = ("fc",)

    def __init__(self, name: str, width: int = PUBLISHED_WIDTH, form: str = "published") -> None:
        super().__init__()
        self.name, self.width, self.feature_dim = name, width, 8 * width
        self.stem = _factorised_stem(width, form) if name == "r2plus1d_18" else _stem(width)
        conv1, conv2, conv3, conv4 = (
            conv if form == "published" else _FLAT.get(conv, conv) for conv in _CONVOLUTIONS[name]
        )
        self.layer1 = _stage(conv1, width, width, stride=1)
        self.layer2 = _stage(conv2, width, 2 * width, stride=2)
        self.layer3 = _stage(conv3, 2 * width, 4 * width, stride=2)
        self.layer4 = _stage(conv4, 4 * width, 8 * width, stride=2)
        if form == "fused" and name == "r2plus1d_18":
            for block in (*self.layer1, *self.layer2, *self.layer3, *self.layer4):
                fuse(block)
        use_clip_batch_norm(self, by_sums=form in ("summed", "fused"))
        for module in self.modules():  # torchvision's initialisation; batch-norm starts at 1 and 0 by itself
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @property
    def clip_channels(self) -> int:
        """More than RGB where the stem computes best with more."""
        return aligned(3, self.stem[0].weight.device) if isinstance(self.stem, FlatFactorisedStem) else 3

    @classmethod
    def build(cls, config: ModelConfig, clip: ClipFormat) -> Self:
        return cls(config.backbone, config.width, "published" if config.form == "auto" else config.form)

    def stages(self) -> Sequence[nn.Module]:
        return (self.stem, *self.layer1, *self.layer2, *self.layer3, *self.layer4)

    def pool(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=(2, 3, 4))


class ResidualBlock(BasicBlock):
    """torchvision's block; it adds out of place, since on a GPU both summands are views (engine/models/norm.py)."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.conv1 = NormedConvolution(*self.conv1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.relu(self.conv2(self.conv1(x)) + shortcut)


def choose_form(
    config: ModelConfig, device: torch.device, precision: str = "fp32", *, is_compiled: bool = False
) -> tuple[str, str]:
    """In which form a backbone computes on a device, and why, in one line for the log (docs/performance.md).

    Args:
        config: its `backbone` and `form`; `auto` takes the faster one as far as it was measured.
        precision: as `engine.training.precision.Precision.name`.
        is_compiled: by torch.compile, which on a CPU makes nothing of 2-D convolutions.
    """
    if config.backbone.startswith("timm:"):
        return "flat", "an image network is 2-D as it is"
    if config.backbone.startswith("vit_"):
        return "flat", "a transformer has no convolutions"
    if all(convolution not in _FLAT for convolution in _CONVOLUTIONS.get(config.backbone, ())):
        return "published", f"{config.backbone} has no other"
    if config.form != "auto":
        return config.form, f"model.form is {config.form}"
    if device.type == "cuda":
        return "flat", "model.form is auto: faster on a GPU, compiled or not"
    if device.type != "cpu":
        return "published", f"model.form is auto: the others are not measured on {device.type}"
    if is_compiled and precision != "bf16":  # in bf16 published can be wrong on a CPU: engine/training/precision.py
        return "published", "model.form is auto: compiled for a CPU it is twice as fast as flat"
    return "flat", "model.form is auto: on a CPU it is 1.0 to 1.4 times as fast, and right in bf16"


def _stem(width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(3, width, (3, 7, 7), stride=(1, 2, 2), padding=(1, 3, 3), bias=False),
        nn.BatchNorm3d(width),
        nn.ReLU(inplace=True),
    )


def _factorised_stem(width: int, form: str) -> nn.Sequential:
    """7x7 in space, then 3 in time; the published 45 channels between them scale with the width, rounded up."""
    between = -(-45 * width // PUBLISHED_WIDTH)
    stem = {"published": nn.Sequential, "fused": FusedFactorisedStem}.get(form, FlatFactorisedStem)
    return stem(
        nn.Conv3d(3, between, (1, 7, 7), stride=(1, 2, 2), padding=(0, 3, 3), bias=False),
        nn.BatchNorm3d(between),
        nn.ReLU(inplace=True),
        nn.Conv3d(between, width, (3, 1, 1), padding=(1, 0, 0), bias=False),
        nn.BatchNorm3d(width),
        nn.ReLU(inplace=True),
    )


def _stage(convolution: type[nn.Module], inplanes: int, planes: int, stride: int) -> nn.Sequential:
    """Two residual blocks; the first may halve the size, and then its shortcut is a 1x1x1 convolution."""
    shortcut = None
    if stride != 1 or inplanes != planes:
        steps = convolution.get_downsample_stride(stride)
        shortcut = nn.Sequential(
            nn.Conv3d(inplanes, planes, kernel_size=1, stride=steps, bias=False), nn.BatchNorm3d(planes)
        )
    return nn.Sequential(
        ResidualBlock(inplanes, planes, convolution, stride, shortcut), ResidualBlock(planes, planes, convolution)
    )
