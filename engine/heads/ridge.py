"""Ridge regression from features to class vectors, its strength chosen on seen classes held out of it (`ridge_regression.py`)."""

import torch
from torch.nn import functional

from engine.heads.classes import Classes
from engine.heads.ridge_regression import choose_ridge
from engine.heads.sequences import Sequences


class RidgeHead:
    """A `Head` over the mean of a video's windows."""

    def fit(self, videos: Sequences, label: torch.Tensor, classes: Classes, seed: int) -> None:
        """See `Head`.

        Raises:
            InputError: fewer than four seen classes.
        """
        self.layer = choose_ridge(videos.means(), label, classes.vectors, seed=seed)

    def rank(self, videos: Sequences, classes: Classes) -> torch.Tensor:
        """See `Head`: cosines."""
        points = videos.means().double() @ self.layer.weight.T + self.layer.bias
        return functional.normalize(points, dim=1) @ classes.vectors.double().T
