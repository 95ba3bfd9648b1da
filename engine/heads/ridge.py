"""Ridge regression from features to class vectors, its strength chosen on seen classes held out of it (engine/ridge.py)."""

import torch
from torch.nn import functional

from engine.ridge import choose_ridge


class RidgeHead:
    """A `Head`."""

    def fit(self, features: torch.Tensor, label: torch.Tensor, vectors: torch.Tensor, seed: int) -> None:
        """See `Head`.

        Raises:
            InputError: fewer than four seen classes.
        """
        self.layer = choose_ridge(features, label, vectors, seed=seed)

    def rank(self, features: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
        """See `Head`: cosines."""
        points = features.double() @ self.layer.weight.T + self.layer.bias
        return functional.normalize(points, dim=1) @ vectors.double().T
