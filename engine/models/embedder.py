"""Video -> point in word space: f_s after f_v, the whole network that is trained (paper Sec. 3.1, 4.4)."""

from typing import Self

import torch
from torch import nn
from torch.nn import functional

from engine.data.batch import ClipFormat
from engine.errors import InputError
from engine.models.backbone import Backbone, Normalisation, build_backbone
from engine.models.config import ModelConfig
from engine.models.token_selection import TokenSelection
from engine.models.weights import load_backbone_weights
from engine.training.precision import without_autocast


class Embedder(nn.Module):
    """Backbone, mean over the snippets of a video, dropout, linear layer, optional unit length.

    Args:
        backbone: float [N, 3, T, H, W] -> [N, F] with F = `backbone.feature_dim`.
        embed_dim: D, length of the class vectors. None: no linear layer, the features are the points.
        dropout: probability before the linear layer.
        unit_norm: scale the output to length 1 (the authors' code does, Eq. 2 does not).
        freeze_backbone: train only the linear layer. Batch-norm keeps its statistics too, whatever `train()` is told;
            in the authors' code they go on moving.

    Everything after the backbone is computed in the type of the linear layer's weights, whatever autocast does: it
    costs nothing and the output is compared with class vectors.
    """

    def __init__(
        self,
        backbone: Backbone,
        embed_dim: int | None,
        dropout: float = 0.0,
        unit_norm: bool = False,
        freeze_backbone: bool = False,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.dropout = nn.Dropout(dropout)
        self.linear: nn.Linear | None = None
        if embed_dim is not None:
            self.linear = nn.Linear(backbone.feature_dim, embed_dim)
            # Outputs start about as long as class vectors are. torch's default makes them ten times longer (300-d), and
            # the first epoch is spent on shrinking them; the authors' unit-norm output never notices.
            nn.init.normal_(self.linear.weight, std=(backbone.feature_dim * embed_dim) ** -0.5)
            nn.init.zeros_(self.linear.bias)
        self.unit_norm = unit_norm
        self.freeze_backbone = freeze_backbone
        self.weights_from = "random weights"  # for the log
        if freeze_backbone:
            backbone.requires_grad_(False)
        self.train()

    @property
    def embed_dim(self) -> int:
        """D, length of a point of the word space."""
        return self.backbone.feature_dim if self.linear is None else self.linear.out_features

    @property
    def normalisation(self) -> Normalisation:
        """How the frames come that the backbone takes."""
        return self.backbone.normalisation

    @property
    def tokens(self) -> TokenSelection | None:
        """Which tokens of a clip are shown to it; None: it takes clips whole."""
        return self.backbone.tokens

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if self.freeze_backbone:
            self.backbone.eval()
        return self

    def features(self, clips: torch.Tensor, visible: torch.Tensor | None = None) -> torch.Tensor:
        """Normalised clips float [N, 3, T, H, W] -> features [N, F] of the backbone.

        Args:
            visible: int64 [N, K], the tokens that `tokens` selects.
        """
        return self.backbone(clips) if visible is None else self.backbone(clips, visible)

    def project(self, features: torch.Tensor) -> torch.Tensor:
        """Features [N, F] -> points in word space [N, D]."""
        with without_autocast(features.device):
            points = features.float() if features.dtype.itemsize < 4 else features
            if self.linear is not None:
                points = self.linear(self.dropout(features.to(self.linear.weight.dtype)))
            return functional.normalize(points, dim=1) if self.unit_norm else points

    def compared(self, features: torch.Tensor) -> torch.Tensor:
        """Features of videos [V, F] -> what videos are compared by: the same."""
        return features

    def forward(self, clips: torch.Tensor, visible: torch.Tensor | None = None) -> torch.Tensor:
        """Normalised clips float [N, 3, T, H, W] -> points in word space [N, D]; `visible` as in `features`."""
        return self.project(self.features(clips, visible))


def build_embedder(config: ModelConfig, clip: ClipFormat, embed_dim: int) -> Embedder:
    """Build the network of a run and load `model.weights`; `weights_from` says what was loaded.

    Raises:
        InputError: the weights cannot be had or do not fit, the snippets are too small, or there is no linear layer between
            features and class vectors of other lengths.
    """
    backbone = build_backbone(config, clip)
    loaded = load_backbone_weights(backbone, config.weights) if config.weights else None
    if not config.linear and backbone.feature_dim != embed_dim:
        raise InputError(
            f"model.linear is false, and {backbone.name} gives {backbone.feature_dim} values, the class vectors have {embed_dim}: "
            "take the words of the same model (words.path: the folder of its CLIP), or a linear layer"
        )
    dim = embed_dim if config.linear else None
    embedder = Embedder(backbone, dim, config.dropout, config.unit_norm, config.freeze_backbone)
    if loaded:
        embedder.weights_from = loaded
    return embedder
