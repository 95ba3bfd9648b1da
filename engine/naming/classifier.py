"""A network that was trained to tell named classes apart, over videos: its scores are what a video is described by.

    snippets ──▶ network ──▶ softmax ──mean over frames and snippets──▶ square root [V, K] ──▶ known_classes.py
                    └─ what its last layer sees ──mean──▶ [V, F], what videos are compared by ──▶ engine/evaluation/transductive.py

The root of a distribution has length 1, and keeps a few large scores from drowning all others.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import nn
from torchvision.models.video import r2plus1d_18

from engine.models.backbone import Backbone, Normalisation
from engine.naming.known_classes import EXTRA, video_points


class Labelling(Protocol):
    """A backbone with its classifier, whose features are K logits."""

    feature_dim: int
    normalisation: Normalisation

    def before_classifier(self, clips: torch.Tensor) -> torch.Tensor:
        """Normalised clips float [N, 3, T, H, W] -> what the classifier sees, of clips [N, F] or of frames [N, T, F]."""
        ...

    def classify(self, seen: torch.Tensor) -> torch.Tensor:
        """That -> logits [..., K]."""
        ...

    def pool(self, x: torch.Tensor) -> torch.Tensor:
        """Of clips as they are, of frames their mean: [N, ...]."""
        ...


class Classifier(nn.Module):
    """What `embed_videos` asks of a model.

    Args:
        network: of K classes.
    """

    tokens = None  # it takes clips whole

    def __init__(self, network: Labelling) -> None:
        super().__init__()
        self.network = network

    @property
    def num_known(self) -> int:
        """K."""
        return self.network.feature_dim

    @property
    def embed_dim(self) -> int:
        """Length of a video's point."""
        return self.num_known + EXTRA

    @property
    def normalisation(self) -> Normalisation:
        """How the frames come that the network takes."""
        return self.network.normalisation

    def features(self, clips: torch.Tensor) -> torch.Tensor:
        """Normalised clips float [N, 3, T, H, W] -> [N, K + F]: mean scores over their frames, whose sum is 1, and behind them
        the mean of what the classifier sees."""
        seen = self.network.before_classifier(clips)
        logits = self.network.classify(seen)
        logits = logits.float() if logits.dtype.itemsize < 4 else logits
        means = self.network.pool(logits.softmax(dim=-1)), self.network.pool(seen)
        return torch.cat([means[0], means[1].to(logits.dtype)], dim=1)

    def project(self, features: torch.Tensor) -> torch.Tensor:
        """Features of videos [V, K + F] -> their points [V, embed_dim], of the scores alone."""
        return video_points(features[:, : self.num_known].sqrt())

    def compared(self, features: torch.Tensor) -> torch.Tensor:
        """Features of videos [V, K + F] -> what videos are compared by, [V, F]."""
        return features[:, self.num_known :]


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

    def before_classifier(self, clips: torch.Tensor) -> torch.Tensor:
        """See `Labelling`: of clips."""
        x = self.network.stem(clips)
        for layer in (self.network.layer1, self.network.layer2, self.network.layer3, self.network.layer4):
            x = layer(x)
        return self.network.avgpool(x).flatten(1)

    def classify(self, seen: torch.Tensor) -> torch.Tensor:
        """See `Labelling`."""
        return self.network.fc(seen)

    def pool(self, x: torch.Tensor) -> torch.Tensor:
        """The logits as they are."""
        return x
