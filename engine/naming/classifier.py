"""A network that was trained to tell named classes apart, over videos: its scores are what a video is described by.

    snippets ──▶ network ──▶ softmax ──mean over frames and snippets──▶ square root [V, K] ──▶ known_classes.py

The root of a distribution has length 1, and keeps a few large scores from drowning all others.
"""

from collections.abc import Sequence

import torch
from torch import nn
from torchvision.models.video import r2plus1d_18

from engine.models.backbone import Backbone, Normalisation
from engine.naming.known_classes import EXTRA, video_points


class Classifier(nn.Module):
    """What `embed_videos` asks of a model.

    Args:
        network: a backbone with its classifier, whose last stage gives K logits.
    """

    tokens = None  # it takes clips whole

    def __init__(self, network: Backbone) -> None:
        super().__init__()
        self.network = network

    @property
    def embed_dim(self) -> int:
        """Length of a video's point."""
        return self.network.feature_dim + EXTRA

    @property
    def normalisation(self) -> Normalisation:
        """How the frames come that the network takes."""
        return self.network.normalisation

    def features(self, clips: torch.Tensor) -> torch.Tensor:
        """Normalised clips float [N, 3, T, H, W] -> mean scores over their frames [N, K]; rows sum to 1."""
        for stage in self.network.stages():
            clips = stage(clips)
        logits = clips.float() if clips.dtype.itemsize < 4 else clips
        return self.network.pool(logits.softmax(dim=-1))

    def project(self, features: torch.Tensor) -> torch.Tensor:
        """Mean scores of videos [V, K] -> their points [V, embed_dim]."""
        return video_points(features.sqrt())


class VideoClassifier(Backbone):
    """torchvision's R(2+1)D with its layer of 400 classes of Kinetics: clips float [N, 3, T, H, W] -> logits [N, 400]."""

    name, width, feature_dim = "r2plus1d_18", 64, 400

    def __init__(self) -> None:
        super().__init__()
        self.network = r2plus1d_18(num_classes=self.feature_dim)

    @property
    def published(self) -> nn.Module:
        return self.network

    def stages(self) -> Sequence[nn.Module]:
        return (self.network,)

    def pool(self, x: torch.Tensor) -> torch.Tensor:
        """The logits as they are."""
        return x
