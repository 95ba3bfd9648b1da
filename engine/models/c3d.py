"""C3D up to fc6 (Tran et al., ICCV 2015), the paper's second backbone.

Layers bear the names of the usual public PyTorch port of the Sports-1M weights. That port was trained on pixels
of 0..255; like the authors' code we feed it the normalised clips that every backbone gets.
"""

from collections.abc import Callable, Sequence
from typing import Self

import torch
from torch import nn
from torch.nn import functional

from engine.data.batch import ClipFormat
from engine.errors import InputError
from engine.models.backbone import Backbone
from engine.models.config import ModelConfig

_REDUCTION = 16  # four of the five pools halve the frames, and the first four halve the picture


class C3D(Backbone):
    """Eight 3x3x3 convolutions, five max-pools, and the rectified fc6.

    Args:
        num_frames, crop: snippet size; fc6 is bound to it (published: 16 x 112 x 112, 8192 -> 4096).
        width: channels of the first convolution; everything scales with it.

    Input float [N, 3, num_frames, crop, crop], output [N, feature_dim] with feature_dim = 64 * width, before dropout.
    Without batch-norm the start matters: He initialisation, as published weights are not always at hand.

    Raises:
        InputError: the snippets are too small for the five pools.
    """

    classifier = ("fc7", "fc8")
    any_length = False

    def __init__(self, num_frames: int = 16, crop: int = 112, width: int = 64) -> None:
        super().__init__()
        if min(num_frames, crop) < _REDUCTION:
            raise InputError(
                f"model.backbone c3d needs snippets of at least {_REDUCTION} frames and {_REDUCTION}x{_REDUCTION} pixels, "
                f"not clip.num_frames={num_frames}, clip.crop={crop}: raise them or take another backbone"
            )
        self.name, self.width, self.feature_dim = "c3d", width, 64 * width
        self.input_size = (num_frames, crop, crop)
        self.conv1 = _conv(3, width)
        self.conv2 = _conv(width, 2 * width)
        self.conv3a, self.conv3b = _conv(2 * width, 4 * width), _conv(4 * width, 4 * width)
        self.conv4a, self.conv4b = _conv(4 * width, 8 * width), _conv(8 * width, 8 * width)
        self.conv5a, self.conv5b = _conv(8 * width, 8 * width), _conv(8 * width, 8 * width)
        side = crop // _REDUCTION // 2 + 1  # the last pool pads the picture by one pixel
        self.fc6 = nn.Linear(8 * width * (num_frames // _REDUCTION) * side**2, self.feature_dim)
        for module in self.children():
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            nn.init.zeros_(module.bias)

    @classmethod
    def build(cls, config: ModelConfig, clip: ClipFormat) -> Self:
        return cls(clip.num_frames, clip.crop, config.width)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        if tuple(clips.shape[2:]) != self.input_size:
            raise ValueError(f"this C3D was built for clips of {self.input_size}, not {tuple(clips.shape[2:])}")
        return super().forward(clips)

    def stages(self) -> Sequence[Callable[[torch.Tensor], torch.Tensor]]:
        return (self._part1, self._part2, self._part3, self._part4, self._part5)

    def pool(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc6(x.flatten(1)).relu()

    def _part1(self, x: torch.Tensor) -> torch.Tensor:
        return functional.max_pool3d(self.conv1(x).relu(), (1, 2, 2))

    def _part2(self, x: torch.Tensor) -> torch.Tensor:
        return functional.max_pool3d(self.conv2(x).relu(), 2)

    def _part3(self, x: torch.Tensor) -> torch.Tensor:
        return functional.max_pool3d(self.conv3b(self.conv3a(x).relu()).relu(), 2)

    def _part4(self, x: torch.Tensor) -> torch.Tensor:
        return functional.max_pool3d(self.conv4b(self.conv4a(x).relu()).relu(), 2)

    def _part5(self, x: torch.Tensor) -> torch.Tensor:
        return functional.max_pool3d(self.conv5b(self.conv5a(x).relu()).relu(), 2, padding=(0, 1, 1))


def _conv(inplanes: int, planes: int) -> nn.Conv3d:
    return nn.Conv3d(inplanes, planes, kernel_size=3, padding=1)
