"""How far a video's point in word space is from its class vector.

Each loss takes prediction and target, float [N, D], and returns a scalar; the arithmetic is fp32 or better
whatever autocast does around it.
"""

from collections.abc import Callable

import torch
from torch.nn import functional

from engine.config import LossConfig

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def squared(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Squared Euclidean distance (paper Eq. 2), mean over the batch.

    Eq. 2 sums over the batch; the mean keeps the learning rate independent of the batch size and of the number of
    ranks. Adam does not see the difference but for its epsilon.
    """
    prediction, target = _comparable(prediction, target)
    return (prediction - target).square().sum(dim=1).mean()


def mse(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean squared error over all N x D elements, as in the authors' code: `squared` divided by D."""
    prediction, target = _comparable(prediction, target)
    return functional.mse_loss(prediction, target)


def cosine(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """1 - cosine similarity (the distance of Eq. 1), mean over the batch; a zero vector is at distance 1."""
    prediction, target = _comparable(prediction, target)
    return 1 - functional.cosine_similarity(prediction, target, dim=1).mean()


def build_loss(config: LossConfig) -> Loss:
    """The loss that `loss.name` asks for."""
    return {"squared": squared, "mse": mse, "cosine": cosine}[config.name]


def _comparable(prediction: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    if prediction.ndim != 2 or prediction.shape != target.shape:  # broadcasting would hide the mistake
        raise ValueError(f"prediction {tuple(prediction.shape)} and target {tuple(target.shape)} must both be [N, D]")
    dtype = torch.promote_types(prediction.dtype, torch.float32)
    return prediction.to(dtype), target.to(dtype)
