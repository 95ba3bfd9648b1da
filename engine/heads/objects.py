"""What the network behind the features was trained to name, held against words; alone, and beside a ridge regression.

    windows ──the network's own last layer──▶ softmax ──▶ root of the mean [V, K] ──▶ sum over the nearest known names ──▶ scores ─┐
    mean feature ──ridge regression──▶ point [V, D] ──────────────────▶ cosine with the class vector ──▶ scores ──────────────────┤
    each class's scores counted from their mean over the videos learnt from, in their standard deviations ◀───────────────────────┘

Both kinds of score are linear in something that a video has (its roots; its point), so the mean and covariance of that over
the videos learnt from, classes alike, standardise the scores of any class that is asked for later.
"""

from dataclasses import dataclass
from typing import Self

import torch
from torch.nn import functional

from engine.heads.classes import Classes
from engine.heads.ridge_regression import fit_ridge
from engine.heads.sequences import Sequences
from engine.naming.known_classes import nearest_known

# Of the regression: the best of 10, 30 and 100 on UCF15 and on everyday actions alike (docs/pretrained.md).
_STRENGTH = 30.0


@dataclass(frozen=True, slots=True)
class KnownObjects:
    """A network's layer behind the features, weight float32 [K, F] and bias [K], and vectors [K, D] of the K names."""

    weight: torch.Tensor
    bias: torch.Tensor
    vectors: torch.Tensor

    def roots(self, videos: Sequences) -> torch.Tensor:
        """Roots of the known classes' mean probabilities over the windows of V videos, float64 [V, K]."""
        known = videos.map(lambda windows: torch.addmm(self.bias, windows, self.weight.T).double().softmax(dim=1))
        return known.means().sqrt()

    def weights(self, vectors: torch.Tensor) -> torch.Tensor:
        """What each known class says of the classes with these vectors [C, D], float64 [C, K]."""
        return nearest_known(vectors, self.vectors)


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean [P] and covariance [P, P] of what videos have, float64."""

    mean: torch.Tensor
    covariance: torch.Tensor

    @classmethod
    def of(cls, points: torch.Tensor, label: torch.Tensor) -> Self:
        """From points [V, P] of videos of classes int64 [V], which count alike however many videos they have."""
        share = 1 / label.bincount()[label].double()
        share = share[:, None] / share.sum()
        mean = (share * points).sum(dim=0)
        return cls(mean, (points - mean).T @ (share * (points - mean)))

    def scores(self, points: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Points [V, P] times class weights [C, P], less their mean, over their deviation: [V, C]."""
        variance = ((weights @ self.covariance) * weights).sum(dim=1)
        return (points - self.mean) @ weights.T / variance.clamp(min=1e-12).sqrt()


class ObjectsHead:
    """A `Head` without training: scores of known classes, summed over those nearest to a class's name.

    Args:
        objects: the network's known classes, their vectors of the same words as those of the classes.
    """

    def __init__(self, objects: KnownObjects) -> None:
        self.objects = objects

    def fit(self, videos: Sequences, label: torch.Tensor, classes: Classes, seed: int) -> None:
        """See `Head`: nothing is learnt."""

    def rank(self, videos: Sequences, classes: Classes) -> torch.Tensor:
        """See `Head`."""
        return self.objects.roots(videos) @ self.objects.weights(classes.vectors).T


class StandardisedObjectsHead(ObjectsHead):
    """A `Head`: the same, each class's scores standardised over the videos learnt from, whose labels only weigh them."""

    def fit(self, videos: Sequences, label: torch.Tensor, classes: Classes, seed: int) -> None:
        """See `Head`."""
        self.spread = Spread.of(self.objects.roots(videos), label)

    def rank(self, videos: Sequences, classes: Classes) -> torch.Tensor:
        """See `Head`."""
        return self.spread.scores(self.objects.roots(videos), self.objects.weights(classes.vectors))


class ObjectsRidgeHead(StandardisedObjectsHead):
    """A `Head`: those scores plus those of a ridge regression from features to class vectors, both standardised.

    Neither is weighed: either alone knows what the other does not, and in standard deviations both count alike.
    """

    def fit(self, videos: Sequences, label: torch.Tensor, classes: Classes, seed: int) -> None:
        """See `Head`."""
        super().fit(videos, label, classes, seed)
        self.layer = fit_ridge(videos.means(), label, classes.vectors, _STRENGTH)
        self.points = Spread.of(self._points(videos), label)

    def rank(self, videos: Sequences, classes: Classes) -> torch.Tensor:
        """See `Head`."""
        return super().rank(videos, classes) + self.points.scores(self._points(videos), classes.vectors.double())

    def _points(self, videos: Sequences) -> torch.Tensor:
        weight, bias = self.layer
        return functional.normalize(videos.means().double() @ weight.T + bias, dim=1)
