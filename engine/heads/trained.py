"""The linear layer that a run trained together with its network, as a head: end to end, beside what is fitted to features."""

import torch
from torch.nn import functional

from engine.heads.classes import Classes
from engine.heads.sequences import Sequences
from engine.models.embedder import Embedder


class TrainedHead:
    """A `Head` over features of a run's backbone. Nothing is fitted here: the run learnt from its own classes.

    Args:
        model: the run's.
    """

    def __init__(self, model: Embedder) -> None:
        self.model = model

    def fit(self, videos: Sequences, label: torch.Tensor, classes: Classes, seed: int) -> None:
        """See `Head`: nothing is learnt."""

    @torch.inference_mode()
    def rank(self, videos: Sequences, classes: Classes) -> torch.Tensor:
        """See `Head`: cosines with the points that the run gives the videos."""
        points = self.model.project(videos.means())
        return functional.normalize(points.float(), dim=1) @ classes.vectors.T
