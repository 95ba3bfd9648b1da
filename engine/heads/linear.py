"""A linear layer from features to class vectors, trained as the last layer of the paper's network is (Eq. 1 and 2)."""

import torch
from torch import nn

from engine.config import LossConfig
from engine.heads.classes import Classes
from engine.heads.head import Standard, batches, seeded
from engine.heads.sequences import Sequences
from engine.training.losses import build_loss

_EPOCHS, _BATCH, _RATE, _DECAY = 30, 64, 1e-3, 1e-2


class LinearHead:
    """A `Head` over the mean of a video's windows: standardised, a linear layer, a loss of engine/training/losses.py, AdamW.

    Args:
        loss: squared (the paper's) or aurl, whose class centres are trained beside the layer.
    """

    def __init__(self, loss: str) -> None:
        self.loss = LossConfig(name=loss)

    def fit(self, videos: Sequences, label: torch.Tensor, classes: Classes, seed: int) -> None:
        """See `Head`."""
        features, vectors = videos.means(), classes.vectors
        with seeded(seed) as generator:  # the layer's start, and the synthetic classes of AURL
            self.standard = Standard.of(features)
            self.layer = nn.Linear(features.shape[1], vectors.shape[1])
            criterion = build_loss(self.loss, vectors)
            trained = [*self.layer.parameters()]
            trained += [*criterion.parameters()] if isinstance(criterion, nn.Module) else []
            optimiser = torch.optim.AdamW(trained, lr=_RATE, weight_decay=_DECAY)
            inputs = self.standard(features)
            for rows in batches(len(inputs), _BATCH, _EPOCHS, generator):
                optimiser.zero_grad()
                criterion(self.layer(inputs[rows]), vectors, label[rows]).backward()
                optimiser.step()

    @torch.inference_mode()
    def rank(self, videos: Sequences, classes: Classes) -> torch.Tensor:
        """See `Head`: cosines."""
        return nn.functional.normalize(self.layer(self.standard(videos.means())), dim=1) @ classes.vectors.T
